//! Stable Diffusion 3 compared with diffusers, number by number, on small random models.

pub mod files;
mod replayed_step;

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, FloatDType, Tensor, TensorData, backend::Backend};
use flow::{GridKind, Guidance, Sampler, VelocityField};
use models::{
    Adapter, Choices, lora,
    sd3::{ModelDirectory, Transformer},
    text::{Embedding, Features, tokenizer::PromptTokenizer},
};
use safetensors::SafeTensors;

use crate::backend::{Device, PRECISION, Plain, distance, numbers, of_products};

/// A small random model in the layout of diffusers, with the values that diffusers computes from
/// it.
#[derive(Clone)]
struct Model {
    path: PathBuf,
    arrays: Arrays,
}

impl Deref for Model {
    type Target = Arrays;

    fn deref(&self) -> &Arrays {
        &self.arrays
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Named arrays, with facts about them from a JSON file.
#[derive(Clone)]
struct Arrays {
    bytes: Vec<u8>,
    facts: serde_json::Value,
}

impl Arrays {
    /// Reads `NAME.safetensors` with `NAME.json`.
    fn read(name: &Path) -> Self {
        let facts =
            std::fs::read_to_string(name.with_extension("json")).expect("the golden is committed");
        let bytes =
            std::fs::read(name.with_extension("safetensors")).expect("the golden is committed");
        Self { bytes, facts: serde_json::from_str(&facts).expect("JSON") }
    }

    fn values(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
        let values = match view.dtype() {
            safetensors::Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())
                .collect(),
            safetensors::Dtype::I64 => view
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64)
                .collect(),
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

    /// Asserts that `got` is close to the array of this name.
    fn assert_near<const D: usize>(&self, name: &str, got: Tensor<Plain, D>) {
        let (shape, want) = self.values(name);
        assert_eq!(got.dims().to_vec(), shape, "{name}");
        let distance = distance(&numbers(got), &want);
        assert!(distance <= TOLERANCE, "{name}: off by {distance:e} in {PRECISION}");
    }
}

impl Model {
    fn read(name: &str) -> Self {
        let path = golden(name);
        Self { arrays: Arrays::read(&path.join("golden")), path }
    }

    fn prompts(&self) -> Vec<&str> {
        self.facts["prompts"]
            .as_array()
            .expect("prompts")
            .iter()
            .map(|prompt| prompt.as_str().expect("text"))
            .collect()
    }

    fn open(&self) -> ModelDirectory {
        ModelDirectory::open::<Plain>(&self.path, &Choices::default(), &Device::default())
            .expect("a whole model")
    }

    fn encode(&self, prompts: &[&str]) -> Vec<Embedding> {
        encode(&self.open(), prompts, self.number("max_sequence_length"))
    }

    fn transformer(&self) -> Transformer<Plain> {
        self.open().transformer(FloatDType::F32, &Device::default()).expect("a transformer")
    }
}

/// A copy of a model to break.
fn copy(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    copy_into(&golden(name), directory.path());
    directory
}

/// Copies a directory with all that is in it.
pub fn copy_into(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_into(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

/// Encodes prompts.
fn encode(directory: &ModelDirectory, prompts: &[&str], length: usize) -> Vec<Embedding> {
    let device = Device::default();
    let clip = directory
        .clip_reader::<Plain>(FloatDType::F32, &device)
        .expect("encoders")
        .encode(prompts)
        .expect("prompts");
    let t5 = directory.t5_reader::<Plain>(length, FloatDType::F32, &device).expect("an encoder");
    let t5 = t5.map(|reader| reader.encode(prompts).expect("prompts"));
    let of_row = |(row, clip): (usize, [TensorData; 2])| {
        let t5 = t5.as_ref().map(|t5| Features::Held(t5[row][0].clone()));
        let [hidden, pooled] = clip.map(Features::Held);
        directory.embedding(Some(hidden), pooled, t5, length)
    };
    clip.into_iter().enumerate().map(of_row).collect()
}

/// Tolerance in f32, relative to the largest number.
const TOLERANCE: f64 = of_products(1e-4);
/// Tolerance in f32 for gradients under guidance, in which two large gradients nearly cancel: matrix
/// products of ndarray round differently from one CPU to the next, and 1.6e-4 was seen.
const GRADIENT_TOLERANCE: f64 = of_products(5e-4);

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
    let texts: Vec<&str> = model.facts["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    assert_eq!(texts.len(), 13);
    assert_ids(&model, "tokenizer", "text_clip_ids", &texts, 77);
    assert_ids(&model, "tokenizer_2", "text_clip2_ids", &texts, 77);
}

fn assert_ids(model: &Model, directory: &str, ids: &str, texts: &[&str], length: usize) {
    let tokenizer = PromptTokenizer::open(&model.path.join(directory), length, usize::MAX)
        .expect("a tokenizer");
    let want = model.values(ids).1;
    for (text, want) in texts.iter().zip(want.chunks_exact(length)) {
        let got: Vec<f64> =
            tokenizer.encode(text).expect("a prompt").into_iter().map(f64::from).collect();
        assert_eq!(got, want, "{directory}: {text:?}");
    }
}

#[test]
fn a_tokenizer_of_another_encoder_is_refused() {
    let tokenizer =
        PromptTokenizer::open(&golden("sd3-tiny").join("tokenizer"), 77, 100).expect("a tokenizer");
    let refused =
        tokenizer.encode("a cat").expect_err("the end of the text is a later token").to_string();
    assert!(refused.contains("`a cat`") && refused.contains("knows only 100 tokens"), "{refused}");
}

#[test]
fn added_tokens_have_the_ids_of_their_files_or_are_refused() {
    let directory = |name: &str| {
        let model = copy("sd3-tiny");
        let path = model.path().join(name);
        (model, path)
    };
    let open = |path: &Path| PromptTokenizer::open(path, 77, usize::MAX);
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(path).expect("a text")).expect("JSON")
    };
    let write = |path: &Path, value: &serde_json::Value| {
        std::fs::write(path, value.to_string()).expect("written");
    };
    let prompt = "two <new> cats <other>";

    // Tokens after the vocabulary, listed in another order than that of their ids.
    let (_model, t5) = directory("tokenizer_3");
    let file = t5.join("tokenizer.json");
    let mut json = read(&file);
    let words = json["model"]["vocab"].as_array().expect("a list of words").len() as u64;
    let added = json["added_tokens"].as_array_mut().expect("a list");
    let first = added[0].clone();
    for (content, id) in [("<other>", words + 1), ("<new>", words)] {
        let mut token = first.clone();
        token["content"] = content.into();
        token["id"] = id.into();
        added.push(token);
    }
    write(&file, &json);
    let ids = open(&t5).expect("sorted").encode(prompt).expect("a prompt");
    assert!(ids.contains(&(words as u32)) && ids.contains(&(words as u32 + 1)), "{ids:?}");
    // A hole between the vocabulary and an added token.
    let added = json["added_tokens"].as_array_mut().expect("a list");
    added.last_mut().expect("pushed")["id"] = (words + 7).into();
    write(&file, &json);
    let refused = open(&t5).expect_err("a hole").to_string();
    assert!(
        refused.contains("the vocabulary has holes")
            && (refused.contains("`<other>`") || refused.contains("`<new>`")),
        "{refused}"
    );

    // CLIP's vocabulary with one id for two words.
    let copied = copy("clip-tiny/transformers");
    let clip = copied.path();
    let file = clip.join("vocab.json");
    let mut json = read(&file);
    let words: Vec<String> = json.as_object().expect("words").keys().take(2).cloned().collect();
    json[words[0].as_str()] = json[words[1].as_str()].clone();
    write(&file, &json);
    let refused = open(clip).expect_err("one id for two").to_string();
    assert!(refused.contains("share the id"), "{refused}");
}

#[test]
fn prompts_are_encoded_as_diffusers_encodes_them() {
    for name in MODELS {
        let model = Model::read(name);
        for (prompts, text, pooled) in [
            (model.prompts(), "prompt_embeds", "pooled"),
            (vec![""; 2], "negative_prompt_embeds", "negative_pooled"),
        ] {
            let embeddings = model.encode(&prompts);
            let [tokens, width] = embeddings[0].text_shape;
            let of_text: Vec<f32> =
                embeddings.iter().flat_map(|embedding| embedding.text()).collect();
            let of_text = TensorData::new(of_text, [prompts.len(), tokens, width]);
            model.assert_near(text, Tensor::<Plain, 3>::from_data(of_text, &Device::default()));
            let of_pooled: Vec<f32> =
                embeddings.iter().flat_map(|embedding| embedding.pooled.numbers()).collect();
            let of_pooled =
                TensorData::new(of_pooled, [prompts.len(), embeddings[0].pooled.shape()[0]]);
            model.assert_near(pooled, Tensor::<Plain, 2>::from_data(of_pooled, &Device::default()));
        }
    }
}

#[test]
fn the_transformer_has_the_velocity_of_diffusers() {
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encode(&model.prompts());
        let time = model.tensor::<1>("timestep") / 1000.0;
        model.assert_near(
            "velocity",
            model.transformer().velocity(model.tensor("latents"), time, &conditions),
        );
    }
}

#[test]
fn an_adapter_changes_the_velocity_as_peft_does() {
    let model = Model::read("sd3-tiny");
    let conditions = model.encode(&model.prompts());
    let time = model.tensor::<1>("timestep") / 1000.0;
    for path in ["adapter/peft", "adapter/pytorch_lora_weights.safetensors"] {
        let mut adapter = Adapter::read(&golden(path)).expect("an adapter");
        if !path.ends_with("peft") {
            // Written without metadata, the file does not contain α.
            adapter.alpha = 8.0;
        }
        let transformer = adapter.attach(model.transformer(), &Device::default()).expect("it fits");
        model.assert_near(
            "velocity_lora",
            transformer.velocity(model.tensor("latents"), time.clone(), &conditions),
        );
        let merged = lora::merged(transformer);
        model.assert_near(
            "velocity_lora",
            merged.velocity(model.tensor("latents"), time.clone(), &conditions),
        );
    }
}

#[test]
fn sampling_ends_where_diffusers_ends() {
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encode(&model.prompts());
        let unconditional = model.encode(&[""]).remove(0);
        let grid =
            GridKind::Sd3DoubleShift { shift: 3.0 }.grid(model.number("steps")).expect("a grid");
        let distance = distance(grid.times(), &model.values("sigmas").1);
        assert!(distance < 1e-6, "times: off by {distance:e}");
        let scale = model.facts["guidance_scale"].as_f64().expect("guidance");
        let field = Guidance { unconditional, scale }.around(model.transformer());
        let latents =
            Sampler::ode(grid)
                .sample(&field, &conditions, model.tensor("latents"), |_| unreachable!("no noise"));
        model.assert_near("final_latents", latents.clone());
        let vae =
            model.open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
        model.assert_near("decoded", vae.decode(latents));
    }
}

