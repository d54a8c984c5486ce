//! `encoder`: trains an encoder of emoji and their captions, the reward of the emoji task.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use clap::{Args, ValueEnum};
use emoji::{Augmentation, Collection, Emoji, STYLES, Style};
use grpo::images::Decoder;
use models::clip::{Clip, contrastive_loss};
use rand::{Rng, seq::index::sample};
use run::png;
use tasks::image::Image;
use training::{
    ema::EmaConfig,
    noise::{Key, Purpose},
    optimisation::Optimisation,
    optimizer::{AdamWConfig, Optimizer},
    parameters::Trained,
    schedule,
};

use crate::{
    backend::{Device, Plain, Training},
    rewards::emoji_encoder::{
        EmojiEncoder, EncoderCard, LARGEST_SCALE, Retrieval, Sizes, retrieval,
    },
    terminal::{interrupt, output, progress::Progress},
};

/// Options of `encoder`.
#[derive(Args, Debug)]
pub struct EncoderArgs {
    /// The encoder to train: the reward or the gold reward. The two differ in patch size, width,
    /// augmentation and the pictures that they never see.
    #[arg(long, value_enum, default_value_t = Role::Preference)]
    role: Role,
    /// Number of updates.
    #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Number of emoji per update, each with one picture.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=900))]
    batch: u32,
    /// Seed of the weights and the choice of pictures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The file to write.
    #[arg(long, default_value = "emoji-encoder.safetensors")]
    output: PathBuf,
}

/// Which of the two encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// The reward, `emoji_preference`.
    Preference,
    /// The gold reward, `emoji_gold`.
    Gold,
}

impl Role {
    fn encoder(self) -> emoji::Encoder {
        match self {
            Self::Preference => emoji::Encoder::Preference,
            Self::Gold => emoji::Encoder::Gold,
        }
    }

    fn sizes(self) -> Sizes {
        match self {
            Self::Preference => Sizes { patch: 8, width: 128, depth: 3 },
            Self::Gold => Sizes { patch: 4, width: 64, depth: 3 },
        }
    }

    fn augmentation(self) -> Augmentation {
        match self {
            Self::Preference => Augmentation { shift: 3, color: 0.3, noise: 0.15, blur: 0.2 },
            Self::Gold => Augmentation { shift: 4, color: 0.4, noise: 0.25, blur: 0.5 },
        }
    }
}

const OPTIMIZER: AdamWConfig = AdamWConfig {
    learning_rate: 2e-3,
    beta1: 0.9,
    beta2: 0.98,
    epsilon: 1e-6,
    weight_decay: 0.1,
    max_gradient_norm: 1.0,
};
/// Updates between two lines.
const REPORT_EVERY: usize = 100;

/// Trains an encoder and reports how often it finds the caption of a picture that it never saw.
///
/// # Errors
/// If the file cannot be written, a number is not finite, or the training is interrupted.
pub fn run(args: &EncoderArgs) -> Result<()> {
    interrupt::listen()?;
    let device = &Device::default();
    png::check_directory_of(&args.output)?;
    let emoji = Collection::built_in()?.emoji;
    let made_by = format!(
        "flow-grpo {} encoder --role {:?} --seed {} --steps {} --batch {}",
        env!("CARGO_PKG_VERSION"),
        args.role,
        args.seed,
        args.steps,
        args.batch
    )
    .to_lowercase();
    let card = EncoderCard::new(args.role.sizes(), made_by);
    let clip = trained(args, &emoji, &card, device)?;
    let encoder = EmojiEncoder::new(card, clip, device);
    encoder.write(&args.output)?;
    report(args.role, &EmojiEncoder::open(&args.output, device)?, &emoji, &args.output)
}

