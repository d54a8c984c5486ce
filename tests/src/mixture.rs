//! Several rewards in one run: 8-bit images, advantages of mixtures, and scoring beside sampling.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use burn::tensor::{Tensor, TensorData};
use grpo::{
    GrpoConfig, Policy, TrainError, Trainer,
    advantage::{AdvantageConfig, Advantages, Combine, Spread},
    images::{Decode, Decoder},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Darkness, Part, Reward, RewardError, Scores, Unjudged, Weighted, WeightedReward},
};
use training::workers::Workers;

use crate::{
    backend::{Device, Plain, Training},
    networks::network,
    training::{TestTrainer, config, task},
};

/// A trainer with these rewards, all of weight 1.
fn trainer(
    config: GrpoConfig,
    rewards: Vec<(&str, Box<dyn Reward>)>,
    decoder: Option<Arc<dyn Decode<Plain>>>,
    workers: Workers,
) -> TestTrainer {
    let part = |(name, reward): (&str, Box<dyn Reward>)| Weighted {
        name: name.to_owned(),
        weight: 1.0,
        reward,
    };
    let mut task = task(Box::new(Darkness));
    task.reward = WeightedReward::new(rewards.into_iter().map(part).collect());
    if let Some(decoder) = decoder {
        task.decoder = decoder;
    }
    Trainer::<Training, _>::new(config, 10, 1, task, Policy::full(network(1)), workers)
}

fn two_workers() -> Workers {
    Workers::new(2).expect("threads")
}

/// A reward by a function of the image, slow or not.
struct Of<F> {
    score: F,
    slow: bool,
}

impl<F: Fn(&Image) -> f32 + Send + Sync> Reward for Of<F> {
    fn is_slow(&self) -> bool {
        self.slow
    }

    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        Ok(images.iter().map(&self.score).collect())
    }
}

fn redness(image: &Image) -> f32 {
    let plane = image.height * image.width;
    image.pixels[..plane].iter().sum::<f32>() / plane as f32
}

#[test]
fn every_reward_sees_multiples_of_a_255th() {
    let seen = Arc::new(AtomicUsize::new(0));
    let reward = |slow| {
        let seen = Arc::clone(&seen);
        let score = move |image: &Image| {
            let is_byte = |pixel: &f32| (0..=255_u8).any(|byte| f32::from(byte) / 255.0 == *pixel);
            assert!(image.pixels.iter().all(is_byte), "{:?}", image.pixels);
            seen.fetch_add(1, Ordering::SeqCst);
            redness(image)
        };
        Box::new(Of { score, slow }) as Box<dyn Reward>
    };
    let rewards = vec![("quick", reward(false)), ("slow", reward(true))];
    trainer(config(), rewards, None, two_workers()).iterate().expect("an epoch");
    assert_eq!(seen.load(Ordering::SeqCst), 2 * 24);
}

#[test]
fn a_decoded_image_is_the_one_that_a_file_would_hold() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut values: Vec<f32> = (0..3 * 64).map(|_| rng.random_range(-1.3..1.3)).collect();
    // Between two steps, in exact numbers: 2·127.5/255 − 1 = 0.
    values[0] = 0.0;
    let decode = |values: Vec<f32>| {
        let latents = TensorData::new(values, [1, 3, 8, 8]);
        let latents = Tensor::<Plain, 4>::from_data(latents, &Device::default());
        Decode::<Plain>::decode(&Decoder::Pixels, latents).remove(0)
    };
    let image = decode(values.clone());
    assert_eq!(Image::from_rgb8(&image.rgb8(), 8, 8), image);
    assert_eq!(image.pixels[0], 128.0 / 255.0);
    for (pixel, latent) in image.pixels.iter().zip(&values) {
        let exact = (latent / 2.0 + 0.5).clamp(0.0, 1.0);
        assert!((pixel - exact).abs() < 0.5 / 255.0 + 1e-6, "{latent}: {pixel}");
    }
    values[5] = f32::NAN;
    assert!(decode(values).pixels[5].is_nan(), "a reward must see NaN");
}

