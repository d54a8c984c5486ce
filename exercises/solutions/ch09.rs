use crate::picture::{Picture, SIDE, picture};

// ANCHOR: cleanliness
/// 9.1: the median distance of a pixel to the mean of its neighbours. An edge is few pixels; speckle is
/// everywhere. Can you find a picture that cheats this one?
pub fn cleanliness(picture: &Picture) -> f64 {
    let mut details = Vec::new();
    for row in 1..SIDE - 1 {
        for column in 1..SIDE - 1 {
            let around = picture[row - 1][column] + picture[row + 1][column];
            let mean = (around + picture[row][column - 1] + picture[row][column + 1]) / 4.0;
            details.push((picture[row][column] - mean).abs());
        }
    }
    details.sort_by(f64::total_cmp);
    1.0 / (1.0 + (details[details.len() / 2] / 0.03).powi(2))
}
// ANCHOR_END: cleanliness

// ANCHOR: cheating_picture
/// 9.2: a ramp from black to white. Every pixel is the mean of its neighbours.
pub fn cheating_picture() -> Picture {
    picture(|_, column| column as f64 / (SIDE - 1) as f64)
}
// ANCHOR_END: cheating_picture
