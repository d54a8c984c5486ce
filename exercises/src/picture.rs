//! Small grey pictures for chapter 9.

/// The number of rows and columns of a picture.
pub const SIDE: usize = 16;

/// Brightness from 0 to 1, row by row.
pub type Picture = [[f64; SIDE]; SIDE];

/// A picture from the brightness at row and column.
pub fn picture(of: impl Fn(usize, usize) -> f64) -> Picture {
    std::array::from_fn(|row| std::array::from_fn(|column| of(row, column).clamp(0.0, 1.0)))
}

/// A bright disc on a background of this brightness.
pub fn disc(background: f64) -> Picture {
    picture(|row, column| {
        let squared = (row as f64 - 7.5).powi(2) + (column as f64 - 7.5).powi(2);
        if squared < 16.0 { 0.95 } else { background }
    })
}

/// The reward of exercise 9.2 for a clean background: 1 without details, less the more a pixel differs
/// from the mean of its four neighbours.
///
/// ```text
/// 1 / (1 + 2000 · mean (p − p̄)²)        over the inner pixels
/// ```
pub fn smoothness(picture: &Picture) -> f64 {
    let inner = || 1..SIDE - 1;
    let detail = |row: usize, column: usize| {
        let around = picture[row - 1][column] + picture[row + 1][column];
        picture[row][column] - (around + picture[row][column - 1] + picture[row][column + 1]) / 4.0
    };
    let squares = inner().flat_map(|row| inner().map(move |column| (row, column)));
    let sum: f64 = squares.map(|(row, column)| detail(row, column).powi(2)).sum();
    1.0 / (1.0 + 2000.0 * sum / ((SIDE - 2) * (SIDE - 2)) as f64)
}

/// What was wanted: the share of pixels within 0.05 of the median.
pub fn evenness(picture: &Picture) -> f64 {
    let mut all: Vec<f64> = picture.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let median = all[all.len() / 2];
    all.iter().filter(|p| (**p - median).abs() < 0.05).count() as f64 / all.len() as f64
}
