//! The mean of a map inside a box.

use super::{Corners, Map};

/// The mean of a map over the pixels of a box, edges included; 0 if the box lies outside.
///
/// Corners are cut to whole pixels. A pixel counts if it is between the edges of its row or on one
/// of the four lines.
///
/// Source: `box_score_fast` of PaddleOCR 2.9.1 and the scan conversion of OpenCV's `fillPoly`.
pub(crate) fn mean(map: &Map, corners: &Corners) -> f64 {
    let window = |axis: usize, side: usize| {
        let low = corners.iter().map(|corner| corner[axis]).fold(f32::MAX, f32::min);
        low.floor().clamp(0.0, side as f32 - 1.0)
    };
    let (left, top) = (window(0, map.width), window(1, map.height));
    let whole =
        corners.map(|[x, y]| [((x - left) as i64) + left as i64, ((y - top) as i64) + top as i64]);
    let high = whole.map(|corner| corner[1]).into_iter().max().unwrap_or_default();
    let (mut sum, mut count) = (0.0, 0_usize);
    let mut spans = Spans::new(top as i64, high);
    for index in 0..4 {
        spans.edge(whole[index], whole[(index + 1) % 4]);
    }
    for (row, span) in spans.rows.iter().enumerate() {
        let y = top as usize + row;
        let (from, to) = (span[0].max(0), span[1].min(map.width as i64 - 1));
        if y < map.height && from <= to {
            let numbers = &map.numbers[y * map.width + from as usize..=y * map.width + to as usize];
            sum += numbers.iter().map(|number| f64::from(*number)).sum::<f64>();
            count += numbers.len();
        }
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// The first and last pixel of every row of a convex polygon.
struct Spans {
    top: i64,
    rows: Vec<[i64; 2]>,
}

impl Spans {
    fn new(top: i64, bottom: i64) -> Self {
        let count = (bottom - top + 1).max(0) as usize;
        Self { top, rows: vec![[i64::MAX, i64::MIN]; count] }
    }

    /// Draws the line between two corners: Bresenham's, from left to right.
    fn edge(&mut self, a: [i64; 2], b: [i64; 2]) {
        let ([mut x, mut y], end) = if b[0] < a[0] { (b, a) } else { (a, b) };
        let (dx, dy) = (end[0] - x, (end[1] - y).abs());
        let down = if end[1] < y { -1 } else { 1 };
        let (long, short) = (dx.max(dy), dx.min(dy));
        let mut error = long - 2 * short;
        for _ in 0..=long {
            self.include(x, y);
            let diagonal = error < 0;
            error += if diagonal { 2 * long - 2 * short } else { -2 * short };
            x += i64::from(dx >= dy || diagonal);
            y += if dy > dx || diagonal { down } else { 0 };
        }
    }

    fn include(&mut self, x: i64, y: i64) {
        let row = usize::try_from(y - self.top).ok().and_then(|row| self.rows.get_mut(row));
        if let Some([first, last]) = row {
            *first = x.min(*first);
            *last = x.max(*last);
        }
    }
}
