//! `curves.svg` and `report.html`: the results of a run in self-contained files.

mod about;
mod charts;
mod comparison;
mod distributions;
mod page;
mod panels;
mod pictures;
mod tables;

use std::{fs, path::Path};

use files::{Action, write_atomically};
use serde_json::Value;

use crate::{RunDir, RunError, curves::curves};
use pictures::{Picture, SHOWN};

pub use comparison::comparison;

/// The facts of a run that its records do not tell.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Number of epochs of the whole run.
    pub epochs: usize,
    /// Number of prompts of an epoch.
    pub prompts: usize,
    /// Number of images of a prompt.
    pub images: usize,
    /// The base model, as configured.
    pub base: &'a str,
    /// Origin of the base model.
    pub made_by: &'a str,
    /// The number that chooses the best evaluation.
    pub best_by: &'a str,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// The configuration, as TOML.
    pub configuration: &'a str,
}

/// The best evaluation of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Number of finished epochs.
    pub epoch: usize,
    /// The value of the number that chooses it.
    pub value: f64,
}

/// The report of a run, which is brought up to date during the run.
///
/// Images are most of it, so [`Self::update`] keeps the text of those that the page has, adds the new
/// ones, and makes only the sections after them again.
#[derive(Debug, Default)]
pub struct Report {
    written: Option<Written>,
}

/// What this process has written of the page.
#[derive(Debug)]
struct Written {
    pictures: Vec<Picture>,
    /// Number of bytes before the sections.
    sections_at: u64,
    length: u64,
}

impl Report {
    /// Draws the curves and brings the page up to date, atomically.
    ///
    /// # Errors
    /// If the metrics cannot be read, or a file cannot be written.
    pub fn update(&mut self, run: &RunDir, facts: &Facts<'_>) -> Result<(), RunError> {
        let lines = run.metrics()?;
        let path = run.path().join(PAGE);
        match self.written.take().filter(|written| written.is_at(&path)) {
            Some(written) if written.has_room(&pictures::all(run, &lines)) => {
                write_curves(run, &lines)?;
                self.written = Some(written.add(run, facts, &lines)?);
                Ok(())
            }
            _ => self.write(run, facts),
        }
    }

    /// Draws the curves and writes the whole page, atomically, with images that are evenly spread
    /// over the run.
    ///
    /// # Errors
    /// If the metrics cannot be read, or a file cannot be written.
    pub fn write(&mut self, run: &RunDir, facts: &Facts<'_>) -> Result<(), RunError> {
        let lines = run.metrics()?;
        write_curves(run, &lines)?;
        let pictures = pictures::chosen(&pictures::all(run, &lines));
        let mut page = page::opening(&page::name_of(run)).into_string();
        for picture in &pictures {
            page += &picture.figure(run).into_string();
        }
        let sections_at = page.len() as u64;
        page += &sections(run, facts, &lines, &pictures);
        run.write(PAGE, &page)?;
        self.written = Some(Written { pictures, sections_at, length: page.len() as u64 });
        Ok(())
    }
}

const PAGE: &str = "report.html";

impl Written {
    /// Whether the file is still what was written: an ordinary file of the same length.
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == self.length)
    }

    /// Whether the page would show at most twice the images of a whole one.
    fn has_room(&self, all: &[Picture]) -> bool {
        self.pictures.len() + self.missing(all).count() <= pictures::chosen(all).len() + SHOWN
    }

    fn missing<'a>(&self, all: &'a [Picture]) -> impl Iterator<Item = &'a Picture> {
        let epoch = self.pictures.iter().map(|picture| picture.epoch).max();
        all.iter().filter(move |picture| Some(picture.epoch) > epoch)
    }

    /// Adds the new images in place of the sections, and the sections after them.
    fn add(mut self, run: &RunDir, facts: &Facts<'_>, lines: &[Value]) -> Result<Self, RunError> {
        let all = pictures::all(run, lines);
        let new: Vec<Picture> = self.missing(&all).copied().collect();
        let mut text: String =
            new.iter().map(|picture| picture.figure(run).into_string()).collect();
        let added = text.len() as u64;
        self.pictures.extend(new);
        text += &sections(run, facts, lines, &self.pictures);
        let path = run.path().join(PAGE);
        let mut page = fs::read(&path).map_err(Action::Read.failed_on(&path))?;
        page.truncate(self.sections_at as usize);
        page.extend(text.into_bytes());
        write_atomically(&path, &page)?;
        self.length = page.len() as u64;
        self.sections_at += added;
        Ok(self)
    }
}

fn sections(run: &RunDir, facts: &Facts<'_>, lines: &[Value], pictures: &[Picture]) -> String {
    page::sections(run, facts, lines, pictures).into_string() + &page::ending().into_string()
}

/// Draws all panels into `curves.svg`.
fn write_curves(run: &RunDir, lines: &[Value]) -> Result<(), RunError> {
    let panels = panels::of_run(lines);
    run.write("curves.svg", &curves(&panels, "epochs")?)
}

#[cfg(test)]
mod tests;