#[test]
fn pictures_are_encoded_as_diffusers_encodes_them() {
    for name in MODELS {
        let model = Model::read(name);
        let vae =
            model.open().vae::<Plain>(FloatDType::F32, &Device::default()).expect("an autoencoder");
        let posterior = vae.encode(model.tensor("encode_input"));
        model.assert_near("encode_mean", posterior.mean.clone());
        model.assert_near("encode_logvar", posterior.log_variance);
        let latents = vae.latents(model.tensor("encode_input"));
        let want = (posterior.mean - vae.config().shift_factor.expect("a shift"))
            * vae.config().scaling_factor;
        assert!(distance(&numbers(latents), &numbers(want)) < 1e-6);
    }
}

#[test]
fn computing_in_sixteen_bits_changes_the_velocity_little() {
    let device = Device::default();
    if !<Plain as Backend>::supports_dtype(&device, DType::BF16) {
        return;
    }
    for name in MODELS {
        let model = Model::read(name);
        let conditions = model.encode(&model.prompts());
        let time = model.tensor::<1>("timestep") / 1000.0;
        let transformer =
            model.open().transformer::<Plain>(FloatDType::BF16, &device).expect("a transformer");
        let velocity = transformer.velocity(model.tensor("latents"), time, &conditions);
        assert_eq!(velocity.dtype(), DType::F32);
        let distance = distance(&numbers(velocity), &model.values("velocity").1);
        println!("{name}: {distance:e}");
        assert!((1e-4..3e-2).contains(&distance), "{name}: off by {distance:e}");
    }
}
