//! The program that works on a run: its entry in `about.json`, and the command that resumes a run
//! with it.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A program that worked on a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The version of the program.
    pub version: String,
    /// The source revision.
    pub revision: String,
    /// The name of the backend.
    pub backend: String,
    /// The precision of the layers: `f32`, `tf32`, `fp16` or `bf16`.
    #[serde(default = "single")]
    pub precision: String,
    /// The command line, beginning with the program.
    pub command: Vec<String>,
    /// The machine, for people; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// Time of the program's start, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// Whether the program was started by `cargo xtask`, which builds it for a backend.
    #[serde(skip)]
    pub by_xtask: bool,
}

fn single() -> String {
    "f32".to_owned()
}

impl Program {
    /// The backend and its precision, for people.
    pub fn place(&self) -> String {
        format!("{} in {}", self.backend, self.precision)
    }

    /// The command line, as one would type it.
    pub fn command_line(&self) -> String {
        self.command.iter().map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" ")
    }

    /// The command that resumes the run in a directory by `verb`.
    pub fn resume_command(&self, verb: &str, run: &Path) -> String {
        let run = shell_quoted(&run.display().to_string());
        if self.by_xtask {
            let precision = match self.precision.as_str() {
                // Those that a backend has by default.
                "f32" | "tf32" => String::new(),
                name => format!(" --precision {name}"),
            };
            return format!(
                "cargo xtask {verb} --backend {}{precision} --resume {run}",
                self.backend
            );
        }
        let program = self.command.first().map_or("flow-grpo", String::as_str);
        format!("{} {verb} --resume {run}", shell_quoted(program))
    }
}

/// Quotes a word for a shell.
fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_a_shell_is_quoted_where_it_must_be() {
        assert_eq!(shell_quoted("runs/toy-2d_1.5"), "runs/toy-2d_1.5");
        assert_eq!(shell_quoted("a b"), "'a b'");
        assert_eq!(shell_quoted("it's $HOME;x"), r"'it'\''s $HOME;x'");
        assert_eq!(shell_quoted(""), "''");
    }

    #[test]
    fn a_run_is_resumed_by_the_program_or_by_the_tool_that_builds_it() {
        let program = Program {
            version: "1".to_owned(),
            revision: "a".to_owned(),
            backend: "wgpu".to_owned(),
            precision: "fp16".to_owned(),
            command: vec!["my programs/flow-grpo".to_owned(), "train".to_owned()],
            machine: String::new(),
            started: None,
            by_xtask: false,
        };
        let run = Path::new("runs/a");
        let command = program.resume_command("train", run);
        assert_eq!(program.command_line(), "'my programs/flow-grpo' train");
        assert_eq!(command, "'my programs/flow-grpo' train --resume runs/a");
        let by_xtask = Program { by_xtask: true, ..program };
        assert_eq!(
            by_xtask.resume_command("train", run),
            "cargo xtask train --backend wgpu --precision fp16 --resume runs/a"
        );
    }

    #[test]
    fn a_precision_that_a_backend_has_by_default_is_not_in_the_command() {
        let text =
            r#"{"version":"1","revision":"a","backend":"cuda","precision":"tf32","command":[]}"#;
        let program: Program = serde_json::from_str(text).expect("an entry");
        let by_xtask = Program { by_xtask: true, ..program };
        let command = by_xtask.resume_command("train", Path::new("runs/a"));
        assert_eq!(command, "cargo xtask train --backend cuda --resume runs/a");
    }

    #[test]
    fn a_program_from_before_precisions_computed_in_f32() {
        let text = r#"{"version":"1","revision":"a","backend":"flex","command":[]}"#;
        let program: Program = serde_json::from_str(text).expect("an entry");
        assert_eq!(program.place(), "flex in f32");
    }
}
