//! The report of a model directory: JSON, and a table.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::{
    backend,
    bench::directory::{CASES, DirectoryArgs, GUIDANCE},
    machine::{self, memory},
};

/// Measurements of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Median of the repetitions, in seconds.
    pub median: f64,
    /// Smallest time, in seconds.
    pub min: f64,
    /// Largest time, in seconds.
    pub max: f64,
    /// Peak memory, if known.
    pub peak_mib: Option<u64>,
}

/// The cases of a batch size; `None` if the size did not fit.
pub type Cases = BTreeMap<String, Option<Measured>>;

/// The content of `--output`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// Name of the backend.
    pub backend: String,
    /// Name of the precision.
    pub precision: String,
    /// Name of the GPU or the processor.
    pub machine: String,
    /// Height and width of the images in pixels.
    pub resolution: usize,
    /// Tokens per prompt.
    pub text_length: usize,
    /// Whether blocks are recomputed in the backward pass.
    pub recompute: bool,
    /// Floating-point operations of a forward pass of one row.
    pub flop_per_row: f64,
    /// The cases by batch size; `None` if the size did not fit.
    pub cases: BTreeMap<usize, Option<Cases>>,
    /// The output of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<serde_json::Value>,
}

impl Report {
    /// A report without measurements.
    pub fn new(args: &DirectoryArgs, flop_per_row: f64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend::NAME.to_owned(),
            precision: backend::PRECISION_NAME.to_owned(),
            machine: memory::gpu_name().unwrap_or_else(machine::processor),
            resolution: args.resolution,
            text_length: args.text_length,
            recompute: args.recompute,
            flop_per_row,
            cases: BTreeMap::new(),
            peer: None,
        }
    }

    /// Writes the report, if there is a file for it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, output: Option<&Path>) -> Result<()> {
        let Some(path) = output else { return Ok(()) };
        let json = serde_json::to_string_pretty(self)? + "\n";
        Ok(write_atomically(path, json.as_bytes())?)
    }

    /// A table for people; with a `peak` in TFLOP/s, it has the share of the peak.
    pub fn table(&self, peak: Option<f64>) -> String {
        let side = self.resolution;
        let mut text = format!(
            "{} {} on {}, {side} x {side} pixels, {} tokens of text, guidance {GUIDANCE}{}\n\n",
            self.backend,
            self.precision,
            self.machine,
            self.text_length,
            if self.recompute { ", blocks computed again" } else { "" },
        );
        text += "batch  case           median     smallest … largest   peak MiB  TFLOP/s";
        text += if peak.is_some() { "  of peak" } else { "" };
        text += if self.peer.is_some() {
            "   eager  ours/eager  compiled  ours/compiled\n"
        } else {
            "\n"
        };
        for (batch, cases) in &self.cases {
            let Some(cases) = cases else {
                text += &format!("{batch:>5}  does not fit\n");
                continue;
            };
            for name in CASES {
                let Some(Some(case)) = cases.get(name) else { continue };
                text += &self.line(*batch, name, case, peak);
            }
        }
        text
    }

    fn line(&self, batch: usize, name: &str, case: &Measured, peak: Option<f64>) -> String {
        // Guidance doubles the rows. A transition is a forward pass, a backward pass of about twice
        // the work, and the reference's forward pass.
        let passes = match name {
            "denoise" => 2.0,
            "transition" => 2.0 * 3.0,
            _ => 0.0,
        };
        let rate = passes * batch as f64 * self.flop_per_row / case.median / 1e12;
        let mut line = format!(
            "{batch:>5}  {name:<12} {:>7.3} s  {:>8.3} … {:>7.3}",
            case.median, case.min, case.max
        );
        line += &case.peak_mib.map_or_else(|| format!("{:>11}", "-"), |peak| format!("{peak:>11}"));
        line += &if rate > 0.0 { format!("  {rate:>7.2}") } else { format!("  {:>7}", "-") };
        if let Some(peak) = peak {
            line += &if rate > 0.0 {
                format!("  {:>5.1} %", 100.0 * rate / peak)
            } else {
                format!("  {:>7}", "-")
            };
        }
        for kind in ["eager", "compiled"] {
            let pointer = format!("/cases/{kind}/{batch}/{name}/median");
            if let Some(theirs) =
                self.peer.as_ref().and_then(|peer| peer.pointer(&pointer)?.as_f64())
            {
                line += &format!("  {theirs:>7.3} s  {:>7.2}", case.median / theirs);
            }
        }
        line + "\n"
    }
}
