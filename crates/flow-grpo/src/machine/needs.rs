//! The memory that a run needs: an estimate before it starts.
//!
//! The estimate adds up weights and optimiser state, the models of rewards, trajectories, and the
//! activations of the passes that run at the same time; on a GPU, also the parts of the pages in which
//! CubeCL takes memory that stay empty. On CPU backends it is compared with the memory that the system has
//! left, on CUDA with the memory of the GPU that was free at the start; on wgpu it is not checked.

use anyhow::{Result, ensure};
use burn::tensor::{DType, FloatDType};
use pipelines::Footprint;

use crate::{
    backend::{self, ON_CPU, PRECISION},
    machine::memory::usable,
};

/// Memory needs of a run, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Weights, their average, gradients and optimiser moments.
    pub weights: u64,
    /// Latents and images of an epoch, or of a batch.
    pub samples: u64,
    /// Activations per transition, or image, that a forward pass keeps for its backward pass, on
    /// all workers.
    pub kept: u64,
    /// Values per image that are alive in a forward pass of a rollout, on all workers.
    pub alive: u64,
    /// Needs of decoding, which runs at another time than both.
    pub decoding: u64,
    /// The models of rewards, with the activations of their batches.
    pub rewards: u64,
    /// Conditions on the device.
    pub conditions: u64,
    /// Batch sizes of the run.
    pub batches: Batches,
    /// Whether tensors are in the memory of the machine, not of a GPU.
    pub on_cpu: bool,
    /// As in [`Place`].
    pub page: u64,
}

/// What a run's memory depends on, besides its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether tensors are in the memory of the machine, not of a GPU.
    pub on_cpu: bool,
    /// Largest page in which memory of the GPU is taken: see [`page_of_gpu`]; 0 on a CPU.
    pub page: u64,
    /// Threads that compute whole micro-batches.
    pub workers: usize,
    /// Precision of the layers of a transformer.
    pub precision: FloatDType,
}

impl Place {
    /// This build on this machine.
    pub fn here() -> Self {
        let page = if ON_CPU { 0 } else { usable().map_or(0, page_of_gpu) };
        Self { on_cpu: ON_CPU, page, workers: backend::workers(), precision: PRECISION }
    }
}

/// The sizes of a run's network and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The memory of activations and decoder.
    pub footprint: Footprint,
    /// `[C, H, W]` of a latent.
    pub latent_shape: [usize; 3],
    /// Number of trained parameters, in f32.
    pub trained: usize,
    /// Bytes of the frozen parameters.
    pub frozen: u64,
}

/// Batch sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// The configuration key of `micro_batch`.
    pub key: &'static str,
    /// Transitions, or images, per backward pass.
    pub micro_batch: usize,
    /// Images that a rollout samples together.
    pub rollout_batch: usize,
    /// Network rows per sample: 2 with guidance, otherwise 1.
    pub rows: usize,
}

/// Memory of the program itself. On a CPU: the program, the buffers of matrix products and the
/// reserve of the allocator; 79 to 128 MiB, measured with micro-batches from 16 to 128 and 8 to 128
/// groups (lab notebook). On a GPU: the context of the driver and compiled kernels; a guess.
const fn program(on_cpu: bool) -> u64 {
    if on_cpu { 120 << 20 } else { 1 << 30 }
}
/// Bytes per value: all large data are f32, except what the layers of a transformer compute.
const NUMBER: u64 = 4;
/// Weights, reference, average and two moments; temporarily the new weights and the sum of
/// gradients; and the state before the epoch (weights, average, moments), which an interruption
/// restores.
const COPIES_OF_WEIGHTS: usize = 11;

