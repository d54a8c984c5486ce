//! How far an exercise is.

use std::{any::Any, panic::catch_unwind};

use crate::Verdict;

/// How far an exercise is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is still a `todo!()` where the answer should be.
    ToDo,
    /// The law does not hold, and says why.
    NotYet(String),
    /// The answer panicked, with this message.
    Panicked(String),
    /// The law holds.
    Done,
}

/// Runs a law and says how far the answer is.
pub fn state(law: fn() -> Verdict) -> State {
    match catch_unwind(law) {
        Ok(Ok(())) => State::Done,
        Ok(Err(fault)) => State::NotYet(fault.to_string()),
        Err(panic) => {
            let message = message(panic.as_ref());
            // The text with which the macros `todo` and `unimplemented` begin.
            if message.starts_with("not yet implemented") || message.starts_with("not implemented")
            {
                State::ToDo
            } else {
                State::Panicked(message)
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
