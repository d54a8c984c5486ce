//! The report of the timed parts: JSON, and a table.

use serde::Serialize;

use crate::bench::{
    parts::{Times, peer::PeerTimes},
    spread,
};

/// The content of `--output`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// Name of the backend.
    pub backend: &'static str,
    /// Number of threads.
    pub threads: usize,
    /// Name of the processor.
    pub machine: String,
    /// Images per repetition.
    pub images: u32,
    /// Peak memory of the process, if known.
    pub peak_memory_mib: Option<u64>,
    /// Seconds of every repetition, by case.
    pub seconds: Times,
    /// The times of the peer, if there is one.
    pub peer: Option<PeerTimes>,
}

impl Report {
    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} on {}, {} threads, {} images\n\n",
            self.backend, self.machine, self.threads, self.images
        );
        text += &format!("{:<20} {:>10} {:>21}", "case", "median", "smallest … largest");
        text += if self.peer.is_some() { "   PyTorch   ours / PyTorch\n" } else { "\n" };
        for (case, seconds) in &self.seconds {
            let [least, median, most] = spread(seconds).map(|seconds| seconds * 1e3);
            text += &format!("{case:<20} {median:>7.1} ms {least:>9.1} … {most:>6.1} ms");
            if let Some(peer) = self.peer.as_ref().and_then(|peer| peer.seconds.get(case)) {
                let theirs = spread(peer)[1] * 1e3;
                text += &format!(" {theirs:>6.1} ms   {:>6.2}", median / theirs);
            }
            text.push('\n');
        }
        if let Some(peak) = self.peak_memory_mib {
            text += &format!("\npeak memory {peak} MiB\n");
        }
        if let Some(peer) = &self.peer {
            let list = |(name, value): (&String, String)| format!("{name} {value}");
            let versions: Vec<String> =
                peer.versions.iter().map(|(name, version)| list((name, version.clone()))).collect();
            let differences: Vec<String> =
                peer.differences.iter().map(|(name, d)| list((name, format!("{d:.1e}")))).collect();
            text +=
                &format!("peer: {}; differs by: {}\n", versions.join(", "), differences.join(", "));
        }
        text
    }
}
