//! Stable Diffusion 3 beside diffusers, number by number, on small random models.

use std::path::{Path, PathBuf};

use burn::tensor::{FloatDType, Tensor, TensorData};
use flow::{GridKind, Guided, Sampler, VelocityField};
use models::{
    Adapter,
    sd3::{Choices, ModelDirectory, PromptEncoder, Transformer, tokenizer::PromptTokenizer},
};
use safetensors::SafeTensors;

use crate::backend::{Device, Plain, distance, numbers};

/// A small random model in the layout of diffusers, with what diffusers computes with it.
pub struct Model {
    pub path: PathBuf,
    bytes: Vec<u8>,
    pub facts: serde_json::Value,
}

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

impl Model {
    pub fn read(name: &str) -> Self {
        let path = golden(name);
        let facts = std::fs::read_to_string(path.join("golden.json")).expect("the golden is committed");
        let bytes = std::fs::read(path.join("golden.safetensors")).expect("the golden is committed");
        Self { bytes, facts: serde_json::from_str(&facts).expect("JSON"), path }
    }

    fn values(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let values = match view.dtype() {
            safetensors::Dtype::F32 => {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
            }
            safetensors::Dtype::I64 => {
                view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64).collect()
            }
            other => panic!("{name} is stored as {other:?}"),
        };
        (view.shape().to_vec(), values)
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<Plain, D> {
        let (shape, values) = self.values(name);
        let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::default())
    }

    fn number(&self, name: &str) -> usize {
        self.facts[name].as_u64().unwrap_or_else(|| panic!("no {name}")) as usize
    }

    pub fn prompts(&self) -> Vec<&str> {
        self.facts["prompts"].as_array().expect("prompts").iter().map(|prompt| prompt.as_str().expect("text")).collect()
    }

    fn open(&self) -> ModelDirectory {
        ModelDirectory::open::<Plain>(&self.path, &Choices::default(), &Device::default()).expect("a whole model")
    }

    fn encoder(&self) -> PromptEncoder<Plain> {
        let length = self.number("max_sequence_length");
        self.open().prompt_encoder(length, FloatDType::F32, &Device::default()).expect("encoders")
    }

    fn transformer(&self) -> Transformer<Plain> {
        self.open().transformer(FloatDType::F32, &Device::default()).expect("a transformer")
    }

    /// How far `got` is from the array of this name.
    fn assert_near<const D: usize>(&self, name: &str, got: Tensor<Plain, D>) {
        let (shape, want) = self.values(name);
        assert_eq!(got.dims().to_vec(), shape, "{name}");
        let distance = distance(&numbers(got), &want);
        assert!(distance <= TOLERANCE, "{name}: off by {distance:e}");
    }
}

/// Relative to the largest number.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 2] = ["sd3-tiny", "sd3-plain"];

#[test]
fn prompts_are_cut_into_the_same_tokens() {
    for name in MODELS {
        let model = Model::read(name);
        let has_t5 = model.open().has_t5();
        assert_eq!(has_t5, name == "sd3-tiny");
        let mut sets = vec![("tokenizer", "clip_ids", 77), ("tokenizer_2", "clip2_ids", 77)];
        if has_t5 {
            sets.push(("tokenizer_3", "t5_ids", model.number("max_sequence_length")));
        }
        for (directory, ids, length) in sets {
            assert_ids(&model, directory, ids, &model.prompts(), length);
        }
    }
    let model = Model::read("sd3-plain");
    let texts: Vec<&str> = model.facts["texts"].as_array().expect("texts").iter().filter_map(serde_json::Value::as_str).collect();
    assert_eq!(texts.len(), 13);
    assert_ids(&model, "tokenizer", "text_clip_ids", &texts, 77);
    assert_ids(&model, "tokenizer_2", "text_clip2_ids", &texts, 77);
}

fn assert_ids(model: &Model, directory: &str, ids: &str, texts: &[&str], length: usize) {
    let tokenizer = PromptTokenizer::open(&model.path.join(directory), length).expect("a tokenizer");
    let want = model.values(ids).1;
    for (text, want) in texts.iter().zip(want.chunks_exact(length)) {
        let got: Vec<f64> = tokenizer.encode(text).expect("a prompt").into_iter().map(f64::from).collect();
        assert_eq!(got, want, "{directory}: {text:?}");
    }
}

