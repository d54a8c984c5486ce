//! Tests across crates: laws over many seeds, goldens, equivalent runs, whole runs, the command
//! line.
//!
//! One binary, one backend per build: `cargo xtask test --backend ndarray|flex|wgpu`. On cuda without a
//! GPU: `tests/pretended-gpu/README.md`.

#![cfg(test)]

mod attention;
mod backend;
mod benchmark;
mod cli;
mod clip;
mod closed_forms;
mod config;
mod contrastive;
mod convolution;
// Launches kernels by name, on tensors that fusion would hide.
#[cfg(all(on_gpu, not(feature = "fusion")))]
mod double_buffering;
mod durability;
mod ema;
mod equivalence;
mod faults;
mod flux;
mod flux_program;
mod geneval;
mod geneval_colors;
mod golden;
mod gradients;
mod hardening;
mod hub_program;
mod jpeg;
mod judged;
mod kernels;
mod laws;
mod limits;
mod lora;
mod marginals;
mod mixture;
mod muon;
mod networks;
mod nft;
mod nft_question;
mod norms;
mod ode_steps;
mod penalty;
mod prepared;
mod pytorch;
mod replay;
mod rules;
mod run_directory;
mod samples_dir;
mod schedule;
mod score;
mod sd3;
mod sd3_program;
mod shipped;
mod signals;
mod streams;
mod tensorboard;
mod training;
