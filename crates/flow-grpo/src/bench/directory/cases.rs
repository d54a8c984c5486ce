//! The timed cases of a batch size.

use std::time::Instant;

use anyhow::{Context, Error, Result};
use burn::tensor::Tensor;
use flow::{FlowSde, Guidance, Reduction, Sampler, Trajectory, VelocityField, velocity_at};
use grpo::{
    TrainedSteps,
    algorithm::{Clipped, Example},
    objective::ObjectiveConfig,
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Others, Replay},
};
use models::{Adapter, lora};
use pipelines::Pipeline;
use training::{
    noise::{Key, Purpose, normal},
    optimisation::Optimisation,
    optimizer::Optimizer,
    parameters::Trained,
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training},
    bench::{
        count::Case,
        directory::{
            CASES, DirectoryArgs, GUIDANCE,
            report::{Cases, Measured},
        },
        spread,
    },
    machine::memory,
    terminal::output::log,
    train::{config::TrainConfig, tuning::Tuning},
};

/// Index of the timed step out of ten; all steps cost the same.
const STEP: usize = 3;

/// The data that the cases share.
pub struct Bench<'a, P: Pipeline<Training>> {
    pipeline: P,
    base: P::Network,
    policy: P::Network,
    preset: &'a TrainConfig,
    conditions: Vec<P::Condition>,
    /// Classifier-free guidance, unless the network reads its scale.
    guidance: Option<Guidance<P::Condition>>,
    sampler: Sampler,
    latents: Tensor<Plain, 4>,
    noise: Tensor<Plain, 4>,
    workers: Workers,
}

impl<'a, P: Pipeline<Training>> Bench<'a, P> {
    /// The data of a batch, and the network with a new adapter.
    ///
    /// # Errors
    /// If the model cannot be loaded.
    pub fn new(
        args: &DirectoryArgs,
        pipeline: P,
        preset: &'a TrainConfig,
        batch: usize,
        device: &Device,
    ) -> Result<Self> {
        let prompt = |seed: usize| {
            let prompt = pipeline.made_up(seed, args.text_length);
            prompt.context("this model has no conditions for measurements")
        };
        let mut base = pipeline.network()?;
        let Tuning::Lora(lora) = &preset.tuning else {
            unreachable!("the presets of a model directory train adapters")
        };
        let mut policy = Adapter::new(lora, &mut base, 1)?.attach(base.clone(), device)?;
        let shape = pipeline.latent_shape();
        let conditions = (1..=batch).map(prompt).collect::<Result<Vec<_>>>()?;
        let guidance = (!pipeline.reads_guidance())
            .then(|| Ok::<_, Error>(Guidance { unconditional: prompt(0)?, scale: GUIDANCE }))
            .transpose()?;
        // As a rollout does.
        match &guidance {
            Some(guidance) => policy.prepare(&guidance.and_unconditional(&conditions), shape),
            None => policy.prepare(&conditions, shape),
        }
        let keys =
            |purpose| (0..batch).map(|row| Key::new(1, purpose).row(row, 0)).collect::<Vec<Key>>();
        Ok(Self {
            base,
            policy,
            preset,
            conditions,
            guidance,
            sampler: Sampler::new(pipeline.grid()?.grid(10)?, FlowSde::default()),
            latents: normal::<Plain>(&keys(Purpose::Initial), shape, device),
            noise: normal::<Plain>(&keys(Purpose::Step), shape, device),
            workers: Workers::new(1)?,
            pipeline,
        })
    }

    /// A step with guidance: the next latents and the log-probabilities.
    fn denoise(&self) -> (Tensor<Plain, 4>, Tensor<Plain, 1>) {
        let (step, transition) = self.sampler.step(STEP);
        let latents = self.latents.clone();
        let velocity = match &self.guidance {
            Some(guidance) => {
                let field = guidance.around(self.policy.clone());
                velocity_at(&field, latents.clone(), step, &self.conditions)
            }
            None => velocity_at(&self.policy, latents.clone(), step, &self.conditions),
        };
        let policy = transition.gaussian(latents, velocity, step);
        let next = policy.sample(self.noise.clone());
        let log_prob = policy.log_prob(next.clone(), Reduction::Mean);
        (next, log_prob)
    }

