//! `eval --preset`: GenEval's score of a model. A server judges the images, or they are written for
//! a detector.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context, Error, Result, ensure};
use files::write_atomically;
use flow::GridKind;
use grpo::evaluate::Row;
use models::Adapter;
use pipelines::{Pipeline, Visitor};
use run::png;
use tasks::{
    cache::ScoreCache,
    geneval::{self, IMAGES_PER_PROMPT},
    image::Image,
    prompts::Prompt,
    reward::WeightedReward,
};
use toml::Value;
use training::{
    noise::{Key, Purpose},
    workers::Workers,
};

use super::EvalArgs;
use crate::{
    backend::{self, Device, Training},
    config,
    evaluation::{Evaluator, Prompts, Sampling, benchmark::Benchmark, intervals::Tally},
    machine::{host, needs},
    rewards::{self, Surroundings},
    terminal::output,
    train::{config::TrainConfig, presets::TRAIN_PRESETS},
    verbs::model_options,
};

/// Images that are judged or written together, so that memory does not grow with the benchmark.
const TOGETHER: usize = 64;
/// The reward that judges.
const JUDGE: &str = "geneval";

/// Samples four images for each prompt and prints the score.
///
/// # Errors
/// If the model, the prompts or the preset cannot be used, or the server does not judge.
pub fn run(args: &EvalArgs, preset: &str) -> Result<()> {
    let preset = config::preset(&TRAIN_PRESETS, preset)?;
    let config: TrainConfig =
        config::resolve(preset.table(&TRAIN_PRESETS), None, None, &args.foreign.set)?;
    if let Some(out) = &args.images {
        ensure!(!out.exists(), "--images {} exists: choose a new directory", out.display());
    }
    let model = &args.model;
    let base = model.checkpoint.as_deref().or(args.directory.as_deref());
    let base = base.or(model.adapter.is_none().then_some(config.base.as_str()));
    ensure!(base != Some(""), "--preset {} needs --model DIR", preset.name);
    let source = model_options::source(base, model.adapter.as_deref(), config.model.as_ref())?;
    let device = Device::default();
    let work = Benchmarking { args, config: &config, device: &device };
    pipelines::open::<Training, _>(source, &host::machine(&device), work)
}

/// Work of `eval --preset` on a model.
struct Benchmarking<'a> {
    args: &'a EvalArgs,
    config: &'a TrainConfig,
    device: &'a Device,
}

impl Visitor<Training> for Benchmarking<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { args, config, device } = self;
        let source = args.prompts.as_deref().unwrap_or(&config.prompts.validation);
        // The server is asked before anything takes its time.
        let use_of_images = self.use_of_images(pipeline.image_shape())?;
        let prompts = Prompts::open(source, &pipeline).context("prompts.validation")?;
        let all = || prompts.0.iter().map(|encoded| &encoded.prompt);
        if let Use::Judge(reward) = &use_of_images {
            reward.check(all())?;
        }
        let tags = all().map(|prompt| Ok(metadata(prompt)?.tag)).collect::<Result<Vec<_>>>()?;
        let rows = Row::all(prompts.0.len(), IMAGES_PER_PROMPT);
        needs::check_images(rows.len().min(TOGETHER), pipeline.image_shape())?;
        pipeline.conditions(&[""])?; // Before the network is loaded.
        let mut network = pipeline.network()?;
        if let Some(adapter) = &args.model.adapter {
            network = Adapter::read(adapter)?.attach(network, device)?;
        }
        let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
        let sampling = self.sampling(&pipeline)?;
        let evaluator = Evaluator { pipeline: &pipeline, workers: &workers, device, sampling };
        let mut tallies = vec![Tally::default(); prompts.0.len()];
        for rows in rows.chunks(TOGETHER) {
            let images = evaluator.generate(network.clone(), &prompts, rows)?;
            match &use_of_images {
                Use::Write(out) => write(out, &images, rows, &prompts)?,
                Use::Judge(reward) => {
                    for (row, right) in rows.iter().zip(judged(reward, &images, rows, &prompts)?) {
                        tallies[row.prompt].images += 1;
                        tallies[row.prompt].right += usize::from(right);
                    }
                }
            }
        }
        match use_of_images {
            Use::Write(out) => output::print(format!(
                "{}: {} images. When a detector has looked at them: score --reward geneval --detections FILE --model CLIP --images {0}\n",
                out.display(),
                rows.len()
            )),
            Use::Judge(_) => {
                let prompts: Vec<_> = tags.into_iter().zip(tallies).collect();
                let benchmark = Benchmark::of(&prompts);
                if let Some(path) = &args.output {
                    let json = serde_json::to_string_pretty(&benchmark)? + "\n";
                    write_atomically(path, json.as_bytes())?;
                }
                output::print(benchmark.table())
            }
        }
    }
}

