//! Text files from any system: UTF-8, with a size limit and normalised line ends.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read},
    path::Path,
};

use crate::{Action, FileError};

/// Largest accepted file, in bytes.
const MOST: u64 = 256 << 20;

/// Reads a text file, without its byte order mark and with every line end as `\n`.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, or is too large; `/dev/zero` never ends.
pub fn read(path: &Path) -> Result<String, FileError> {
    text(path).map_err(Action::Read.failed_on(path))
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(Error::other(format!("it is larger than {} MiB", MOST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .split(|byte| *byte == b'\n')
            .count();
        Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(bytes: &[u8]) -> Result<String, FileError> {
        let path = std::env::temp_dir().join(format!(
            "flow-grpo-text-{}-{}",
            std::process::id(),
            bytes.len()
        ));
        std::fs::write(&path, bytes).expect("written");
        let text = read(&path);
        std::fs::remove_file(&path).expect("removed");
        text
    }

    #[test]
    fn marks_and_line_ends_of_other_systems_are_no_part_of_a_text() {
        for (bytes, text) in [
            (&b"\xef\xbb\xbfa cat\na dog\n"[..], "a cat\na dog\n"),
            (b"a cat\ra dog\r", "a cat\na dog\n"),
            (b"a cat\r\na dog\r\n", "a cat\na dog\n"),
            (b"a \xef\xbb\xbfcat", "a \u{feff}cat"),
        ] {
            assert_eq!(read_of(bytes).expect("a text"), text);
        }
    }

    #[test]
    fn what_is_no_text_says_where() {
        assert!(
            read_of(b"one\ntwo\n\xff\n")
                .expect_err("not UTF-8")
                .source
                .to_string()
                .contains("line 3 is not UTF-8")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_an_end_is_refused() {
        assert!(
            read(Path::new("/dev/zero"))
                .expect_err("endless")
                .source
                .to_string()
                .contains("larger than 256 MiB")
        );
    }
}
