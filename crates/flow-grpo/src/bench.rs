//! Measurements of time and memory.

pub mod count;
pub mod directory;
pub mod parts;
pub mod scale;

/// The smallest, median and largest time.
pub fn spread(seconds: &[f64]) -> [f64; 3] {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_smallest_median_largest() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0]), [4.0, 4.0, 4.0]);
    }
}
