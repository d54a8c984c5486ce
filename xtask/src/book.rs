//! Builds the mdBook with its demos, serves it, and tests its demos in a browser. The tools come
//! from the crate registry and stay in `target/tools`.

mod chromium;
mod demos;
mod pages;
mod server;
mod stills;
mod table;

use std::{path::Path, process::Command};

use anyhow::Result;
use clap::Args;

use crate::app::{cargo, succeed};

const TOOLS: &str = "target/tools";
/// The needed tools with their versions.
const NEEDED: [(&str, &str); 2] = [("mdbook", "0.5.4"), ("mdbook-katex", "0.10.0")];
/// Where the built book lies.
const BOOK: &str = "book/book";

/// What to do with the book after it is built.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "every field is a flag of the command line")]
pub struct BookArgs {
    /// Test every demo in a headless Chromium.
    #[arg(long)]
    test: bool,
    /// Serve the book on this machine: browsers run demos only from a server.
    #[arg(long)]
    serve: bool,
    /// Take the pictures of the demos that readers without scripts see, with a headless Chromium.
    #[arg(long)]
    stills: bool,
    /// Print the words, figures, exercises and demos of every chapter as a table instead.
    #[arg(long, conflicts_with_all = ["test", "serve", "stills"])]
    table: bool,
}

/// Builds the book, then tests and serves it as the options say; or prints the table of its content.
pub fn book(args: &BookArgs) -> Result<()> {
    if args.table {
        return table::print();
    }
    build()?;
    if args.stills {
        stills::take()?;
        build()?; // With the new pictures.
    }
    if args.test {
        pages::test()?;
    }
    if args.serve {
        let server = server::Server::start(Path::new(BOOK), 3000)?;
        println!("http://127.0.0.1:{}/ (Ctrl-C stops)", server.port());
        server.wait();
    }
    Ok(())
}

/// Builds the book and tests its demos, as the checks do.
pub fn check() -> Result<()> {
    book(&BookArgs { test: true, serve: false, stills: false, table: false })
}

/// Builds the book with its demos into `book/book`.
fn build() -> Result<()> {
    let engine = demos::compile()?;
    for (tool, version) in NEEDED {
        install(tool, version)?;
    }
    let tools = Path::new(TOOLS).join("bin").canonicalize()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(tools.clone()).chain(std::env::split_paths(&path)))?;
    let mut mdbook = Command::new(tools.join("mdbook"));
    mdbook.args(["build", "book"]).env("PATH", path).envs(repository());
    succeed(&mut mdbook, "the book does not build")?;
    demos::put_into(&Path::new(BOOK).join("demos"), &engine)
}

/// mdBook's settings for links to the repository and to the source of each page. Only a build on
/// GitHub knows where the repository is.
fn repository() -> Vec<(&'static str, String)> {
    let known = ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY"].map(std::env::var);
    let [Ok(server), Ok(name)] = known else { return Vec::new() };
    let url = format!("{server}/{name}");
    vec![
        ("MDBOOK_OUTPUT__HTML__EDIT_URL_TEMPLATE", format!("{url}/edit/main/book/{{path}}")),
        ("MDBOOK_OUTPUT__HTML__GIT_REPOSITORY_URL", url),
    ]
}

/// Installs a tool, unless it is there.
fn install(tool: &str, version: &str) -> Result<()> {
    if Path::new(TOOLS).join("bin").join(tool).exists() {
        return Ok(());
    }
    println!("installing {tool} {version} into {TOOLS}, which takes some minutes the first time");
    let mut install = cargo();
    install.args(["install", "--quiet", "--locked", "--root", TOOLS, "--version", version, tool]);
    install.env("CARGO_TARGET_DIR", "target/tools-build");
    succeed(&mut install, "the tool does not install")
}
