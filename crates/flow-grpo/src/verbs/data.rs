//! `data`: downloads the published pictures of a task and prepares its data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use emoji::{Collection, prepare, source};
use files::directory_of;

use crate::terminal::output;

/// Options of `data`.
#[derive(Args, Debug)]
pub struct DataArgs {
    /// The data to prepare.
    #[arg(value_enum)]
    of: Of,
    /// The directory for downloaded packages [default: flow-grpo in the user's cache directory, or
    /// data if there is none].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The directory for captions.tsv and pictures.png.
    #[arg(long, value_name = "DIR", default_value = "data/emoji")]
    out: PathBuf,
}

/// Data of a task.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// Emoji of two art styles, 90 MB from npm.
    Emoji,
}

/// Downloads the packages, unless the cache has them, and writes the collection.
///
/// # Errors
/// If a package cannot be downloaded or has the wrong digest, or a file cannot be written.
pub fn run(args: &DataArgs) -> Result<()> {
    let Of::Emoji = args.of;
    let cache = args.cache.clone().unwrap_or_else(cache);
    for directory in [&cache, &args.out] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let noto = package(&source::NOTO, &cache)?;
    let fluent = package(&source::FLUENT, &cache)?;
    let collection = prepare::collection(&noto, &fluent)?;
    collection.write(&args.out)?;
    let same = Collection::built_in().is_ok_and(|built_in| built_in == collection);
    let beside = if same { "the same as" } else { "NOT the same as" };
    output::print(format!(
        "{}: {} emoji in two styles, {beside} the built-in ones\n",
        args.out.display(),
        collection.emoji.len()
    ))
}

fn package(package: &source::Package, cache: &Path) -> Result<Vec<u8>> {
    let path = package.path(cache);
    if !path.exists() {
        output::log(format!("{} of {} MB: fetching", package.name, package.bytes / 1_000_000));
    }
    let bytes = package.get(cache)?;
    output::log(format!("{} is in {}", package.name, directory_of(&path).display()));
    Ok(bytes)
}

/// The user's cache directory.
fn cache() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    of("XDG_CACHE_HOME")
        .or_else(|| of("LOCALAPPDATA"))
        .or_else(|| of("HOME").map(|home| home.join(".cache")))
        .map_or_else(|| PathBuf::from("data"), |directory| directory.join("flow-grpo"))
}
