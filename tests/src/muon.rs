//! Muon in closed form: for gradients that share their singular vectors, each singular value
//! follows its own recursion.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use burn::{
    module::Module,
    tensor::{FloatDType, TensorData},
};
use flow::VelocityField;
use models::{Choices, MlpConfig, sd3::ModelDirectory};
use training::{
    optimizer::{AdamWConfig, MuonConfig, Optimizer, Stepped},
    parameters::{Parameters, Trained, names},
};

use crate::{
    backend::{Device, Plain, distance},
    flux, networks,
};

/// A reflection `I − 2·w·wᵀ/‖w‖²`: an orthogonal matrix, `[n, n]`.
fn reflection(w: &[f64]) -> Vec<Vec<f64>> {
    let norm: f64 = w.iter().map(|x| x * x).sum();
    let entry = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * w[i] * w[j] / norm;
    (0..w.len()).map(|i| (0..w.len()).map(|j| entry(i, j)).collect()).collect()
}

/// `U·diag(values)·Vᵀ`, row by row.
fn with_singular_values(values: &[f64], u: &[Vec<f64>], v: &[Vec<f64>]) -> Vec<f64> {
    let entry = |i: usize, j: usize| {
        values.iter().enumerate().map(|(k, value)| u[i][k] * value * v[j][k]).sum::<f64>()
    };
    (0..u.len()).flat_map(|i| (0..v.len()).map(move |j| entry(i, j))).collect()
}

fn parameters(matrix: &[f64], other: f64) -> Parameters<Plain> {
    let matrix: Vec<f32> = matrix.iter().map(|&x| x as f32).collect();
    let data = [(0, TensorData::from(matrix.as_slice())), (1, TensorData::from([other as f32]))];
    Parameters::from_data(BTreeMap::from(data), &Device::default())
}

const ADAM: AdamWConfig = AdamWConfig {
    learning_rate: 0.01,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weight_decay: 0.1,
    max_gradient_norm: 0.5,
};
const MUON: MuonConfig = MuonConfig { learning_rate: 0.02, momentum: 0.9 };

/// Five Newton-Schulz iterations of the singular values of a matrix scaled to norm 1 (Jordan et al.
/// 2024).
fn newton_schulz(values: &[f64]) -> Vec<f64> {
    let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    let iterate = |x: f64| 3.4445 * x - 4.775 * x.powi(3) + 2.0315 * x.powi(5);
    values.iter().map(|value| (0..5).fold(value / norm, |x, _| iterate(x))).collect()
}

#[test]
fn muon_moves_every_singular_value_by_its_closed_form() {
    let (long, short) =
        (reflection(&[0.3, -1.0, 0.5, 2.0, 0.1, -0.7]), reflection(&[1.0, 0.4, -0.6]));
    for (u, v) in [(&long, &short), (&short, &long)] {
        let shape = [u.len(), v.len()];
        let start: Vec<f64> = (0..18).map(|i| f64::from(i) * 0.1 - 0.8).collect();
        let mut ours = parameters(&start, 2.0);
        let mut optimizer =
            Optimizer::new(ADAM, &ours).with_muon(MUON, BTreeMap::from([(0, shape)]));
        let (mut matrix, mut sum) = (start, vec![0.0; 3]);
        // A matrix with more outputs than inputs takes longer steps.
        let scale = (shape[1] as f64 / shape[0] as f64).max(1.0).sqrt();
        for (values, rate) in
            [([0.9, 0.5, 0.1], 1.0), ([0.2, -0.7, 0.3], 0.5), ([-0.4, 0.1, 0.8], 1.0)]
        {
            let gradient = parameters(&with_singular_values(&values, u, v), 0.3);
            let norm = (values.iter().map(|x| x * x).sum::<f64>() + 0.09).sqrt();
            let clip = (ADAM.max_gradient_norm / norm).min(1.0);
            let Stepped { parameters, gradient_norm, gradient_rms } =
                optimizer.update(&ours, &gradient, rate);
            ours = parameters;
            assert!(
                (gradient_norm - norm).abs() < 1e-5 && (gradient_rms - 0.3 * clip).abs() < 1e-5,
                "{gradient_norm} {gradient_rms}"
            );

            for (sum, value) in sum.iter_mut().zip(values) {
                *sum = MUON.momentum * *sum + clip * value;
            }
            // Nesterov: one step ahead of the sum.
            let ahead: Vec<f64> = sum
                .iter()
                .zip(values)
                .map(|(sum, value)| MUON.momentum * sum + clip * value)
                .collect();
            let step = with_singular_values(&newton_schulz(&ahead), u, v);
            for (weight, step) in matrix.iter_mut().zip(step) {
                *weight = *weight * (1.0 - rate * ADAM.learning_rate * ADAM.weight_decay)
                    - rate * MUON.learning_rate * scale * step;
            }
            let got: Vec<f64> = ours.to_data()[&0].iter::<f64>().collect();
            assert!(
                distance(&got, &matrix) < 1e-5,
                "{shape:?}: off by {:e}",
                distance(&got, &matrix)
            );
        }
        let other: f64 = ours.to_data()[&1].iter::<f64>().sum();
        assert!(other < 2.0 - 0.02, "AdamW moves what is no matrix: {other}");
    }
}

#[test]
fn newton_schulz_brings_singular_values_near_1() {
    for values in [[1.0, 0.5, 0.1], [0.03, 0.9, 0.4]] {
        assert!(
            newton_schulz(&values).iter().all(|value| (0.6..1.3).contains(value)),
            "{:?}",
            newton_schulz(&values)
        );
    }
}

/// Asserts that the matrices of a network's blocks are all those under the lists of the network
/// that are called blocks, of which there are `lists`.
fn assert_takes_blocks<M: VelocityField<Plain> + Module<Plain>>(network: &M, lists: usize) {
    let trained = Trained::all(network);
    let taken = trained.matrices(network, network.blocks());
    let names = names(network);
    let list = |id: &u64| names[id].split('.').next().expect("a field").to_owned();
    let all = trained.matrices(network, &[""]);
    let in_blocks: BTreeMap<u64, [usize; 2]> =
        all.into_iter().filter(|(id, _)| list(id).ends_with("blocks")).collect();
    assert_eq!(taken, in_blocks);
    assert_eq!(taken.keys().map(list).collect::<BTreeSet<_>>().len(), lists);
}

#[test]
fn every_network_names_the_blocks_whose_matrices_muon_takes() {
    let device = Device::default();
    assert_takes_blocks(&networks::network(1), 1);
    assert_takes_blocks(&flux::transformer::<Plain>(&device), 2);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/sd3-tiny");
    let directory = ModelDirectory::open::<Plain>(&directory, &Choices::default(), &device);
    let sd3 = directory.expect("a whole model").transformer(FloatDType::F32, &device);
    assert_takes_blocks(&sd3.expect("a transformer"), 1);
    let mlp = MlpConfig { elements: 2, width: 8, depth: 2 }.init::<Plain>(1, &device);
    assert_takes_blocks(&mlp, 0);
}
