//! Growing a box by a distance, with round corners.
//!
//! Source: A. Johnson's Clipper library, whose polygon offsetting PaddleOCR uses: corners on whole
//! pixels in and out, arcs that deviate by a quarter of a pixel at most.

use std::f64::consts::PI;

use super::Corners;
use crate::Point;

/// The largest deviation of an arc in pixels.
const ARC_TOLERANCE: f64 = 0.25;

/// The corners of a box that grew to every side.
///
/// ```text
/// distance = area · ratio / perimeter
/// ```
///
/// The result is not sorted and may have points inside: only its convex hull counts.
pub(crate) fn grow(corners: &Corners, ratio: f32) -> Vec<Point> {
    let distance = distance(corners, f64::from(ratio));
    let polygon = whole(corners);
    if polygon.len() < 3 || distance <= 0.0 {
        return polygon.iter().map(|point| point.map(|x| x as f32)).collect();
    }
    let normals: Vec<[f64; 2]> = (0..polygon.len())
        .map(|index| normal(polygon[index], polygon[(index + 1) % polygon.len()]))
        .collect();
    let mut grown = Vec::new();
    for (index, corner) in polygon.iter().enumerate() {
        let before = normals[(index + normals.len() - 1) % normals.len()];
        join(*corner, before, normals[index], distance, &mut grown);
    }
    grown
}

/// The distance by which a box grows: its area times the ratio by its perimeter.
fn distance(corners: &Corners, ratio: f64) -> f64 {
    let corners = corners.map(|corner| corner.map(f64::from));
    let (mut area, mut perimeter) = (0.0, 0.0);
    for (index, [x, y]) in corners.iter().enumerate() {
        let [next_x, next_y] = corners[(index + 1) % 4];
        area += (x * next_y - next_x * y) / 2.0;
        perimeter += (next_x - x).hypot(next_y - y);
    }
    if perimeter > 0.0 { area.abs() * ratio / perimeter } else { 0.0 }
}

/// The corners on whole pixels, cut towards zero, without repetitions and with positive area.
fn whole(corners: &Corners) -> Vec<[f64; 2]> {
    let mut polygon = corners.map(|corner| corner.map(|x| f64::from(x.trunc()))).to_vec();
    polygon.dedup();
    if polygon.len() > 1 && polygon.first() == polygon.last() {
        polygon.pop();
    }
    let next = |index: usize| polygon[(index + 1) % polygon.len()];
    let twice_area: f64 =
        (0..polygon.len()).map(|i| polygon[i][0] * next(i)[1] - next(i)[0] * polygon[i][1]).sum();
    if twice_area < 0.0 {
        polygon.reverse();
    }
    polygon
}

/// The unit vector that points out of a polygon of positive area at an edge.
fn normal(from: [f64; 2], to: [f64; 2]) -> [f64; 2] {
    let [x, y] = [to[0] - from[0], to[1] - from[1]];
    let length = x.hypot(y);
    [y / length, -x / length]
}

/// The points that replace a corner between two edges with the given normals.
fn join(corner: [f64; 2], before: [f64; 2], after: [f64; 2], distance: f64, out: &mut Vec<Point>) {
    let mut push = |[x, y]: [f64; 2]| {
        out.push([
            (corner[0] + x * distance).round() as f32,
            (corner[1] + y * distance).round() as f32,
        ]);
    };
    let sine = (before[0] * after[1] - after[0] * before[1]).clamp(-1.0, 1.0);
    let cosine = before[0] * after[0] + before[1] * after[1];
    let straight = (sine * distance).abs() < 1.0 && cosine > 0.0;
    push(before);
    if straight {
        return;
    }
    if sine >= 0.0 {
        let per_turn = steps_per_turn(distance);
        let count = (per_turn / (2.0 * PI) * sine.atan2(cosine).abs()).round().max(1.0) as usize;
        let (turn_sine, turn_cosine) = (2.0 * PI / per_turn).sin_cos();
        let mut point = before;
        for _ in 1..count {
            let [x, y] = point;
            point = [x * turn_cosine - turn_sine * y, x * turn_sine + y * turn_cosine];
            push(point);
        }
    }
    push(after);
}

/// The number of straight pieces of a full circle of a radius.
fn steps_per_turn(radius: f64) -> f64 {
    let tolerance = ARC_TOLERANCE.min(radius * ARC_TOLERANCE);
    (PI / (1.0 - tolerance / radius).acos()).min(radius * PI)
}
