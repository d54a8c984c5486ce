//! The memory that the machine has, and that the program has used.

use std::{path::Path, process::Command};

use crate::backend::{self, ON_CPU};

/// The memory available to the program, including what it already uses, if known.
pub fn usable() -> Option<u64> {
    #[cfg(feature = "cuda")]
    if let Some(free) = crate::machine::cuda::free_memory() {
        return Some(free);
    }
    if backend::NAME == "cuda" {
        // The driver and its tool may disagree on which of several GPUs is the first, so the
        // largest counts.
        let mebibytes =
            nvidia("memory.total")?.into_iter().filter_map(|line| line.parse::<u64>().ok());
        return mebibytes.max().map(|mebibytes| mebibytes << 20);
    }
    if !ON_CPU {
        return None; // Not every such GPU is NVIDIA's.
    }
    let held = kibibytes("/proc/self/status", "VmRSS:")? * 1024;
    let left = kibibytes("/proc/meminfo", "MemAvailable:").map(|left| left * 1024 + held);
    [left, cgroup_limit(Path::new("/")), address_space(held)].into_iter().flatten().min()
}

/// The smallest limit of the process's control groups, version 1 or 2, as set for a container or a
/// job.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limit = |line: &str| {
        let [_, controllers, group] = line.splitn(3, ':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // A container may see its own group as the root, or the group's name outside; the mount is
        // checked, too.
        let groups = Path::new(group.trim_start_matches('/')).ancestors();
        let limits = groups.filter_map(|group| {
            std::fs::read_to_string(root.join(mount).join(group).join(file)).ok()
        });
        limits.filter_map(|limit| limit.trim().parse::<u64>().ok()).min()
    };
    groups.lines().filter_map(limit).min()
}

/// The part of the limit of `ulimit -v` that is left for used memory, besides memory that is only
/// reserved.
#[cfg(unix)]
fn address_space(held: u64) -> Option<u64> {
    let most = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    let reserved = (kibibytes("/proc/self/status", "VmSize:")? * 1024).saturating_sub(held);
    Some(most.saturating_sub(reserved))
}

#[cfg(not(unix))]
fn address_space(_held: u64) -> Option<u64> {
    None
}

/// The peak memory of the process, in MiB, if known.
pub fn peak_mib() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:").map(|kib| kib / 1024)
}

/// The name of the first NVIDIA GPU, on a GPU backend with `nvidia-smi`.
pub fn gpu_name() -> Option<String> {
    nvidia("name")?.into_iter().next()
}

/// Used memory of the first NVIDIA GPU, in MiB. Burn keeps memory that it has allocated until a
/// phase ends.
fn gpu_used_mib() -> Option<u64> {
    nvidia("memory.used")?.first()?.parse().ok()
}

/// Notes the memory of the GPU that is taken now, for the peak.
pub fn note() {
    taken_mib();
}

/// The most memory of the GPU that was taken since the program began when this was called or
/// noted, in MiB, on cuda. Burn gives memory back only between phases, so this is a peak.
pub fn taken_mib() -> Option<u64> {
    #[cfg(feature = "cuda")]
    let taken = super::cuda::taken_memory();
    #[cfg(not(feature = "cuda"))]
    let taken: Option<u64> = None;
    taken.map(|bytes| bytes >> 20)
}

/// The peak of the memory in which the tensors are, in MiB, if known: the machine's or the GPU's.
pub fn peak_of_tensors_mib() -> Option<u64> {
    if ON_CPU { peak_mib() } else { taken_mib().or_else(gpu_used_mib) }
}

/// The version of NVIDIA's driver, on a GPU backend with `nvidia-smi`.
#[cfg(feature = "cuda")]
pub fn driver_version() -> Option<String> {
    nvidia("driver_version")?.into_iter().next()
}

/// The answer of `nvidia-smi`, one line per GPU that the program can see.
fn nvidia(query: &str) -> Option<Vec<String>> {
    if ON_CPU {
        return None;
    }
    let mut command = Command::new("nvidia-smi");
    command.args([&format!("--query-gpu={query}"), "--format=csv,noheader,nounits"]);
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        command.args(["-i", &visible]);
    }
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// The name of the first GPU that the program can use, if it is NVIDIA's.
pub fn gpu() -> Option<String> {
    nvidia("name")?.into_iter().next()
}

/// Resets the peak of [`peak_mib`] to the current memory, if the system can.
pub fn forget_peak() {
    // The system may refuse, if /proc is foreign or read-only: then the peak covers the whole
    // process, an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The number of kB in a line of a file under /proc.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_a_control_group_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        assert_eq!(cgroup_limit(root.path()), None);
        // Version 2: the job's own group has no limit, its parent has one.
        write("proc/self/cgroup", "0::/slurm/job/step\n");
        write("sys/fs/cgroup/slurm/job/step/memory.max", "max\n");
        write("sys/fs/cgroup/slurm/job/memory.max", "83886080\n");
        write("sys/fs/cgroup/slurm/memory.max", "99999999999\n");
        assert_eq!(cgroup_limit(root.path()), Some(80 << 20));
        // Version 1, in a container that is told the group's name outside.
        write("proc/self/cgroup", "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n");
        assert_eq!(cgroup_limit(root.path()), Some(1 << 20));
    }
}
