//! How much memory a run needs, said before it starts, and how much it took.
//!
//! An estimate from what is kept: weights and what the optimiser keeps of them, trajectories, and what the forward passes that run at
//! the same time keep for their backward passes. Held against the memory of the machine on the CPU backends, and against that of the
//! first NVIDIA GPU on the others, where its tool says how much it has.

use std::process::Command;

use anyhow::{Result, ensure};
use burn::tensor::DType;

use crate::{
    backend::{self, ON_CPU, PRECISION},
    network::Pipeline,
};

/// What a run needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Weights, their average, gradients, the optimiser's moments.
    pub weights: u64,
    /// Latents and pictures of an epoch, or of a batch.
    pub samples: u64,
    /// What forward passes keep for their backward passes.
    pub passes: u64,
    /// What makes pictures of latents, at another time than backward passes.
    pub decoding: u64,
    /// Transitions, or pictures, of a backward pass.
    pub micro_batch: usize,
}

/// The network of a run.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Numbers that are trained, in f32.
    pub trained: usize,
    /// Bytes of the others.
    pub frozen: u64,
}

/// Transitions, or pictures, that go through the network together.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatch {
    /// How many.
    pub count: usize,
    /// Rows that each of them is for the network: two under guidance.
    pub rows: usize,
}

/// On a CPU the program, the buffers of matrix products, and what the allocator holds beyond what is used: measured with micro-batches
/// from 16 to 128 and 8 to 128 groups, where it was 79 to 128 MiB (lab notebook). On a GPU the context of the driver, compiled
/// kernels, and what the pool holds beyond what is used: a guess.
const PROGRAM: u64 = if ON_CPU { 120 << 20 } else { 1 << 30 };
/// Bytes of a number: everything that counts is f32, but for what the layers of a transformer compute.
const NUMBER: u64 = 4;
/// Weights, reference, average, two moments, and on their way the new weights and the sum of gradients.
const COPIES_OF_WEIGHTS: usize = 7;

impl Needs {
    /// The needs of a network with `latents` latents alive at the same time, and backward passes over a micro-batch on every worker.
    pub fn new(pipeline: &impl Pipeline, network: Network, latents: usize, micro_batch: MicroBatch) -> Self {
        let workers = backend::workers();
        let product = |factors: &[usize]| factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64));
        let bytes = |factors: &[usize]| product(factors).saturating_mul(NUMBER);
        let computed = DType::from(PRECISION).size() as u64;
        let MicroBatch { count, rows } = micro_batch;
        Self {
            weights: network.frozen.saturating_add(bytes(&[network.trained, COPIES_OF_WEIGHTS + workers])),
            samples: bytes(&[&[latents], &pipeline.latent_shape()[..]].concat()),
            passes: product(&[workers, count, rows, pipeline.kept_per_row()]).saturating_mul(computed),
            decoding: bytes(&[pipeline.decoding()]),
            micro_batch: count,
        }
    }

    fn total(&self) -> u64 {
        let Self { weights, samples, passes, decoding, .. } = *self;
        [weights, samples, passes.max(decoding)].into_iter().fold(PROGRAM, u64::saturating_add)
    }

    /// The estimate for people.
    pub fn line(&self) -> String {
        let Self { weights, samples, passes, decoding, .. } = *self;
        let work = if passes < decoding { (decoding, "decoding") } else { (passes, "backward passes") };
        let parts = [(PROGRAM, "program"), (weights, "weights and optimiser"), (samples, "samples"), work];
        let parts = parts.map(|(bytes, name)| format!("{} {name}", mebibytes(bytes)));
        format!("memory: about {} ({})", mebibytes(self.total()), parts.join(", "))
    }

    /// # Errors
    /// If the machine, or its GPU, has less memory than this; says what would fit.
    pub fn check(&self) -> Result<()> {
        usable().map_or(Ok(()), |usable| self.check_against(usable))
    }

    fn check_against(&self, usable: u64) -> Result<()> {
        ensure!(
            self.total() <= usable,
            "the run needs about {} of memory and {WHERE} has {}; {}",
            mebibytes(self.total()),
            mebibytes(usable),
            self.advice(usable)
        );
        Ok(())
    }

    /// What would fit, or what is too large.
    fn advice(&self, usable: u64) -> String {
        let with = |micro_batch: u64| {
            let passes = (self.passes / self.micro_batch as u64).saturating_mul(micro_batch);
            Self { passes, micro_batch: micro_batch as usize, ..*self }
        };
        if let Some(fits) = (1..self.micro_batch as u64).rev().find(|&count| with(count).total() <= usable) {
            return format!("a micro-batch of {fits} would fit, which changes the speed and not the result");
        }
        let least = mebibytes(with(1).total());
        if self.samples > self.weights.max(with(1).passes) {
            return format!("even a micro-batch of 1 needs {least}: lower the number of pictures of an epoch");
        }
        format!("even a micro-batch of 1 needs {least}: make smaller pictures or use a smaller model")
    }
}

