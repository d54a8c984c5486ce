//! Tests with thousands of seeded mutations of valid input: each one is loaded or refused, without
//! a panic.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Error;
use burn::tensor::{FloatDType, Tensor};
use flow::VelocityField;
use models::{
    Adapter, Choices, LoraConfig, MlpField, ModelError, WeightsFile, directory::TransformerSizes,
    lora::LoraInit, sd3::ModelDirectory, text::Features,
};
use pipelines::{Architecture, Card, ModelSource, Pipeline, Visitor};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use training::{
    optimisation::OptimisationState, optimizer::OptimizerState, parameters::Parameters,
};

use crate::{
    backend::{Device, Plain, Training},
    checkpoints::{
        self,
        training_state::{self, SavedState},
    },
    config::{self, Checked},
    machine::host,
    pretrain::config::PretrainConfig,
    train::config::TrainConfig,
};

const CASES: usize = 10_000;

/// Damages TOML text in one to three places.
fn damaged_toml(text: &str, rng: &mut impl Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.random_range(1..=3) {
        let line = rng.random_range(0..lines.len());
        match rng.random_range(0..8) {
            0 => drop(lines.remove(line)),
            1 => lines.insert(line, lines[line].clone()),
            2 => {
                let other = rng.random_range(0..lines.len());
                lines.swap(line, other);
            }
            3 => lines.truncate(line.max(1)),
            4 => {
                let bytes: Vec<u8> = lines[line]
                    .bytes()
                    .map(|byte| if rng.random_bool(0.05) { rng.random() } else { byte })
                    .collect();
                lines[line] = String::from_utf8_lossy(&bytes).into_owned();
            }
            5 => lines.insert(line, "[grpo]".to_owned()),
            _ => {
                let values = [
                    "-1",
                    "0",
                    "1e308",
                    "-1e-308",
                    "nan",
                    "inf",
                    "18446744073709551615",
                    "9223372036854775807",
                    "\"\"",
                    "[]",
                    "{}",
                    "true",
                ];
                if let Some((key, _)) = lines[line].split_once('=') {
                    lines[line] =
                        format!("{key}= {}", values.choose(rng).expect("there are values"));
                }
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

/// Resolves damaged presets, both as files on top of the original and in its place; returns the
/// number of refused ones.
fn resolve_damaged<C: Checked>(text: &str, seed: u64) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("damaged.toml");
    let mut refused = 0;
    for _ in 0..CASES / 4 {
        let damaged = damaged_toml(text, &mut rng);
        std::fs::write(&file, &damaged).expect("written");
        refused += usize::from(
            config::resolve::<C>(config::parse(text).expect("TOML"), None, Some(&file), &[])
                .is_err(),
        );
        refused += usize::from(
            config::parse(&damaged)
                .and_then(|damaged| config::resolve::<C>(damaged, None, None, &[]))
                .is_err(),
        );
    }
    refused
}

#[test]
fn a_damaged_configuration_is_refused_or_valid() {
    let train =
        resolve_damaged::<TrainConfig>(include_str!("../../../assets/presets/shapes.toml"), 1);
    let pretrain = resolve_damaged::<PretrainConfig>(
        include_str!("../../../assets/presets/shapes-base.toml"),
        2,
    );
    for refused in [train, pretrain] {
        assert!(
            refused > CASES / 8 && refused < CASES / 2,
            "damage must show, and some of it must not matter: {refused}"
        );
    }
}

/// Damages a file: cuts it short, flips bits, or changes its header.
fn damaged_file(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut damaged = bytes.to_vec();
    match rng.random_range(0..4) {
        0 => damaged.truncate(rng.random_range(0..bytes.len())),
        1 => {
            for _ in 0..rng.random_range(1..8) {
                let reach = if rng.random_bool(0.7) { header } else { bytes.len() };
                damaged[rng.random_range(0..reach)] ^= 1 << rng.random_range(0..8);
            }
        }
        _ => {
            let mut tensors: Value = serde_json::from_slice(&bytes[8..header]).expect("a header");
            let names: Vec<String> =
                tensors.as_object().expect("an object").keys().cloned().collect();
            for _ in 0..rng.random_range(1..4) {
                shuffle(&mut tensors, &names, rng);
            }
            let text = tensors.to_string();
            damaged = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[header..]]
                .concat();
        }
    }
    damaged
}

/// Changes one entry of a header.
fn shuffle(tensors: &mut Value, names: &[String], rng: &mut impl Rng) {
    let mut name = || names.choose(rng).expect("there are tensors").clone();
    let (one, other) = (name(), name());
    match rng.random_range(0..6) {
        0 => tensors[&one] = tensors[&other].clone(),
        1 => tensors[&one]["shape"] = tensors[&other]["shape"].clone(),
        2 => tensors[&one]["shape"] = json!([u64::MAX, 2]),
        3 => {
            tensors[&one]["dtype"] =
                json!(["F64", "BF16", "F16", "F32", "I8", "nonsense"][rng.random_range(0..6)]);
        }
        4 => tensors[&one]["data_offsets"] = json!([0, rng.random_range(0..1_u64 << 40)]),
        _ => {
            tensors.as_object_mut().expect("an object").remove(&one);
            if let Some(Value::String(card)) = tensors.pointer_mut("/__metadata__/flow_grpo") {
                *card = card.replace(
                    "64",
                    ["0", "4096", "4097", "-1", "18446744073709551615"]
                        .choose(rng)
                        .expect("values"),
                );
            }
        }
    }
}

/// Loads damaged files and returns the number of refused ones.
fn load_damaged(bytes: &[u8], cases: usize, load: impl Fn(WeightsFile) -> bool) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let loads = (0..cases).map(|_| {
        WeightsFile::from_bytes(damaged_file(bytes, &mut rng), Path::new("damaged"))
            .is_ok_and(&load)
    });
    loads.filter(|loaded| !loaded).count()
}

#[test]
fn a_damaged_checkpoint_is_refused_or_valid() {
    let bytes = include_bytes!("../../../assets/checkpoints/toy-2d-base.safetensors");
    let refused = load_damaged(bytes, CASES, |file| load(file).is_ok());
    assert!(refused > CASES / 2 && refused < CASES, "{refused}");
}

/// Loads a checkpoint.
fn load(file: WeightsFile) -> Result<(), Error> {
    struct Loading;
    impl Visitor<Training> for Loading {
        type Output = ();
        type Error = Error;

        fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<(), Error> {
            pipeline.network()?;
            Ok(())
        }
    }
    let machine = host::machine(&Device::default());
    pipelines::open::<Training, _>(ModelSource::Checkpoint(file), &machine, Loading)
}

fn toy() -> MlpField<Plain> {
    let file = checkpoints::open("toy-2d-base").expect("built in");
    let card = Card::of(&file).expect("a card");
    let Architecture::Mlp(sizes) = card.architecture else { panic!("the toy model is an MLP") };
    file.load_into(sizes.init(0, &Device::default())).expect("a network")
}

#[test]
fn a_damaged_adapter_is_refused_or_valid() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = LoraConfig {
        rank: 4,
        alpha: 8.0,
        init: LoraInit::Kaiming,
        targets: vec!["hidden.1".to_owned(), "output".to_owned()],
    };
    Adapter::new(&config, &mut toy(), 1)
        .expect("an adapter")
        .write_peft(directory.path(), "toy-2d-base")
        .expect("written");
    let file = directory.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&file).expect("read");
    let (mut rng, mut refused) = (ChaCha8Rng::seed_from_u64(4), 0);
    for _ in 0..CASES {
        std::fs::write(&file, damaged_file(&bytes, &mut rng)).expect("written");
        let attached = Adapter::read(directory.path())
            .and_then(|adapter| adapter.attach(toy(), &Device::default()));
        refused += usize::from(attached.is_err());
    }
    assert!(refused > CASES / 2 && refused < CASES, "{refused}");
}

