//! The stills of the demos, which readers without scripts see: pictures of the demos themselves.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};

use super::{
    BOOK,
    chromium::{self, Browser},
    pages,
    server::Server,
};

/// Where the pages' pictures are, as the pages name them.
const SOURCES: &str = "book/src";
/// What brings a demo to the state of its still.
const STILL: &str = include_str!("still.js");
/// A laptop's window.
const SIZE: [u32; 2] = [1280, 900];

/// Takes a picture of every demo of the built book, in the state that its page names in
/// `data-still`, and writes it where the page expects it.
///
/// # Errors
/// If there is no browser, or a demo does not start or lacks a control that its page names.
pub fn take() -> Result<()> {
    let program = chromium::find()
        .context("stills of the demos need Chromium: install it, or name it in CHROMIUM")?;
    let server = Server::start(Path::new(BOOK), 0)?;
    let mut browser = Browser::start(&program, Path::new("target/chromium"))?;
    // Films stand at their end.
    browser.move_less()?;
    let mut taken = BTreeSet::new();
    for (page, _) in pages::pages(Path::new(BOOK))?.into_iter().filter(|(_, demo)| *demo) {
        browser.open(&format!("http://127.0.0.1:{}/{page}", server.port()), SIZE, "light")?;
        let demos = browser.evaluate("document.querySelectorAll('.demo').length")?;
        for demo in 0..demos.as_u64().context("a number of demos")? {
            let state = browser.evaluate(&format!("({STILL})({demo})"))?;
            let file = state["still"].as_str().context("a demo has a still")?.to_owned();
            if !taken.insert(file.clone()) {
                continue; // Two pages show the same demo.
            }
            let side = |index: usize| state["box"][index].as_f64().context("a demo has a box");
            let place = [side(0)?, side(1)?, side(2)?, side(3)?];
            let picture = browser.picture(place, "webp")?;
            let path = Path::new(SOURCES).join(&file);
            fs::write(&path, picture)
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}
