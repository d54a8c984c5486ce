//! A demo that is not written yet.

use wasm_bindgen::prelude::*;

/// A demo that is not written yet.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Pairs {}

#[wasm_bindgen]
impl Pairs {
    /// Creates the demo.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Pairs {
        Self {}
    }
}
