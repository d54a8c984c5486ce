//! The outlines of the regions of a map: outer borders and the borders of holes.
//!
//! Source: S. Suzuki and K. Abe, "Topological structural analysis of digitized binary images by
//! border following" (1985). Only the convex hull of a border is used later, so a border is a set
//! of pixels here, without the order of following it.

use super::Map;
use crate::Point;

/// The pixels beside a pixel, and those across a corner.
const BESIDE: [(i32, i32); 4] = [(0, -1), (-1, 0), (1, 0), (0, 1)];
const ACROSS: [(i32, i32); 4] = [(-1, -1), (1, -1), (-1, 1), (1, 1)];

/// A mask with a margin of one pixel, and which of its pixels were seen.
struct Mask {
    width: i32,
    set: Vec<bool>,
    seen: Vec<bool>,
}

/// The borders of all regions whose numbers exceed `threshold`, the lowest first.
///
/// A region's pixels touch by sides or corners, a hole's by sides. The border of a hole is made of
/// the pixels of the region around it.
pub(crate) fn outlines(map: &Map, threshold: f32) -> Vec<Vec<Point>> {
    let mut mask = Mask::new(map, threshold);
    // The background outside of all regions is no hole.
    mask.border(0, 0, false);
    let mut found = Vec::new();
    for y in 1..=map.height as i32 {
        for x in 1..=map.width as i32 {
            let index = mask.index(x, y);
            if !mask.seen[index] {
                let set = mask.set[index];
                // Following starts a hole at the pixel on its left.
                let start = if set { (y, x) } else { (y, x - 1) };
                found.push((start, mask.border(x, y, set)));
            }
        }
    }
    found.sort_by_key(|(start, _)| std::cmp::Reverse(*start));
    found.into_iter().map(|(_, border)| border).collect()
}

impl Mask {
    fn new(map: &Map, threshold: f32) -> Self {
        let width = map.width + 2;
        let mut set = vec![false; width * (map.height + 2)];
        for (y, row) in map.numbers.chunks(map.width).enumerate() {
            for (x, number) in row.iter().enumerate() {
                set[(y + 1) * width + x + 1] = *number > threshold;
            }
        }
        Self { width: width as i32, seen: vec![false; set.len()], set }
    }

    fn index(&self, x: i32, y: i32) -> usize {
        (y * self.width + x) as usize
    }

    /// Visits the region or hole at a pixel and gives its border in pixels of the map.
    fn border(&mut self, x: i32, y: i32, set: bool) -> Vec<Point> {
        let height = self.set.len() as i32 / self.width;
        let mut border = Vec::new();
        let mut open = vec![(x, y)];
        let start = self.index(x, y);
        self.seen[start] = true;
        while let Some((x, y)) = open.pop() {
            let mut at_edge = false;
            let corners: &[(i32, i32)] = if set { &ACROSS } else { &[] };
            for (number, (dx, dy)) in BESIDE.iter().chain(corners).enumerate() {
                let (x, y) = (x + dx, y + dy);
                if x < 0 || y < 0 || x >= self.width || y >= height {
                    continue;
                }
                let next = self.index(x, y);
                if self.set[next] != set {
                    at_edge |= number < BESIDE.len();
                    if !set {
                        border.push([(x - 1) as f32, (y - 1) as f32]);
                    }
                } else if !self.seen[next] {
                    self.seen[next] = true;
                    open.push((x, y));
                }
            }
            if set && at_edge {
                border.push([(x - 1) as f32, (y - 1) as f32]);
            }
        }
        border
    }
}
