//! Wrong answers that people give, each with what its law must say about it.

mod ch01;
mod ch02;
mod ch03;
mod ch04;
mod ch05;
mod ch06;
mod ch07;
mod ch14;
mod later;

use exercises::Verdict;

/// A wrong answer.
pub struct Mutant {
    pub number: &'static str,
    /// What is wrong with it.
    pub mistake: &'static str,
    /// What its law said.
    pub verdict: Verdict,
    /// What the law must say, among other things.
    pub says: &'static str,
}

/// All wrong answers.
pub fn all() -> Vec<Mutant> {
    let early = [ch01::all, ch02::all, ch03::all, ch04::all, ch05::all, ch06::all, ch07::all];
    let chapters = early.iter().chain(&[later::all, ch14::all]);
    chapters.flat_map(|chapter| chapter()).collect()
}

fn mutant(
    number: &'static str,
    mistake: &'static str,
    says: &'static str,
    verdict: Verdict,
) -> Mutant {
    Mutant { number, mistake, verdict, says }
}
