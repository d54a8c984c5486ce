//! Plots: curves of a run as SVG, points of the plane as PNG.

use std::path::Path;

use anyhow::{Result, anyhow};
use image::{Rgb, RgbImage};
use plotters::prelude::*;
use tasks::{image::Image, toy};

use crate::png;

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Name of the curve in the legend.
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

const SIZE: (u32, u32) = (900, 300);
const COLORS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(80, 80, 80),
];

/// Draws panels below each other and returns the SVG.
pub fn curves(panels: &[Panel]) -> Result<String> {
    let panels: Vec<&Panel> = panels
        .iter()
        .filter(|panel| panel.curves.iter().any(|curve| !curve.points.is_empty()))
        .collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, SIZE.1 * panels.len().max(1) as u32))
            .into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        for (area, panel) in root.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
            draw_panel(area, panel)?;
        }
        root.present().map_err(drawing)?;
    }
    Ok(svg)
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    panel: &Panel,
) -> Result<()> {
    let points = || panel.curves.iter().flat_map(|curve| &curve.points);
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let margin = ((high - low) * 0.05).max(1e-9 + high.abs() * 1e-3);
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
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
        .draw()
        .map_err(drawing)?;
    for (curve, color) in panel.curves.iter().zip(COLORS.iter().cycle()) {
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        let series = chart.draw_series(line).map_err(drawing)?;
        series.label(curve.name.clone()).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 14, y)], color.stroke_width(2))
        });
    }
    if panel.curves.len() > 1 {
        let mut labels = chart.configure_series_labels();
        labels
            .border_style(BLACK.mix(0.2))
            .background_style(WHITE.mix(0.8))
            .position(SeriesLabelPosition::LowerRight);
        labels.draw().map_err(drawing)?;
    }
    Ok(())
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the curves: {error}")
}

const SIDE: u32 = 400;
/// Range of the scatter plot, from the origin to each side.
const REACH: f32 = 3.2;

/// Writes points of the plane as a scatter plot; circles mark the clusters of the data.
pub fn write_scatter(points: &[Image], path: &Path) -> Result<()> {
    let mut image = RgbImage::from_pixel(SIDE, SIDE, Rgb([255, 255, 255]));
    for mode in 0..toy::MODES {
        let [x, y] = toy::center(mode);
        for step in 0..720 {
            let angle = step as f32 / 720.0 * std::f32::consts::TAU;
            let radius = 3.0 * toy::STD;
            dot(
                &mut image,
                x + radius * angle.cos(),
                y + radius * angle.sin(),
                0,
                Rgb([170, 170, 170]),
            );
        }
    }
    for point in points {
        dot(&mut image, point.pixels[0], point.pixels[1], 1, Rgb([31, 119, 180]));
    }
    png::write_png(&image, path)
}

fn dot(image: &mut RgbImage, x: f32, y: f32, radius: i32, color: Rgb<u8>) {
    let at = |value: f32| (f32::midpoint(value / REACH, 1.0) * SIDE as f32) as i32;
    let (column, row) = (at(x), at(-y));
    for (dx, dy) in (-radius..=radius).flat_map(|dx| (-radius..=radius).map(move |dy| (dx, dy))) {
        if let (Ok(column), Ok(row)) =
            (u32::try_from(column.saturating_add(dx)), u32::try_from(row.saturating_add(dy)))
            && let Some(pixel) = image.get_pixel_mut_checked(column, row)
        {
            *pixel = color;
        }
    }
}
