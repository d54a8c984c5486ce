//! The same network in PyTorch.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::parts::Times;

/// The network in PyTorch, as a Python script: reads the exchange file and prints seconds by case
/// as JSON.
const PEER: &str = include_str!("../../../peer/dit.py");

/// The JSON that the peer prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct PeerTimes {
    /// Versions of Python and its packages.
    pub versions: BTreeMap<String, String>,
    /// Largest difference from our numbers, relative to the largest number.
    pub differences: BTreeMap<String, f64>,
    /// Seconds of every repetition, by case.
    pub seconds: Times,
}

/// Checks and times the network of the exchange file in PyTorch.
///
/// # Errors
/// If the peer cannot be run or fails.
pub fn run(python: &Path, exchange: &Path, repetitions: u32, threads: usize) -> Result<PeerTimes> {
    let device = if cfg!(any(feature = "cuda", feature = "wgpu")) { "cuda" } else { "cpu" };
    let mut child = Command::new(python)
        .arg("-")
        .arg(exchange)
        .args([repetitions.to_string(), threads.to_string(), device.to_owned()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", python.display()))?;
    child
        .stdin
        .take()
        .context("the peer has an input")?
        .write_all(PEER.as_bytes())
        .context("cannot hand the script to the peer")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the peer failed ({}); its message is above", output.status);
    serde_json::from_slice(&output.stdout).context("the peer did not print what it should")
}

/// The times of two rounds.
pub fn merge(mut before: PeerTimes, after: PeerTimes) -> PeerTimes {
    for (case, seconds) in after.seconds {
        before.seconds.entry(case).or_default().extend(seconds);
    }
    before
}
