//! The checkpoint that comes with the program, trained further in a small run.

use std::path::Path;

use std::sync::Arc;

use grpo::{
    GrpoConfig, Policy, RolloutConfig, Task, Trainer, evaluate::EncodedPrompt, groups::Mix,
    images::Decoder,
};
use models::{Dit, DitConfig, TokenIds, Vocabulary, WeightsFile};
use serde_json::Value;
use tasks::{
    prompts::Prompt,
    reward::{Darkness, WeightedReward},
};
use training::{optimizer::AdamWConfig, workers::Workers};

use crate::{
    backend::{Device, Plain, Training},
    training::config,
};

/// The base model of the shapes task with its vocabulary.
fn base() -> (DitConfig, Vocabulary, Dit<Plain>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/checkpoints/shapes-base.safetensors");
    let file = WeightsFile::read(&path).expect("the checkpoint is there");
    let mut card: Value = file.parsed_metadata("flow_grpo").expect("it has a card");
    let mut sizes = card["architecture"].take();
    sizes.as_object_mut().expect("an architecture").remove("kind");
    let sizes: DitConfig = serde_json::from_value(sizes).expect("the sizes of a DiT");
    let vocabulary: Vocabulary =
        serde_json::from_value(card["vocabulary"].take()).expect("a vocabulary");
    let network = file
        .load_into(sizes.init::<Plain>(vocabulary.len(), 0, &Device::default()))
        .expect("weights that fit");
    (sizes, vocabulary, network)
}

/// A wrong sign, a dead gradient or a broken replay cannot pass: the images must become darker from
/// each third of the run to the next.
#[test]
fn a_dense_reward_rises_steadily_on_the_shipped_base() {
    let (sizes, vocabulary, network) = base();
    let prompts = [
        "a photo of a red circle",
        "a photo of two squares",
        "a photo of a cross and a triangle",
        "a photo of a blue cross",
    ];
    let encode = |text: &str| -> TokenIds {
        vocabulary.encode(text, sizes.text_length).expect("known words")
    };
    let task = Task {
        prompts: prompts
            .map(|text| EncodedPrompt { prompt: Prompt::plain(text), condition: encode(text) })
            .into(),
        mix: Mix::even(prompts.len()),
        reward: WeightedReward::only("darkness", Box::new(Darkness)),
        latent_shape: [sizes.channels, sizes.image_size, sizes.image_size],
        decoder: Arc::new(Decoder::Pixels),
        unconditional: encode(""),
        on_policy_limit: 1.0,
    };
    let small = config();
    let config = GrpoConfig {
        groups: 3,
        group_size: 16,
        rollout: RolloutConfig { steps: 5, random_steps: 3, ..small.rollout },
        optimizer: AdamWConfig { learning_rate: 3e-4, ..small.optimizer },
        ..small
    };
    let workers = Workers::new(2).expect("threads");
    let mut trainer = Trainer::<Training, Dit<Training>>::new(
        config,
        15,
        1,
        task,
        Policy::full(network),
        workers,
    );
    let rewards: Vec<f64> =
        (0..15).map(|_| trainer.iterate().expect("an epoch").metrics.reward).collect();
    let thirds: Vec<f64> = rewards.chunks(5).map(|third| third.iter().sum::<f64>() / 5.0).collect();
    println!("{thirds:.3?}");
    assert!(thirds[1] > thirds[0] + 0.01 && thirds[2] > thirds[1] + 0.01, "{rewards:.3?}");
}
