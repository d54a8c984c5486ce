//! Tests across crates: laws over many seeds, goldens, equivalent runs, whole runs, the command
//! line.
//!
//! One binary, one backend per build: `cargo xtask test --backend ndarray|flex|wgpu`.

#![cfg(test)]

mod backend;
mod cli;
mod clip;
mod contrastive;
mod closed_forms;
mod config;
#[cfg(all(feature = "wgpu", not(any(feature = "ndarray", feature = "flex"))))]
mod double_buffering;
mod durability;
mod ema;
mod equivalence;
mod faults;
mod flux;
mod flux_program;
mod geneval;
mod golden;
mod hardening;
mod jpeg;
mod judged;
mod kernels;
mod limits;
mod lora;
mod marginals;
mod mixture;
mod muon;
mod networks;
mod nft;
mod nft_question;
mod ode_steps;
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