/// Random scores of some rewards: `groups` groups of `size` rows.
fn random_scores(rng: &mut ChaCha8Rng, rewards: usize, groups: usize, size: usize) -> Scores {
    let part = |index: usize, rng: &mut ChaCha8Rng| Part {
        name: format!("r{index}"),
        weight: rng.random_range(0.1..3.0),
        scores: match index % 3 {
            0 => (0..groups * size).map(|_| rng.random_range(-2.0..5.0)).collect(),
            1 => (0..groups * size).map(|_| f32::from(rng.random_bool(0.2))).collect(),
            _ => vec![rng.random_range(-1.0..1.0); groups * size],
        },
    };
    let parts: Vec<Part> = (0..rewards).map(|index| part(index, rng)).collect();
    summed(parts, groups * size)
}

fn summed(parts: Vec<Part>, rows: usize) -> Scores {
    let of_row = |row: usize| parts.iter().map(|part| part.weight * part.scores[row]).sum();
    Scores { total: (0..rows).map(of_row).collect(), parts }
}

const COMBINATIONS: [(Combine, Spread); 3] = [
    (Combine::SumThenNormalize, Spread::Epoch),
    (Combine::SumThenNormalize, Spread::Group),
    (Combine::NormalizeThenSum, Spread::Group),
];

#[test]
fn shares_sum_to_one_and_a_constant_reward_has_none() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scores = random_scores(&mut rng, 6, 4, 6);
        for (combine, spread) in COMBINATIONS {
            let clip = rng.random_range(0.5..5.0);
            let config = AdvantageConfig { combine, spread, clip, ..AdvantageConfig::default() };
            let shares = Advantages::of_scores(&scores, 6, &config).shares(&scores, 6, &config);
            let sum: f64 = shares.values().sum();
            assert!((sum - 1.0).abs() < 1e-9, "seed {seed}, {combine:?}: {shares:?}");
            assert_eq!((shares["r2"], shares["r5"], shares.len()), (0.0, 0.0, 6), "seed {seed}");
        }
    }
}

#[test]
fn without_a_clip_the_parts_of_an_advantage_sum_to_it() {
    // The covariance of two rewards of weight 1 is shared by both: share = var + cov over all.
    for seed in 0..100 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut scores = random_scores(&mut rng, 1, 1, 50);
        let opposite = scores.parts[0].scores.iter().map(|score| -score).collect();
        scores.parts.push(Part { name: "against".to_owned(), weight: 0.0, scores: opposite });
        let weight = scores.parts[0].weight;
        scores.parts[1].weight = weight / 4.0;
        let scores = summed(scores.parts, 50);
        let config = AdvantageConfig { clip: 1e9, ..AdvantageConfig::default() };
        let shares = Advantages::of_scores(&scores, 50, &config).shares(&scores, 50, &config);
        // r − r/4: the first has 4/3 of the sum, the one against it −1/3.
        assert!((shares["r0"] - 4.0 / 3.0).abs() < 1e-4, "{shares:?}");
        assert!((shares["against"] + 1.0 / 3.0).abs() < 1e-4, "{shares:?}");
    }
}

#[test]
fn gdpo_does_not_see_the_scale_and_the_zero_of_a_reward_and_the_sum_does() {
    let mut moved = 0.0_f32;
    for seed in 0..100 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scores = random_scores(&mut rng, 3, 5, 8);
        let (factor, zero) = (rng.random_range(0.01..100.0), rng.random_range(-10.0..10.0));
        let mut parts = scores.parts.clone();
        parts[0].scores.iter_mut().for_each(|score| *score = factor * *score + zero);
        let changed = summed(parts, 40);
        let distance = |combine| {
            let config = AdvantageConfig { combine, epsilon: 1e-9, ..AdvantageConfig::default() };
            let [a, b] =
                [&scores, &changed].map(|scores| Advantages::of_scores(scores, 8, &config).values);
            a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        // The scores are f32: with a zero far away they keep fewer digits.
        let gdpo = distance(Combine::NormalizeThenSum);
        assert!(gdpo < 2e-3, "seed {seed}: {gdpo}, factor {factor}, zero {zero}");
        moved = moved.max(distance(Combine::SumThenNormalize));
    }
    assert!(moved > 0.5, "{moved}");
}

/// Metrics without times, as a run writes them.
fn lines(mut trainer: TestTrainer, epochs: usize) -> Vec<String> {
    let line = |_| {
        let metrics = trainer.iterate().expect("an epoch").metrics;
        let mut line = serde_json::to_value(metrics).expect("JSON");
        line.as_object_mut().expect("an object").remove("time");
        line.to_string()
    };
    (0..epochs).map(line).collect()
}