    /// Times all cases.
    ///
    /// # Errors
    /// If the decoder cannot be loaded.
    pub fn cases(&self, repetitions: u32) -> Result<Cases> {
        self.with_cases(|all| {
            let mut cases = Cases::new();
            for (name, case) in all {
                let measured = measure(case, repetitions);
                let batch = self.conditions.len();
                log(format!("batch {batch}: {name} {:.3} s", measured.median));
                cases.insert((*name).to_owned(), Some(measured));
            }
            cases
        })
    }

    /// Makes the cases and hands them on.
    ///
    /// # Errors
    /// If the decoder cannot be loaded.
    pub fn with_cases<T>(&self, work: impl FnOnce(&[Case<'_>]) -> T) -> Result<T> {
        let trained = Trained::named(&self.policy, lora::is_of_adapter);
        let objective = ObjectiveConfig::default();
        let algorithm =
            Clipped::new(objective, Reduction::Mean, TrainedSteps::AllButLast {}, &self.sampler);
        let batch = self.conditions.len();
        let replay = Replay {
            sampler: &self.sampler,
            guidance: self.guidance.as_ref(),
            trajectories: &self.trajectories(),
            conditions: &self.conditions,
            advantages: &vec![1.0; batch],
            kl_weight: objective.kl_weight,
            noise: Key::new(1, Purpose::Forward),
            trained: &trained,
            batches: Batches::Of(batch),
            loss_scale: 1.0,
            workers: &self.workers,
        };
        let examples: Vec<Example> = (0..batch).map(|row| Example { step: STEP, row }).collect();
        let others = Others { reference: Some(self.base.clone()), old: None };
        let differentiate = self.pipeline.differentiate();
        let outcome = || {
            let outcome = replay.gradient(
                &algorithm,
                &*differentiate,
                &self.policy,
                &others,
                std::slice::from_ref(&examples),
            );
            outcome.expect("nobody stops a measurement")
        };
        let gradient = outcome().gradient;
        let weights = trained.of(&self.policy);
        let optimizer = Optimizer::new(self.preset.grpo.optimizer, &weights);
        let optimisation = Optimisation::new(weights, optimizer, self.preset.grpo.ema);
        let decoder = self.pipeline.decoder()?;
        let cases: [Case<'_>; CASES.len()] = [
            (CASES[0], &|| drop(self.denoise().1.into_data())),
            (CASES[1], &|| drop(outcome())),
            (CASES[2], &|| {
                let mut optimisation = optimisation.clone();
                optimisation.take(0.0, &gradient, 1.0).expect("the gradient is finite");
                std::hint::black_box(optimisation.weights().norm());
            }),
            (CASES[3], &|| drop(decoder.decode(self.latents.clone()))),
        ];
        Ok(work(&cases))
    }

    /// Trajectories that consist of the timed step.
    fn trajectories(&self) -> Trajectories<Plain> {
        let (next, log_prob) = self.denoise();
        let mut trajectory = Trajectory { latents: vec![None; 11], log_probs: vec![None; 10] };
        trajectory.latents[STEP] = Some(self.latents.clone());
        trajectory.latents[STEP + 1] = Some(next.clone());
        trajectory.latents[10] = Some(next);
        trajectory.log_probs[STEP] = Some(log_prob);
        Trajectories::keep(trajectory, KeptOn::Device)
    }
}

/// Times a case, after an untimed repetition.
fn measure(case: &dyn Fn(), repetitions: u32) -> Measured {
    case();
    memory::forget_peak();
    let seconds: Vec<f64> = (0..repetitions)
        .map(|_| {
            let started = Instant::now();
            case();
            started.elapsed().as_secs_f64()
        })
        .collect();
    let [min, median, max] = spread(&seconds);
    Measured { median, min, max, peak_mib: memory::peak_of_tensors_mib() }
}
