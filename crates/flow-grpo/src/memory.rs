//! How much memory a run needs, said before it starts, and how much it took.
//!
//! An estimate for the CPU backends, from what is kept: weights and what the optimiser keeps of them, trajectories, and what
//! the forward passes that run at the same time keep for their backward passes. GPU backends do not say how much memory they
//! have, so nothing is estimated there.

use anyhow::{Result, ensure};

use crate::{backend, network::Pipeline};

/// What a run needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Weights, their average, gradients, the optimiser's moments.
    pub weights: u64,
    /// Latents and pictures of an epoch, or of a batch.
    pub samples: u64,
    /// What forward passes keep for their backward passes.
    pub passes: u64,
}

/// The program, the buffers of matrix products, and what the allocator holds beyond what is used: measured with micro-batches from 16
/// to 128 and 8 to 128 groups, where it was 79 to 128 MiB (lab notebook).
const PROGRAM: u64 = 120 << 20;
/// Bytes of a number: everything that counts is f32.
const NUMBER: u64 = 4;
/// Weights, reference, average, two moments, and on their way the new weights and the sum of gradients.
const COPIES_OF_WEIGHTS: usize = 7;

impl Needs {
    /// The needs of a network with `trained` numbers that are trained and `frozen` ones, `latents` latents alive at the same time, and backward passes over
    /// `micro_batch` rows on every worker.
    pub fn new(pipeline: &impl Pipeline, [trained, frozen]: [usize; 2], latents: usize, micro_batch: usize) -> Self {
        let workers = backend::workers();
        let bytes = |factors: &[usize]| factors.iter().fold(NUMBER, |bytes, &factor| bytes.saturating_mul(factor as u64));
        Self {
            weights: bytes(&[frozen]).saturating_add(bytes(&[trained, COPIES_OF_WEIGHTS + workers])),
            samples: bytes(&[&[latents], &pipeline.latent_shape()[..]].concat()),
            passes: bytes(&[workers, micro_batch, pipeline.kept_per_row()]),
        }
    }

    fn total(&self) -> u64 {
        [self.weights, self.samples, self.passes].into_iter().fold(PROGRAM, u64::saturating_add)
    }

    /// The estimate for people; nothing on a GPU backend.
    pub fn line(&self) -> Option<String> {
        let Self { weights, samples, passes } = *self;
        let parts = [(PROGRAM, "program"), (weights, "weights and optimiser"), (samples, "samples"), (passes, "backward passes")];
        let parts = parts.map(|(bytes, name)| format!("{} {name}", mebibytes(bytes)));
        backend::ON_CPU.then(|| format!("memory: about {} ({})", mebibytes(self.total()), parts.join(", ")))
    }

    /// # Errors
    /// If the machine has less memory left than this.
    pub fn check(&self) -> Result<()> {
        match available().filter(|_| backend::ON_CPU) {
            Some(available) => self.check_against(available),
            None => Ok(()),
        }
    }

    fn check_against(&self, available: u64) -> Result<()> {
        let advice = if self.passes > self.samples {
            "lower the micro-batch, which changes the speed and not the result"
        } else {
            "lower the number of pictures of an epoch"
        };
        ensure!(
            self.total() <= available,
            "the run needs about {} of memory and the machine has {} left; {advice}",
            mebibytes(self.total()),
            mebibytes(available)
        );
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The memory that is left for a new program, where the system says.
fn available() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemAvailable:").map(|kib| kib * 1024)
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
    if backend::ON_CPU {
        return None;
    }
    let query = format!("--query-gpu={query}");
    let output = std::process::Command::new("nvidia-smi").args([&query, "--format=csv,noheader,nounits"]).output().ok()?;
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

    #[test]
    fn what_does_not_fit_is_refused_with_what_would_help() {
        let needs = Needs { weights: 1 << 20, samples: 2 << 20, passes: 5 << 20 };
        let fits = PROGRAM + (8 << 20);
        assert!(needs.check_against(fits).is_ok());
        let refused = needs.check_against(fits - 1).expect_err("a byte too little").to_string();
        assert!(refused.contains("about 128 MiB") && refused.contains("lower the micro-batch"), "{refused}");
        let many = Needs { samples: 9 << 20, ..needs }.check_against(fits).expect_err("too many pictures").to_string();
        assert!(many.contains("pictures of an epoch"), "{many}");
    }
}
