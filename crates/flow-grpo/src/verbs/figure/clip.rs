//! The clipped loss of a transition against its ratio.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Tensor;
use files::write_atomically;
use grpo::objective::{Clip, clipped_loss};
use run::curves::{Curve, Panel, curves};

use crate::{backend::Plain, machine};

/// The clip range, PPO's.
const CLIP: f64 = 0.2;

/// Draws the loss for a positive and a negative advantage.
pub fn clip(path: &Path) -> Result<()> {
    let device = machine::device()?;
    let ratios: Vec<f64> = (0..=200).map(|i| 0.5 + f64::from(i) / 200.0).collect();
    let panel = |advantage: f64| {
        let log = Tensor::<Plain, 1>::from_data(&ratios[..], &device).log();
        let range = Clip { low: CLIP, high: CLIP };
        let loss = clipped_loss(log.clone(), log.zeros_like(), log.full_like(advantage), range);
        let losses = loss.loss.to_data().iter::<f64>().collect::<Vec<f64>>();
        let points = ratios.iter().copied().zip(losses).collect();
        Panel::new(
            format!("loss for the advantage {advantage}, clip range {CLIP}"),
            vec![Curve::new("", points)],
        )
    };
    let svg = curves(&[1.0, -1.0].map(panel), "ratio")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}