#[test]
fn prompts_are_encoded_as_diffusers_encodes_them() {
    for name in MODELS {
        let model = Model::read(name);
        let encoder = model.encoder();
        for (prompts, text, pooled) in
            [(model.prompts(), "prompt_embeds", "pooled"), (vec![""; 2], "negative_prompt_embeds", "negative_pooled")]
        {
            let embeddings = encoder.encode(&prompts, |_| {}).expect("prompts");
            let all = |numbers: fn(&models::sd3::PromptEmbedding) -> &[f32]| -> Vec<f32> {
                embeddings.iter().flat_map(|embedding| numbers(embedding)).copied().collect()
            };
            let [tokens, width] = embeddings[0].text_shape;
            let of_text = TensorData::new(all(|embedding| &embedding.text), [prompts.len(), tokens, width]);
            model.assert_near(text, Tensor::<Plain, 3>::from_data(of_text, &Device::default()));
            let of_pooled = all(|embedding| &embedding.pooled);
            let of_pooled = TensorData::new(of_pooled, [prompts.len(), embeddings[0].pooled.len()]);
            model.assert_near(pooled, Tensor::<Plain, 2>::from_data(of_pooled, &Device::default()));
        }
    }
}

#[test]
fn the_transformer_has_the_velocity_of_diffusers() {
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encoder().encode(&model.prompts(), |_| {}).expect("prompts");
        let time = model.tensor::<1>("timestep") / 1000.0;
        model.assert_near("velocity", model.transformer().velocity(model.tensor("latents"), time, &conditions));
    }
}

#[test]
fn an_adapter_changes_the_velocity_as_peft_does() {
    let model = Model::read("sd3-tiny");
    let conditions = model.encoder().encode(&model.prompts(), |_| {}).expect("prompts");
    let time = model.tensor::<1>("timestep") / 1000.0;
    for path in ["adapter/peft", "adapter/pytorch_lora_weights.safetensors"] {
        let mut adapter = Adapter::read(&golden(path)).expect("an adapter");
        if !path.ends_with("peft") {
            // Written without its metadata, the file does not tell α.
            adapter.alpha = 8.0;
        }
        let transformer = adapter.attach(model.transformer(), &Device::default()).expect("it fits");
        model.assert_near("velocity_lora", transformer.velocity(model.tensor("latents"), time.clone(), &conditions));
        let merged = models::lora::merged(transformer);
        model.assert_near("velocity_lora", merged.velocity(model.tensor("latents"), time.clone(), &conditions));
    }
}

#[test]
fn sampling_ends_where_diffusers_ends() {
    for name in MODELS {
        let model = Model::read(name);
        let encoder = model.encoder();
        let conditions = encoder.encode(&model.prompts(), |_| {}).expect("prompts");
        let unconditional = encoder.encode(&[""], |_| {}).expect("the empty prompt").remove(0);
        let grid = GridKind::Sd3DoubleShift { shift: 3.0 }.grid(model.number("steps")).expect("a grid");
        let distance = distance(grid.times(), &model.values("sigmas").1);
        assert!(distance < 1e-6, "times: off by {distance:e}");
        let scale = model.facts["guidance_scale"].as_f64().expect("guidance");
        let field = Guided { field: model.transformer(), unconditional, scale };
        let latents = Sampler::ode(grid).sample(&field, &conditions, model.tensor("latents"), |_| unreachable!("no noise"));
        model.assert_near("final_latents", latents.clone());
        let vae = model.open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
        model.assert_near("decoded", vae.decode(latents));
    }
}

#[test]
fn pictures_are_encoded_as_diffusers_encodes_them() {
    for name in MODELS {
        let model = Model::read(name);
        let vae = model.open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
        let posterior = vae.encode(model.tensor("encode_input"));
        model.assert_near("encode_mean", posterior.mean.clone());
        model.assert_near("encode_logvar", posterior.log_variance);
        let latents = vae.latents(model.tensor("encode_input"));
        let want = (posterior.mean - vae.config().shift_factor.expect("a shift")) * vae.config().scaling_factor;
        assert!(distance(&numbers(latents), &numbers(want)) < 1e-6);
    }
}
