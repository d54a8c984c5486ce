//! Relative positions of boxes.

use crate::shapes::Relation;

/// Share of the sum of two boxes' sizes by which their distance along an axis is shortened.
pub const MARGIN: f32 = 0.1;
/// Shortened distances below this, in pixels, count as none.
const NEAR: f32 = 1e-3;
/// Smallest component of the direction at which a relation holds.
const DIRECTION: f32 = 0.5;

/// Whether box `a` has this relation to box `b`, both `[x0, y0, x1, y1]`.
///
/// ```text
/// o = centre(a) − centre(b)
/// r = sign(o) · max(|o| − MARGIN · (size(a) + size(b)), 0)      per axis
/// (dx, dy) = r / ‖o‖
/// ```
///
/// `left of` holds if `dx < −0.5`, `right of` if `dx > 0.5`, `above` if `dy < −0.5`, `below` if
/// `dy > 0.5`; nothing holds if both parts of `r` are shorter than 0.001. The norm is that of `o`,
/// not of `r`, so large boxes that are diagonal to each other may have no relation. All of it in
/// f32, as in the published script.
///
/// Source: djghosh13/geneval, `evaluation/evaluate_images.py`.
pub fn holds(relation: Relation, a: [f32; 4], b: [f32; 4]) -> bool {
    let Some((dx, dy)) = direction(a, b) else { return false };
    match relation {
        Relation::LeftOf => dx < -DIRECTION,
        Relation::RightOf => dx > DIRECTION,
        Relation::Above => dy < -DIRECTION,
        Relation::Below => dy > DIRECTION,
    }
}

/// `(dx, dy)` of [`holds`]; `None` if the boxes are too near to each other.
fn direction(a: [f32; 4], b: [f32; 4]) -> Option<(f32, f32)> {
    let offset =
        |axis: usize| f32::midpoint(a[axis], a[axis + 2]) - f32::midpoint(b[axis], b[axis + 2]);
    let size = |corners: [f32; 4], axis: usize| (corners[axis + 2] - corners[axis]).abs();
    let shortened = |axis: usize| {
        let margin = MARGIN * (size(a, axis) + size(b, axis));
        (offset(axis).abs() - margin).max(0.0).copysign(offset(axis))
    };
    let (x, y) = (shortened(0), shortened(1));
    let norm = (offset(0) * offset(0) + offset(1) * offset(1)).sqrt();
    (x.abs() >= NEAR || y.abs() >= NEAR).then_some((x / norm, y / norm))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relations of a box to another.
    fn relations(a: [f32; 4], b: [f32; 4]) -> Vec<&'static str> {
        let all = Relation::ALL.into_iter();
        all.filter(|relation| holds(*relation, a, b)).map(Relation::words).collect()
    }

    fn assert_near((dx, dy): (f32, f32), (x, y): (f32, f32)) {
        assert!((dx - x).abs() < 5e-4 && (dy - y).abs() < 5e-4, "({dx}, {dy})");
    }

    #[test]
    fn three_pairs_of_boxes_have_the_directions_of_the_formula() {
        let a = [0.0, 0.0, 10.0, 10.0];
        let b = [20.0, 0.0, 30.0, 10.0];
        assert_near(direction(a, b).expect("far apart"), (-0.9, 0.0));
        assert_eq!(relations(a, b), ["left of"]);
        assert_eq!(relations(b, a), ["right of"]);

        let b = [10.0, 10.0, 20.0, 20.0];
        assert_near(direction(a, b).expect("far apart"), (-0.5657, -0.5657));
        assert_eq!(relations(a, b), ["left of", "above"]);
        assert_eq!(relations(b, a), ["right of", "below"]);

        // Plainly diagonal, but divided by the norm of the whole offset.
        let b = [6.0, 6.0, 16.0, 16.0];
        assert_near(direction(a, b).expect("far apart"), (-0.4714, -0.4714));
        assert_eq!(relations(a, b), [""; 0]);
    }

    #[test]
    fn boxes_that_nearly_coincide_have_no_relation() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(direction(a, a), None);
        // 2 apart, and the margin is 2.
        assert_eq!(direction(a, [2.0, 0.0, 12.0, 10.0]), None);
        assert_eq!(direction(a, [0.0, 2.0, 10.0, 12.0]), None);
        assert!(direction(a, [2.01, 0.0, 12.01, 10.0]).is_some());
    }

    #[test]
    fn boxes_of_no_size_are_judged_by_their_places() {
        let (a, b) = ([5.0; 4], [5.0, 6.0, 5.0, 6.0]);
        assert_eq!(relations(a, b), ["above"]);
        assert_eq!(relations(b, a), ["below"]);
        assert_eq!(relations(a, a), [""; 0]);
    }

    #[test]
    fn a_direction_of_exactly_one_half_is_not_enough() {
        // Centres 4 and 3 apart, widths 8 and 7: (4 − 1.5) / 5.
        let (a, b) = ([0.0, 3.0, 8.0, 3.0], [-3.5, 0.0, 3.5, 0.0]);
        assert_eq!(direction(a, b), Some((0.5, 0.6)));
        assert_eq!(relations(a, b), ["below"]);
        assert_eq!(relations(b, a), ["above"]);
        let turned = |[x0, y0, x1, y1]: [f32; 4]| [y0, x0, y1, x1];
        assert_eq!(relations(turned(a), turned(b)), ["right of"]);
        assert_eq!(relations(turned(b), turned(a)), ["left of"]);
    }

    #[test]
    fn huge_boxes_do_not_panic() {
        let huge = [f32::MIN, f32::MIN, f32::MAX, f32::MAX];
        assert_eq!(relations(huge, [0.0; 4]), [""; 0]);
        assert_eq!(relations([f32::MIN; 4], [f32::MAX; 4]), [""; 0]);
    }
}
