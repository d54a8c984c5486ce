//! Text output: the log on standard error, results on standard output. No other file prints lines
//! to either.
//!
//! Prompts, paths and checkpoints are untrusted: control and invisible characters are shown
//! escaped.

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stderr, stdout},
};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes a line to the log; if nobody reads it or the disk is full, only the line is lost.
pub fn log(line: impl Display) {
    let _ = writeln!(stderr().lock(), "{}", shown(&line.to_string()));
}

/// Writes a result, which ends with its own line break; a reader that has closed the pipe (`|
/// head`) is no error.
///
/// # Errors
/// If standard output fails for another reason, for example a full disk.
pub fn print(text: impl Display) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(shown(&text.to_string()).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes a result as one line of JSON, in which every character is visible.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let mut line = String::new();
    for c in serde_json::to_string(value)?.chars() {
        if !is_invisible(c) && !c.is_control() {
            line.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line += &format!("\\u{unit:04x}");
            }
        }
    }
    let mut out = stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Number of characters of a line that are shown.
const LONGEST_LINE: usize = 10_000;

/// Makes a text safe to print: lines of a limited length, in which every character is visible.
pub fn shown(text: &str) -> String {
    let cut = |line: &str| {
        let length = line.chars().count();
        let mut shown: String = line.chars().take(LONGEST_LINE).map(visible).collect();
        if length > LONGEST_LINE {
            shown += &format!("… ({} more characters)", length - LONGEST_LINE);
        }
        shown
    };
    text.split('\n').map(cut).collect::<Vec<_>>().join("\n")
}

fn visible(c: char) -> String {
    if c != '\t' && (c.is_control() || is_invisible(c)) {
        c.escape_unicode().to_string()
    } else {
        c.to_string()
    }
}

/// Whether a character has no width or changes the direction of text, so that a text looks like
/// another one.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_or_nobody_can_see_is_escaped() {
        assert_eq!(shown("a red\tcircle, größer 三\n  - b"), "a red\tcircle, größer 三\n  - b");
        assert_eq!(shown("\u{feff}a"), "\\u{feff}a");
        assert_eq!(shown("a\x1b[2J\rb"), "a\\u{1b}[2J\\u{d}b");
        assert_eq!(shown("\u{202e}cba"), "\\u{202e}cba");
    }

    #[test]
    fn a_line_of_megabytes_is_cut_and_says_so() {
        let text = shown(&format!("first\n{}", "x".repeat(1_000_000)));
        assert!(
            text.len() < 2 * LONGEST_LINE && text.ends_with("… (990000 more characters)"),
            "{}",
            text.len()
        );
    }
}
