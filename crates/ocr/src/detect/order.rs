//! The order of the corners of a box, and of the boxes of an image.

use super::Corners;

/// Two boxes are on one line if their tops differ by less, in pixels.
const SAME_LINE: f32 = 10.0;

/// The corners from the top left one, clockwise: the smallest and largest `x + y` are top left and
/// bottom right, and of the others the smaller `y − x` is top right.
///
/// Source: `order_points_clockwise` of PaddleOCR 2.9.1.
pub(super) fn clockwise(corners: Corners) -> Corners {
    let sum = |index: &usize| corners[*index][0] + corners[*index][1];
    let difference = |index: &usize| corners[*index][1] - corners[*index][0];
    let first = least(&[0, 1, 2, 3], sum);
    let third = least(&[0, 1, 2, 3], |index| -sum(index));
    let rest: Vec<usize> = (0..4).filter(|index| *index != first && *index != third).collect();
    let second = least(&rest, difference);
    let fourth = least(&rest, |index| -difference(index));
    [first, second, third, fourth].map(|index| corners[index])
}

/// The first index with the smallest value.
fn least(indices: &[usize], value: impl Fn(&usize) -> f32) -> usize {
    let smallest = indices.iter().min_by(|a, b| value(a).total_cmp(&value(b)));
    smallest.copied().unwrap_or_default()
}

/// Sorts boxes for reading: top to bottom, and left to right on a line.
///
/// Source: `sorted_boxes` of PaddleOCR 2.9.1.
pub(crate) fn sort(boxes: &mut [Corners]) {
    boxes.sort_by(|a, b| a[0][1].total_cmp(&b[0][1]).then(a[0][0].total_cmp(&b[0][0])));
    for end in 1..boxes.len() {
        for index in (0..end).rev() {
            let ([left, top], [next_left, next_top]) = (boxes[index][0], boxes[index + 1][0]);
            if (next_top - top).abs() >= SAME_LINE || next_left >= left {
                break;
            }
            boxes.swap(index, index + 1);
        }
    }
}
