//! Axes and lines as SVG: every chart of the program is drawn here.
//!
//! Colours are attributes, so a file of its own shows them; a page may set others by class.

pub mod bars;
pub(crate) mod heat;
pub(crate) mod histogram;

use std::collections::BTreeMap;

use maud::{Markup, html};

/// A curve of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// The name in the legend; a chart whose curves have no names has none.
    pub name: String,
    /// The points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// `[x, low, high]` where an interval is known.
    pub band: Vec<[f64; 3]>,
}

impl Curve {
    /// A curve without a band.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, band: Vec::new() }
    }

    /// One curve for the seeds of an experiment: their mean, with a band from the lowest to the
    /// highest, at the places that all have. A single seed keeps its own band. A place is at least 0,
    /// and a seed has it once.
    pub fn of_seeds(name: impl Into<String>, seeds: &[Self]) -> Self {
        let name = name.into();
        if let [seed] = seeds {
            return Self { name, ..seed.clone() };
        }
        // Numbers from 0 on have the order of their bits.
        let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for &(x, y) in seeds.iter().flat_map(|seed| &seed.points) {
            values.entry(x.to_bits()).or_default().push(y);
        }
        let mut curve = Self::new(name, Vec::new());
        for (x, values) in values.into_iter().filter(|(_, values)| values.len() == seeds.len()) {
            let (x, mean) = (f64::from_bits(x), values.iter().sum::<f64>() / values.len() as f64);
            curve.points.push((x, mean));
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            curve.band.push([x, low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max)]);
        }
        curve
    }
}

/// A vertical line at a place of the horizontal axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    /// The place.
    pub x: f64,
    /// The class of the line.
    pub kind: &'static str,
    /// The reason, for people.
    pub text: String,
}

/// Width and height of a chart.
pub(crate) const SIZE: [f64; 2] = [640.0, 250.0];
/// The edges of the plot inside a chart.
pub(crate) const LEFT: f64 = 66.0;
pub(crate) const RIGHT: f64 = 626.0;
pub(crate) const TOP: f64 = 10.0;
pub(crate) const BOTTOM: f64 = 206.0;

/// A curve with more points has no dots.
const DOTTED: usize = 40;
const COLORS: [&str; 10] = [
    "#1f77b4", "#d9620b", "#2a8f2a", "#c92a2b", "#8455b0", "#8c564b", "#c4519f", "#6b6b6b",
    "#8a8b12", "#0f8fa0",
];

/// The colour of a curve.
pub(crate) fn color(curve: usize) -> &'static str {
    COLORS[curve % COLORS.len()]
}

/// The class of a curve: its colour, and dashes once every colour is used.
pub(crate) fn class(curve: usize) -> String {
    let dashed = if curve >= COLORS.len() { " dashed" } else { "" };
    format!("c{}{dashed}", curve % COLORS.len())
}

/// An axis: its range, and the distance between its labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// The axis of some values, with a margin as a share of their range and about `labels` labels;
    /// 0 to 1 without values.
    fn of(values: &[f64], margin: f64, labels: f64) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Self { low: 0.0, high: 1.0, step: 0.5 };
        }
        let least = if high == 0.0 && low == 0.0 { 1.0 } else { low.abs().max(high.abs()) * 1e-3 };
        let room = ((high - low) * margin).max(if high > low { 0.0 } else { least });
        let (low, high) = (low - room, high + room);
        let step = nice((high - low) / labels);
        // Epochs are whole.
        let whole = values.iter().all(|value| value.fract() == 0.0) && margin == 0.0;
        Self { low, high, step: if whole { step.max(1.0) } else { step } }
    }

    /// The places of the labels.
    fn labels(self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        (first..=last).map(move |i| i as f64 * self.step)
    }

    /// A label: as many digits as the distance to the next one needs.
    fn label(self, value: f64) -> String {
        let most = self.low.abs().max(self.high.abs()).log10().floor();
        let digits = self.step.log10().floor();
        if value == 0.0 {
            "0".to_owned()
        } else if (-4.0..6.0).contains(&most) {
            format!("{value:.*}", (-digits).max(0.0) as usize)
        } else {
            format!("{value:.*e}", (most - digits).max(0.0) as usize)
        }
    }

    /// The place of a value between two edges.
    fn place(self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.high - self.low) * (to - from)
    }
}

/// The nearest of 1, 2 and 5 times a power of ten that is not smaller.
fn nice(step: f64) -> f64 {
    let power = 10.0_f64.powf(step.log10().floor());
    let digit =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= step * (1.0 - 1e-9));
    digit.unwrap_or(10.0) * power
}

/// The content of an `svg` of [`SIZE`]: axes, grid, bands, curves and marks.
pub(crate) fn chart(curves: &[Curve], marks: &[Mark], x_name: &str) -> Markup {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let bands = || curves.iter().flat_map(|curve| &curve.band);
    let xs: Vec<f64> = points().map(|point| point.0).collect();
    let ys: Vec<f64> = points()
        .map(|point| point.1)
        .chain(bands().flat_map(|&[_, low, high]| [low, high]))
        .collect();
    let (x, y) = (Axis::of(&xs, 0.0, 8.0), Axis::of(&ys, 0.05, 5.0));
    let at = |&(px, py): &(f64, f64)| (x.place(px, LEFT, RIGHT), y.place(py, BOTTOM, TOP));
    html! {
        g .axes { (axes(x, y, x_name)) }
        @for (i, curve) in curves.iter().enumerate() {
            path .band .(class(i)) d=(area(&curve.band, &at)) fill=(color(i)) fill-opacity="0.16" {}
        }
        @for mark in marks.iter().filter(|mark| mark.x >= x.low && mark.x <= x.high) {
            @let place = format!("{:.1}", x.place(mark.x, LEFT, RIGHT));
            line .mark .(mark.kind) data-x=(mark.x) x1=(place) x2=(place) y1=(TOP) y2=(BOTTOM)
                stroke="#888" stroke-dasharray="3 3" {
                title { (mark.text) }
            }
        }
        @for (i, curve) in curves.iter().enumerate() {
            path .line .(class(i)) d=(path(&curve.points, &at, 'L')) fill="none" stroke=(color(i))
                stroke-width="2" stroke-linejoin="round"
                stroke-dasharray=[(i >= COLORS.len()).then_some("7 4")] {}
            @if curve.points.len() <= DOTTED {
                path .dots .(class(i)) d=(path(&curve.points, &at, 'M')) fill="none" stroke=(color(i))
                    stroke-width="6" stroke-linecap="round" {}
            }
        }
    }
}

