//! The verbs of the command line: arguments beside bodies, one file each.

pub mod config;
pub mod data;
pub mod encoder;
pub mod score;
pub mod serve;