/// # Errors
/// If `what`, which takes so many bytes for a while, is more than there is memory; `advice` says how to do without.
pub fn check_room(what: &str, bytes: u64, advice: &str) -> Result<()> {
    usable().map_or(Ok(()), |usable| check_room_in(usable, what, bytes, advice))
}

fn check_room_in(usable: u64, what: &str, bytes: u64, advice: &str) -> Result<()> {
    let needs = bytes.saturating_add(PROGRAM);
    ensure!(needs <= usable, "{what} needs about {} of memory and {WHERE} has {}; {advice}", mebibytes(needs), mebibytes(usable));
    Ok(())
}

/// Whose memory counts.
const WHERE: &str = if ON_CPU { "the machine" } else { "the GPU" };

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The memory that the program can have, with what it has already, where the system says.
fn usable() -> Option<u64> {
    if !ON_CPU {
        return Some(nvidia("memory.total")?.parse::<u64>().ok()? << 20);
    }
    let held = kibibytes("/proc/self/status", "VmRSS:")?;
    kibibytes("/proc/meminfo", "MemAvailable:").map(|left| (left + held) * 1024)
}

/// The most memory that the process has held, in MiB, where the system says.
pub fn peak_mib() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:").map(|kib| kib / 1024)
}

/// The name of the first NVIDIA GPU, on a GPU backend where its tool is installed.
pub fn gpu_name() -> Option<String> {
    nvidia("name")
}

/// Memory of the first NVIDIA GPU that is in use, in MiB. Burn keeps what it has once taken, so this is a peak.
pub fn gpu_used_mib() -> Option<u64> {
    nvidia("memory.used")?.parse().ok()
}

/// What `nvidia-smi` says of the first GPU.
fn nvidia(query: &str) -> Option<String> {
    if ON_CPU {
        return None;
    }
    let query = format!("--query-gpu={query}");
    let output = Command::new("nvidia-smi").args([&query, "--format=csv,noheader,nounits"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// Lets [`peak_mib`] count from what is held now, where the system can.
pub fn forget_peak() {
    // Refused where /proc is another system's or not writable: then the peak is that of the whole process, an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The number of kB that a line of a file under /proc names.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::Device,
        network::{AnyNetwork, open_checkpoint},
    };

    #[test]
    fn every_part_of_an_estimate_counts() {
        let (card, _) =
            AnyNetwork::load(&open_checkpoint("toy-2d-base").expect("built in"), &Device::default()).expect("a network");
        let needs = |trained, frozen, latents, count, rows| {
            Needs::new(&card, Network { trained, frozen }, latents, MicroBatch { count, rows })
        };
        let workers = backend::workers();
        let one = needs(10, 3, 5, 4, 1);
        let elements: usize = card.latent_shape().iter().product();
        assert_eq!(one.weights, 3 + 4 * 10 * (7 + workers as u64));
        assert_eq!(one.samples, (4 * 5 * elements) as u64);
        assert_eq!(one.passes, (4 * workers * 4 * card.kept_per_row()) as u64);
        assert_eq!(needs(10, 3, 5, 4, 2), Needs { passes: 2 * one.passes, ..one });
        assert_eq!(needs(10, 3, usize::MAX, usize::MAX, 2).total(), u64::MAX, "more than there is, and no overflow");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        const MIB: u64 = 1 << 20;
        let needs = Needs { weights: MIB, samples: 2 * MIB, passes: 8 * MIB, decoding: MIB, micro_batch: 4 };
        let fits = PROGRAM + 11 * MIB;
        assert!(needs.check_against(fits).is_ok());
        let refused = |needs: Needs, usable: u64| needs.check_against(usable).expect_err("too much").to_string();
        let text = refused(needs, fits - 1);
        assert!(text.contains("about 131 MiB") && text.contains("a micro-batch of 3 would fit"), "{text}");
        assert!(refused(needs, fits - 5 * MIB).contains("a micro-batch of 1 would fit"));
        let text = refused(needs, fits - 7 * MIB);
        assert!(text.contains("a micro-batch of 1 needs 125 MiB") && text.contains("smaller pictures"), "{text}");
        let many = Needs { samples: 9 * MIB, ..needs };
        assert!(refused(many, fits - 7 * MIB).contains("pictures of an epoch"));
        // Decoding is at another time, and no micro-batch helps where it is what does not fit.
        let decoding = Needs { decoding: 20 * MIB, ..needs };
        assert_eq!(decoding.total(), PROGRAM + 23 * MIB);
        assert!(refused(decoding, fits).contains("even a micro-batch of 1"));
    }

    #[test]
    fn what_has_no_room_is_refused_with_how_to_do_without() {
        assert!(check_room_in(PROGRAM + 5, "T5", 5, "leave it out").is_ok());
        let refused = check_room_in(PROGRAM + 5, "T5", 6, "leave it out").expect_err("a byte too little").to_string();
        assert!(refused.starts_with("T5 needs about 121 MiB") && refused.ends_with("leave it out"), "{refused}");
    }
}
