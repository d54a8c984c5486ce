//! The streams of a transformer: what joint attention reads.

/// Queries, keys and values of one stream: a row per token, all rows of the same width.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// What each token asks.
    pub queries: Vec<Vec<f64>>,
    /// What each token answers to.
    pub keys: Vec<Vec<f64>>,
    /// What each token gives.
    pub values: Vec<Vec<f64>>,
}