#[test]
fn a_reward_that_scores_beside_the_rollout_changes_no_byte() {
    let sleepy = || {
        let rng = Mutex::new(ChaCha8Rng::from_os_rng());
        move |image: &Image| {
            let wait = rng.lock().expect("no panic").random_range(0..2000);
            std::thread::sleep(Duration::from_micros(wait));
            redness(image)
        }
    };
    let run = |slow: Option<bool>, batch, workers| {
        let reward: Box<dyn Reward> = match slow {
            Some(slow) => Box::new(Of { score: sleepy(), slow }),
            None => Box::new(Of { score: redness, slow: false }),
        };
        let config = GrpoConfig { rollout_batch: batch, ..config() };
        let rewards = vec![("darkness", Box::new(Darkness) as Box<dyn Reward>), ("red", reward)];
        lines(trainer(config, rewards, None, Workers::new(workers).expect("threads")), 3)
    };
    let plain = run(None, 5, 1);
    assert!(plain[0].contains("\"advantage_shares\":{\"darkness\":"), "{}", plain[0]);
    for (slow, workers) in [(true, 1), (true, 3), (true, 3), (false, 2)] {
        assert_eq!(run(Some(slow), 5, workers), plain, "slow: {slow}, workers: {workers}");
    }
}

/// A decoder that waits at its second batch until a reward has scored the first one.
struct Waiting(Mutex<(usize, mpsc::Receiver<()>)>);

impl Decode<Plain> for Waiting {
    fn decode(&self, latents: Tensor<Plain, 4>) -> Vec<Image> {
        let mut waiting = self.0.lock().expect("no panic");
        waiting.0 += 1;
        if waiting.0 == 2 {
            let scored = waiting.1.recv_timeout(Duration::from_mins(1));
            scored.expect("the first batch is scored while the second is not sampled yet");
        }
        Decode::<Plain>::decode(&Decoder::Pixels, latents)
    }
}

#[test]
fn a_slow_reward_scores_while_the_rollout_goes_on() {
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(send);
    let score = move |image: &Image| {
        let _ = send.lock().expect("no panic").send(());
        redness(image)
    };
    let reward: Box<dyn Reward> = Box::new(Of { score, slow: true });
    let decoder = Arc::new(Waiting(Mutex::new((0, receive))));
    let workers = Workers::new(1).expect("a thread");
    trainer(config(), vec![("red", reward)], Some(decoder), workers).iterate().expect("an epoch");
}

/// A slow reward that cannot judge the image of one call.
struct FailsAt(AtomicUsize);

impl Reward for FailsAt {
    fn is_slow(&self) -> bool {
        true
    }

    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            1 => Err(Unjudged::image(3, "it is torn")),
            _ => Ok(vec![0.5; images.len()]),
        }
    }
}

#[test]
fn a_fault_beside_the_rollout_names_the_image_of_the_epoch() {
    let config = GrpoConfig { rollout_batch: 5, ..config() };
    let rewards: Vec<(&str, Box<dyn Reward>)> =
        vec![("torn", Box::new(FailsAt(AtomicUsize::new(0))))];
    let Err(TrainError::Reward(RewardError::Failed { image: Some((index, _)), .. })) =
        trainer(config, rewards, None, two_workers()).iterate()
    else {
        panic!("a fault of one image")
    };
    assert_eq!(index, 5 + 3, "the fourth image of the second batch");
}

#[test]
fn an_interruption_ends_scoring_beside_the_rollout_after_the_batch_in_hand() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static SCORED: AtomicUsize = AtomicUsize::new(0);
    let score = |image: &Image| {
        STOP.store(true, Ordering::SeqCst);
        SCORED.fetch_add(1, Ordering::SeqCst);
        redness(image)
    };
    let reward: Box<dyn Reward> = Box::new(Of { score, slow: true });
    let workers = two_workers().stopping_when(|| STOP.load(Ordering::SeqCst));
    let config = GrpoConfig { rollout_batch: 2, ..config() };
    let stopped = trainer(config, vec![("red", reward)], None, workers).iterate();
    assert!(matches!(stopped, Err(TrainError::Stopped(_))), "{stopped:?}");
    assert_eq!(SCORED.load(Ordering::SeqCst), 2, "one batch");
}
