//! Networks: shapes, seeds, checkpoints.

use burn::tensor::Tensor;
use flow::VelocityField;
use models::{Dit, DitConfig, Prediction, TokenIds, WeightsFile, weights};
use training::parameters::{self, Parameters, Trained};

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    closed_forms::noise,
};

pub fn config() -> DitConfig {
    DitConfig {
        channels: 3,
        image_size: 16,
        patch: 4,
        width: 16,
        depth: 2,
        heads: 2,
        mlp_ratio: 2,
        text_length: 3,
        text_neighbours: 3,
        prediction: Prediction::Preconditioned { data_std: 0.6 },
    }
}

/// A network whose zero-initialised layers are filled, so that every part matters.
pub fn network(seed: u64) -> Dit<Plain> {
    let network = config().init::<Plain>(5, seed, &Device::default());
    let weights = Parameters::of(&network).map(|values| {
        let n = values.dims()[0];
        let jitter: Tensor<Plain, 1> = noise(1, [n, 1, 1], 77).reshape([n]);
        values + jitter * 0.1
    });
    weights.put_into(network)
}

pub fn conditions(rows: usize) -> Vec<TokenIds> {
    (0..rows).map(|row| TokenIds::from([1 + (row % 4) as i32, 2, 0])).collect()
}

#[test]
fn rows_do_not_see_each_other() {
    let network = network(1);
    let (x, time) = (
        noise(5, [3, 16, 16], 1),
        Tensor::<Plain, 1>::from_floats([0.1, 0.3, 0.5, 0.7, 1.0], &Device::default()),
    );
    let together = numbers(network.velocity(x.clone(), time.clone(), &conditions(5)));
    for row in 0..5 {
        let alone = network.velocity(
            x.clone().narrow(0, row, 1),
            time.clone().narrow(0, row, 1),
            &conditions(5)[row..=row],
        );
        let d = distance(&numbers(alone), &together[row * 768..(row + 1) * 768]);
        assert!(d < 1e-5, "row {row}: {d:e}");
    }
}

#[test]
fn the_text_and_the_time_matter() {
    let network = network(1);
    let x = noise(1, [3, 16, 16], 1);
    let at = |time: f64, ids: [i32; 3]| {
        numbers(network.velocity(
            x.clone(),
            Tensor::full([1], time, &Device::default()),
            &[TokenIds::from(ids)],
        ))
    };
    let base = at(0.5, [1, 2, 3]);
    assert!(distance(&at(0.5, [2, 1, 3]), &base) > 1e-4, "word order");
    assert!(distance(&at(0.5, [1, 2, 4]), &base) > 1e-4, "another word");
    assert!(distance(&at(0.6, [1, 2, 3]), &base) > 1e-4, "another time");
}

#[test]
fn a_fresh_network_predicts_the_linear_guess() {
    // adaLN-zero: the output layer starts at zero, so v comes from the preconditioning of x alone.
    let network = config().init::<Plain>(5, 3, &Device::default());
    let x = noise(2, [3, 16, 16], 2);
    let t = 0.4_f64;
    let got = numbers(network.velocity(
        x.clone(),
        Tensor::full([2], t, &Device::default()),
        &conditions(2),
    ));
    let variance = (1.0 - t).powi(2) * 0.36 + t * t;
    let want: Vec<f64> = numbers(x).iter().map(|x| x * (t - (1.0 - t) * 0.36) / variance).collect();
    assert!(distance(&got, &want) < 1e-5);
}

#[test]
fn equal_seeds_give_equal_weights_and_other_seeds_others() {
    let weights =
        |seed: u64| Parameters::of(&config().init::<Plain>(5, seed, &Device::default())).to_data();
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
}

#[test]
fn every_parameter_gets_a_gradient() {
    let trainable: Dit<Training> = Trained::all(&network(1)).with_graph(network(1));
    let x = Tensor::from_inner(noise(4, [3, 16, 16], 3));
    let time = Tensor::from_inner(Tensor::<Plain, 1>::from_floats(
        [0.2, 0.4, 0.6, 0.8],
        &Device::default(),
    ));
    let loss = trainable.velocity(x, time, &conditions(4)).powi_scalar(2).sum();
    let gradients = Trained::all(&trainable).gradients(&trainable, loss.backward());
    let names = parameters::names(&trainable);
    for (id, data) in gradients.to_data() {
        let norm: f64 = data.iter::<f64>().map(|x| x * x).sum();
        assert!(norm > 0.0 && norm.is_finite(), "{} has gradient norm² {norm}", names[&id]);
    }
    assert_eq!(gradients.layout(), Parameters::of(&network(1)).layout());
}

#[test]
fn a_gradient_is_the_slope() {
    // Central differences along a random direction.
    let (x, time) =
        (noise(2, [3, 16, 16], 4), Tensor::<Plain, 1>::from_floats([0.3, 0.8], &Device::default()));
    let loss = |network: &Dit<Plain>| {
        numbers(network.velocity(x.clone(), time.clone(), &conditions(2)).powi_scalar(2).mean())[0]
    };
    let network = network(2);
    let direction = Parameters::of(&network).map(|values| {
        let n = values.dims()[0];
        noise(1, [n, 1, 1], 5).reshape([n])
    });
    let moved = |by: f64| {
        Parameters::of(&network).zip(&direction, |p, d| p + d * by).put_into(network.clone())
    };
    let slope = (loss(&moved(1e-3)) - loss(&moved(-1e-3))) / 2e-3;
    let trainable: Dit<Training> = Trained::all(&network).with_graph(network.clone());
    let value = trainable
        .velocity(Tensor::from_inner(x.clone()), Tensor::from_inner(time.clone()), &conditions(2))
        .powi_scalar(2)
        .mean();
    let gradient = Trained::all(&trainable).gradients(&trainable, value.backward());
    let along: f64 = gradient
        .to_data()
        .values()
        .zip(direction.to_data().values())
        .map(|(g, d)| g.iter::<f64>().zip(d.iter::<f64>()).map(|(g, d)| g * d).sum::<f64>())
        .sum();
    // f32 losses of order 1 limit the difference quotient to about 1e-4.
    assert!((slope - along).abs() < 0.01 * along.abs().max(0.1), "slope {slope}, gradient {along}");
}

