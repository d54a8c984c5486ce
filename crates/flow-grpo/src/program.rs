//! This program, as run directories describe it.

use run::Program;

use crate::backend;

/// Describes this program.
pub fn program() -> Program {
    let arguments = std::env::args_os();
    Program {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: env!("FLOW_GRPO_REVISION").to_owned(),
        backend: backend::NAME.to_owned(),
        precision: backend::PRECISION_NAME.to_owned(),
        command: arguments.map(|argument| argument.to_string_lossy().into_owned()).collect(),
        by_xtask: std::env::var_os("FLOW_GRPO_XTASK").is_some(),
    }
}
