//! The demos compute the same natively and in the browser.
//!
//! `numbers.json` holds numbers of a native build, each list with the JavaScript that computes it
//! from the compiled demos. This test compares the native build with the file, and `cargo xtask book
//! --test` compares the browser. Compilers and processors round differently, so the tolerances are
//! those of rounding: training doubles an error every few epochs.

use std::path::Path;

use demos::{OdeSde, TrainToy};
use serde::Deserialize;

/// Numbers of a demo, as the file has them.
#[derive(Deserialize)]
struct Expected {
    name: String,
    tolerance: f32,
    numbers: Vec<f32>,
}

/// Ten steps of the SDE: the first places, and the distance from the exact density.
fn ode_sde() -> Vec<f32> {
    sampled(0.7, (1.0, false), 1, 0.0)
}

/// The same on SD3's grid with three ODE steps, after training for a reward.
fn tilted() -> Vec<f32> {
    sampled(1.0, (3.0, true), 3, 0.5)
}

fn sampled(noise_level: f64, (shift, twice): (f64, bool), ode_steps: usize, tilt: f64) -> Vec<f32> {
    let mut demo = OdeSde::new(500, 7).expect("particles");
    demo.choose(noise_level, 10, shift, twice, 1.0, ode_steps, tilt).expect("a sampler");
    while demo.advance() {}
    let mut numbers = demo.places()[..5].to_vec();
    numbers.extend([demo.distance(), demo.distance_by_chance()]);
    numbers
}

fn run() -> TrainToy {
    TrainToy::new(0.7, 64, 1e-3, 2, 0.0, 9, 2.0, 0.0, 1).expect("settings in range")
}

/// The first points of the base model, and reward and ratios of the first three epochs.
fn first_epochs() -> Vec<f32> {
    let mut run = run();
    let mut numbers = run.points()[..4].to_vec();
    for _ in 0..3 {
        let epoch = run.epoch().expect("finite numbers");
        numbers.extend([epoch.reward, epoch.ratio_min, epoch.ratio_max]);
    }
    numbers
}

/// The reward of every tenth of thirty epochs, and the clusters of the points after them.
fn thirty_epochs() -> Vec<f32> {
    let mut run = run();
    let epochs: Vec<f32> = (0..30).map(|_| run.epoch().expect("finite numbers").reward).collect();
    vec![epochs[9], epochs[19], epochs[29], TrainToy::clusters(&run.points())]
}

#[test]
fn native_numbers_are_those_of_the_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numbers.json");
    let text = std::fs::read_to_string(path).expect("the file of the numbers");
    let file: Vec<Expected> = serde_json::from_str(&text).expect("lists of numbers");
    for Expected { name, tolerance, numbers } in file {
        let computed = match name.as_str() {
            "ode_sde" => ode_sde(),
            "tilted" => tilted(),
            "first_epochs" => first_epochs(),
            "thirty_epochs" => thirty_epochs(),
            other => panic!("nothing computes {other}"),
        };
        let near = computed.len() == numbers.len()
            && computed.iter().zip(&numbers).all(|(a, b)| (a - b).abs() <= tolerance);
        assert!(near, "{name}: computed {computed:?}, in the file {numbers:?}");
    }
}