#[test]
fn a_damaged_training_state_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (network, path) = (toy(), directory.path().join("state.safetensors"));
    let weights = Parameters::of(&network);
    let optimizer = OptimizerState { updates: 3, first: weights.clone(), second: weights.clone() };
    let state = OptimisationState {
        weights: weights.clone(),
        average: weights.clone(),
        old: None,
        optimizer,
        loss_scale: None,
    };
    training_state::write(&state, &network, &7, &path).expect("written");
    let bytes = std::fs::read(&path).expect("read");
    // An accepted file equals the original: the digest covers every number, name and shape.
    let load = |file: WeightsFile| {
        let Ok(saved) = SavedState::of(&file) else { return false };
        assert_eq!(
            (saved.counters::<usize>().expect("a counter"), saved.updates().expect("a count")),
            (7, 3)
        );
        let read = saved.state(&network, &weights, &Device::default()).expect("whole");
        let parts = [read.weights, read.average, read.optimizer.first, read.optimizer.second];
        assert!(parts.iter().all(|part| part.to_data() == weights.to_data()));
        true
    };
    assert!(load(WeightsFile::read(&path).expect("whole")));
    let refused = load_damaged(&bytes, CASES / 4, load);
    assert!(refused > CASES / 5, "{refused}");
}

/// Changes or removes one value in some JSON.
fn lie(value: &mut Value, rng: &mut impl Rng) {
    let inside = match value {
        Value::Object(object) if !object.is_empty() => {
            let keys: Vec<String> = object.keys().cloned().collect();
            let key = keys.choose(rng).expect("there are keys");
            if rng.random_bool(0.1) {
                object.remove(key);
                return;
            }
            object.get_mut(key)
        }
        Value::Array(array) if !array.is_empty() && rng.random_bool(0.7) => {
            let index = rng.random_range(0..array.len());
            array.get_mut(index)
        }
        _ => None,
    };
    if let Some(inside) = inside {
        return lie(inside, rng);
    }
    let others = [
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1 << 20),
        json!(u64::MAX),
        json!(1e308),
        json!(null),
        json!(""),
        json!("gelu"),
        json!(true),
        json!([]),
        json!([0]),
        json!({}),
    ];
    *value = others.choose(rng).expect("there are others").clone();
}

