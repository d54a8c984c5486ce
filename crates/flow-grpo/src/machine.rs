//! The machine that the program computes on, and its memory.

pub mod host;
pub mod memory;
pub mod needs;

/// The name of the processor, if known.
pub fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