fn saved(stored_as: weights::StoredAs) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("network.safetensors");
    weights::write_module(&network(1), ("k", "v".to_owned()), stored_as, &path).expect("written");
    (directory, path)
}

#[test]
fn a_checkpoint_gives_back_the_same_numbers() {
    let (_directory, path) = saved(weights::StoredAs::F32);
    let file = WeightsFile::read(&path).expect("a file");
    assert_eq!(file.metadata("k").expect("metadata"), "v");
    let loaded = file.load_into(config().init::<Plain>(5, 99, &Device::default())).expect("fits");
    assert_eq!(Parameters::of(&loaded).to_data(), Parameters::of(&network(1)).to_data());
    let (_directory, path) = saved(weights::StoredAs::F16);
    let half = WeightsFile::read(&path)
        .expect("a file")
        .load_into(config().init::<Plain>(5, 99, &Device::default()))
        .expect("fits");
    for (id, want) in Parameters::of(&network(1)).to_data() {
        let got = &Parameters::of(&half).to_data()[&id];
        let d = distance(
            &got.iter::<f64>().collect::<Vec<_>>(),
            &want.iter::<f64>().collect::<Vec<_>>(),
        );
        assert!(d < 1e-3, "{d:e}");
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused_with_all_differences() {
    let (_directory, path) = saved(weights::StoredAs::F32);
    let other = DitConfig { width: 24, depth: 3, ..config() };
    let error = WeightsFile::read(&path)
        .expect("a file")
        .load_into(other.init::<Plain>(5, 1, &Device::default()))
        .expect_err("does not fit");
    let text = error.to_string();
    assert!(text.contains("blocks.2.to_q.weight is missing"), "{text}");
    assert!(text.contains("blocks.0.to_q.weight has shape"), "{text}");
    let smaller = DitConfig { depth: 1, ..config() };
    let error = WeightsFile::read(&path)
        .expect("a file")
        .load_into(smaller.init::<Plain>(5, 1, &Device::default()))
        .expect_err("does not fit");
    assert!(
        error.to_string().contains("blocks.1.to_q.weight is not a weight of this network"),
        "{error}"
    );
}

#[test]
fn a_damaged_checkpoint_is_refused_not_a_panic() {
    let (_directory, path) = saved(weights::StoredAs::F32);
    let bytes = std::fs::read(&path).expect("a file");
    for length in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(
            WeightsFile::from_bytes(bytes[..length].to_vec(), &path).is_err(),
            "cut to {length} bytes"
        );
    }
    let mut not_finite = bytes.clone();
    let end = not_finite.len();
    not_finite[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = WeightsFile::from_bytes(not_finite, &path).expect("still safetensors");
    let error = file.load_into(config().init::<Plain>(5, 1, &Device::default())).expect_err("NaN");
    assert!(error.to_string().contains("not finite"), "{error}");
}

/// On flex, the CPU backend that computes in bf16; a GPU computes in bf16 in the same way.
#[cfg(feature = "flex")]
#[test]
fn bf16_layers_come_close_and_gradients_stay_f32() {
    let exact = network(1);
    let half = exact.clone().computing_in(burn::tensor::FloatDType::BF16);
    let (x, time) =
        (noise(2, [3, 16, 16], 1), Tensor::<Plain, 1>::from_floats([0.3, 0.8], &Device::default()));
    let gradient = |network: Dit<Plain>| {
        let network: Dit<Training> = Trained::all(&network).with_graph(network);
        let [x, time] = [x.clone(), time.clone().reshape([2, 1, 1, 1])];
        let velocity = network.velocity(
            Tensor::from_inner(x),
            Tensor::from_inner(time).reshape([2]),
            &conditions(2),
        );
        let gradients = velocity.clone().powi_scalar(2).mean().backward();
        (numbers(velocity.inner()), Trained::all(&network).gradients(&network, gradients))
    };
    let ((v, g), (v_half, g_half)) = (gradient(exact), gradient(half));
    let d = distance(&v_half, &v);
    assert!((1e-5..2e-2).contains(&d), "bf16 must differ, but by little: {d:e}");
    let difference = g.zip(&g_half, |a, b| a - b).norm() / g.norm();
    assert!((1e-5..5e-2).contains(&difference), "{difference:e}");
}

#[test]
fn the_sizes_say_how_many_numbers_a_network_has() {
    for text_neighbours in [1, 3] {
        let config = DitConfig { text_neighbours, depth: 3, ..config() };
        assert_eq!(
            config.count(7),
            Parameters::of(&config.init::<Plain>(7, 1, &Device::default())).count()
        );
    }
    let config = models::MlpConfig { elements: 2, width: 24, depth: 3 };
    assert_eq!(
        config.count(),
        Parameters::of(&config.init::<Plain>(1, &Device::default())).count()
    );
}
