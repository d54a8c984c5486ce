//! The loop from noise to data: a field, a grid and one transition per step.

use burn::prelude::*;

use crate::{
    field::{Query, VelocityField},
    gaussian::Reduction,
    time_grid::{Step, TimeGrid},
    transition::{Ode, Transition},
};

/// A time grid with the transition of each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    grid: TimeGrid,
    /// The transition of every step with an index below `random`.
    transition: Transition,
    /// Index of the first ODE step.
    random: usize,
    keeps_ode_steps: bool,
}

impl Sampler {
    /// Creates a sampler with the same transition at every step.
    pub fn new(grid: TimeGrid, transition: impl Into<Transition>) -> Self {
        Self { random: grid.len(), grid, transition: transition.into(), keeps_ode_steps: false }
    }

    /// Creates the deterministic sampler for inference.
    pub fn ode(grid: TimeGrid) -> Self {
        Self::new(grid, Ode {})
    }

    /// Uses ODE steps after the first `random` steps.
    ///
    /// Deviation `ode-last-steps`: the reference code draws noise at every step. The content of an
    /// image is decided early. Late noise costs sharpness and teaches little, and the noise of the
    /// last step stays in the image: 0.006 on the reference's grid, but a visible 0.07 on a linear
    /// grid of 10 steps. With few random steps this is MixGRPO's window at the start of the
    /// trajectory (arXiv 2507.21802).
    #[must_use]
    pub fn with_ode_after(mut self, random: usize) -> Self {
        self.random = self.random.min(random);
        self
    }

    /// Keeps the latents at ODE steps in trajectories, so that these steps can be replayed.
    #[must_use]
    pub fn keeping_ode_steps(mut self) -> Self {
        self.keeps_ode_steps = true;
        self
    }

    /// The time grid.
    pub fn grid(&self) -> &TimeGrid {
        &self.grid
    }

    /// Every step with its transition.
    pub fn steps(&self) -> impl Iterator<Item = (Step, Transition)> + '_ {
        self.grid.steps().map(|step| (step, self.transition(step.index)))
    }

    /// Step `index` with its transition.
    ///
    /// # Panics
    /// If `index ≥ N`.
    pub fn step(&self, index: usize) -> (Step, Transition) {
        (self.grid.step(index), self.transition(index))
    }

    /// The transition of the random steps; the KL penalty applies it to ODE steps as well.
    pub fn stochastic(&self) -> Transition {
        self.transition
    }

    fn transition(&self, index: usize) -> Transition {
        if index < self.random { self.transition } else { Ode {}.into() }
    }

    /// Samples a trajectory for every row.
    ///
    /// # Shapes
    /// - `initial`: the noise `x_1`, `[B, C, H, W]`, f32
    /// - `noise(step)`: `[B, C, H, W]`, standard normal; asked for only where the step is random
    // ANCHOR: trajectory
    pub fn trajectory<B: Backend, F: VelocityField<B>>(
        &self,
        field: &F,
        conditions: &[F::Condition],
        initial: Tensor<B, 4>,
        mut noise: impl FnMut(Step) -> Tensor<B, 4>,
        reduction: Reduction,
    ) -> Trajectory<B> {
        let mut latent = initial;
        let mut latents = vec![self.keeps(0).then(|| latent.clone())];
        let mut log_probs = Vec::with_capacity(self.grid.len());
        for (step, transition) in self.steps() {
            let policy = transition.gaussian(
                latent.clone(),
                velocity_at(field, latent, step, conditions),
                step,
            );
            if policy.is_random() {
                latent = policy.sample(noise(step));
                log_probs.push(Some(policy.log_prob(latent.clone(), reduction)));
            } else {
                latent = policy.mean;
                log_probs.push(None);
            }
            latents.push(self.keeps(step.index + 1).then(|| latent.clone()));
        }
        Trajectory { latents, log_probs }
    }
    // ANCHOR_END: trajectory

    /// Whether a trajectory keeps `x_{t_index}`: a random step begins or ends there, or it is the
    /// last. Other latents are kept only on request, so memory grows only with the number of random
    /// steps.
    fn keeps(&self, index: usize) -> bool {
        let random = |step: usize| {
            step < self.grid.len() && self.transition(step).is_random(self.grid.step(step))
        };
        self.keeps_ode_steps
            || index == self.grid.len()
            || random(index)
            || index.checked_sub(1).is_some_and(random)
    }

    /// Samples only the final latent, without keeping a trajectory.
    ///
    /// # Shapes
    /// - as in [`Self::trajectory`]; the result: `[B, C, H, W]`
    pub fn sample<B: Backend, F: VelocityField<B>>(
        &self,
        field: &F,
        conditions: &[F::Condition],
        initial: Tensor<B, 4>,
        mut noise: impl FnMut(Step) -> Tensor<B, 4>,
    ) -> Tensor<B, 4> {
        self.steps().fold(initial, |latent, (step, transition)| {
            let policy = transition.gaussian(
                latent.clone(),
                velocity_at(field, latent, step, conditions),
                step,
            );
            if policy.is_random() { policy.sample(noise(step)) } else { policy.mean }
        })
    }
}

/// Evaluates the field at the start of `step`, with every row at the same time.
pub fn velocity_at<B: Backend, F: VelocityField<B>>(
    field: &F,
    latent: Tensor<B, 4>,
    step: Step,
    conditions: &[F::Condition],
) -> Tensor<B, 4> {
    Query::at(step.from, latent, conditions).ask(field)
}

/// A sampled trajectory: the latents around random steps, the log-probabilities of the draws, and
/// the final latent.
///
/// # Shapes
/// - `latents`: `N + 1`, from noise to data; `[B, C, H, W]`, f32, if kept, otherwise `None`: where
///   a random step begins or ends, at t = 0, and everywhere if the sampler keeps ODE steps
/// - `log_probs`: `N`, `[B]` where the step was random, otherwise `None`
#[derive(Clone, Debug)]
pub struct Trajectory<B: Backend> {
    /// The latents `x_{t_0}, …, x_{t_N}`.
    pub latents: Vec<Option<Tensor<B, 4>>>,
    /// The log-probabilities `log π(x_{t_{i+1}} | x_{t_i})`.
    pub log_probs: Vec<Option<Tensor<B, 1>>>,
}

impl<B: Backend> Trajectory<B> {
    /// The latent at grid point `index`, `[B, C, H, W]`.
    ///
    /// # Panics
    /// If the latent is not kept: no random step begins or ends there, it is not the last, and the
    /// sampler keeps no ODE steps.
    pub fn latent(&self, index: usize) -> Tensor<B, 4> {
        self.latents[index]
            .clone()
            .expect("a random step begins or ends here, or the trajectory does")
    }

    /// The latent at t = 0, `[B, C, H, W]`.
    pub fn final_latent(&self) -> Tensor<B, 4> {
        self.latent(self.latents.len() - 1)
    }
}
