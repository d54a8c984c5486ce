//! Checks of the sizes in a network's configuration.

/// Upper bound on every size of a network.
const LARGEST: usize = 1 << 20;
/// Upper bound on the number of layers.
const MOST_LAYERS: usize = 1024;

/// Lists the sizes and the number of layers of a configuration that are out of range, one sentence
/// each.
pub(crate) fn out_of_range(sizes: &[(&str, usize)], layers: (&str, usize)) -> Vec<String> {
    let all = sizes.iter().map(|&(name, value)| (name, value, LARGEST)).chain([(
        layers.0,
        layers.1,
        MOST_LAYERS,
    )]);
    let wrong = all.filter(|(_, value, most)| !(1..=*most).contains(value));
    wrong
        .map(|(name, value, most)| format!("{name} ({value}) must lie between 1 and {most}"))
        .collect()
}

/// Explains why an epsilon is not between 0 and 1; `None` if it is.
pub(crate) fn not_an_epsilon(name: &str, value: f64) -> Option<String> {
    (!(value > 0.0 && value < 1.0))
        .then(|| format!("{name} ({value}) must be a small positive number"))
}

/// Explains that a configuration is of another class than the one that is read; `None` if it is of
/// this one.
pub(crate) fn wrong_class(found: &str, wanted: &str) -> Option<String> {
    (found != wanted).then(|| format!("_class_name is {found}, not {wanted}"))
}

/// Explains that two sizes that must be equal are not; `None` if they are.
pub(crate) fn unequal(this: (&str, usize), that: (&str, usize)) -> Option<String> {
    let ((this, size), (that, other)) = (this, that);
    (size != other).then(|| format!("{this} is {size}, {that} {other}: they must be equal"))
}
