//! The real program with a directory of FLUX.1: samples like diffusers, trains, resumes, merges.

use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use models::{
    WeightsFile,
    weights::{StoredAs, write_tensors},
};

use crate::{
    backend::distance,
    cli::{metrics, refused, run},
    golden::Golden,
    sd3::copy_into,
};

fn model() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/flux-tiny");
    path.to_string_lossy().into_owned()
}

fn ok(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn tensor(path: &Path, name: &str) -> Vec<f64> {
    let file = WeightsFile::read(path).unwrap_or_else(|error| panic!("{error}"));
    let tensors = file.tensors().expect("numbers");
    tensors.get(name).unwrap_or_else(|| panic!("no {name}")).iter::<f64>().collect()
}

#[test]
fn sampling_from_given_latents_ends_where_the_pipeline_of_diffusers_ends() {
    let golden = Golden::named("flux-tiny/golden");
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["wide", "tall"] {
        let key = |array: &str| format!("pipeline.{name}.{array}");
        let (shape, values) = golden.values(&key("latents"));
        let latents = directory.path().join(format!("{name}.safetensors"));
        let tensors = [("latents".to_owned(), TensorData::new(values, shape))].into();
        write_tensors(&tensors, ("format", "pt".to_owned()), StoredAs::F32, &latents)
            .expect("written");
        let output = directory.path().join(name);
        let (model, latents, out) = (model(), text(&latents), text(&output));
        let mut args = vec!["sample", "--model", &model];
        let prompts = golden.texts("prompts");
        args.extend(prompts.iter().flat_map(|prompt| ["--prompt", prompt.as_str()]));
        // The guidance scale of 3.5 and the time grid are the model's own.
        args.extend(["--steps", "4", "--max-sequence-length", "24", "--latents", &latents]);
        args.extend(["--output", &out, "--save-latents"]);
        ok(&args);
        let tensors = output.join("tensors.safetensors");
        for array in ["final_latents", "decoded"] {
            let far = distance(&tensor(&tensors, array), &golden.wide(&key(array)));
            println!("{name}, {array}: {far:e}");
            assert!(far < 1e-4, "{name}, {array}: {far:e}");
        }
        // The PNG has the pipeline's image, in 8 bits.
        let (shape, wanted) = golden.values(&key("image"));
        let image = image::open(output.join("000.png")).expect("an image").to_rgb8();
        let (height, width) = (shape[2], shape[3]);
        assert_eq!(image.dimensions(), (width as u32, height as u32));
        for (x, y, pixel) in image.enumerate_pixels() {
            for channel in 0..3 {
                let at = (channel * height + y as usize) * width + x as usize;
                let want = (wanted[at] * 255.0).round();
                assert!((f32::from(pixel[channel]) - want).abs() <= 1.0, "{name}: {x}, {y}");
            }
        }
    }
}

const SETTINGS: [&str; 18] = [
    "rewards={ jpeg_compressibility = 1 }",
    "best_by=rewards.jpeg_compressibility",
    "model.resolution=16",
    "model.max_sequence_length=12",
    "checkpoint_every=1",
    "grpo.groups=2",
    "grpo.group_size=3",
    "grpo.micro_batch=4",
    "evaluation_samples=2",
    "evaluation_guidance=3.5",
    "tuning.rank=4",
    "tuning.alpha=8.0",
    "tuning.targets=['attn.to_q', 'attn.to_out.0', 'attn.add_k_proj', 'ff.net.2']",
    "grpo.rollout.steps=3",
    "grpo.rollout.guidance=3.5",
    "grpo.rollout.grid={ kind = 'of_model' }",
    "grpo.ema.every=1",
    "prompts.mix={}",
];

/// Trains the tiny model into `out`.
fn train(directory: &Path, out: &Path, more: &[&str]) -> String {
    let prompts = directory.join("prompts.txt");
    std::fs::write(&prompts, "a red cube\ntwo blue balls\n").expect("written");
    let sets = ["train", "validation"].map(|set| format!("prompts.{set}={}", prompts.display()));
    let (model, out) = (model(), text(out));
    let settings = SETTINGS.into_iter().chain(sets.iter().map(String::as_str));
    let settings = settings.chain(more.iter().copied()).flat_map(|setting| ["--set", setting]);
    let fixed = ["train", "--preset", "sd35m-ocr-1gpu", "--model", &model, "--out", &out];
    ok(&fixed.into_iter().chain(settings).collect::<Vec<_>>())
}

#[test]
fn a_directory_is_trained_resumed_and_its_adapter_sampled_and_merged() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, resumed] = ["whole", "resumed"].map(|name| directory.path().join(name));
    train(directory.path(), &whole, &["epochs=2", "evaluate_every=2"]);
    train(directory.path(), &resumed, &["epochs=1", "evaluate_every=1"]);
    let of_run = text(&resumed);
    ok(&["train", "--resume", &of_run, "--set", "epochs=2", "--set", "evaluate_every=2"]);
    let epochs = |run: &Path| {
        metrics(run).into_iter().filter(|line| line["event"] == "epoch").collect::<Vec<_>>()
    };
    assert_eq!((epochs(&whole).len(), epochs(&whole)), (2, epochs(&resumed)));
    let epoch = &epochs(&whole)[0];
    assert!(epoch["on_policy"]["max"].as_f64().expect("a number") < 1e-3);
    assert!(epoch["gradient_norm"].as_f64().expect("a number") > 0.0);
    // The grid is that of the model at this resolution: 4 x 4 patches.
    let config = std::fs::read_to_string(whole.join("config.toml")).expect("a configuration");
    let config: toml::Table = config.parse().expect("TOML");
    let grid = &config["grpo"]["rollout"]["grid"];
    assert_eq!(grid["kind"].as_str(), Some("shifted"));
    let shift = grid["shift"].as_float().expect("a shift");
    let tokens = 16.0;
    assert!((shift.ln() - (0.5 + 0.65 / 3840.0 * (tokens - 256.0))).abs() < 1e-9, "{shift}");
    // diffusers' names, and only the layers that were asked for.
    let adapter = whole.join("adapter");
    let file = WeightsFile::read(&adapter.join("pytorch_lora_weights.safetensors"));
    let tensors = file.expect("an adapter").tensors().expect("numbers");
    for name in [
        "transformer.transformer_blocks.0.attn.to_out.0.lora_A.weight",
        "transformer.single_transformer_blocks.2.attn.to_q.lora_B.weight",
    ] {
        assert!(tensors.contains_key(name), "{name}");
    }
    assert!(!tensors.keys().any(|name| name.contains("proj_mlp")));

    let drawn = |more: &[&str]| {
        let output = text(&directory.path().join("image.png"));
        let size = ["--prompt", "a red cube", "--height", "16", "--width", "16", "--steps", "2"];
        ok(&[&["sample"], more, &size[..], &["--output", &output]].concat());
        std::fs::read(&output).expect("an image")
    };
    let (model, adapter) = (model(), text(&adapter));
    let with = drawn(&["--adapter", &adapter]);
    let length = ["--max-sequence-length", "12"];
    assert!(with != drawn(&[&["--model", &model][..], &length].concat()), "the adapter moved");
    // A merged transformer in the model's place draws what the adapter draws, within rounding.
    let merged = directory.path().join("merged");
    copy_into(Path::new(&model), &merged);
    std::fs::remove_dir_all(merged.join("transformer")).expect("removed");
    ok(&["merge", "--adapter", &adapter, "--output", &text(&merged.join("transformer"))]);
    drawn(&[&["--model", &text(&merged)][..], &length].concat());
    assert!(
        refused(&["merge", "--adapter", &adapter, "--output", &text(&merged.join("transformer"))])
            .contains("exists: choose a new directory")
    );
}

#[test]
fn what_flux_cannot_do_is_refused() {
    let model = model();
    let sample = ["sample", "--model", &model, "--prompt", "a cat"];
    let refusal = |more: &[&str]| refused(&[&sample[..], more].concat());
    assert!(refusal(&["--without-t5"]).contains("cannot be used without T5"));
    assert!(refusal(&["--height", "18", "--width", "16"]).contains("multiples of 2"));
    let other =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/sd3-dual-single-file.safetensors");
    assert!(refusal(&["--single-file", &text(&other)]).contains("no transformer of FLUX.1"));
}