impl Needs {
    /// Estimates the needs of a network with `latents` latents alive at the same time.
    pub fn new(place: Place, network: Network, latents: usize, batches: Batches) -> Self {
        let Footprint { kept_per_row, alive_per_row, decoder_bytes, decoding, .. } =
            network.footprint;
        let Place { on_cpu, page, workers, precision } = place;
        let product = |factors: &[usize]| {
            factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64))
        };
        let bytes = |factors: &[usize]| product(factors).saturating_mul(NUMBER);
        let computed = |per_row: usize| {
            product(&[workers, batches.rows, per_row, DType::from(precision).size()])
        };
        let weights = network.frozen.saturating_add(decoder_bytes);
        Self {
            weights: weights.saturating_add(bytes(&[network.trained, COPIES_OF_WEIGHTS + workers])),
            samples: bytes(&[&[latents], &network.latent_shape[..]].concat()),
            kept: computed(kept_per_row),
            alive: computed(alive_per_row),
            decoding: bytes(&[workers, decoding]),
            rewards: 0,
            conditions: 0,
            batches,
            on_cpu,
            page,
        }
    }

    /// The largest need of work that runs at the same time, with its name and the part of its last
    /// page that stays empty.
    fn work(&self) -> (u64, &'static str, u64) {
        let Batches { micro_batch, rollout_batch, .. } = self.batches;
        // The largest tensor of a block is a sixteenth of what a block keeps; a level of the decoder has
        // four of one size.
        let work = [
            (self.kept.saturating_mul(micro_batch as u64), "backward passes", 16),
            (self.alive.saturating_mul(rollout_batch as u64), "rollouts", 16),
            (self.decoding, "decoding", 4),
        ];
        let with_page = |(bytes, name, tensors): (u64, _, u64)| {
            (bytes, name, page_for(bytes / tensors, self.page))
        };
        let all = work.map(with_page).into_iter();
        all.max_by_key(|(bytes, _, page)| bytes.saturating_add(*page)).expect("there are three")
    }

    /// The parts of pages that no tensor uses: one page of the weights, and one of the work.
    fn empty_pages(&self) -> u64 {
        page_for(self.weights / 8, self.page).saturating_add(self.work().2)
    }

    fn total(&self) -> u64 {
        self.parts().into_iter().fold(0, |total, (bytes, _)| total.saturating_add(bytes))
    }

    /// The parts of the estimate in bytes, with their names.
    pub fn parts(&self) -> [(u64, &'static str); 7] {
        [
            (program(self.on_cpu), "program"),
            (self.weights, "weights and optimiser"),
            (self.samples, "samples"),
            (self.rewards, "rewards"),
            (self.conditions, "conditions"),
            (self.work().0, self.work().1),
            (self.empty_pages(), "pages that are not full"),
        ]
    }

    /// The estimate as one line for people.
    pub fn line(&self) -> String {
        let parts = self.parts().into_iter().filter(|(bytes, _)| *bytes > 0);
        let parts: Vec<String> =
            parts.map(|(bytes, name)| format!("{} {name}", mebibytes(bytes))).collect();
        format!("memory: about {} ({})", mebibytes(self.total()), parts.join(", "))
    }

    /// # Errors
    /// If the machine, or its GPU, has less memory than this; the error says what would fit.
    pub fn check(&self) -> Result<()> {
        usable().map_or(Ok(()), |usable| self.check_against(usable))
    }

    fn check_against(&self, usable: u64) -> Result<()> {
        ensure!(
            self.total() <= usable,
            "the run needs about {} of memory and {}; {}",
            mebibytes(self.total()),
            available(usable),
            self.advice(usable)
        );
        Ok(())
    }

    /// Advice on a size that would fit, or on the need that is too large.
    fn advice(&self, usable: u64) -> String {
        let Batches { key, micro_batch, rollout_batch, .. } = self.batches;
        let with = |count: usize| {
            let batches = Batches {
                micro_batch: micro_batch.min(count),
                rollout_batch: rollout_batch.min(count),
                ..self.batches
            };
            Self { batches, ..*self }
        };
        let keys =
            if self.alive == 0 { key.to_owned() } else { format!("{key} and grpo.rollout_batch") };
        if let Some(fits) =
            (1..micro_batch.max(rollout_batch)).rev().find(|&count| with(count).total() <= usable)
        {
            return format!(
                "{keys} of {fits} would fit, which changes the speed and not the result"
            );
        }
        let least = format!("even with {keys} of 1 it needs {}", mebibytes(with(1).total()));
        if self.samples > self.weights.max(with(1).work().0) {
            let host = if ON_CPU { "" } else { "set grpo.rollout.trajectories = \"host\", or " };
            return format!("{least}: {host}lower the number of images of an epoch");
        }
        if self.rewards > self.weights.max(with(1).work().0) {
            return format!(
                "{least}: the models of rewards need most; serve them elsewhere (`serve`, and rewards of kind `judge`)"
            );
        }
        let recompute =
            if self.alive == 0 { "" } else { "set model.recompute = true where it is not, " };
        format!("{least}: {recompute}make smaller images or use a smaller model")
    }
}

