//! DiffusionNFT: a likelihood-free algorithm that compares the velocity with an old policy on the
//! forward process.

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::{Sampler, row_mean};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Algorithm, Ask, Batch, Example, Loss, Numbers, Other, Outcome, Question};
use training::noise::{self, Key};

use crate::{advantage::mean, config::TrainedSteps, update::Replay};

/// The settings of `DiffusionNFT`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NftConfig {
    /// Distance `β` of the compared policies `v±` from the old policy; 1 in the paper, 0.1 for
    /// text rendering.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub beta: f64,
    /// Bound on advantages and factor of the loss.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub advantage_clip: f64,
    /// Lower bound on the weight `w` that divides a row's loss.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub smallest_weight: f64,
    /// The weight of `mean((v − v_ref)²)`; at 0 the reference is not evaluated.
    #[schemars(range(min = 0.0))]
    pub kl_weight: f64,
    /// How the old policy, which samples, follows the new one.
    pub old_policy: OldPolicy,
}

/// Schedule of the old policy: the share of it that remains at the end of an epoch.
///
/// ```text
/// d(n) = min(max(n − flat, 0)·rate, most)        after n updates of the optimiser
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OldPolicy {
    /// Updates during which the old policy equals the new one.
    pub flat: usize,
    /// Growth of the share per update.
    #[schemars(range(min = 0.0))]
    pub rate: f64,
    /// The largest share.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub most: f64,
}

impl Default for NftConfig {
    /// The values of the published code (`config/nft.py`).
    fn default() -> Self {
        let old_policy = OldPolicy { flat: 0, rate: 0.001, most: 0.5 };
        Self { beta: 1.0, advantage_clip: 5.0, smallest_weight: 1e-5, kl_weight: 1e-4, old_policy }
    }
}

impl OldPolicy {
    /// The share that remains after `updates` updates.
    pub fn decay(self, updates: usize) -> f64 {
        (updates.saturating_sub(self.flat) as f64 * self.rate).min(self.most)
    }
}

/// The inputs of [`nft_loss`] that have no gradient.
///
/// # Shapes
/// - `data` (`x_0`), `latent` (`x_t`), `old`: `[B, C, H, W]`; `optimality` (`r`): `[B]`, in `[0,
///   1]`
#[derive(Clone, Debug)]
pub struct Fixed<B: Backend> {
    /// The sampled latent `x_0`.
    pub data: Tensor<B, 4>,
    /// `x_t = (1 − t)·x_0 + t·x_1`
    pub latent: Tensor<B, 4>,
    /// The time `t` of each row, `[B]`.
    pub time: Tensor<B, 1>,
    /// The velocity of the old policy.
    pub old: Tensor<B, 4>,
    /// The optimality `r` of each row, in `[0, 1]`.
    pub optimality: Tensor<B, 1>,
}

/// The loss of every row, without the factor `advantage_clip`.
///
/// ```text
/// v⁺ = β·v + (1 − β)·v_old        v⁻ = (1 + β)·v_old − β·v        x̂_0± = x_t − t·v±
/// L  = r·‖x̂_0⁺ − x_0‖²/(w⁺·β) + (1 − r)·‖x̂_0⁻ − x_0‖²/(w⁻·β)     w± = max(mean|x̂_0± − x_0|, smallest)
/// ```
///
/// Source: arXiv 2509.16117, equation 5, with the published code's weights `w`
/// (NVlabs/DiffusionNFT, commit 24af555, `scripts/train_nft_sd3.py:934-959`); norms are means over
/// elements. The weights have no gradient.
///
/// # Shapes
/// - `velocity`: `[B, C, H, W]`; the result: `[B]`
// ANCHOR: loss
pub fn nft_loss<B: AutodiffBackend>(
    velocity: Tensor<B, 4>,
    fixed: &Fixed<B::InnerBackend>,
    beta: f64,
    smallest: f64,
) -> Tensor<B, 1> {
    let Fixed { data, latent, time, old, optimality } = fixed.clone();
    let [data, latent, old] = [data, latent, old].map(Tensor::<B, 4>::from_inner);
    let time = Tensor::<B, 1>::from_inner(time).reshape([-1, 1, 1, 1]);
    let optimality = Tensor::<B, 1>::from_inner(optimality);
    let distance = |velocity: Tensor<B, 4>| {
        let error = latent.clone() - velocity * time.clone() - data.clone();
        let weight = row_mean(error.clone().abs()).detach().clamp_min(smallest);
        row_mean(error.powi_scalar(2)) / weight
    };
    let better = distance(velocity.clone() * beta + old.clone() * (1.0 - beta));
    let worse = distance(old * (1.0 + beta) - velocity * beta);
    (better * optimality.clone() + worse * (optimality.neg() + 1.0)) / beta
}
// ANCHOR_END: loss

/// The `DiffusionNFT` algorithm on the final latents of a rollout.
///
/// Source: arXiv 2509.16117. The examples are rows at start times of the grid's steps; their noise
/// is drawn anew.
#[derive(Clone, Debug)]
pub struct Nft {
    config: NftConfig,
    steps: usize,
    count: usize,
}

