//! What a person sees and presses while the program works: lines, bars, the live view, Ctrl-C, and
//! the exit code.

pub mod interrupt;
pub mod outcome;
pub mod output;
pub mod progress;
pub mod view;
