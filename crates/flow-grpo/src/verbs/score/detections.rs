//! `score --detections`: what a detector found, scored by GenEval's rules.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tasks::geneval::{self, FailedPosition, Seen, needs_color};

use super::{ENDINGS, read};
use crate::{machine, rewards::colors::Colors, terminal::output};

/// How the colours of detections are named.
pub struct Painting<'a> {
    /// The directory or name of a CLIP model.
    pub model: &'a str,
    /// The directory of the images.
    pub images: &'a Path,
}

/// Scores a file of detections: prints a line for each image, or a table.
///
/// # Errors
/// If a line cannot be read or scored, or an image is missing.
pub fn score(
    path: &Path,
    failed_position: FailedPosition,
    painting: Option<&Painting<'_>>,
    json: bool,
) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut painter = painting.map(Painter::open).transpose()?;
    let mut lines = Vec::new();
    let input = BufReader::new(file);
    let scored = geneval::score_seen(failed_position, input, &mut lines, |seen| {
        painter.as_mut().map_or(Ok(()), |painter| painter.paint(seen))
    });
    if json {
        // The answers above a bad line are right.
        output::print(String::from_utf8_lossy(&lines))?;
    }
    let table = scored.with_context(|| path.display().to_string())?;
    match table.summary() {
        Some(summary) if !json => output::print(format!("{summary}\n")),
        _ => Ok(()),
    }
}

/// Names colours in the images of a directory.
struct Painter<'a> {
    colors: Colors,
    directory: &'a Path,
    /// All images of the directory, for lines that name none.
    images: Vec<PathBuf>,
}

impl<'a> Painter<'a> {
    fn open(painting: &Painting<'a>) -> Result<Self> {
        let mut images = Vec::new();
        below(painting.images, &mut images)?;
        ensure!(
            !images.is_empty(),
            "{} holds no {} file",
            painting.images.display(),
            ENDINGS.join(", ")
        );
        images.sort();
        let colors = Colors::open(painting.model, &machine::device()?)?;
        Ok(Self { colors, directory: painting.images, images })
    }

    fn paint(&mut self, seen: Seen<'_>) -> Result<(), String> {
        let Seen { index, image, metadata, detections } = seen;
        if !detections.iter().any(|detection| needs_color(metadata, detection)) {
            return Ok(());
        }
        let path = match image {
            Some(name) => self.directory.join(name),
            None => self.images.get(index).cloned().ok_or_else(|| {
                let (count, directory) = (self.images.len(), self.directory.display());
                format!("this is image {}, and {directory} has {count}", index + 1)
            })?,
        };
        let image = read(&path).map_err(|error| format!("{error:#}"))?;
        let named = self.colors.name(&image, metadata, detections);
        named.map_err(|problem| format!("{}: {problem}", path.display()))
    }
}

/// Adds the images of a directory and of those below; a `grid.png` shows other images.
fn below(directory: &Path, images: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if path.is_dir() {
            below(&path, images)?;
        } else if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
            && path.file_stem().is_none_or(|stem| stem != "grid")
        {
            images.push(path);
        }
    }
    Ok(())
}
