//! Pre-training of a base model by flow matching.
//!
//! A share of the captions is deliberately wrong (`examples.wrong`), as on the web: the base learns
//! to draw well and to compose as well as its captions, which leaves something for reinforcement
//! learning to improve.

mod batches;
pub mod config;
pub mod examples;
pub mod presets;
mod session;

use std::path::PathBuf;

use anyhow::{Context, Error, Result, ensure};
use flow::VelocityField;
use models::{TokenIds, Vocabulary};
use pipelines::{Architecture, Card, Own, OwnVisitor, Trainable, Weights, open_own};
use run::RunDir;
use tasks::toy;

use crate::{
    backend::{Device, Training},
    checkpoints,
    machine::host,
    pretrain::{config::PretrainConfig, session::Session},
    terminal::outcome::BrokeRun,
};

/// Trains the base model and returns the path of its checkpoint.
pub fn pretrain(config: &PretrainConfig, run: &mut RunDir, device: &Device) -> Result<PathBuf> {
    let vocabulary = match config.model {
        Architecture::Dit(_) => config.data.vocabulary(),
        Architecture::Mlp(_) => {
            let prompts = toy::prompts().prompts;
            let words = prompts.iter().flat_map(|prompt| prompt.text.split(' '));
            Vocabulary::new(words.map(str::to_owned))
        }
    };
    let made_by = format!(
        "flow-grpo {} pretrain, seed {}, {} steps",
        env!("CARGO_PKG_VERSION"),
        config.seed,
        config.steps
    );
    let fresh = Card { architecture: config.model.clone(), vocabulary, made_by };
    let (card, weights) = match &config.base {
        Some(base) => continued(fresh, base)?,
        None => (fresh, Weights::Random { seed: config.seed }),
    };
    open_own::<Training, _>(card, &weights, &host::machine(device), Work { config, run, device })
}

/// Pre-training of a network of either kind.
struct Work<'a> {
    config: &'a PretrainConfig,
    run: &'a mut RunDir,
    device: &'a Device,
}

impl OwnVisitor<Training> for Work<'_> {
    type Output = PathBuf;
    type Error = Error;

    fn visit<N>(self, own: Own<Training, N>) -> Result<PathBuf>
    where
        N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
    {
        let Self { config, run, device } = self;
        Session::start(config, own, run, device)?.run(run).context(BrokeRun)?;
        Ok(run.base_checkpoint())
    }
}

/// Loads the weights of a checkpoint, with a card that names their origin.
///
/// # Errors
/// If the checkpoint cannot be read, or has another network or vocabulary than `card`.
fn continued(card: Card, base: &str) -> Result<(Card, Weights)> {
    let file = checkpoints::open(base)?;
    let from = Card::of(&file)?;
    ensure!(
        from.architecture == card.architecture,
        "base `{base}` is a network of other sizes than `model` asks for:\n  base:  {}\n  model: {}",
        serde_json::to_string(&from.architecture)?,
        serde_json::to_string(&card.architecture)?
    );
    ensure!(
        from.vocabulary == card.vocabulary,
        "base `{base}` knows other words than the task's prompts have"
    );
    let made_by = format!("{}, from {base} ({})", card.made_by, from.made_by);
    Ok((Card { made_by, ..card }, Weights::File(file)))
}
