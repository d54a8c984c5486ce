//! The law of chapter 13, after Flow-GRPO.

use std::f64::consts::FRAC_PI_2;

use crate::{Noise, Verdict, numbers, require};

type Step = fn(f64, f64, f64, f64, f64, f64) -> f64;

/// 13.1: the ODE without noise, the variance of the noise, and the formula.
pub fn flow_cps_step(answer: Step) -> Verdict {
    let mut noise = Noise::new(131);
    for _ in 0..100 {
        let (x, v, e) = (noise.normal(), noise.normal(), noise.normal());
        let (t, eta) = (noise.between(0.2, 0.95), noise.between(0.1, 0.9));
        let next = t - noise.between(0.02, 0.15);
        let still = answer(x, v, t, next, 0.0, e);
        let ode = x + v * (next - t);
        require(
            (still - ode).abs() < 1e-9,
            format!(
                "Without noise (eta = 0) the step goes to {still:.3} instead of the ODE's {ode:.3}."
            ),
            if (still - answer(x, v, t, next, 0.0, 0.0)).abs() > 1e-9 {
                "At eta = 0 no noise is drawn: std = next·sin(0)."
            } else {
                "x̂₀ = x − t·v has the weight 1 − next, and x̂₁ = x + (1−t)·v the weight next."
            },
        )?;
        // x̂₀ = 1, x̂₁ = 0; x̂₀ = 0, x̂₁ = 1; the noise.
        let parts = [
            answer(1.0 - t, -1.0, t, next, eta, 0.0),
            answer(t, 1.0, t, next, eta, 0.0),
            answer(0.0, 0.0, t, next, eta, 1.0),
        ];
        let (sin, cos) = (eta * FRAC_PI_2).sin_cos();
        let variance = parts[1].powi(2) + parts[2].powi(2);
        let of = format!(
            "The noise of x′ has the variance {variance:.4}, and next² = {:.4}. The factors of x̂₀, x̂₁ and ε at eta = {eta:.2}",
            next * next
        );
        numbers(
            of,
            &parts,
            &[1.0 - next, next * cos, next * sin],
            &[
                (
                    vec![1.0 - next, next, next * sin],
                    "New noise is added to the old: what is kept must shrink, so that kept² + std² = next².",
                ),
                (
                    vec![1.0 - next, next * (1.0 - sin), next * sin],
                    "Variances add up, and not standard deviations: kept = √(next² − std²).",
                ),
                (
                    vec![1.0 - next, next * (1.0 - eta * eta).sqrt(), next * eta],
                    "The share of new noise is sin(eta·π/2), and not eta.",
                ),
                (
                    vec![1.0 - next, t * cos, t * sin],
                    "The noise at the end of the step is `next`, and not t.",
                ),
            ],
        )?;
    }
    last_step(answer)
}

/// The last step goes to the mean image.
fn last_step(answer: Step) -> Verdict {
    let mut noise = Noise::new(132);
    for _ in 0..20 {
        let [x, v, e] = [(); 3].map(|()| noise.normal());
        let (t, eta) = (noise.between(0.2, 0.95), noise.between(0.1, 0.9));
        let end = answer(x, v, t, 0.0, eta, e);
        require(
            (end - (x - t * v)).abs() < 1e-9,
            format!(
                "The step to t = 0 ends at {end:.3} instead of the mean image {:.3}.",
                x - t * v
            ),
            "At next = 0 no noise is left.",
        )?;
    }
    Ok(())
}
