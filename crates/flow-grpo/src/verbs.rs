//! The command line: a table of all verbs. Each verb has a file with its arguments and its body.

pub mod bench;
pub mod compare;
pub mod config;
pub mod data;
pub mod directory_options;
pub mod encoder;
pub mod eval;
pub mod figure;
pub mod init_random;
pub mod merge;
pub mod model_options;
pub mod pretrain;
pub mod proxy;
pub mod run_options;
pub mod sample;
pub mod score;
pub mod serve;
pub mod train;
pub mod warm_up;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::rewards;

/// Train flow-matching image models by reinforcement learning.
#[derive(Debug, Parser)]
#[command(name = "flow-grpo", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Declares the verbs. Each has a line of help, a module with its body `run`, and its arguments.
macro_rules! verbs {
    ($($(#[$help:meta])* $verb:ident($module:ident::$arguments:ident),)+) => {
        #[derive(Debug, Subcommand)]
        enum Verb {
            $($(#[$help])* $verb($module::$arguments),)+
        }

        /// Runs the verb of the command line.
        ///
        /// # Errors
        /// If the verb fails.
        pub fn run() -> Result<()> {
            match Cli::parse().verb {
                $(Verb::$verb(arguments) => $module::run(&arguments),)+
            }
        }
    };
}

verbs! {
    /// Improve a base model by Flow-GRPO. Presets: shapes (default), shapes-64 (for a GPU), text,
    /// toy-2d, emoji. Presets for Stable Diffusion 3.5 Medium, with --model: sd35m-geneval,
    /// sd35m-ocr, sd35m-ocr-1gpu, sd35m-pickscore.
    #[command(after_help = format!("Rewards, for --set rewards.NAME=WEIGHT:\n{}", rewards::table()))]
    Train(train::TrainArgs),
    /// Compile and tune the kernels of a training run before it starts, on cuda and wgpu. Takes the
    /// options of `train`.
    WarmUp(warm_up::WarmUpArgs),
    /// Train a base model by flow matching. Presets: shapes-base (default), shapes-64-base (for a
    /// GPU), text-base, toy-2d-base, emoji-clean, emoji-base.
    Pretrain(pretrain::PretrainArgs),
    /// Sample images for prompts.
    Sample(sample::SampleArgs),
    /// Measure a model's strict accuracy on held-out prompts, or its GenEval score.
    Eval(eval::EvalArgs),
    /// Add a LoRA adapter to the weights of its base model.
    Merge(merge::MergeArgs),
    /// Train the classifier of the reward `shapes_proxy`, which can be hacked.
    Proxy(proxy::ProxyArgs),
    /// Train an encoder of emoji and captions, the reward `emoji_preference`.
    Encoder(encoder::EncoderArgs),
    /// Download the published pictures of a task and prepare them.
    Data(data::DataArgs),
    /// Plot metrics of several runs in one figure.
    Compare(compare::CompareArgs),
    /// Time the parts of the program, optionally beside the same network in PyTorch.
    Bench(bench::BenchArgs),
    /// Write a model directory with random weights in the sizes of a published model, for
    /// measurements without the published weights.
    InitRandom(init_random::InitRandomArgs),
    /// Score images on disk with rewards, or a file of detections by GenEval's rules.
    #[command(after_help = format!("Rewards:\n{}", rewards::table()))]
    Score(score::ScoreArgs),
    /// Serve rewards to other programs over HTTP.
    #[command(after_help = format!("Rewards:\n{}", rewards::table()))]
    Serve(serve::ServeArgs),
    /// Show a configuration, or explain its keys.
    Config(config::ConfigArgs),
    /// Draw the book's computed figures.
    Figure(figure::FigureArgs),
}