fn axes(x: Axis, y: Axis, x_name: &str) -> Markup {
    html! {
        @for value in y.labels() {
            @let place = format!("{:.1}", y.place(value, BOTTOM, TOP));
            line x1=(LEFT) x2=(RIGHT) y1=(place) y2=(place) stroke="#ddd" {}
            text x=(LEFT - 8.0) y=(place) dy="0.35em" text-anchor="end" { (y.label(value)) }
        }
        @for value in x.labels() {
            @let place = format!("{:.1}", x.place(value, LEFT, RIGHT));
            line x1=(place) x2=(place) y1=(BOTTOM) y2=(BOTTOM + 5.0) stroke="#888" {}
            text x=(place) y=(BOTTOM + 20.0) text-anchor="middle" { (x.label(value)) }
        }
        line x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) stroke="#888" {}
        text x=(RIGHT) y=(BOTTOM + 39.0) text-anchor="end" { (x_name) }
    }
}

/// A path through points, or, with `M` between them, a dot at each.
fn path(points: &[(f64, f64)], at: &impl Fn(&(f64, f64)) -> (f64, f64), between: char) -> String {
    let mut path = String::new();
    for (i, point) in points.iter().enumerate() {
        let (x, y) = at(point);
        let command = if i == 0 { 'M' } else { between };
        path += &format!("{command}{x:.1} {y:.1}{}", if between == 'M' { "h0" } else { "" });
    }
    path
}

/// The area between the bounds of a band.
fn area(band: &[[f64; 3]], at: &impl Fn(&(f64, f64)) -> (f64, f64)) -> String {
    let low = band.iter().map(|&[x, low, _]| (x, low));
    let high = band.iter().rev().map(|&[x, _, high]| (x, high));
    let edge: Vec<(f64, f64)> = low.chain(high).collect();
    if edge.is_empty() { String::new() } else { path(&edge, at, 'L') + "Z" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], margin: f64) -> Vec<String> {
        let axis = Axis::of(values, margin, 5.0);
        axis.labels().map(|value| axis.label(value)).collect()
    }

    #[test]
    fn labels_are_round_and_differ_from_each_other() {
        assert_eq!(labels(&[0.0, 50.0], 0.0), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(labels(&[1.0, 3.0], 0.0), ["1", "2", "3"], "epochs are whole");
        assert_eq!(labels(&[0.12, 0.94], 0.05), ["0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(labels(&[0.0, 4e-7], 0.05), ["0", "1e-7", "2e-7", "3e-7", "4e-7"]);
        assert_eq!(labels(&[-1e-3, 1e-3], 0.05), ["-0.0010", "-0.0005", "0", "0.0005", "0.0010"]);
        for values in [&[0.25][..], &[0.0], &[-3e9, -3e9], &[]] {
            let labels = labels(values, 0.05);
            assert!((2..12).contains(&labels.len()), "{values:?}: {labels:?}");
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{values:?}: {labels:?}");
        }
    }

    #[test]
    fn points_stand_between_the_edges_and_bands_around_them() {
        let curve = Curve {
            name: "a".to_owned(),
            points: vec![(0.0, 1.0), (10.0, 2.0)],
            band: vec![[0.0, 0.0, 2.0], [10.0, 1.0, 3.0]],
        };
        let mark = |x| Mark { x, kind: "best", text: "a < b".to_owned() };
        let svg = chart(&[curve], &[mark(5.0), mark(11.0)], "epochs").into_string();
        assert!(svg.contains("d=\"M66.0 137.7L626.0 78.3\""), "{svg}");
        assert!(svg.contains("d=\"M66.0 197.1L626.0 137.7L626.0 18.9L66.0 78.3Z\""), "{svg}");
        assert_eq!(svg.matches("a &lt; b").count(), 1, "a mark beyond the axis is left out: {svg}");
    }

    #[test]
    fn seeds_are_one_curve_with_their_extremes() {
        let seed = |points: &[(f64, f64)]| Curve::new("", points.to_vec());
        let seeds = [seed(&[(1.0, 0.25), (2.0, 0.5)]), seed(&[(1.0, 0.75), (3.0, 1.0)])];
        let both = Curve::of_seeds("both", &seeds);
        assert_eq!((both.points, both.band), (vec![(1.0, 0.5)], vec![[1.0, 0.25, 0.75]]));
        let with_band = Curve { band: vec![[1.0, 0.0, 1.0]], ..seeds[0].clone() };
        let one = Curve::of_seeds("one", std::slice::from_ref(&with_band));
        assert_eq!(one, Curve { name: "one".to_owned(), ..with_band });
    }

    #[test]
    fn an_eleventh_curve_is_dashed() {
        assert_ne!(class(0), class(10));
        assert_eq!(color(0), color(10));
    }
}
