//! Histograms of several epochs beside each other, over one axis.

use maud::{Markup, html};

use super::{Axis, LEFT, RIGHT, SIZE, TOP, color};

/// Numbers counted in bins of equal width.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram {
    /// The title above the bars.
    pub title: String,
    /// The edges of the first and the last bin.
    pub range: [f64; 2],
    /// The counts.
    pub counts: Vec<f64>,
}

/// Columns of the grid, and the gap between two histograms.
const COLUMNS: usize = 4;
const GAP: f64 = 18.0;
/// Room for a title above the bars, and for the labels below them.
const TITLE: f64 = 20.0;
const LABELS: f64 = 22.0;
/// The left edge: there are no numbers at the side.
const EDGE: f64 = LEFT - 54.0;

/// The content of an `svg` of the size of charts: each histogram is as high as its highest bar.
pub(crate) fn histograms(all: &[Histogram]) -> Markup {
    let bounds: Vec<f64> = all.iter().flat_map(|one| one.range).collect();
    let axis = Axis::of(&bounds, 0.02, 4.0);
    let rows = all.len().div_ceil(COLUMNS).max(1);
    let width = (RIGHT - EDGE - GAP * (COLUMNS - 1) as f64) / COLUMNS as f64;
    let height = (SIZE[1] - TOP) / rows as f64;
    html! {
        @for (index, one) in all.iter().enumerate() {
            @let left = EDGE + (width + GAP) * (index % COLUMNS) as f64;
            @let top = TOP / 2.0 + height * (index / COLUMNS) as f64;
            @let bottom = top + height - LABELS;
            g .axes {
                line x1=(left) x2=(left + width) y1=(bottom) y2=(bottom) stroke="#888" {}
                @for value in axis.labels() {
                    text x=(format!("{:.1}", axis.place(value, left, left + width))) y=(bottom + 16.0)
                        text-anchor="middle" font-size="12" { (axis.label(value)) }
                }
            }
            text x=(left) y=(top + 14.0) { (one.title) }
            path .filled.c0 d=(bars(one, axis, [left, left + width], [bottom, top + TITLE])) fill=(color(0)) {}
        }
    }
}

/// The bars as one path.
fn bars(one: &Histogram, axis: Axis, [left, right]: [f64; 2], [bottom, top]: [f64; 2]) -> String {
    let most = one.counts.iter().copied().fold(0.0, f64::max);
    let [low, high] = one.range;
    let width = (high - low) / one.counts.len() as f64;
    let mut path = String::new();
    for (bin, count) in one.counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        let edge = |bin: usize| axis.place(low + width * bin as f64, left, right);
        // Equal numbers have one bin without a width.
        let [from, to] = [edge(bin), edge(bin + 1).max(edge(bin) + 2.0)];
        let up = bottom - (bottom - top) * count / most;
        path += &format!("M{from:.1} {bottom:.1}V{up:.1}H{to:.1}V{bottom:.1}z");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_counts_and_stand_over_one_axis() {
        let one = |low: f64, high: f64, counts: &[f64]| Histogram {
            title: "epoch <1>".to_owned(),
            range: [low, high],
            counts: counts.to_vec(),
        };
        let axis = Axis::of(&[0.0, 1.0], 0.0, 2.0);
        let place = ([0.0, 100.0], [50.0, 10.0]);
        assert_eq!(
            bars(&one(0.0, 1.0, &[2.0, 0.0, 4.0, 1.0]), axis, place.0, place.1),
            "M0.0 50.0V30.0H25.0V50.0zM50.0 50.0V10.0H75.0V50.0zM75.0 50.0V40.0H100.0V50.0z"
        );
        assert_eq!(
            bars(&one(0.5, 0.5, &[7.0]), axis, place.0, place.1),
            "M50.0 50.0V10.0H52.0V50.0z"
        );
        let svg = histograms(&[one(0.0, 1.0, &[1.0]), one(0.0, 3.0, &[1.0])]).into_string();
        assert!(svg.contains("epoch &lt;1&gt;") && svg.matches(">3<").count() == 2, "{svg}");
    }
}
