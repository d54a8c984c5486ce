//! The smallest rectangle around points, by rotating calipers on their convex hull.
//!
//! Single precision and the order of operations are those of OpenCV's `minAreaRect`: corners are
//! rounded to pixels later, and another rounding here could move one by a pixel.

use std::f64::consts::PI;

use super::Corners;
use crate::Point;

/// A rectangle: a corner, and its two sides as vectors.
struct Rectangle {
    corner: Point,
    sides: [Point; 2],
}

/// The corners of the smallest rectangle around points, from the top left one clockwise, and the
/// length of its shorter side.
pub(crate) fn around(points: &[Point]) -> (Corners, f32) {
    let hull = hull(points);
    let rectangle = match hull[..] {
        [] => Rectangle { corner: [0.0; 2], sides: [[0.0; 2]; 2] },
        [point] => Rectangle { corner: point, sides: [[0.0; 2]; 2] },
        [a, b] => Rectangle { corner: a, sides: [minus(b, a), [0.0; 2]] },
        _ => smallest(&hull),
    };
    let [across, down] = rectangle.sides;
    let length = |side: Point| f64::from(side[0]).hypot(f64::from(side[1])) as f32;
    let corners = corners(&rectangle, length(across), length(down));
    (from_top_left(corners), length(across).min(length(down)))
}

/// The four corners, through centre, lengths and angle.
fn corners(rectangle: &Rectangle, width: f32, height: f32) -> Corners {
    let [across, down] = rectangle.sides;
    let [x, y] = [0, 1].map(|axis| rectangle.corner[axis] + (across[axis] + down[axis]) * 0.5);
    // The angle passes through degrees in single precision.
    let radians = f64::from(across[1]).atan2(f64::from(across[0])) as f32;
    let degrees = (f64::from(radians * 180.0) / PI) as f32;
    let angle = f64::from(degrees) * PI / 180.0;
    let [a, b] = [angle.sin() as f32 * 0.5, angle.cos() as f32 * 0.5];
    let first = [x - a * height - b * width, y + b * height - a * width];
    let second = [x + a * height - b * width, y - b * height - a * width];
    let opposite = |corner: Point| [2.0 * x - corner[0], 2.0 * y - corner[1]];
    [first, second, opposite(first), opposite(second)]
}

/// Corners ordered by their place: of the two leftmost the upper one comes first.
fn from_top_left(mut corners: Corners) -> Corners {
    corners.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let by_height = |a: Point, b: Point| if b[1] > a[1] { [a, b] } else { [b, a] };
    let [top_left, bottom_left] = by_height(corners[0], corners[1]);
    let [top_right, bottom_right] = by_height(corners[2], corners[3]);
    [top_left, top_right, bottom_right, bottom_left]
}

/// The convex hull of points without collinear ones, with y downwards clockwise on the screen.
fn hull(points: &[Point]) -> Vec<Point> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let upper = half(points.iter());
    let lower = half(points.iter().rev());
    [&upper[..upper.len() - 1], &lower[..lower.len() - 1]].concat()
}

/// One half of a convex hull: points from one end to the other that turn the same way.
fn half<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<Point> {
    let mut chain: Vec<Point> = Vec::new();
    for point in points {
        while let [.., a, b] = chain[..]
            && cross(minus(b, a), minus(*point, b)) <= 0.0
        {
            chain.pop();
        }
        chain.push(*point);
    }
    chain
}

/// The smallest rectangle around a convex polygon of at least three corners.
///
/// Source: G. Toussaint, "Solving geometric problems with the rotating calipers" (1983): one side
/// of the rectangle lies on a side of the polygon. Four calipers, one per side of the rectangle,
/// turn together.
fn smallest(hull: &[Point]) -> Rectangle {
    let count = hull.len();
    let edges: Vec<Point> = (0..count).map(|i| minus(hull[(i + 1) % count], hull[i])).collect();
    // The places of the lowest, rightmost, highest and leftmost corner, y upwards.
    let extreme = |value: fn(Point) -> f32| {
        let better =
            |best: usize, i: usize| if value(hull[i]) > value(hull[best]) { i } else { best };
        (1..count).fold(0, better)
    };
    let mut seats = [extreme(|p| -p[1]), extreme(|p| p[0]), extreme(|p| p[1]), extreme(|p| -p[0])];
    let mut best = (f32::MAX, Rectangle { corner: [0.0; 2], sides: [[0.0; 2]; 2] });
    for _ in 0..count {
        let turned = |caliper: usize| turn_back(edges[seats[caliper]], caliper);
        let right_of = |v: Point, w: Point| v[1] * w[0] - v[0] * w[1] < 0.0;
        let leader =
            (1..4).fold(0, |best, i| if right_of(turned(i), turned(best)) { i } else { best });
        let edge = turned(leader);
        let scale = (1.0 / f64::from(edge[0]).hypot(f64::from(edge[1]))) as f32;
        let [a, b] = [edge[0] * scale, edge[1] * scale];
        seats[leader] = (seats[leader] + 1) % count;
        let across = minus(hull[seats[1]], hull[seats[3]]);
        let down = minus(hull[seats[2]], hull[seats[0]]);
        let (width, height) = (across[0] * a + across[1] * b, -down[0] * b + down[1] * a);
        if width * height <= best.0 {
            let corner = crossing(hull[seats[3]], hull[seats[0]], [a, b]);
            let sides = [[a * width, b * width], [-b * height, a * height]];
            best = (width * height, Rectangle { corner, sides });
        }
    }
    best.1
}

/// The point whose part along `axis` is that of `left`, and across it that of `bottom`.
fn crossing(left: Point, bottom: Point, [a, b]: Point) -> Point {
    let (along, across) = (a * left[0] + left[1] * b, -b * bottom[0] + bottom[1] * a);
    let scale = 1.0 / (a * a + b * b);
    [(along * a - across * b) * scale, (a * across + b * along) * scale]
}

/// A vector turned back by a number of quarter turns.
fn turn_back([x, y]: Point, quarters: usize) -> Point {
    match quarters {
        0 => [x, y],
        1 => [y, -x],
        2 => [-x, -y],
        _ => [-y, x],
    }
}

fn minus(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

fn cross(a: Point, b: Point) -> f32 {
    a[0] * b[1] - a[1] * b[0]
}
