//! The trajectories of an epoch, kept on the device or the host until its updates have replayed
//! them.

use burn::prelude::*;
use flow::Trajectory;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where latents wait for the updates; changes memory and speed, not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptOn {
    /// In the memory of the device.
    #[default]
    Device,
    /// In the memory of the host; the latents of a micro-batch are copied to the device when it is
    /// replayed.
    Host,
}

/// Trajectories of the rows of an epoch or of a rollout batch.
#[derive(Clone, Debug)]
pub struct Trajectories<B: Backend> {
    latents: Vec<Option<Latents<B>>>,
    log_probs: Vec<Option<Tensor<B, 1>>>,
    device: B::Device,
}

/// The latents of all rows at a point of the grid, `[B, C, H, W]`.
#[derive(Clone, Debug)]
enum Latents<B: Backend> {
    Device(Tensor<B, 4>),
    Host { numbers: Vec<f32>, shape: [usize; 3] },
}

impl<B: Backend> Trajectories<B> {
    /// Stores a trajectory on the device or the host.
    pub fn keep(trajectory: Trajectory<B>, on: KeptOn) -> Self {
        let device = trajectory.final_latent().device();
        let latents = |latents: Tensor<B, 4>| match on {
            KeptOn::Device => Latents::Device(latents),
            KeptOn::Host => {
                let [_, channels, height, width] = latents.dims();
                let numbers = latents.into_data().to_vec().expect("latents are f32");
                Latents::Host { numbers, shape: [channels, height, width] }
            }
        };
        let latents = trajectory.latents.into_iter().map(|kept| kept.map(latents)).collect();
        Self { latents, log_probs: trajectory.log_probs, device }
    }

    /// Concatenates the rows of several parts, which share the grid and the place of their latents.
    ///
    /// # Panics
    /// If `parts` is empty.
    pub fn joined(parts: Vec<Self>) -> Self {
        let device = parts.first().expect("there are rows").device.clone();
        let (latents, log_probs): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.latents, part.log_probs)).unzip();
        let log_probs =
            transposed(log_probs).map(|parts| parts.map(|parts| Tensor::cat(parts, 0))).collect();
        let latents = transposed(latents).map(|parts| parts.map(Latents::joined)).collect();
        Self { latents, log_probs, device }
    }

    /// The device on which trajectories are replayed.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// `[C, H, W]` of a latent.
    pub fn latent_shape(&self) -> [usize; 3] {
        match self.at(self.latents.len() - 1) {
            Latents::Device(latents) => {
                let [_, channels, height, width] = latents.dims();
                [channels, height, width]
            }
            Latents::Host { shape, .. } => *shape,
        }
    }

    /// The latents of some rows at grid point `index`, `[rows, C, H, W]`.
    ///
    /// # Panics
    /// If no random step begins or ends there and it is not the last grid point, unless the sampler
    /// keeps ODE steps.
    pub fn latents(&self, index: usize, rows: &[usize]) -> Tensor<B, 4> {
        match self.at(index) {
            Latents::Device(latents) => latents.clone().select(0, indices(rows, &self.device)),
            Latents::Host { numbers, shape } => {
                let size = shape.iter().product::<usize>();
                let numbers: Vec<f32> =
                    rows.iter().flat_map(|row| &numbers[row * size..][..size]).copied().collect();
                on_device(numbers, *shape, &self.device)
            }
        }
    }

    /// The log-probabilities `log π(x_{t_{index+1}} | x_{t_index})` of some rows, `[rows]`.
    ///
    /// # Panics
    /// If the step was not random.
    pub fn log_probs(&self, index: usize, rows: &[usize]) -> Tensor<B, 1> {
        self.log_probs[index]
            .clone()
            .expect("only random steps are trained")
            .select(0, indices(rows, &self.device))
    }

    /// The latents of all rows at t = 0, `[B, C, H, W]`.
    pub fn final_latents(&self) -> Tensor<B, 4> {
        match self.at(self.latents.len() - 1) {
            Latents::Device(latents) => latents.clone(),
            Latents::Host { numbers, shape } => on_device(numbers.clone(), *shape, &self.device),
        }
    }

    fn at(&self, index: usize) -> &Latents<B> {
        self.latents[index]
            .as_ref()
            .expect("a random step begins or ends here, or the trajectory does")
    }
}

impl<B: Backend> Latents<B> {
    fn joined(parts: Vec<Self>) -> Self {
        let (mut on_device, mut on_host, mut of_one) = (Vec::new(), Vec::new(), [0; 3]);
        for part in parts {
            match part {
                Self::Device(latents) => on_device.push(latents),
                Self::Host { numbers, shape } => {
                    of_one = shape;
                    on_host.push(numbers);
                }
            }
        }
        if on_device.is_empty() {
            Self::Host { numbers: on_host.concat(), shape: of_one }
        } else {
            Self::Device(Tensor::cat(on_device, 0))
        }
    }
}

/// Turns values per part and grid point into values per grid point and part.
fn transposed<T>(parts: Vec<Vec<Option<T>>>) -> impl Iterator<Item = Option<Vec<T>>> {
    let points = parts.first().map_or(0, Vec::len);
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    // Advance every iterator before `collect` stops at the first `None`.
    let mut of_point =
        move || parts.iter_mut().map(|part| part.next().flatten()).collect::<Vec<_>>();
    (0..points).map(move |_| of_point().into_iter().collect())
}

fn indices<B: Backend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Tensor::from_ints(rows.as_slice(), device)
}

fn on_device<B: Backend>(
    numbers: Vec<f32>,
    [channels, height, width]: [usize; 3],
    device: &B::Device,
) -> Tensor<B, 4> {
    let rows = numbers.len() / (channels * height * width);
    Tensor::from_data(TensorData::new(numbers, [rows, channels, height, width]), device)
}
