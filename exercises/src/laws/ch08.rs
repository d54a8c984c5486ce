//! The laws of chapter 8, networks and adapters.

use crate::{Noise, Verdict, number, numbers, require};

type Guided = fn(&[f64], &[f64], f64) -> Vec<f64>;

/// 8.1 against the formula; the scales 0 and 1 give the two velocities.
pub fn guided_velocity(answer: Guided) -> Verdict {
    let mut noise = Noise::new(81);
    for scale in [4.5, 1.0, 0.0, 7.0] {
        let (with, without) = (noise.normals(4), noise.normals(4));
        let of = |f: &dyn Fn(f64, f64) -> f64| {
            with.iter().zip(&without).map(|(w, o)| f(*w, *o)).collect::<Vec<_>>()
        };
        let name = format!("At scale {scale} the velocities");
        numbers(
            name,
            &answer(&with, &without, scale),
            &of(&|w, o| o + scale * (w - o)),
            &[
                (
                    of(&|w, o| w + scale * (w - o)),
                    "That is one unit too much: the way starts at the velocity without the prompt.",
                ),
                (
                    of(&|w, o| w + scale * (o - w)),
                    "The two are exchanged: it leads away from the prompt.",
                ),
                (of(&|w, o| o + scale * w), "Only the difference of the two is multiplied."),
                (
                    of(&|w, o| o + (scale - 1.0) * (w - o)),
                    "At scale 1 it must be the velocity with the prompt.",
                ),
                (of(&|w, _| scale * w), "The velocity without the prompt is missing."),
            ],
        )?;
    }
    Ok(())
}

type Matrix = Vec<Vec<f64>>;
type Merged = fn(&[Vec<f64>], &[Vec<f64>], &[Vec<f64>], f64) -> Matrix;

/// `x` times the matrix.
fn product(x: &[f64], matrix: &[Vec<f64>]) -> Vec<f64> {
    let outputs = matrix.first().map_or(0, Vec::len);
    (0..outputs).map(|j| x.iter().zip(matrix).map(|(x, row)| x * row[j]).sum()).collect()
}

/// 8.2: at `U = 0` nothing changes; merged and unmerged give the same.
pub fn merged(answer: Merged) -> Verdict {
    let mut noise = Noise::new(82);
    let (inputs, rank, outputs, alpha) = (4, 2, 3, 6.0);
    let mut matrix = |rows: usize, columns: usize| -> Matrix {
        (0..rows).map(|_| noise.normals(columns)).collect()
    };
    let (weights, down) = (matrix(inputs, outputs), matrix(inputs, rank));
    for (up, name) in [
        (vec![vec![0.0; outputs]; rank], "At U = 0, the outputs"),
        (matrix(rank, outputs), "The outputs of the merged matrix"),
    ] {
        let got = answer(&weights, &down, &up, alpha);
        let fits = got.len() == inputs && got.iter().all(|row| row.len() == outputs);
        require(
            fits,
            "The matrix has another shape than W.",
            "Merged, it takes the place of W: inputs × outputs.",
        )?;
        let x = matrix(1, inputs).remove(0);
        let (plain, adapter) = (product(&x, &weights), product(&product(&x, &down), &up));
        let sum =
            |scale: f64| plain.iter().zip(&adapter).map(|(w, a)| w + scale * a).collect::<Vec<_>>();
        numbers(
            name,
            &product(&x, &got),
            &sum(alpha / rank as f64),
            &[
                (sum(alpha), "The scale is α/rank, and not α: the rank is missing."),
                (sum(1.0), "The scale α/rank is missing."),
                (sum(alpha / inputs as f64), "The rank is the number of rows of U, and not of D."),
                (sum(0.0), "The adapter is missing."),
                (
                    vec![0.0; outputs],
                    "A fresh adapter changes nothing, so the frozen weights must be left.",
                ),
                (
                    sum(3.0).iter().zip(&plain).map(|(s, w)| s - w).collect(),
                    "The frozen weights are missing.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 8.3 against the average of a ramp.
pub fn lag(answer: fn(f64) -> f64) -> Verdict {
    for decay in [0.5, 0.9, 0.99] {
        let mut average = 0.0;
        for update in 1..=20_000 {
            average = decay * average + (1.0 - decay) * f64::from(update);
        }
        let measured = 20_000.0 - average;
        number(
            format!("With a decay of {decay} the lag"),
            answer(decay),
            measured,
            &[
                (
                    1.0 / (1.0 - decay),
                    "That is the memory of the average in updates; the newest weight is already in it, so the lag is one less.",
                ),
                (decay, "The lag of an update before counts too: lag ← decay·(lag + 1)."),
                ((1.0 - decay) / decay, "Upside down."),
                (1.0 - decay, "That is the weight of the newest value."),
            ],
        )?;
    }
    Ok(())
}
