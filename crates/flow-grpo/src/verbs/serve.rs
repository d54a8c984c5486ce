//! `serve`: serves rewards to other programs over HTTP.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use judges::{Options, Sample, Scorer, ScorerError, Token};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{RewardError, WeightedReward},
};

use super::score::RewardArgs;
use crate::{
    backend::Device,
    terminal::{interrupt, output},
};

/// Options of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    rewards: RewardArgs,
    /// The address to listen on. Other machines cannot reach a loopback address like the default.
    #[arg(long, default_value = "127.0.0.1:18087")]
    address: SocketAddr,
    /// The environment variable with the bearer token that clients must send; required if other
    /// machines can reach the address.
    #[arg(long, value_name = "NAME")]
    token_variable: Option<String>,
    /// Largest number of images per request.
    #[arg(long, default_value_t = 256)]
    images: usize,
    /// Number of requests that are scored at once.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
}

/// Built-in rewards behind the server.
struct BuiltIn {
    names: Vec<String>,
    reward: WeightedReward,
}

impl Scorer for BuiltIn {
    fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    fn score(&self, samples: &[Sample]) -> Result<BTreeMap<String, Vec<f32>>, ScorerError> {
        let images: Vec<Image> = samples.iter().map(|sample| image(sample)).collect();
        let prompts: Vec<Prompt> = samples.iter().map(prompt).collect();
        for (index, prompt) in prompts.iter().enumerate() {
            let refused =
                |error: RewardError| ScorerError { sample: Some(index), reason: error.to_string() };
            self.reward.check(std::iter::once(prompt)).map_err(refused)?;
        }
        let prompts: Vec<&Prompt> = prompts.iter().collect();
        let failed = |error: RewardError| ScorerError {
            sample: match &error {
                RewardError::Failed { image, .. } => image.as_ref().map(|(index, _)| *index),
                RewardError::NotFinite { index, .. } => Some(*index),
                RewardError::Prompt { .. } => None,
            },
            reason: error.to_string(),
        };
        let parts = self.reward.score(&images, &prompts).map_err(failed)?.parts;
        Ok(parts.into_iter().map(|part| (part.name, part.scores)).collect())
    }
}

fn image(sample: &Sample) -> Image {
    let (width, height) = (sample.image.width() as usize, sample.image.height() as usize);
    Image::from_rgb8(sample.image.as_raw(), width, height)
}

fn prompt(sample: &Sample) -> Prompt {
    let tag = sample.metadata.get("tag").and_then(serde_json::Value::as_str);
    let plain = Prompt::plain(sample.prompt);
    Prompt {
        tag: tag.map_or(plain.tag.clone(), str::to_owned),
        metadata: sample.metadata.clone(),
        ..plain
    }
}

/// Time between two looks for an interruption.
const LOOK: Duration = Duration::from_millis(200);

/// Serves until interrupted.
///
/// # Errors
/// If a reward cannot be opened, or the server cannot start.
pub fn run(args: &ServeArgs) -> Result<()> {
    interrupt::listen()?;
    let token = args.token_variable.as_deref().map(Token::from_variable);
    let token = token.transpose().context("--token-variable")?;
    let reward = args.rewards.open([3, 1, 1], None, &Device::default())?;
    let scorer = BuiltIn { names: args.rewards.names(), reward };
    let options = Options {
        address: args.address,
        token,
        images: args.images,
        concurrency: args.concurrency,
        ..Options::default()
    };
    let server = judges::serve(Arc::new(scorer), options)?;
    output::log(format!(
        "serving {} at http://{}",
        args.rewards.names().join(", "),
        server.address()
    ));
    while !interrupt::requested() {
        std::thread::sleep(LOOK);
    }
    Ok(server.stop()?)
}
