//! Makes the JavaScript side of the book's demos from the compiled crate `demos`.
//!
//! `bind FILE.wasm FOLDER` writes `wasm.js` and `wasm_bg.wasm` into the folder. The program
//! `wasm-bindgen` does the same, but must have the version of the crate wasm-bindgen; here the lock
//! file of the workspace sees to that.

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next().context("usage: bind FILE.wasm FOLDER")?;
    let folder = arguments.next().context("usage: bind FILE.wasm FOLDER")?;
    let mut bindgen = Bindgen::new();
    bindgen.input_path(file).out_name("wasm").typescript(false);
    // The JavaScript side finds the WebAssembly beside itself.
    bindgen.omit_default_module_path(false);
    bindgen.web(true)?.generate(folder)
}