/// # Errors
/// If `what` needs more than the available memory. `advice` is appended to the error.
pub fn check_room(what: &str, bytes: u64, advice: &str) -> Result<()> {
    usable().map_or(Ok(()), |usable| check_room_in(usable, what, bytes, advice))
}

fn check_room_in(usable: u64, what: &str, bytes: u64, advice: &str) -> Result<()> {
    let needs = bytes.saturating_add(program(ON_CPU));
    ensure!(
        needs <= usable,
        "{what} needs about {} of memory and {}; {advice}",
        mebibytes(needs),
        available(usable)
    );
    Ok(())
}

/// Least memory of an image while it is made, shown and written: its latent, the image and its part
/// of a grid, in f32.
fn image_bytes(shape: [usize; 3]) -> u64 {
    3 * NUMBER * shape.iter().product::<usize>() as u64
}

/// # Errors
/// If `count` images of this shape need more than the available memory.
pub fn check_images(count: usize, shape: [usize; 3]) -> Result<()> {
    check_room(
        &format!("as many as {count} images"),
        image_bytes(shape).saturating_mul(count as u64),
        "ask for fewer at a time",
    )
}

/// The memory that is checked, in the words of error messages.
fn available(usable: u64) -> String {
    let usable = mebibytes(usable);
    if ON_CPU {
        format!("the machine (or the limits of this process) has {usable}")
    } else {
        format!("the GPU has {usable} free (`nvidia-smi` lists the programs that hold the rest)")
    }
}

/// The largest page in which CubeCL takes the memory of a GPU for tensors of such networks: a
/// sixteenth of it.
pub const fn page_of_gpu(memory: u64) -> u64 {
    memory / 16
}

