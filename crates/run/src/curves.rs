//! Curves of runs as SVG.

use plotters::prelude::*;

use crate::RunError;

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Name of the curve in the legend; a panel of curves without names has none.
    pub name: String,
    /// The points (epoch, value).
    pub points: Vec<(f64, f64)>,
}

/// A panel of curves over the same epochs.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Label of the vertical axis.
    pub title: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// How panels are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style<'a> {
    /// Width and height of a panel in pixels.
    pub size: (u32, u32),
    /// Size of the letters in pixels.
    pub letters: u32,
    /// Name of the horizontal axis, written below it; an empty name takes no place.
    pub horizontal: &'a str,
    /// Where the legend stands.
    pub legend: Legend,
}

/// A corner of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legend {
    /// Top left.
    UpperLeft,
    /// Top right.
    UpperRight,
    /// Bottom right.
    LowerRight,
}

impl<'a> Style<'a> {
    /// Wide panels over epochs, for a report.
    pub const REPORT: Style<'static> =
        Style { size: (900, 300), letters: 12, horizontal: "", legend: Legend::LowerRight };

    /// Panels of a page, with letters that can be read on a telephone.
    pub const fn page(horizontal: &'a str, legend: Legend) -> Self {
        Self { size: (560, 330), letters: 17, horizontal, legend }
    }
}

const COLORS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(80, 80, 80),
];

/// Draws panels below each other and returns the SVG; panels without points are left out.
///
/// # Errors
/// If the range of a panel cannot be drawn.
pub fn curves(panels: &[Panel]) -> Result<String, RunError> {
    styled(panels, Style::REPORT)
}

/// Draws panels below each other in a style and returns the SVG; panels without points are left
/// out.
///
/// # Errors
/// If the range of a panel cannot be drawn.
pub fn styled(panels: &[Panel], style: Style<'_>) -> Result<String, RunError> {
    let panels: Vec<&Panel> = panels
        .iter()
        .filter(|panel| panel.curves.iter().any(|curve| !curve.points.is_empty()))
        .collect();
    let mut svg = String::new();
    {
        let (width, height) = style.size;
        let root = SVGBackend::with_string(&mut svg, (width, height * panels.len().max(1) as u32))
            .into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        for (area, panel) in root.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
            draw_panel(area, panel, style)?;
        }
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    panel: &Panel,
    style: Style<'_>,
) -> Result<(), RunError> {
    let font = ("sans-serif", style.letters);
    let below = if style.horizontal.is_empty() { 2 } else { 3 };
    let points = || panel.curves.iter().flat_map(|curve| &curve.points);
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let margin = ((high - low) * 0.05).max(1e-9 + high.abs() * 1e-3);
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", style.letters * 4 / 3))
        .margin(8)
        .x_label_area_size(below * style.letters)
        .y_label_area_size(style.letters * 7 / 2 + 14)
        .build_cartesian_2d(
            range(points().map(|p| p.0).collect()),
            range(points().map(|p| p.1).collect()),
        )
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(10)
        .y_labels(6)
        .x_desc(style.horizontal)
        .label_style(font)
        .axis_desc_style(font)
        .draw()
        .map_err(drawing)?;
    for (curve, color) in panel.curves.iter().zip(COLORS.iter().cycle()) {
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        let series = chart.draw_series(line).map_err(drawing)?;
        series.label(curve.name.clone()).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 14, y)], color.stroke_width(2))
        });
    }
    if panel.curves.len() > 1 && panel.curves.iter().any(|curve| !curve.name.is_empty()) {
        let mut labels = chart.configure_series_labels();
        labels
            .border_style(BLACK.mix(0.2))
            .background_style(WHITE.mix(0.8))
            .label_font(font)
            .position(match style.legend {
                Legend::UpperLeft => SeriesLabelPosition::UpperLeft,
                Legend::UpperRight => SeriesLabelPosition::UpperRight,
                Legend::LowerRight => SeriesLabelPosition::LowerRight,
            });
        labels.draw().map_err(drawing)?;
    }
    Ok(())
}

fn drawing(error: impl std::fmt::Display) -> RunError {
    RunError::Drawing { what: "curves", problem: error.to_string() }
}
