//! Faults of a judge, and the error that says where one happened.

use std::{ops::Range, time::Duration};

use thiserror::Error;

/// A batch of images was not scored.
#[derive(Clone, Debug, Error, PartialEq)]
#[error(
    "the judge at {server} did not score {} (prompt {prompt:?}){}: {fault}",
    words(images),
    tries(*attempts)
)]
pub struct JudgeError {
    /// Address of the judge.
    pub server: String,
    /// Indices of the images concerned: one image, or all of one request.
    pub images: Range<usize>,
    /// Prompt of the first of these images.
    pub prompt: String,
    /// How often the request was sent.
    pub attempts: u32,
    /// The last fault.
    pub fault: Box<Fault>,
}

/// A judge is not ready for a run.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("the judge at {server} is not ready: {fault}")]
pub struct CheckError {
    /// Address of the judge.
    pub server: String,
    /// The fault.
    pub fault: Fault,
}

fn words(images: &Range<usize>) -> String {
    match images.len() {
        0 | 1 => format!("image {}", images.start),
        _ => format!("images {} to {}", images.start, images.end - 1),
    }
}

fn tries(attempts: u32) -> String {
    match attempts {
        0 | 1 => String::new(),
        _ => format!(" in {attempts} attempts"),
    }
}

/// A reason why a request or an image has no score.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Fault {
    /// No connection. Cured by a retry: servers restart.
    #[error("no connection: {0}; is the server running, and is the address right?")]
    Unreachable(String),
    /// The connection broke before the whole answer was there. Cured by a retry.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No whole answer within the time allowed. Cured by a retry.
    #[error(
        "no answer within {} s; is `timeout_seconds` too short for its batch?",
        .0.as_secs_f64()
    )]
    Timeout(Duration),
    /// Status 429 or 503 with the wait that the server asks for, if it does. Cured by a retry.
    #[error("the server is busy (status {status}): {message}")]
    Busy {
        /// The HTTP status.
        status: u16,
        /// The wait that the server asks for.
        wait: Option<Duration>,
        /// The server's explanation.
        message: String,
    },
    /// Another status of 500 and above. Cured by a retry.
    #[error("the server failed (status {status}): {message}")]
    Failed {
        /// The HTTP status.
        status: u16,
        /// The server's explanation.
        message: String,
    },
    /// Another status that is no success. A retry would get the same answer.
    #[error("the server refuses the request (status {status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's explanation.
        message: String,
    },
    /// TLS or another part of the exchange failed in a way that a retry does not cure.
    #[error("the exchange failed: {0}")]
    Exchange(String),
    /// The answer is not of the protocol. Not retried: a whole answer of status 200 that makes no
    /// sense is a wrong address, a wrong protocol or a defect of the server.
    #[error("the answer is malformed: {0}; is this the right protocol?")]
    Malformed(String),
    /// The answer has another number of scores than the request has images.
    #[error("the answer has {scores} scores for {images} images")]
    Count {
        /// Scores in the answer.
        scores: usize,
        /// Images in the request.
        images: usize,
    },
    /// A score is NaN or infinite, or not a number at all.
    #[error("the score is {0}, not a finite number")]
    NotFinite(String),
    /// The server says why it cannot score this image.
    #[error("the server says: {0}")]
    Unjudged(String),
    /// A language model's answer has no score.
    #[error("the answer has no score after {marker:?}: {answer:?}")]
    Unscored {
        /// The words before the score that is missing.
        marker: String,
        /// The end of the answer.
        answer: String,
    },
    /// The request cannot be written.
    #[error("the request cannot be written: {0}")]
    Request(String),
}

impl Fault {
    /// Whether sending the same request again can help.
    pub fn is_curable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Broken(_)
                | Self::Timeout(_)
                | Self::Busy { .. }
                | Self::Failed { .. }
        )
    }
}

/// The end of a text, of at most 300 characters: a traceback ends with its cause.
pub(crate) fn end_of(text: &str) -> String {
    const LONGEST: usize = 300;
    let text = text.trim();
    match text.char_indices().rev().nth(LONGEST - 1) {
        Some((start, _)) if start > 0 => format!("…{}", &text[start..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_server_images_prompt_and_reason() {
        let error = JudgeError {
            server: "http://here".to_owned(),
            images: 4..8,
            prompt: "a cube".to_owned(),
            attempts: 3,
            fault: Box::new(Fault::Broken("reset".to_owned())),
        };
        assert_eq!(
            error.to_string(),
            "the judge at http://here did not score images 4 to 7 (prompt \"a cube\") in 3 \
             attempts: the connection broke: reset"
        );
    }

    #[test]
    fn a_long_text_keeps_its_end() {
        assert_eq!(end_of(" short "), "short");
        let long = format!("{}end", "é".repeat(500));
        assert_eq!(end_of(&long), format!("…{}end", "é".repeat(297)));
    }
}
