//! Files of metadata, and files of detections: one image per line in, one answer per line out.
//!
//! A line of detections is `{"metadata": {a line of GenEval}, "detections": [{"class": "bench", "box": [x0, y0,
//! x1, y1], "score": 0.91, "color": "red", "mask": {"size": [height, width], "counts": [runs]}}, …],
//! "image": "00000/samples/0000.png"}`; colour, mask and image are optional. The answer is
//! `{"official": bool, "strict": bool, "reward": x, "reward_reference": x}`.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;

use super::{Detection, FailedPosition, Metadata, ScoreError, Scores, Table, score};

/// No accepted line is this long, in bytes.
const LONGEST: u64 = 16 << 20;

/// One line of a file of detections.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    metadata: Metadata,
    detections: Vec<Detection>,
    #[serde(default)]
    image: Option<String>,
}

/// An image of a file of detections, before it is scored.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Index of the image among those of the file.
    pub index: usize,
    /// The path of the image, if the line has one.
    pub image: Option<&'a str>,
    /// The prompt.
    pub metadata: &'a Metadata,
    /// The detections.
    pub detections: &'a mut [Detection],
}

/// Scores a file of detections and writes an answer for each of its lines; empty lines are skipped.
///
/// Answers are written line by line: those above a bad line are out when it is reported.
///
/// # Errors
/// The first line that cannot be read or scored, an input without lines, or a failed write.
pub fn score_lines(input: impl BufRead, output: impl Write) -> Result<Table, LinesError> {
    score_lines_by(FailedPosition::Zero, input, output)
}

/// Scores a file like [`score_lines`]; the number `reward` is by the given rule, in the answers and
/// in the table.
///
/// # Errors
/// As [`score_lines`].
pub fn score_lines_by(
    failed_position: FailedPosition,
    input: impl BufRead,
    output: impl Write,
) -> Result<Table, LinesError> {
    score_seen(failed_position, input, output, |_| Ok(()))
}

/// Scores a file like [`score_lines_by`], after `look` has seen each image and its detections, to
/// which it may give colours.
///
/// # Errors
/// As [`score_lines`], or the first image that `look` refuses, with its reason.
pub fn score_seen(
    failed_position: FailedPosition,
    input: impl BufRead,
    mut output: impl Write,
    mut look: impl FnMut(Seen<'_>) -> Result<(), String>,
) -> Result<Table, LinesError> {
    let mut table = Table::default();
    let mut lines = Lines { input, number: 0 };
    let mut index = 0;
    while let Some((line, text)) = lines.next()? {
        let Line { metadata, mut detections, image } = parse(line, &text)?;
        let (image, seen) = (image.as_deref(), &mut detections[..]);
        look(Seen { index, image, metadata: &metadata, detections: seen })
            .map_err(|reason| LinesError::Unseen { line, reason })?;
        index += 1;
        let scores = score_by(failed_position, &metadata, &detections)
            .map_err(|problem| LinesError::Refused { line, problem })?;
        let answer = serde_json::to_string(&scores).map_err(io::Error::from);
        answer
            .and_then(|answer| writeln!(output, "{answer}"))
            .map_err(|source| LinesError::Write { source })?;
        table.add(&metadata, scores);
    }
    output.flush().map_err(|source| LinesError::Write { source })?;
    if table.is_empty() { Err(LinesError::Empty) } else { Ok(table) }
}

/// Reads a file of metadata, GenEval's `evaluation_metadata.jsonl`: one prompt per line; empty lines
/// are skipped.
///
/// # Errors
/// The first line that is not in GenEval's format, or an input without lines.
pub fn read_metadata(input: impl BufRead) -> Result<Vec<Metadata>, LinesError> {
    let mut prompts = Vec::new();
    let mut lines = Lines { input, number: 0 };
    while let Some((line, text)) = lines.next()? {
        let metadata: Metadata = parse(line, &text)?;
        metadata.check().map_err(|problem| LinesError::Refused { line, problem })?;
        prompts.push(metadata);
    }
    if prompts.is_empty() { Err(LinesError::Empty) } else { Ok(prompts) }
}

/// Scores an image; the number `reward` is by the given rule.
fn score_by(
    failed_position: FailedPosition,
    metadata: &Metadata,
    detections: &[Detection],
) -> Result<Scores, ScoreError> {
    let mut scores = score(metadata, detections)?;
    if failed_position == FailedPosition::ZeroAndOne {
        scores.reward = scores.reward_reference;
    }
    Ok(scores)
}

/// Parses a line, given its number.
fn parse<T: DeserializeOwned>(line: usize, text: &[u8]) -> Result<T, LinesError> {
    serde_json::from_slice(text).map_err(|error| malformed(line, &error))
}

/// A JSON error under the line number of the file: the parser sees one line and calls it 1.
fn malformed(line: usize, error: &serde_json::Error) -> LinesError {
    let column = error.column();
    let text = error.to_string();
    let place = format!(" at line {} column {column}", error.line());
    let reason = text.strip_suffix(&place).unwrap_or(&text).to_owned();
    LinesError::Malformed { line, column, reason }
}

/// The non-empty lines of an input, with their numbers.
struct Lines<R> {
    input: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<(usize, Vec<u8>)>, LinesError> {
        loop {
            self.number += 1;
            let line = self.number;
            let mut text = Vec::new();
            self.input
                .by_ref()
                .take(LONGEST)
                .read_until(b'\n', &mut text)
                .map_err(|source| LinesError::Read { line, source })?;
            if text.is_empty() {
                return Ok(None);
            }
            if text.len() as u64 == LONGEST {
                return Err(LinesError::TooLong { line });
            }
            if line == 1 && text.starts_with("\u{feff}".as_bytes()) {
                text.drain(..3);
            }
            if !text.trim_ascii().is_empty() {
                return Ok(Some((line, text)));
            }
        }
    }
}

/// A file of detections could not be scored. Lines and columns count from 1.
#[derive(Debug, Error)]
pub enum LinesError {
    /// A line could not be read.
    #[error("cannot read line {line}")]
    Read {
        /// Number of the line.
        line: usize,
        /// The system's error.
        source: io::Error,
    },
    /// A line is too long for these files.
    #[error("line {line} has more than {} MB; is this a text file?", LONGEST >> 20)]
    TooLong {
        /// Number of the line.
        line: usize,
    },
    /// A line is no JSON, or not in the format.
    #[error("line {line}, column {column}: {reason}")]
    Malformed {
        /// Number of the line.
        line: usize,
        /// Number of the column.
        column: usize,
        /// Description of the problem.
        reason: String,
    },
    /// A line has values that cannot be.
    #[error("line {line}: {problem}")]
    Refused {
        /// Number of the line.
        line: usize,
        /// The problem.
        problem: ScoreError,
    },
    /// An image could not be looked at.
    #[error("line {line}: {reason}")]
    Unseen {
        /// Number of the line.
        line: usize,
        /// The problem.
        reason: String,
    },
    /// The input has no line.
    #[error("there is no line to read")]
    Empty,
    /// An answer could not be written.
    #[error("cannot write the answers")]
    Write {
        /// The system's error.
        source: io::Error,
    },
}
