//! `DiffusionNFT`, the second algorithm: the published code's numbers, and that it learns.

use burn::tensor::Tensor;
use flow::{
    VelocityField,
    analytic::{Component, MixtureField},
};
use grpo::{
    EncodedPrompt, GrpoConfig, Objective, Policy, RolloutConfig, Task, Trainer,
    algorithm::nft::{Fixed, Nft, NftConfig, OldPolicy, nft_loss},
    images::Decoder,
};
use tasks::{prompts::Prompt, toy::FirstMode};
use training::{optimizer::AdamWConfig, workers::Workers};

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    golden::Golden,
    training::{config, trainer},
};

#[test]
fn the_loss_and_its_gradient_are_those_of_the_published_code() {
    let golden = Golden::named("nft/nft");
    for case in &golden.cases {
        let key = case["key"].as_str().expect("key");
        let fact = |name: &str| case[name].as_f64().expect("a number");
        let get = |name: &str| golden.tensor::<4>(&format!("{key}.{name}"));
        let want = |name: &str| golden.wide(&format!("{key}.{name}"));
        let clip = fact("advantage_clip");
        let optimality: Vec<f32> = want("advantages")
            .iter()
            .map(|&advantage| Nft::optimality(advantage as f32, clip))
            .collect();
        assert!(
            distance(&optimality.iter().copied().map(f64::from).collect::<Vec<_>>(), &want("r"))
                < 1e-6,
            "{key}"
        );
        let (data, time) = (get("x0"), golden.tensor::<1>(&format!("{key}.t")));
        let t = time.clone().reshape([-1, 1, 1, 1]);
        let latent = data.clone() * (t.clone().neg() + 1.0) + get("noise") * t;
        assert!(distance(&numbers(latent.clone()), &want("x_t")) < 1e-5, "{key}");
        let optimality = Tensor::from_floats(optimality.as_slice(), &Device::default());
        let fixed = Fixed { data, latent, time, old: get("v_old"), optimality };

        let velocity = Tensor::<Training, 4>::from_inner(get("v")).require_grad();
        let rows = nft_loss(velocity.clone(), &fixed, fact("beta"), fact("smallest_weight"));
        assert!(distance(&numbers(rows.clone().inner()), &want("row_loss")) < 2e-5, "{key}");
        let reference = Tensor::<Training, 4>::from_inner(get("v_ref"));
        let kl = flow::row_mean((velocity.clone() - reference).powi_scalar(2));
        let loss = rows.mean() * clip + kl.mean() * fact("kl_weight");
        let total = numbers(loss.clone().inner())[0];
        assert!((total / fact("total_loss") - 1.0).abs() < 1e-5, "{key}: {total}");
        let gradient = velocity.grad(&loss.backward()).expect("a gradient");
        assert!(distance(&numbers(gradient), &want("grad_v")) < 2e-5, "{key}");
    }
}

#[test]
fn the_old_policy_follows_as_in_the_published_code() {
    let default = NftConfig::default().old_policy;
    let text = OldPolicy { flat: 75, rate: 0.0075, most: 0.999 };
    for (policy, updates, decay) in [
        (default, 0, 0.0),
        (default, 1, 0.001),
        (default, 499, 0.499),
        (default, 9_999, 0.5),
        (text, 75, 0.0),
        (text, 77, 0.015),
        (text, 400, 0.999),
    ] {
        assert!((policy.decay(updates) - decay).abs() < 1e-12, "{policy:?} after {updates}");
    }
}

fn with_nft(config: GrpoConfig, nft: NftConfig) -> GrpoConfig {
    GrpoConfig { objective: Objective::Nft(nft), ..config }
}

#[test]
fn without_a_likelihood_the_policy_learns_darkness() {
    // The ODE samples: no step draws noise, and none needs to.
    let rollout = RolloutConfig { random_steps: 0, ..config().rollout };
    let mut trainer =
        trainer(with_nft(GrpoConfig { rollout, ..config() }, NftConfig::default()), 1);
    let rewards: Vec<f64> =
        (0..24).map(|_| trainer.iterate().expect("an epoch").metrics.reward).collect();
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    assert!(mean(&rewards[20..]) > mean(&rewards[..4]) + 0.02, "{rewards:?}");
}

/// The flow of the eight clusters of the toy task, moved by what is learned.
#[derive(burn::module::Module, Debug)]
struct Moved<B: burn::tensor::backend::Backend> {
    by: burn::module::Param<Tensor<B, 4>>,
    #[module(skip)]
    clusters: MixtureField,
}

impl<B: burn::tensor::backend::Backend> VelocityField<B> for Moved<B> {
    type Condition = ();

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[()],
    ) -> Tensor<B, 4> {
        self.clusters.velocity(latent, time, conditions) + self.by.val()
    }
}

/// The rewards of the toy task over some epochs, and what the velocity was moved by.
fn toy(nft: NftConfig, epochs: usize) -> (Vec<f64>, Vec<f64>) {
    let component = |mode: usize| {
        let [x, y] = tasks::toy::center(mode);
        Component { weight: 1.0, mean: vec![x, y], std: f64::from(tasks::toy::STD) }
    };
    let by = burn::module::Param::from_tensor(Tensor::zeros([1, 2, 1, 1], &Device::default()));
    let field = Moved::<Plain> {
        by,
        clusters: MixtureField::new((0..tasks::toy::MODES).map(component).collect()),
    };
    let prompt = EncodedPrompt { prompt: Prompt::plain("a point"), condition: () };
    let task = Task::new(vec![prompt], (), FirstMode, [2, 1, 1], Decoder::Points);
    let batches = GrpoConfig {
        groups: 1,
        group_size: 512,
        rollout_batch: 512,
        micro_batch: 512,
        ..GrpoConfig::default()
    };
    let config = GrpoConfig {
        optimizer: AdamWConfig { learning_rate: 0.03, ..AdamWConfig::default() },
        rollout: RolloutConfig { random_steps: 0, ..RolloutConfig::default() },
        ..batches
    };
    let workers = Workers::new(1).expect("a thread");
    let mut trainer = Trainer::<Training, Moved<Training>>::new(
        with_nft(config, nft),
        epochs,
        1,
        task,
        Policy::full(field),
        workers,
    );
    let rewards =
        (0..epochs).map(|_| trainer.iterate().expect("an epoch").metrics.reward).collect();
    (rewards, numbers(trainer.averaged_policy().by.val()))
}

#[test]
fn the_toy_task_moves_towards_its_cluster() {
    let (rewards, by) = toy(NftConfig::default(), 20);
    println!("{rewards:.3?} {by:.3?}");
    // The cluster lies at (2, 0), and the ODE ends where −∫ v dt points.
    assert!(rewards[19] > rewards[0] + 0.03 && by[0] < -0.2, "{rewards:.3?} {by:.3?}");
}

#[test]
fn an_old_policy_that_never_follows_samples_what_it_sampled() {
    let still = OldPolicy { flat: 0, rate: 1.0, most: 0.999_999 };
    let (rewards, by) = toy(NftConfig { old_policy: still, ..NftConfig::default() }, 10);
    assert!(by[0] < -0.1, "the policy moves: {by:?}");
    let spread =
        rewards.iter().fold(0.0_f64, |spread, reward| spread.max((reward - rewards[0]).abs()));
    assert!(spread < 0.03, "but the old one samples: {rewards:?}");
}
