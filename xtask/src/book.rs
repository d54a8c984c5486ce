//! Builds the mdBook. The tools come from the crate registry and stay in `target/tools`.

mod table;

use std::{path::Path, process::Command};

use anyhow::Result;
use clap::Args;

use crate::app::{cargo, succeed};

const TOOLS: &str = "target/tools";
/// The needed tools with their versions.
const NEEDED: [(&str, &str); 2] = [("mdbook", "0.5.4"), ("mdbook-katex", "0.10.0")];

/// Options of `book`.
#[derive(Args, Debug)]
pub struct BookArgs {
    /// Prints the words, figures, exercises and demos of every chapter as a table instead.
    #[arg(long)]
    table: bool,
}

/// Builds the book, or prints the table of its content.
pub fn book(args: &BookArgs) -> Result<()> {
    if args.table { table::print() } else { build() }
}

/// Builds the book into `book/book`.
pub fn build() -> Result<()> {
    for (tool, version) in NEEDED {
        let program = Path::new(TOOLS).join("bin").join(tool);
        if !program.exists() {
            println!("installing {tool} {version} into {TOOLS}");
            let mut install = cargo();
            install.args([
                "install",
                "--quiet",
                "--locked",
                "--root",
                TOOLS,
                "--version",
                version,
                tool,
            ]);
            install.env("CARGO_TARGET_DIR", "target/tools-build");
            succeed(&mut install, "the tool does not install")?;
        }
    }
    let tools = Path::new(TOOLS).join("bin").canonicalize()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(tools.clone()).chain(std::env::split_paths(&path)))?;
    succeed(
        Command::new(tools.join("mdbook")).args(["build", "book"]).env("PATH", path),
        "the book does not build",
    )
}
