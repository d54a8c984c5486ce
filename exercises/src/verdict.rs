//! What a law says: nothing, or what is wrong in terms of the mathematics.

use std::fmt;

/// Nothing, or what is wrong.
pub type Verdict = Result<(), Fault>;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{finding}{}", .mistake.as_ref().map(|m| format!("\n{m}")).unwrap_or_default())]
pub struct Fault {
    /// The measured and the expected number.
    pub finding: String,
    /// The usual mistake that gives the measured number, if it is known.
    pub mistake: Option<String>,
}

impl Fault {
    /// A fault of unknown cause.
    pub fn new(finding: impl Into<String>) -> Self {
        Self { finding: finding.into(), mistake: None }
    }

    /// A fault with its cause, or with a hint at where to look for it.
    pub fn with(finding: impl Into<String>, mistake: impl Into<String>) -> Self {
        Self { finding: finding.into(), mistake: Some(mistake.into()) }
    }
}

/// Requires a condition.
///
/// # Errors
/// If it does not hold: `finding`, and `hint` if it is not empty.
pub fn require(holds: bool, finding: impl Into<String>, hint: &str) -> Verdict {
    if holds {
        return Ok(());
    }
    Err(if hint.is_empty() { Fault::new(finding) } else { Fault::with(finding, hint) })
}

/// The explanation of the first cause that is found; empty if none is.
pub fn explain<'a>(causes: &[(bool, &'a str)]) -> &'a str {
    causes.iter().find(|(found, _)| *found).map_or("", |(_, why)| why)
}

/// Requires that a number is the expected one up to rounding.
///
/// `usual` has the numbers that usual mistakes give, each with its explanation: the first that is
/// the answer's number explains the fault.
///
/// # Errors
/// If `got` differs from `expected` by more than a millionth of it, or is not finite.
pub fn number(of: impl fmt::Display, got: f64, expected: f64, usual: &[(f64, &str)]) -> Verdict {
    if near(got, expected) {
        return Ok(());
    }
    let [got_shown, expected_shown] = apart(|digits| [got, expected].map(|x| shown(x, digits)));
    let finding = format!("{of} is {got_shown} instead of {expected_shown}.");
    let mistake = usual.iter().find(|(wrong, _)| near(got, *wrong)).map(|(_, why)| (*why).into());
    Err(Fault { finding, mistake })
}

/// Requires that a list of numbers is the expected one up to rounding; see [`number`].
///
/// # Errors
/// If the lengths differ, or a number differs by more than a millionth of the largest.
pub fn numbers(
    of: impl fmt::Display,
    got: &[f64],
    expected: &[f64],
    usual: &[(Vec<f64>, &str)],
) -> Verdict {
    let largest = expected.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let close = |wrong: &[f64]| {
        got.len() == wrong.len()
            && got.iter().zip(wrong).all(|(a, b)| (a - b).abs() <= 1e-6 * largest.max(1e-6))
    };
    if close(expected) {
        return Ok(());
    }
    let [got_shown, expected_shown] = apart(|digits| [got, expected].map(|x| listed(x, digits)));
    let finding = format!("{of} are {got_shown} instead of {expected_shown}.");
    let mistake = usual.iter().find(|(wrong, _)| close(wrong)).map(|(_, why)| (*why).into());
    Err(Fault { finding, mistake })
}

fn near(got: f64, expected: f64) -> bool {
    expected.is_finite() && (got - expected).abs() <= 1e-6 * expected.abs().max(1e-6)
}

/// Two texts with as few digits more than usual as tell them apart.
fn apart(texts: impl Fn(usize) -> [String; 2]) -> [String; 2] {
    let more = (0..8).find(|digits| texts(*digits)[0] != texts(*digits)[1]);
    texts(more.unwrap_or(0))
}

/// Four digits that count, and some more.
fn shown(number: f64, more: usize) -> String {
    if number == 0.0 || (1e-3..1e5).contains(&number.abs()) {
        let digits = if number.abs() < 0.1 { 5 } else { 3 } + more;
        format!("{number:.digits$}")
    } else {
        let digits = 3 + more;
        format!("{number:.digits$e}")
    }
}

fn listed(numbers: &[f64], more: usize) -> String {
    let some: Vec<String> = numbers.iter().take(8).map(|number| shown(*number, more)).collect();
    let rest = if numbers.len() > 8 { ", …" } else { "" };
    format!("[{}{rest}]", some.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_without_a_number_explains_no_answer() {
        let usual = [(f64::INFINITY, "divided by zero"), (f64::NAN, "0/0"), (2.0, "doubled")];
        let mistake = |got| number("It", got, 1.0, &usual).expect_err("it is not 1").mistake;
        assert_eq!(mistake(3.0), None);
        assert_eq!(mistake(2.0).as_deref(), Some("doubled"));
    }
}
