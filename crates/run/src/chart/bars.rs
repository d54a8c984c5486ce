//! Stacked horizontal bars as an SVG file.

use maud::{Markup, html};

use super::{Axis, SIZE, color};
use crate::RunError;

/// A bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The name at its left.
    pub name: String,
    /// The lengths of its parts, at least 0, in the order of [`Bars::parts`].
    pub parts: Vec<f64>,
}

/// A chart of stacked bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// The title above.
    pub title: String,
    /// The names of the parts, for the legend.
    pub parts: Vec<String>,
    /// The bars, from top to bottom.
    pub bars: Vec<Bar>,
    /// Vertical lines across all bars: places with their names.
    pub marks: Vec<(f64, String)>,
    /// The name of the axis, with its unit.
    pub axis: String,
}

/// Edges of the bars: room for names at the left, and for the sum at the right.
const LEFT: f64 = 226.0;
const RIGHT: f64 = 584.0;
/// Height of a row of the title or legend, and of a bar with its gap.
const ROW: f64 = 20.0;
const PITCH: f64 = 27.0;
const BAR: f64 = 18.0;
/// Room below the bars for the axis.
const AXIS: f64 = 46.0;
/// Width of a character of the legend, generously, and of the square before a name.
const CHARACTER: f64 = 7.6;
const KEY: f64 = 38.0;

/// Draws stacked bars and returns the SVG.
///
/// # Errors
/// If a part is negative or not finite.
pub fn bars(chart: &Bars) -> Result<String, RunError> {
    let wrong = |part: &f64| !(part.is_finite() && *part >= 0.0);
    if let Some(bar) = chart.bars.iter().find(|bar| bar.parts.iter().any(wrong)) {
        let problem = format!("the bar \"{}\" has a part below 0 or not finite", bar.name);
        return Err(RunError::Drawing { what: "bars", problem });
    }
    let keys = keys(&chart.parts);
    let legend = keys.last().map_or(0.0, |key| key.1 + ROW);
    let top = 2.0 * ROW + legend + 12.0;
    let bottom = top + PITCH * chart.bars.len() as f64;
    let longest = chart.bars.iter().map(|bar| bar.parts.iter().sum()).fold(0.0, f64::max);
    let axis = Axis::of(&[0.0, longest], 0.0, 6.0);
    let x = |value: f64| axis.place(value, LEFT, RIGHT);
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (SIZE[0]) " " (bottom + AXIS) }
            width=(SIZE[0]) height=(bottom + AXIS) fill="#222"
            font-family="system-ui, sans-serif" font-size="14" {
            rect width="100%" height="100%" fill="white" {}
            text x="8" y="20" font-weight="600" { (chart.title) }
            @for (part, (left, down)) in chart.parts.iter().zip(&keys) {
                rect x=(left) y=(ROW + 10.0 + down) width="14" height="14" fill=(color(index(&chart.parts, part))) {}
                text x=(left + 20.0) y=(ROW + 22.0 + down) { (part) }
            }
            @for value in axis.labels() {
                line x1=(place(x(value))) x2=(place(x(value))) y1=(top) y2=(bottom) stroke="#ddd" {}
                text x=(place(x(value))) y=(bottom + 18.0) text-anchor="middle" { (axis.label(value)) }
            }
            text x=(RIGHT) y=(bottom + 38.0) text-anchor="end" { (chart.axis) }
            @for (row, bar) in chart.bars.iter().enumerate() {
                (drawing(bar, top + PITCH * row as f64, &x))
            }
            @for (at, name) in chart.marks.iter().filter(|(at, _)| *at <= longest) {
                line x1=(place(x(*at))) x2=(place(x(*at))) y1=(top - 4.0) y2=(bottom)
                    stroke="#444" stroke-dasharray="4 3" {}
                text x=(place(x(*at))) y=(top - 8.0) text-anchor="middle" font-size="12" { (name) }
            }
            // After the marks, with a rim, so that no mark crosses a number.
            @for (row, bar) in chart.bars.iter().enumerate() {
                @let sum: f64 = bar.parts.iter().sum();
                text x=(place(x(sum) + 6.0)) y=(top + PITCH * row as f64 + BAR - 4.0)
                    stroke="white" stroke-width="4" paint-order="stroke" { (format!("{sum:.1}")) }
            }
        }
    };
    Ok(svg.into_string())
}

fn index(parts: &[String], part: &String) -> usize {
    parts.iter().position(|other| other == part).unwrap_or(0)
}

/// A place, in tenths of a pixel.
fn place(x: f64) -> String {
    format!("{x:.1}")
}

fn drawing(bar: &Bar, top: f64, x: &impl Fn(f64) -> f64) -> Markup {
    let mut ends = vec![0.0];
    for part in &bar.parts {
        ends.push(ends[ends.len() - 1] + part);
    }
    html! {
        text x=(LEFT - 10.0) y=(top + BAR - 4.0) text-anchor="end" { (bar.name) }
        @for (part, edge) in ends.windows(2).enumerate().filter(|(_, edge)| edge[1] > edge[0]) {
            rect x=(place(x(edge[0]))) y=(top) height=(BAR) width=(place(x(edge[1]) - x(edge[0])))
                fill=(color(part)) {}
        }
    }
}

/// The places of the legend's names, in rows.
fn keys(parts: &[String]) -> Vec<(f64, f64)> {
    let (mut x, mut y) = (8.0, 0.0);
    let mut places = Vec::new();
    for part in parts {
        let width = KEY + CHARACTER * part.chars().count() as f64;
        if x + width > SIZE[0] && x > 8.0 {
            (x, y) = (8.0, y + ROW);
        }
        places.push((x, y));
        x += width;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(parts: Vec<f64>) -> Bars {
        Bars {
            title: "a < b".to_owned(),
            parts: vec!["one".to_owned(), "two".to_owned()],
            bars: vec![Bar { name: "x".to_owned(), parts }],
            marks: vec![(2.0, "mark".to_owned()), (9.0, "beyond".to_owned())],
            axis: "GiB".to_owned(),
        }
    }

    #[test]
    fn parts_follow_each_other_and_the_sum_stands_at_the_end() {
        let svg = bars(&chart(vec![1.0, 3.0])).expect("an SVG");
        assert!(svg.contains("a &lt; b") && svg.contains(">4.0<"), "{svg}");
        assert!(svg.contains("x=\"226.0\" y=\"72\" height=\"18\" width=\"89.5\""), "{svg}");
        assert!(svg.contains("x=\"315.5\" y=\"72\" height=\"18\" width=\"268.5\""), "{svg}");
        assert!(svg.contains(">mark<") && !svg.contains("beyond"), "{svg}");
    }

    #[test]
    fn a_negative_part_is_refused_by_the_name_of_its_bar() {
        let error = bars(&chart(vec![-1.0])).expect_err("refused").to_string();
        assert!(error.contains("the bar \"x\""), "{error}");
    }
}
