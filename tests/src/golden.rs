//! One step of the published PyTorch code, number by number.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use flow::{
    Dance, FlowCps, FlowSde, GridKind, IsotropicGaussian, KlForm, NoiseLevel, Reduction, Step,
    Transition,
};
use grpo::{
    advantage::{AdvantageConfig, Spread, group_advantages},
    objective::{Clip, clipped_loss},
};
use safetensors::SafeTensors;

use crate::backend::{Device, PRECISION, Plain, distance, numbers};

pub struct Golden {
    bytes: Vec<u8>,
    pub cases: Vec<serde_json::Value>,
    facts: serde_json::Value,
}

impl Golden {
    fn read() -> Self {
        Self::named("flow_sde_reference")
    }

    /// The cases of `NAME.json`, and the arrays of `NAME.safetensors`.
    pub fn named(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        let text =
            std::fs::read_to_string(path.with_extension("json")).expect("the golden is committed");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let bytes =
            std::fs::read(path.with_extension("safetensors")).expect("the golden is committed");
        Self { bytes, cases: json["cases"].as_array().cloned().unwrap_or_default(), facts: json }
    }

    /// Whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).expect("safetensors").tensor(name).is_ok()
    }

    pub fn values(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let values = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        (view.shape().to_vec(), values)
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<Plain, D> {
        let (shape, values) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), &Device::default())
    }

    /// The texts of an entry of the JSON file.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.facts[name].as_array().unwrap_or_else(|| panic!("no {name}"));
        texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    pub fn wide(&self, name: &str) -> Vec<f64> {
        self.values(name).1.into_iter().map(f64::from).collect()
    }
}

/// In f32, relative to the largest number.
const TOLERANCE: f64 = 1e-5;

fn assert_near(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let distance = distance(got, want);
    assert!(distance <= tolerance, "{what}: off by {distance:e} in {PRECISION}");
}

#[test]
fn every_case_of_the_reference_code_is_reproduced() {
    let golden = Golden::read();
    assert_eq!(golden.cases.len(), 18);
    for case in &golden.cases {
        let key = case["key"].as_str().expect("key");
        let grid = GridKind::Sd3DoubleShift { shift: 3.0 }
            .grid(case["n_steps"].as_u64().expect("steps") as usize)
            .expect("valid");
        let step = grid.step(case["step"].as_u64().expect("step") as usize);
        let noise_level =
            NoiseLevel::new(case["noise_level"].as_f64().expect("level")).expect("valid");
        let transition = Transition::from(FlowSde { noise_level });
        let get = |name: &str| golden.tensor::<4>(&format!("{key}.{name}"));
        let want = |name: &str| golden.wide(&format!("{key}.{name}"));

        let check = |name: &str, got: &[f64], tolerance: f64| {
            assert_near(&format!("{key} {name}"), got, &want(name), tolerance);
        };
        let old = transition.gaussian(get("x"), get("velocity"), step);
        let sigma = old.std / step.duration().sqrt();
        let published = case["std_per_sqrt_dt"].as_f64().expect("std");
        // The reference computes its grid in f32, and 1 − t loses digits near t = 1.
        assert_near(&format!("{key} sigma"), &[sigma], &[published], TOLERANCE);
        check("mean", &numbers(old.mean.clone()), TOLERANCE);
        check("next", &numbers(old.sample(get("noise"))), TOLERANCE);

        let next = get("next");
        let log_prob = old.log_prob(next.clone(), Reduction::Mean);
        check("log_prob", &numbers(log_prob), LOG_PROB_TOLERANCE);
        let new = transition.gaussian(get("x"), get("velocity_new"), step);
        check("mean_new", &numbers(new.mean.clone()), TOLERANCE);
        check("log_prob_new", &numbers(new.log_prob(next, Reduction::Mean)), LOG_PROB_TOLERANCE);
        let kl =
            |form| numbers(transition.kl(form, step, get("velocity_new"), get("velocity_ref")));
        check("kl_code", &kl(KlForm::Reference), KL_TOLERANCE);
        // Before 2025-07-15 `std_dev_t` was `std_dev_t * sqrt(-dt)` (commit 39d3d2c,
        // sd3_sde_with_logprob.py): the duration below as well.
        let earlier: Vec<f64> = want("kl_code").iter().map(|kl| kl / step.duration()).collect();
        let of_may = format!("{key} kl of May 2025");
        assert_near(&of_may, &kl(KlForm::PaperMean), &earlier, KL_TOLERANCE);

        // From the golden's own log-probabilities, to keep our rounding of them out of the loss.
        let policy = clipped_loss(
            golden.tensor::<1>(&format!("{key}.log_prob_new")),
            golden.tensor::<1>(&format!("{key}.log_prob")),
            // The reference clips advantages where it computes the loss, this code where it
            // computes them.
            golden.tensor::<1>(&format!("{key}.advantage")).clamp(-5.0, 5.0),
            Clip { low: 1e-4, high: 1e-4 },
        );
        check("ratio", &numbers(policy.ratio), TOLERANCE);
        // The loss is a mean of terms A·ratio that cancel: it is exact on their scale, not on its
        // own.
        let scale =
            want("advantage").iter().fold(0.0_f64, |scale, advantage| scale.max(advantage.abs()));
        let off = (numbers(policy.loss.mean())[0] - want("policy_loss")[0]).abs();
        assert!(off <= TOLERANCE * scale, "{key} loss: off by {off:e}");
    }
}

