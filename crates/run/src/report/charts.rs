//! Panels as figures of a page, and their numbers as JSON for its script.

use std::collections::BTreeMap;

use maud::{Markup, PreEscaped, html};
use serde_json::{Value, json};

use crate::{
    chart::{self, Curve, Mark, SIZE},
    lines::of_event,
};

/// A figure of a page: its title, its curves, and the run of each curve.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub title: String,
    pub curves: Vec<Curve>,
    /// The index of each curve's run in [`data`].
    pub runs: Vec<usize>,
    pub marks: Vec<Mark>,
}

/// The images and seconds of training until the end of each epoch of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    epochs: Vec<f64>,
    images: Vec<f64>,
    seconds: Vec<f64>,
}

impl Progress {
    /// The progress in these metrics; `images` is the number of images of an epoch, if known.
    pub fn of_run(lines: &[Value], images: Option<usize>) -> Self {
        let mut progress = Self { epochs: vec![0.0], images: vec![0.0], seconds: vec![0.0] };
        let mut seconds = 0.0;
        for line in of_event(lines, "epoch") {
            let Some(epoch) = line["epoch"].as_f64() else { continue };
            seconds += line.pointer("/time/seconds").and_then(Value::as_f64).unwrap_or(0.0);
            progress.epochs.push(epoch);
            progress.images.push(epoch * images.unwrap_or(0) as f64);
            progress.seconds.push(seconds);
        }
        progress
    }

    fn json(&self) -> Value {
        let seconds: Vec<f64> = self.seconds.iter().map(|x| rounded(*x)).collect();
        json!({"epoch": self.epochs, "images": self.images, "seconds": seconds})
    }

    /// Seconds of all epochs.
    pub fn seconds(&self) -> f64 {
        self.seconds.last().copied().unwrap_or(0.0)
    }
}

/// The charts of a section, drawn over the epochs; `first` is the index of the first one in
/// [`data`].
pub(super) fn figures(charts: &[Chart], first: usize) -> Markup {
    html! {
        div .panels {
            @for (index, chart) in charts.iter().enumerate() { (figure(chart, first + index)) }
        }
    }
}

fn figure(chart: &Chart, index: usize) -> Markup {
    let last = |curve: &Curve| curve.points.last().map_or_else(String::new, |point| short(point.1));
    let said: Vec<String> =
        chart.curves.iter().map(|curve| format!("{} {}", curve.name, last(curve))).collect();
    html! {
        figure .panel data-panel=(index) {
            figcaption { (chart.title) " " output {} }
            ul .legend {
                @for (i, curve) in chart.curves.iter().enumerate() {
                    li .(chart::class(i)) { (curve.name) " " b { (last(curve)) } }
                }
            }
            svg viewBox={ "0 0 " (SIZE[0]) " " (SIZE[1]) } role="img" tabindex="0"
                aria-label={ (chart.title) "; at the end: " (said.join(", ")) } {
                (chart::chart(&chart.curves, &chart.marks, "epochs"))
            }
        }
    }
}

/// The numbers of the charts, for the script of the page.
pub(super) fn data(runs: &[(String, Progress)], charts: &[Chart]) -> Markup {
    let runs: Vec<Value> = runs
        .iter()
        .map(|(name, progress)| json!({"name": name, "progress": progress.json()}))
        .collect();
    let charts: Vec<Value> = charts.iter().map(of_chart).collect();
    // The one way in which a text could end the element.
    let json = json!({"runs": runs, "panels": charts}).to_string().replace('<', "\\u003c");
    html! { script type="application/json" id="data" { (PreEscaped(json)) } }
}

fn of_chart(chart: &Chart) -> Value {
    let curves: Vec<Value> =
        chart.curves.iter().zip(&chart.runs).map(|(curve, run)| of_curve(curve, *run)).collect();
    json!({"title": chart.title, "lines": curves})
}

fn of_curve(curve: &Curve, run: usize) -> Value {
    let bounds: BTreeMap<u64, [f64; 2]> =
        curve.band.iter().map(|&[x, low, high]| (x.to_bits(), [low, high])).collect();
    let bound = |side: usize| -> Vec<Option<f64>> {
        let of = |point: &(f64, f64)| bounds.get(&point.0.to_bits()).map(|b| rounded(b[side]));
        if bounds.is_empty() { Vec::new() } else { curve.points.iter().map(of).collect() }
    };
    let xs: Vec<f64> = curve.points.iter().map(|point| point.0).collect();
    let ys: Vec<f64> = curve.points.iter().map(|point| rounded(point.1)).collect();
    json!({"name": curve.name, "run": run, "x": xs, "y": ys, "low": bound(0), "high": bound(1)})
}

/// A number with six digits: more are not seen, and make a page large.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// A number in a few characters.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.2e}")
    } else {
        format!("{value:.*}", (3.0 - size.log10().floor()).clamp(0.0, 4.0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        let shown = [0.0, 0.81249, 12.3456, 12_345.6, 3.21e-7, -0.05].map(short);
        assert_eq!(shown, ["0", "0.8125", "12.35", "12346", "3.21e-7", "-0.0500"]);
    }

    #[test]
    fn progress_adds_up_and_needs_no_times() {
        let lines = [
            json!({"event": "epoch", "epoch": 1, "time": {"seconds": 2.0}}),
            json!({"event": "eval", "epoch": 1}),
            json!({"event": "epoch", "epoch": 2}),
            json!({"event": "epoch", "epoch": 3, "time": {"seconds": 0.5}}),
        ];
        let progress = Progress::of_run(&lines, Some(8));
        assert_eq!(progress.epochs, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(progress.images, [0.0, 8.0, 16.0, 24.0]);
        assert_eq!(progress.seconds, [0.0, 2.0, 2.0, 2.5]);
    }

    #[test]
    fn the_data_of_the_script_cannot_end_its_element_and_holes_are_null() {
        let curve = Curve {
            name: "</script><b>".to_owned(),
            points: vec![(0.0, 1.0 / 3.0), (5.0, 1.0)],
            band: vec![[5.0, 0.5, 1.5]],
        };
        let chart =
            Chart { title: "t".to_owned(), curves: vec![curve], runs: vec![0], marks: vec![] };
        let page = data(&[("a".to_owned(), Progress::default())], &[chart]).into_string();
        assert_eq!(page.matches("</").count(), 1, "{page}");
        assert!(page.contains(r#""low":[null,0.5]"#), "{page}");
        assert!(page.contains(r#""y":[0.333333,1.0]"#), "{page}");
    }
}
