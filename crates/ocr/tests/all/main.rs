//! The reader and the reward from outside: goldens, laws, bad input, an independent reader.

mod damaged;
mod images;
mod independent;
mod reward;

use ocr::{Options, Reader};

/// A reader with the built-in networks.
fn reader() -> Reader {
    Reader::built_in(Options::default()).expect("reader")
}