/// Damages a file of a model directory.
fn damaged_part(path: &Path, bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return damaged_file(bytes, rng);
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut value) if rng.random_bool(0.8) => {
            lie(&mut value, rng);
            value.to_string().into_bytes()
        }
        _ => {
            let mut damaged = bytes.to_vec();
            if rng.random_bool(0.3) {
                damaged.truncate(rng.random_range(0..bytes.len()));
            } else {
                let position = rng.random_range(0..bytes.len());
                damaged[position] ^= 1 << rng.random_range(0..8);
            }
            damaged
        }
    }
}

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

/// Uses every part of a model directory once.
fn use_all_of(path: &Path) -> Result<(), ModelError> {
    let device = Device::default();
    let directory = ModelDirectory::open::<Plain>(path, &Choices::default(), &device)?;
    directory.grid_shift([4, 4, 4])?;
    let prompt = ["a cat that was seen at 12 o'clock, twice"];
    let clip = directory.clip_reader::<Plain>(FloatDType::F32, &device)?.encode(&prompt)?.remove(0);
    let t5 = match directory.t5_reader::<Plain>(4, FloatDType::F32, &device)? {
        Some(reader) => reader.encode(&prompt)?.pop().map(|[hidden]| Features::Held(hidden)),
        None => None,
    };
    let [hidden, pooled] = clip.map(Features::Held);
    let embedding = directory.embedding(Some(hidden), pooled, t5, 4);
    assert!(
        directory.transformer_config().sample_size * directory.vae_config().scale() > 0,
        "the usual size of an image"
    );
    let side = 2 * directory.transformer_config().patch_size;
    let shape = [directory.transformer_config().in_channels, side, side];
    let transformer = directory.transformer::<Plain>(FloatDType::F32, &device)?;
    let vae = directory.vae::<Plain>(FloatDType::F32, &device)?;
    if directory.transformer_config().problem_of(shape).is_none() {
        let latent = Tensor::zeros([1, shape[0], side, side], &device);
        let velocity = transformer.velocity(latent, Tensor::ones([1], &device), &[embedding]);
        vae.latents(vae.decode(velocity));
    }
    Ok(())
}

#[test]
fn a_damaged_model_directory_is_refused_or_valid() {
    const CASES: usize = 600;
    for name in ["sd3-tiny", "sd3-plain"] {
        let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
        let copy = tempfile::tempdir().expect("a directory");
        let is_of_model = |file: &PathBuf| {
            !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("golden"))
        };
        let files: Vec<PathBuf> = files_under(&whole).into_iter().filter(is_of_model).collect();
        for file in &files {
            let to = copy.path().join(file.strip_prefix(&whole).expect("inside"));
            fs::create_dir_all(to.parent().expect("a directory")).expect("made");
            fs::copy(file, to).expect("copied");
        }
        use_all_of(copy.path()).expect("a whole model");
        let (mut rng, mut refused) = (ChaCha8Rng::seed_from_u64(5), 0);
        for case in 0..CASES {
            let file = files.choose(&mut rng).expect("there are files");
            let damaged = copy.path().join(file.strip_prefix(&whole).expect("inside"));
            let bytes = fs::read(file).expect("a file");
            fs::write(&damaged, damaged_part(file, &bytes, &mut rng)).expect("written");
            println!("{name} {case}: {}", damaged.display());
            refused += usize::from(use_all_of(copy.path()).is_err());
            fs::write(&damaged, &bytes).expect("written");
        }
        println!("{name}: {refused} of {CASES} refused");
        assert!(refused > CASES / 4 && refused < CASES, "{refused}");
    }
}
