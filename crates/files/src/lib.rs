//! Files: atomic writes, bounded reads, text from any system, digests, and the error that names a
//! file.
//!
//! Knows bytes and paths; nothing of formats, runs or tensors.

mod atomic;
mod digest;
mod error;
mod read;
pub mod text_file;

pub use atomic::{
    directory_of, is_unfinished, replace_atomically, sync_directory, write_atomically,
};
pub use digest::{Digest, sha256};
pub use error::{Action, FileError};
pub use read::read_whole;