/// The use of the images.
enum Use<'a> {
    /// They are written to a directory.
    Write(&'a Path),
    /// A server judges them.
    Judge(WeightedReward),
}

impl<'a> Benchmarking<'a> {
    /// The use of the images. The server is the one of the configuration's reward `geneval`, and
    /// judges by the official rule.
    fn use_of_images(&self, image_shape: [usize; 3]) -> Result<Use<'a>> {
        if let Some(out) = &self.args.images {
            return Ok(Use::Write(out));
        }
        let mut judge = self.config.rewards.get(JUDGE).cloned().with_context(|| {
            format!(
                "the preset has no reward `{JUDGE}`; --images DIR writes the images for a detector, \
                 --samples-dir DIR evaluates images that are there"
            )
        })?;
        let official = || Value::String("geneval_official".to_owned());
        judge.settings.entry("service").or_insert_with(official);
        let rewards = BTreeMap::from([(JUDGE.to_owned(), judge)]);
        let cache = self.args.cache.as_deref().map(ScoreCache::open).transpose()?.map(Arc::new);
        let surroundings = Surroundings { image_shape, device: self.device, cache };
        Ok(Use::Judge(rewards::open("rewards", &rewards, &surroundings)?))
    }

    fn sampling<P: Pipeline<Training>>(&self, pipeline: &P) -> Result<Sampling> {
        let model = &self.args.model;
        let grid = self.config.grpo.rollout.grid;
        Ok(Sampling {
            key: Key::new(model.seed, Purpose::Sampling),
            grid: if grid == (GridKind::OfModel {}) { pipeline.grid()? } else { grid },
            steps: model.steps as usize,
            guidance: model.guidance.unwrap_or(self.config.evaluation_guidance),
        })
    }
}

/// GenEval's metadata of a prompt.
fn metadata(prompt: &Prompt) -> Result<geneval::Metadata> {
    geneval::Metadata::from_value(&prompt.metadata).map_err(|problem| {
        Error::msg(format!("\"{}\" is no prompt of GenEval: {problem}", prompt.text))
    })
}

/// Whether each image is right.
fn judged<C>(
    reward: &WeightedReward,
    images: &[Image],
    rows: &[Row],
    prompts: &Prompts<C>,
) -> Result<Vec<bool>> {
    let prompts: Vec<&Prompt> = rows.iter().map(|row| prompts.prompt(row)).collect();
    let scores = reward.score(images, &prompts)?.parts.remove(0).scores;
    let right = |score: f32| {
        ensure!(
            score == 0.0 || score == 1.0,
            "the server gave {score}; the official rule gives 0 or 1: set rewards.{JUDGE}.service = \"geneval_official\""
        );
        Ok(score == 1.0)
    };
    scores.into_iter().map(right).collect()
}

/// Writes images as GenEval's scripts read them: `00000/metadata.jsonl`, `00000/samples/00000.png`.
fn write<C>(out: &Path, images: &[Image], rows: &[Row], prompts: &Prompts<C>) -> Result<()> {
    for (image, row) in images.iter().zip(rows) {
        let folder = out.join(format!("{:05}", row.prompt));
        let samples = folder.join("samples");
        fs::create_dir_all(&samples)
            .with_context(|| format!("cannot make the directory {}", samples.display()))?;
        let metadata = format!("{}\n", prompts.prompt(row).metadata);
        write_atomically(&folder.join("metadata.jsonl"), metadata.as_bytes())?;
        let name = format!("{:05}.png", row.sample);
        png::write_png(&png::to_rgb(image), &samples.join(name))?;
    }
    Ok(())
}