fn trained(
    args: &EncoderArgs,
    emoji: &[Emoji],
    card: &EncoderCard,
    device: &Device,
) -> Result<Clip<Plain>> {
    let mut network = Clip::<Plain>::init(&card.sizes(), args.seed, device);
    let trained = Trained::all(&network);
    let weights = trained.of(&network);
    let optimizer = Optimizer::new(OPTIMIZER, &weights);
    let mut optimisation = Optimisation::new(weights, optimizer, EmaConfig::OFF);
    let steps = args.steps as usize;
    let progress = Progress::new("encoder", steps, "steps");
    let mut mean_loss = 0.0;
    for step in 0..steps {
        let mut rng = Key::new(args.seed, Purpose::Pretraining).epoch(step).rng();
        let (images, captions) = batch(args, emoji, &mut rng);
        let ids =
            captions.iter().map(|caption| card.ids(caption)).collect::<Result<Vec<_>, _>>()?;
        let graph: Clip<Training> = trained.with_graph(network.clone());
        let pixels = Tensor::from_inner(Decoder::Pixels.encode(&images, device));
        let scale = graph.scale().clamp_max(LARGEST_SCALE);
        let loss = contrastive_loss(graph.embed_images(pixels), graph.embed_texts(&ids), scale);
        let gradient = trained.gradients(&graph, loss.backward());
        let value: f64 = loss.into_scalar().elem();
        let rate = schedule::rate(step, steps, steps / 20, steps / 2);
        optimisation.take(value, &gradient, rate).with_context(|| format!("step {step}"))?;
        network = optimisation.weights().put_into(network);
        mean_loss += (value - mean_loss) / (step % REPORT_EVERY + 1) as f64;
        if (step + 1).is_multiple_of(REPORT_EVERY) {
            progress.say(&format!("step {:>5}  loss {mean_loss:.4}", step + 1));
            mean_loss = 0.0;
        }
        progress.advance(1);
        if interrupt::requested() {
            bail!("interrupted: an encoder takes minutes and keeps no checkpoints");
        }
    }
    progress.finish();
    Ok(network)
}

/// Draws distinct emoji, each with an augmented picture from its training pictures.
fn batch<'a>(
    args: &EncoderArgs,
    emoji: &'a [Emoji],
    rng: &mut impl Rng,
) -> (Vec<Image>, Vec<&'a str>) {
    let (role, augmentation) = (args.role.encoder(), args.role.augmentation());
    let drawn = sample(rng, emoji.len(), (args.batch as usize).min(emoji.len())).into_vec();
    let pair = |index: usize| {
        let emoji = &emoji[index];
        let seen = |style: &Style| !role.holds_out(&emoji.caption, *style);
        let styles: Vec<Style> = STYLES.into_iter().filter(seen).collect();
        let style = styles[rng.random_range(0..styles.len())];
        (augmentation.apply(&emoji.picture(style), rng), emoji.caption.as_str())
    };
    drawn.into_iter().map(pair).unzip()
}

/// Prints the retrieval accuracy on training pictures and on held-out pictures.
fn report(role: Role, encoder: &EmojiEncoder, emoji: &[Emoji], path: &Path) -> Result<()> {
    let captions: Vec<&str> = emoji.iter().map(|emoji| emoji.caption.as_str()).collect();
    let mut sets = [Vec::new(), Vec::new()];
    for (index, emoji) in emoji.iter().enumerate() {
        for style in STYLES {
            let held_out = role.encoder().holds_out(&emoji.caption, style);
            sets[usize::from(held_out)].push((emoji.picture(style), index));
        }
    }
    let mut text = format!("{}\n", path.display());
    for (name, set) in ["trained on", "held out"].into_iter().zip(&sets) {
        let Retrieval { pictures, captions, first, five } = retrieval(encoder, set, &captions)?;
        let [first, five] = [first, five].map(|share| 100.0 * share);
        text += &format!(
            "{name}: of {pictures} pictures, {first:.1} % have their caption nearest among {captions}, {five:.1} % among the five nearest\n"
        );
        let scores = set.iter().map(|(image, index)| (image.clone(), captions_of(emoji, *index)));
        let (images, texts): (Vec<Image>, Vec<&str>) = scores.unzip();
        let scores = encoder.score(&images, &texts)?;
        text += &format!("    score {:.2}\n", scores.iter().sum::<f32>() / scores.len() as f32);
    }
    output::print(text)
}

fn captions_of(emoji: &[Emoji], index: usize) -> &str {
    &emoji[index].caption
}
