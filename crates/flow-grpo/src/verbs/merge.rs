//! `merge`: adds a `LoRA` adapter to the weights of its base model.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, bail, ensure};
use clap::Args;
use models::Adapter;
use pipelines::{ModelSource, Pipeline, Visitor};
use run::png;

use super::model_options::source;
use crate::{
    backend::Training,
    machine::{self, host},
    named,
    terminal::output,
};

/// Options of `merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// The adapter: RUN/adapter, any directory of PEFT or diffusers, a file of diffusers, or
    /// hub:OWNER/NAME, which is downloaded.
    #[arg(long, value_name = "PATH")]
    adapter: PathBuf,
    /// The base model: a checkpoint file, a built-in checkpoint, or a model directory [default: the
    /// base of the adapter, otherwise shapes-base].
    #[arg(long)]
    checkpoint: Option<String>,
    /// The checkpoint to write. For a model directory: a new directory for the merged transformer.
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
}

/// Writes the merged model.
///
/// # Errors
/// If the adapter does not fit the model, or the output is one of the inputs.
pub fn run(args: &MergeArgs) -> Result<()> {
    png::check_directory_of(&args.output)?;
    let inputs = [args.checkpoint.as_deref().map(Path::new), Some(&args.adapter)];
    if let Some(input) =
        inputs.into_iter().flatten().find(|input| is_same_file(input, &args.output))
    {
        bail!(
            "--output {} is also the input {}: choose another file",
            args.output.display(),
            input.display()
        );
    }
    let place = named::place(&args.adapter)?;
    let adapter = named::pinned(&args.adapter.to_string_lossy(), &[])?;
    let source = source(args.checkpoint.as_deref(), Some(&place), None)?;
    if let ModelSource::Directory { path, .. } = &source {
        ensure!(
            !args.output.exists(),
            "--output {} exists: choose a new directory for the merged transformer, which then replaces {}/transformer",
            args.output.display(),
            path.display()
        );
    }
    let work = Merging { adapter, place: &place, output: &args.output };
    pipelines::open::<Training, _>(source, &host::machine(&machine::device()?), work)
}

/// Work of `merge` on a model.
struct Merging<'a> {
    /// The name of the adapter; of one from the hub, with its commit.
    adapter: String,
    /// Where the adapter is on this machine.
    place: &'a Path,
    output: &'a Path,
}

impl Visitor<Training> for Merging<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let made_by = format!("{}, with the adapter {}", pipeline.made_by(), self.adapter);
        pipeline.write_merged(&Adapter::read(self.place)?, &made_by, self.output)?;
        output::print(format!("{}\n", self.output.display()))
    }
}

/// Whether two paths lead to the same file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(Path::canonicalize);
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}
