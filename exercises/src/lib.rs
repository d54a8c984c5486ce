//! The exercises of the book, which check themselves.
//!
//! `ch01` to `ch14` are yours: functions with `todo!()` where you write, and four small programs
//! with a bug that you find. An exercise has a law in [`laws`], a property that every right answer
//! has and that is tried with many random numbers; it explains a failure in terms of the mathematics.
//! A solution lies in `solutions/`.
//!
//! ```text
//! cargo xtask exercise                   the list, with the state of each
//! cargo xtask exercise 3.2               runs the law of 3.2
//! cargo xtask exercise 3.2 --solution    shows the solution
//! cargo xtask exercise 3.3 --curves      draws the curves of a debugging exercise
//! ```
//!
//! Plain `f64` and `Vec`; no tensors, no files, and nothing of the other crates, so that a change is
//! compiled and checked in seconds.

pub mod attention;
pub mod ch01;
pub mod ch02;
pub mod ch03;
pub mod ch04;
pub mod ch05;
pub mod ch06;
pub mod ch07;
pub mod ch08;
pub mod ch09;
pub mod ch10;
pub mod ch11;
pub mod ch12;
pub mod ch13;
pub mod ch14;

mod catalog;
mod chart;
pub mod epochs;
pub mod laws;
mod noise;
pub mod picture;
pub mod solutions;
mod state;
pub mod toy;
mod verdict;

pub use catalog::{Exercise, Level, Program, catalog, find};
pub use chart::{Curve, charts};
pub use noise::Noise;
pub use state::{State, state};
pub use verdict::{Fault, Verdict, explain, number, numbers, require};
