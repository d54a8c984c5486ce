//! What the numbers of a configuration may be; each check gives a sentence that begins with the key, or nothing.

/// More pictures, epochs or steps than any run has; what is larger is a slip of the finger.
pub const MOST: usize = 100_000_000;

/// A number of things, from 1 to `most`.
pub fn count(key: &str, value: usize, most: usize) -> Option<String> {
    (!(1..=most).contains(&value)).then(|| format!("{key} ({value}) must lie between 1 and {most}"))
}

/// Above 0 and finite.
pub fn positive(key: &str, value: f64) -> Option<String> {
    (!(value > 0.0 && value.is_finite())).then(|| format!("{key} ({value}) must be a positive number"))
}

/// At least 0 and finite.
pub fn not_negative(key: &str, value: f64) -> Option<String> {
    (!(value >= 0.0 && value.is_finite())).then(|| format!("{key} ({value}) must be at least 0"))
}

/// The largest scale of guidance: far beyond those that leave a picture.
pub const MOST_GUIDANCE: f64 = 100.0;

/// A scale of guidance: above 0 and at most [`MOST_GUIDANCE`].
pub fn guidance(key: &str, value: f64) -> Option<String> {
    (!(value > 0.0 && value <= MOST_GUIDANCE)).then(|| format!("{key} ({value}) must be above 0 and at most {MOST_GUIDANCE}"))
}

/// In `[0, 1)`: a decay.
pub fn decay(key: &str, value: f64) -> Option<String> {
    (!(0.0..1.0).contains(&value)).then(|| format!("{key} ({value}) must be at least 0 and below 1"))
}