impl Nft {
    /// Creates the algorithm for rollouts of `sampler`.
    pub fn new(config: NftConfig, trained_steps: TrainedSteps, sampler: &Sampler) -> Self {
        let steps = sampler.grid().len();
        Self {
            config,
            steps,
            count: trained_steps.count(steps.saturating_sub(1).max(1)).min(steps),
        }
    }

    /// The optimality `r = clamp(A/(2·clip) + ½, 0, 1)` of an advantage.
    pub fn optimality(advantage: f32, clip: f64) -> f32 {
        (f64::from(advantage) / clip / 2.0 + 0.5).clamp(0.0, 1.0) as f32
    }
}

/// Columns of the outcome.
const LOSS: usize = 0;
const KL: usize = 1;

impl<B: AutodiffBackend, C: Clone> Algorithm<B, C> for Nft {
    fn examples(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<Example>> {
        let steps = index::sample(rng, self.steps, self.count).into_vec();
        vec![
            steps
                .into_iter()
                .flat_map(|step| rows.iter().map(move |&row| Example { step, row }))
                .collect(),
        ]
    }

    fn question<'a>(
        &'a self,
        replay: &'a Replay<'_, B::InnerBackend, C>,
        batch: &'a Batch,
        ask: &Ask<'_, B::InnerBackend, C>,
    ) -> Question<'a, B, C> {
        let (step, device) = (replay.sampler.step(batch.step).0, replay.trajectories.device());
        let data = replay.trajectories.latents(replay.sampler.grid().len(), &batch.rows);
        let [_, channels, height, width] = data.dims();
        let keys: Vec<Key> =
            batch.rows.iter().map(|&row| replay.noise.row(row, 0).step(batch.step)).collect();
        let noise: Tensor<B::InnerBackend, 4> =
            noise::normal(&keys, [channels, height, width], device);
        let latent = data.clone() * (1.0 - step.from) + noise * step.from;
        let query = replay.query(step, latent.clone(), batch);
        let optimality: Vec<f32> = batch
            .rows
            .iter()
            .map(|&row| Self::optimality(replay.advantages[row], self.config.advantage_clip))
            .collect();
        let guided = |velocity| replay.guided(velocity, flow::GuidanceGradient::Both);
        let fixed = Fixed {
            old: guided(ask(Other::Old, query.clone()).expect("this algorithm has an old policy")),
            data,
            latent,
            time: Tensor::full([batch.rows.len()], step.from, device),
            optimality: Tensor::from_floats(optimality.as_slice(), device),
        };
        let reference = ask(Other::Reference, query.clone()).map(guided);
        let loss = move |velocity: Tensor<B, 4>| {
            let velocity = replay.guided(velocity, flow::GuidanceGradient::Both);
            let policy =
                nft_loss(velocity.clone(), &fixed, self.config.beta, self.config.smallest_weight);
            let policy = batch.trained(policy * self.config.advantage_clip);
            let kl = reference.clone().map(|reference| {
                batch.trained(row_mean((velocity - Tensor::from_inner(reference)).powi_scalar(2)))
            });
            let loss = match kl.clone() {
                Some(kl) => policy.clone() + kl * replay.kl_weight,
                None => policy.clone(),
            };
            let kl = kl.map_or_else(|| policy.clone().inner().zeros_like(), Tensor::inner);
            Loss {
                value: loss.sum() * batch.share,
                numbers: Tensor::cat(vec![policy.inner(), kl], 0),
            }
        };
        Question { query, loss: Box::new(loss) }
    }

    fn outcome(
        &self,
        replay: &Replay<'_, B::InnerBackend, C>,
        batches: &[Batch],
        numbers: &[f64],
    ) -> Outcome {
        let Numbers { columns, .. } = Numbers::sorted(batches, 0, 2, numbers);
        let total: f64 = columns[LOSS]
            .iter()
            .zip(&columns[KL])
            .map(|(loss, kl)| loss + replay.kl_weight * kl)
            .sum();
        let loss = batches.first().map_or(0.0, |batch| batch.share) * total;
        Outcome { loss, examples: batches.iter().flat_map(Batch::examples).collect(), columns }
    }

    fn metrics(&self, updates: &[&[Outcome]]) -> Map<String, Value> {
        let column = |column: usize| {
            updates
                .iter()
                .flat_map(|terms| terms[0].columns[column].iter().copied())
                .collect::<Vec<_>>()
        };
        let named = [("policy_loss", mean(&column(LOSS))), ("kl_reference", mean(&column(KL)))];
        named.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    fn headline(&self, metrics: &Map<String, Value>) -> String {
        format!("policy loss {:.4}", metrics["policy_loss"].as_f64().unwrap_or(f64::NAN))
    }

    fn old_policy_decay(&self, updates: usize) -> Option<f64> {
        Some(self.config.old_policy.decay(updates))
    }
}
