//! Curves as an SVG file.

use maud::{Markup, html};

use crate::{
    RunError,
    chart::{self, SIZE},
};

pub use crate::chart::Curve;

/// A panel of curves over the same axis.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Label of the vertical axis.
    pub title: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Panel {
    /// A panel of these curves.
    pub fn new(title: impl Into<String>, curves: Vec<Curve>) -> Self {
        Self { title: title.into(), curves }
    }
}

/// Heights of the space above a panel and of a row of its title or legend, in pixels.
const MARGIN: f64 = 8.0;
const ROW: f64 = 20.0;
/// Characters of a line of a title.
const TITLE: usize = 76;
/// Width of a character of the legend, generously, and of the line before a name.
const CHARACTER: f64 = 7.6;
const KEY: f64 = 46.0;

/// Draws panels below each other, with the name of their horizontal axis, and returns the SVG;
/// panels without points are left out.
///
/// # Errors
/// If a point, or a bound of a band, is not finite.
pub fn curves(panels: &[Panel], x_name: &str) -> Result<String, RunError> {
    let drawn: Vec<&Panel> = panels
        .iter()
        .filter(|panel| panel.curves.iter().any(|curve| !curve.points.is_empty()))
        .collect();
    let numbers = |panel: &Panel| {
        let points = panel.curves.iter().flat_map(|curve| &curve.points);
        let bands = panel.curves.iter().flat_map(|curve| curve.band.iter().flatten());
        points.flat_map(|&(x, y)| [x, y]).chain(bands.copied()).collect::<Vec<f64>>()
    };
    if let Some(panel) = drawn.iter().find(|panel| !numbers(panel).iter().all(|x| x.is_finite())) {
        let problem = format!("\"{}\" has a number that is not finite", panel.title);
        return Err(RunError::Drawing { what: "curves", problem });
    }
    let mut height = 0.0;
    let mut places = Vec::new();
    for panel in drawn {
        let legend = Legend::of(panel);
        places.push((height, panel));
        height += MARGIN + ROW * wrapped(&panel.title).len() as f64 + legend.height + SIZE[1];
    }
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (SIZE[0]) " " (height.max(1.0)) }
            width=(SIZE[0]) height=(height.max(1.0)) fill="#222"
            font-family="system-ui, sans-serif" font-size="14" {
            rect width="100%" height="100%" fill="white" {}
            @for (top, panel) in places {
                g transform={ "translate(0 " (top) ")" } { (drawing(panel, x_name)) }
            }
        }
    };
    Ok(svg.into_string())
}

fn drawing(panel: &Panel, x_name: &str) -> Markup {
    let title = wrapped(&panel.title);
    let (legend, top) = (Legend::of(panel), MARGIN + ROW * title.len() as f64);
    html! {
        @for (row, text) in title.iter().enumerate() {
            text x="8" y=(20.0 + ROW * row as f64) font-weight="600" { (text) }
        }
        g transform={ "translate(0 " (top) ")" } { (legend.drawing) }
        g transform={ "translate(0 " (top + legend.height) ")" } {
            (chart::chart(&panel.curves, &[], x_name))
        }
    }
}

/// The lines of a title, broken between words.
fn wrapped(title: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in title.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < TITLE => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The names of the curves of a panel, in rows.
struct Legend {
    drawing: Markup,
    height: f64,
}

impl Legend {
    fn of(panel: &Panel) -> Self {
        let (mut x, mut row) = (chart::LEFT, 0.0);
        let mut places = Vec::new();
        let named = panel.curves.iter().enumerate().filter(|(_, curve)| !curve.name.is_empty());
        for (index, curve) in named.filter(|_| panel.curves.len() > 1) {
            let width = KEY + CHARACTER * curve.name.chars().count() as f64;
            if x + width > SIZE[0] && x > chart::LEFT {
                (x, row) = (chart::LEFT, row + 1.0);
            }
            places.push((x, row * ROW, index, &curve.name));
            x += width;
        }
        let height = if places.is_empty() { 0.0 } else { (row + 1.0) * ROW };
        let drawing = html! {
            @for (x, y, index, name) in places {
                line x1=(x) x2=(x + 22.0) y1=(y + 9.0) y2=(y + 9.0)
                    stroke=(chart::color(index)) stroke-width="3" {}
                text x=(x + 28.0) y=(y + 14.0) { (name) }
            }
        };
        Self { drawing, height }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(title: &str, names: &[&str], points: &[(f64, f64)]) -> Panel {
        let curve = |name: &&str| Curve::new(*name, points.to_vec());
        Panel::new(title, names.iter().map(curve).collect())
    }

    #[test]
    fn names_are_escaped_and_stand_beside_no_single_curve() {
        let points = [(0.0, 1.0), (2.0, 3.0)];
        let panels = [panel("a & b", &["<x>", "y"], &points), panel("c", &["z"], &points)];
        let svg = curves(&panels, "epoch").expect("an SVG");
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;x&gt;"), "{svg}");
        assert!(!svg.contains(">z<"), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn a_panel_without_points_is_left_out_and_a_point_must_be_finite() {
        let svg = curves(&[panel("empty", &["x"], &[])], "").expect("an SVG");
        assert!(!svg.contains("empty"), "{svg}");
        let error = curves(&[panel("bad", &["x"], &[(0.0, f64::NAN)])], "").expect_err("refused");
        assert!(error.to_string().contains("\"bad\" has a number"), "{error}");
    }
}
