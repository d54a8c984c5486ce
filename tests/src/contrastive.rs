//! CLIP's training loss: closed forms, and a gradient by differences.

use burn::tensor::{Tensor, TensorData};
use models::clip::contrastive_loss;
use rand::Rng;
use training::noise::{Key, Purpose};

use crate::backend::{Device, Plain, Training};

fn rows(values: &[f32], width: usize) -> TensorData {
    TensorData::new(values.to_vec(), [values.len() / width, width])
}

fn loss(images: &[f32], texts: &[f32], width: usize, scale: f32) -> f64 {
    let device = Device::default();
    let tensor = |values: &[f32]| Tensor::<Plain, 2>::from_data(rows(values, width), &device);
    let scale = Tensor::from_floats([scale], &device);
    let loss = contrastive_loss(tensor(images), tensor(texts), scale);
    f64::from(loss.into_data().iter::<f32>().next().expect("one number"))
}

/// The loss by its definition, in f64 and with loops.
fn by_definition(images: &[f32], texts: &[f32], width: usize, scale: f32) -> f64 {
    let unit = |values: &[f32]| -> Vec<Vec<f64>> {
        let row = |row: &[f32]| {
            let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|x| f64::from(*x) / length).collect()
        };
        values.chunks_exact(width).map(row).collect()
    };
    let (images, texts) = (unit(images), unit(texts));
    let logit = |i: usize, j: usize| {
        f64::from(scale) * images[i].iter().zip(&texts[j]).map(|(a, b)| a * b).sum::<f64>()
    };
    let n = images.len();
    let of_row = |i: usize| {
        let forth: f64 = (0..n).map(|j| logit(i, j).exp()).sum();
        let back: f64 = (0..n).map(|j| logit(j, i).exp()).sum();
        forth.ln() + back.ln() - 2.0 * logit(i, i)
    };
    (0..n).map(of_row).sum::<f64>() / (2.0 * n as f64)
}

#[test]
fn the_contrastive_loss_is_its_definition_and_symmetric_in_images_and_texts() {
    for seed in 0..50 {
        let mut rng = Key::new(seed, Purpose::Order).rng();
        let (count, width) = (rng.random_range(2..9), rng.random_range(2..7));
        let mut draw = || (0..count * width).map(|_| rng.random_range(-1.0..1.0)).collect();
        let (images, texts): (Vec<f32>, Vec<f32>) = (draw(), draw());
        let (found, wanted) =
            (loss(&images, &texts, width, 5.0), by_definition(&images, &texts, width, 5.0));
        assert!((found - wanted).abs() < 1e-5, "seed {seed}: {found} and {wanted}");
        let swapped = loss(&texts, &images, width, 5.0);
        assert!((found - swapped).abs() < 1e-5, "seed {seed}: {found} and {swapped}");
    }
}

#[test]
fn equal_embeddings_cost_the_logarithm_of_the_batch_and_right_ones_cost_nothing() {
    let same = [1.0, 2.0].repeat(8);
    assert!((loss(&same, &same, 2, 14.0) - 8.0_f64.ln()).abs() < 1e-5);
    let mut identity = vec![0.0; 36];
    (0..6).for_each(|i| identity[7 * i] = 1.0);
    assert!(loss(&identity, &identity, 6, 100.0) < 1e-6);
}

#[test]
fn a_step_against_the_gradient_lowers_the_loss() {
    for seed in 0..20 {
        let mut rng = Key::new(seed, Purpose::Order).rng();
        let mut draw = || (0..24).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
        let (images, texts) = (draw(), draw());
        let device = Device::default();
        let leaf = Tensor::<Training, 2>::from_data(rows(&images, 4), &device).require_grad();
        let fixed = Tensor::<Training, 2>::from_data(rows(&texts, 4), &device);
        let scale = Tensor::from_floats([5.0], &device);
        let gradient = contrastive_loss(leaf.clone(), fixed, scale).backward();
        let gradient = leaf.grad(&gradient).expect("a gradient").into_data();
        let moved: Vec<f32> =
            images.iter().zip(gradient.iter::<f32>()).map(|(x, g)| x - 1e-2 * g).collect();
        let squares: f64 = gradient.iter::<f32>().map(|g| f64::from(g).powi(2)).sum();
        let fell = loss(&images, &texts, 4, 5.0) - loss(&moved, &texts, 4, 5.0);
        assert!((fell / (1e-2 * squares) - 1.0).abs() < 0.1, "seed {seed}: {fell}, {squares}");
    }
}