#[test]
fn flow_cps_and_dance_are_those_of_the_published_code() {
    let golden = Golden::named("transitions/transitions");
    assert_eq!(golden.cases.len(), 49);
    for case in &golden.cases {
        let key = case["key"].as_str().expect("key");
        let noise_level =
            NoiseLevel::new(case["noise_level"].as_f64().expect("level")).expect("valid");
        let transition: Transition = match case["kind"].as_str().expect("kind") {
            "flow_cps" => FlowCps { noise_level }.into(),
            "dance" => Dance { noise_level }.into(),
            kind => panic!("{kind}"),
        };
        let [from, to] = ["from", "to"].map(|name| case[name].as_f64().expect("a time"));
        let step = Step { index: case["step"].as_u64().expect("step") as usize, from, to };
        let get = |name: &str| golden.tensor::<4>(&format!("{key}.{name}"));
        let want = |name: &str| golden.wide(&format!("{key}.{name}"));

        let check = |name: &str, got: &[f64], tolerance: f64| {
            assert_near(&format!("{key} {name}"), got, &want(name), tolerance);
        };
        let gaussian = transition.gaussian(get("x"), get("velocity"), step);
        let std = case["std"].as_f64().expect("std");
        assert_near(&format!("{key} std"), &[gaussian.std], &[std], 1e-6);
        check("mean", &numbers(gaussian.mean.clone()), TOLERANCE);
        check("next", &numbers(gaussian.sample(get("noise"))), TOLERANCE);
        let other = transition.gaussian(get("x"), get("velocity_2"), step);
        check("mean_2", &numbers(other.mean.clone()), TOLERANCE);
        assert_eq!(gaussian.is_random(), !case["log_prob"].is_null(), "{key}");
        if gaussian.is_random() {
            let log_prob = |gaussian: &IsotropicGaussian<Plain>| {
                numbers(gaussian.log_prob(get("next"), Reduction::Mean))
            };
            check("log_prob", &log_prob(&gaussian), LOG_PROB_TOLERANCE);
            check("log_prob_2", &log_prob(&other), LOG_PROB_TOLERANCE);
        }
    }
}

/// At the last steps std is 0.003, so `(x' − mean)/std` keeps four digits of f32's seven in each
/// element; the mean over elements keeps five.
const LOG_PROB_TOLERANCE: f64 = 2e-5;
/// The KL is the square of a small difference of means: it has half their digits.
const KL_TOLERANCE: f64 = 1e-4;

#[test]
fn advantages_are_those_of_the_reference_code() {
    let golden = Golden::read();
    let (_, rewards) = golden.values("rewards");
    for (spread, name) in [
        (Spread::Epoch, "advantages_global_std_true"),
        (Spread::Group, "advantages_global_std_false"),
    ] {
        let config = AdvantageConfig { spread, ..AdvantageConfig::default() };
        let advantages = group_advantages(&rewards, 6, &config);
        let got: Vec<f64> = advantages.values.iter().copied().map(f64::from).collect();
        assert_near(name, &got, &golden.wide(name), TOLERANCE);
        assert_eq!(
            advantages.has_spread,
            [true, false, true, true, true],
            "the second group is constant"
        );
    }
}

#[test]
fn the_grids_are_those_of_diffusers() {
    let golden = Golden::read();
    for steps in [10, 40] {
        let grid = GridKind::Sd3DoubleShift { shift: 3.0 }.grid(steps).expect("valid");
        assert_near("grid", grid.times(), &golden.wide(&format!("sigmas_{steps}")), 1e-6);
    }
}