/// The page into which CubeCL puts a tensor of this size, if the largest is `largest`.
///
/// Tensors above a sixteenth of the largest page lie in such pages, tensors above a 128th in pages
/// of a quarter, smaller ones in pages of a sixteenth (`cubecl-runtime` 0.10, `SubSlices`). A page is
/// given back between phases if no tensor is left in it, so each phase has one that is not full.
fn page_for(tensor: u64, largest: u64) -> u64 {
    if tensor > largest / 16 {
        largest
    } else if tensor > largest / 128 {
        largest / 4
    } else {
        largest / 16
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(micro_batch: usize, rollout_batch: usize, rows: usize) -> Batches {
        Batches { key: "grpo.micro_batch", micro_batch, rollout_batch, rows }
    }

    #[test]
    fn every_part_of_an_estimate_counts() {
        let footprint = Footprint {
            kept_per_row: 700,
            alive_per_row: 0,
            condition_bytes: 0,
            rows_together: 16,
            decoder_bytes: 0,
            decoding: 0,
        };
        let network = Network { footprint, latent_shape: [2, 3, 1], trained: 10, frozen: 3 };
        let needs = |latents, batches| Needs::new(Place::here(), network, latents, batches);
        let workers = backend::workers();
        let one = needs(5, batches(4, 2, 1));
        assert_eq!(one.weights, 3 + 4 * 10 * (11 + workers as u64));
        assert_eq!(one.samples, 4 * 5 * 6);
        let [bytes, kept] = [one.work().0, (4 * 4 * workers * 700) as u64];
        assert_eq!((bytes, one.work().1), (kept, "backward passes"));
        assert_eq!(needs(5, batches(4, 2, 2)).work().0, 2 * one.work().0);
        assert_eq!(
            needs(usize::MAX, batches(usize::MAX, 2, 2)).total(),
            u64::MAX,
            "more than there is, and no overflow"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        const MIB: u64 = 1 << 20;
        let needs = Needs {
            weights: MIB,
            samples: 2 * MIB,
            kept: 2 * MIB,
            alive: MIB,
            decoding: MIB,
            rewards: 0,
            conditions: 0,
            batches: batches(4, 3, 1),
            on_cpu: ON_CPU,
            page: 0,
        };
        let fits = program(ON_CPU) + 11 * MIB;
        assert!(needs.check_against(fits).is_ok());
        let refused = |needs: Needs, usable: u64| {
            needs.check_against(usable).expect_err("too much").to_string()
        };
        let text = refused(needs, fits - 1);
        assert!(text.contains("about 131 MiB"), "{text}");
        assert!(text.contains("grpo.micro_batch and grpo.rollout_batch of 3 would fit"), "{text}");
        assert!(refused(needs, fits - 5 * MIB).contains("of 1 would fit"));
        let text = refused(needs, fits - 7 * MIB);
        assert!(
            text.contains("of 1 it needs 125 MiB") && text.contains("smaller images"),
            "{text}"
        );
        let many = Needs { samples: 9 * MIB, ..needs };
        assert!(refused(many, fits - 7 * MIB).contains("images of an epoch"));
        let judged = Needs { rewards: 9 * MIB, ..needs };
        assert_eq!(judged.total(), needs.total() + 9 * MIB);
        assert!(judged.line().contains("9 MiB rewards") && !needs.line().contains("rewards"));
        assert!(refused(judged, fits - 7 * MIB).contains("the models of rewards need most"));
        let conditioned = Needs { conditions: 3 * MIB, ..needs };
        assert_eq!(conditioned.total(), needs.total() + 3 * MIB);
        assert!(conditioned.line().contains("3 MiB conditions"));
        // The rollout counts if it is larger; decoding runs at another time.
        let rollouts = Needs { batches: batches(1, 9, 1), ..needs };
        assert_eq!(rollouts.work(), (9 * MIB, "rollouts", 0));
        let decoding = Needs { decoding: 20 * MIB, ..needs };
        assert_eq!(decoding.total(), program(ON_CPU) + 23 * MIB);
        assert!(refused(decoding, fits).contains("it needs 143 MiB"));
    }

    #[test]
    fn on_a_gpu_a_page_of_weights_and_one_of_work_are_not_full() {
        const MIB: u64 = 1 << 20;
        // SD3.5 Medium at 512 and 256 pixels on 80 GiB, under a pretended driver (lab notebook,
        // 2026-11-27), which does not count the program.
        let needs = |kept: u64, decoding: u64, micro_batch| Needs {
            weights: 5730 * MIB,
            samples: 4 * MIB,
            kept: kept * MIB,
            alive: 125 * MIB,
            decoding: decoding * MIB,
            rewards: 0,
            conditions: 5 * MIB,
            batches: batches(micro_batch, 8, 1),
            on_cpu: false,
            page: page_of_gpu(80 << 30),
        };
        for (needs, taken) in MEASURED
            .map(|(kept, decoding, micro_batch, taken)| (needs(kept, decoding, micro_batch), taken))
        {
            let estimate = needs.total() / MIB - 1024;
            assert!(estimate.abs_diff(taken) * 100 < 15 * taken, "{estimate} and {taken} MiB");
        }
        assert_eq!(Needs { page: 0, ..needs(478, 2048, 8) }.empty_pages(), 0, "on a CPU");
    }

    /// What is kept per transition, the decoder's work, the micro-batch, and what was taken, in MiB.
    const MEASURED: [(u64, u64, usize, u64); 3] =
        [(478, 2048, 8, 17_760), (478, 2048, 2, 17_760), (172, 512, 8, 14_980)];

    #[test]
    fn what_has_no_room_is_refused_with_how_to_do_without() {
        assert!(check_room_in(program(ON_CPU) + 5, "T5", 5, "leave it out").is_ok());
        let refused = check_room_in(program(ON_CPU) + 5, "T5", 6, "leave it out")
            .expect_err("a byte too little")
            .to_string();
        assert!(
            refused.starts_with("T5 needs about 121 MiB") && refused.ends_with("leave it out"),
            "{refused}"
        );
    }
}
