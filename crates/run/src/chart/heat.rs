//! A heat map: numbers by row and place as colours of one hue, on a logarithmic scale.

use maud::{Markup, html};

use super::{Axis, BOTTOM, LEFT, RIGHT, TOP, color};

/// A heat map.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heat {
    /// The names of the rows, from top to bottom.
    pub rows: Vec<String>,
    /// The places of the columns on the horizontal axis, from left to right.
    pub columns: Vec<f64>,
    /// The positive numbers, by row and column; what is missing stays blank.
    pub cells: Vec<Vec<Option<f64>>>,
}

/// Number of shades.
const SHADES: usize = 10;
/// The scale below the map: left edge, top edge, and width and height of a shade.
const SCALE: [f64; 4] = [LEFT + 66.0, BOTTOM + 28.0, 14.0, 12.0];

impl Heat {
    /// The ends of the scale: below the first are 5 % of the numbers, so that few tiny ones do not
    /// take most of the shades; above the last is none. `None` without numbers.
    pub fn range(&self) -> Option<[f64; 2]> {
        let mut numbers: Vec<f64> = self.cells.iter().flatten().flatten().copied().collect();
        numbers.sort_by(f64::total_cmp);
        Some([*numbers.get(numbers.len() / 20)?, *numbers.last()?])
    }

    /// The edges of the columns: halfway between the places.
    fn edges(&self) -> Vec<f64> {
        let [first, .., last] = self.columns[..] else {
            return self.columns.iter().flat_map(|x| [x - 0.5, x + 0.5]).collect();
        };
        let between = self.columns.windows(2).map(|pair| f64::midpoint(pair[0], pair[1]));
        std::iter::once(first).chain(between).chain([last]).collect()
    }
}

/// The content of an `svg` of the size of charts. Nothing if there is no number.
pub(crate) fn heat(map: &Heat, x_name: &str) -> Markup {
    let Some([low, high]) = map.range() else { return html! {} };
    let edges = map.edges();
    let x = Axis::of(&edges, 0.0, 8.0);
    let height = (BOTTOM - TOP) / map.rows.len() as f64;
    let shade = |value: f64| {
        let share = if high > low { (value / low).ln() / (high / low).ln() } else { 1.0 };
        ((share.max(0.0) * SHADES as f64) as usize).min(SHADES - 1)
    };
    // A path for each shade: a run has a thousand cells.
    let mut paths = vec![String::new(); SHADES];
    for (row, cells) in map.cells.iter().enumerate() {
        let top = TOP + height * row as f64;
        for (cell, edge) in cells.iter().zip(edges.windows(2)) {
            if let Some(value) = cell {
                let [left, right] = [edge[0], edge[1]].map(|at| x.place(at, LEFT, RIGHT));
                paths[shade(*value)] +=
                    &format!("M{left:.1} {top:.1}H{right:.1}v{height:.1}H{left:.1}z");
            }
        }
    }
    let [scale_x, scale_y, width, tall] = SCALE;
    html! {
        @for (index, path) in paths.iter().enumerate() {
            path .heat d=(path) fill=(color(0)) fill-opacity=(opacity(index)) {}
        }
        @for (row, name) in map.rows.iter().enumerate() {
            text x=(LEFT - 8.0) y=(format!("{:.1}", TOP + height * (row as f64 + 0.5))) dy="0.35em"
                text-anchor="end" { (name) }
        }
        g .axes {
            @for value in x.labels() {
                @let place = format!("{:.1}", x.place(value, LEFT, RIGHT));
                line x1=(place) x2=(place) y1=(BOTTOM) y2=(BOTTOM + 5.0) stroke="#888" {}
                text x=(place) y=(BOTTOM + 20.0) text-anchor="middle" { (x.label(value)) }
            }
        }
        text x=(scale_x - 8.0) y=(scale_y + 11.0) text-anchor="end" { (format!("≤ {low:.1e}")) }
        @for index in 0..SHADES {
            rect .heat x=(scale_x + width * index as f64) y=(scale_y) width=(width) height=(tall)
                fill=(color(0)) fill-opacity=(opacity(index)) {}
        }
        text x=(scale_x + width * SHADES as f64 + 8.0) y=(scale_y + 11.0) {
            (format!("{high:.1e}"))
        }
        text x=(RIGHT) y=(BOTTOM + 39.0) text-anchor="end" { (x_name) }
    }
}

fn opacity(shade: usize) -> String {
    format!("{:.1}", (shade + 1) as f64 / SHADES as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(cells: Vec<Vec<Option<f64>>>) -> Heat {
        let rows = (0..cells.len()).map(|row| format!("row {row}")).collect();
        Heat { rows, columns: vec![1.0, 2.0, 3.0], cells }
    }

    #[test]
    fn shades_follow_the_logarithm_and_missing_cells_stay_blank() {
        let rows = vec![vec![Some(1e-6), Some(1e-3), Some(1.0)], vec![None, Some(1e-3), None]];
        let svg = heat(&map(rows), "epochs").into_string();
        let drawn = |opacity: &str| {
            let end = format!("\" fill=\"#1f77b4\" fill-opacity=\"{opacity}\"");
            let path =
                svg.split("<path class=\"heat\" d=\"").find_map(|text| text.split_once(&end));
            path.map_or(0, |(path, _)| path.matches('M').count())
        };
        assert_eq!([drawn("0.1"), drawn("0.6"), drawn("1.0")], [1, 2, 1], "{svg}");
        assert!(svg.contains(">≤ 1.0e-6<") && svg.contains(">1.0e0<"), "{svg}");
        // The first column is half as wide as the second: its place is the left edge.
        assert!(svg.contains("d=\"M66.0 10.0H206.0v98.0H66.0z\""), "{svg}");
    }

    #[test]
    fn a_twentieth_of_the_numbers_may_be_below_the_scale() {
        let numbers = (0..40).map(|i| Some(if i < 2 { 1e-9 } else { 1.0 + f64::from(i) }));
        let map =
            Heat { columns: (0..40).map(f64::from).collect(), ..map(vec![numbers.collect()]) };
        assert_eq!(map.range(), Some([3.0, 40.0]));
        assert!(heat(&map, "").into_string().contains("<path class=\"heat\" d=\"M66.0 10.0H"));
    }

    #[test]
    fn one_column_and_equal_numbers_are_drawn_and_none_are_not() {
        let one = Heat { columns: vec![4.0], ..map(vec![vec![Some(2.0)]]) };
        assert!(heat(&one, "").into_string().contains("M66.0 10.0H626.0v196.0H66.0z"));
        assert!(heat(&map(vec![vec![None; 3]]), "").into_string().is_empty());
    }
}
