//! Range checks for configurations; each returns a sentence that begins with the key, or `None`.

/// Upper bound on images, epochs and steps; a larger number is a typing error.
pub const MOST: usize = 100_000_000;

/// Checks a count: from 1 to `most`.
pub fn count(key: &str, value: usize, most: usize) -> Option<String> {
    (!(1..=most).contains(&value)).then(|| format!("{key} ({value}) must lie between 1 and {most}"))
}

/// Checks a positive number: above 0 and finite.
pub fn positive(key: &str, value: f64) -> Option<String> {
    (!(value > 0.0 && value.is_finite()))
        .then(|| format!("{key} ({value}) must be a positive number"))
}

/// Checks a non-negative number: at least 0 and finite.
pub fn not_negative(key: &str, value: f64) -> Option<String> {
    (!(value >= 0.0 && value.is_finite())).then(|| format!("{key} ({value}) must be at least 0"))
}

/// The largest guidance scale, far beyond useful ones.
pub const MOST_GUIDANCE: f64 = 100.0;

/// Checks a guidance scale: above 0 and at most [`MOST_GUIDANCE`].
pub fn guidance(key: &str, value: f64) -> Option<String> {
    (!(value > 0.0 && value <= MOST_GUIDANCE))
        .then(|| format!("{key} ({value}) must be above 0 and at most {MOST_GUIDANCE}"))
}

/// Checks a decay: in `[0, 1)`.
pub fn decay(key: &str, value: f64) -> Option<String> {
    (!(0.0..1.0).contains(&value))
        .then(|| format!("{key} ({value}) must be at least 0 and below 1"))
}
