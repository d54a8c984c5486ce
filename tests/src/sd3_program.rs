//! The real program with a model directory: samples like diffusers, trains, resumes, and uses the
//! adapter.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use models::WeightsFile;

use crate::cli::{metrics, refused, run};

pub fn golden(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
        .to_string_lossy()
        .into_owned()
}

fn tensor(path: &Path, name: &str) -> Vec<f64> {
    let file = WeightsFile::read(path).unwrap_or_else(|error| panic!("{error}"));
    let tensors = file.tensors().expect("numbers");
    tensors.get(name).unwrap_or_else(|| panic!("no {name}")).iter::<f64>().collect()
}

pub fn ok(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes the golden latents to a file for `--latents`.
fn latents(model: &str, directory: &Path) -> String {
    let file = WeightsFile::from_bytes(
        f32_only(
            &std::fs::read(Path::new(&golden(model)).join("golden.safetensors")).expect("a golden"),
            "latents",
        ),
        Path::new("latents"),
    )
    .expect("safetensors");
    let path = directory.join("latents.safetensors");
    models::weights::write_tensors(
        &file.tensors().expect("numbers"),
        ("format", "pt".to_owned()),
        models::weights::StoredAs::F32,
        &path,
    )
    .expect("written");
    path.to_string_lossy().into_owned()
}

/// Copies one tensor of a safetensors file to a file of its own.
fn f32_only(bytes: &[u8], name: &str) -> Vec<u8> {
    let file = safetensors::SafeTensors::deserialize(bytes).expect("safetensors");
    safetensors::serialize([(name, file.tensor(name).expect("it is there"))], None)
        .expect("one tensor")
}

#[test]
fn sampling_from_given_latents_ends_where_diffusers_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("images");
    let (model, latents) = (golden("sd3-tiny"), latents("sd3-tiny", directory.path()));
    let out = output.to_string_lossy().into_owned();
    let args = [
        "sample",
        "--model",
        &model,
        "--prompt",
        "a photo of a cat",
        "--prompt",
        "two red cubes left of a blue ball",
    ];
    let more = [
        "--steps",
        "4",
        "--guidance",
        "4.5",
        "--max-sequence-length",
        "32",
        "--latents",
        &latents,
        "--output",
        &out,
    ];
    ok(&[&args[..], &more[..], &["--save-latents"]].concat());
    let bytes = std::fs::read(Path::new(&model).join("golden.safetensors")).expect("a golden");
    for name in ["final_latents", "decoded"] {
        let want =
            WeightsFile::from_bytes(f32_only(&bytes, name), Path::new(name)).expect("safetensors");
        let want: Vec<f64> = want.tensors().expect("numbers")[name].iter::<f64>().collect();
        let distance =
            crate::backend::distance(&tensor(&output.join("tensors.safetensors"), name), &want);
        assert!(distance < 1e-4, "{name}: off by {distance:e}");
    }
    // The PNG has the decoded values, clamped, in 8 bits.
    let decoded = tensor(&output.join("tensors.safetensors"), "decoded");
    let image = image::open(output.join("001.png")).expect("an image").to_rgb8();
    assert_eq!(image.dimensions(), (64, 64));
    for (x, y, pixel) in image.enumerate_pixels() {
        for channel in 0..3 {
            let value = decoded[((3 + channel) * 64 + y as usize) * 64 + x as usize];
            let want = ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round();
            assert!((f64::from(pixel[channel]) - want).abs() <= 1.0);
        }
    }
}

#[test]
fn the_defaults_of_sampling_are_those_of_sd35_medium() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image.png").to_string_lossy().into_owned();
    let model = golden("sd3-tiny");
    let drawn = |more: &[&str]| {
        let fixed = [
            "sample", "--model", &model, "--prompt", "a cat", "--height", "16", "--width", "16",
            "--output", &output,
        ];
        ok(&[&fixed[..], more].concat());
        std::fs::read(&output).expect("an image")
    };
    let defaults = drawn(&[]);
    let said = [
        "--steps",
        "40",
        "--guidance",
        "4.5",
        "--max-sequence-length",
        "256",
        "--grid",
        "double-shift",
        "--count",
        "1",
    ];
    assert!(defaults == drawn(&said));
    for other in [
        ["--guidance", "1"],
        ["--max-sequence-length", "77"],
        ["--grid", "single-shift"],
        ["--seed", "2"],
    ] {
        assert!(defaults != drawn(&other), "{other:?}");
    }
}

#[test]
fn a_prompt_that_is_cut_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image.png").to_string_lossy().into_owned();
    let model = golden("sd3-tiny");
    let sample = |prompt: &str| {
        let size = [
            "--height",
            "16",
            "--width",
            "16",
            "--steps",
            "1",
            "--max-sequence-length",
            "90",
            "--output",
            &output,
        ];
        ok(&[&["sample", "--model", &model, "--prompt", prompt], &size[..]].concat())
    };
    // One token per word, plus start and end: 75 words fill CLIP.
    assert!(!sample("a cat").contains("longer"));
    let text = sample(&"a cat ".repeat(60));
    assert!(text.contains("CLIP reads 77 tokens of a prompt; 1 of 2 prompts are longer"), "{text}");
    assert!(text.contains("T5 reads 90 tokens"), "{text}");
}

#[test]
fn what_cannot_be_sampled_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (model, latents) = (golden("sd3-tiny"), latents("sd3-tiny", directory.path()));
    let sample = ["sample", "--model", &model, "--prompt", "a cat"];
    let refusal = |more: &[&str]| refused(&[&sample[..], more].concat());
    assert!(refusal(&["--latents", &latents]).contains("holds 2 rows, 1 images are asked for"));
    assert!(refusal(&["--height", "30", "--width", "64"]).contains("multiples of"));
    assert!(refusal(&["--height", "128"]).contains("at most 48"));
    assert!(refusal(&["--save-latents", "--output", "grid.png"]).contains("--output DIR"));
    assert!(
        refused(&["sample", "--prompt", "a red circle", "--width", "64"])
            .contains("--width is for a model directory")
    );
    assert!(
        refusal(&["--latents", &golden("sd3-gradients.safetensors")])
            .contains("no tensor `latents`")
    );
    assert!(refusal(&["--adapter", &golden("sd3-plain")]).contains("adapter_config.json"));
    let plain = golden("sd3-plain");
    let other =
        ["sample", "--model", &plain, "--prompt", "a cat", "--adapter", &golden("adapter/peft")];
    assert!(refused(&other).contains("the adapter does not fit the network"));
}

/// Settings that make a training run of the tiny model short.
pub const SETTINGS: [&str; 14] = [
    "rewards={ jpeg_compressibility = 1 }",
    "best_by=rewards.jpeg_compressibility",
    "model.resolution=32",
    "model.max_sequence_length=16",
    "epochs=2",
    "checkpoint_every=1",
    "evaluate_every=2",
    "grpo.groups=2",
    "grpo.group_size=3",
    "evaluation_samples=2",
    "tuning.rank=4",
    "tuning.alpha=8.0",
    "grpo.rollout.steps=3",
    "grpo.ema.every=1",
];

/// Trains the tiny model into `out`.
fn train(directory: &Path, out: &Path, more: &[&str]) -> String {
    let prompts = [directory.join("train.txt"), directory.join("test.jsonl")];
    std::fs::write(&prompts[0], "a photo of a cat\na sign that says \"STOP\"\n").expect("written");
    let metadata = r#"{"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "a photo of two clocks"}"#;
    std::fs::write(&prompts[1], metadata).expect("written");
    let [train, test] = prompts.map(|path| path.to_string_lossy().into_owned());
    let sets = [format!("prompts.train={train}"), format!("prompts.validation={test}")];
    let model = golden("sd3-tiny");
    let out = out.to_string_lossy().into_owned();
    let settings =
        SETTINGS.into_iter().chain(sets.iter().map(String::as_str)).chain(more.iter().copied());
    let settings = settings.flat_map(|setting| ["--set", setting]);
    ok(&[
        "train",
        "--preset",
        "sd35m-ocr-1gpu",
        "--profile",
        "flow_grpo",
        "--model",
        &model,
        "--out",
        &out,
    ]
    .into_iter()
    .chain(settings)
    .collect::<Vec<_>>())
}

#[test]
fn the_papers_rewards_train_a_model_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let quoted = directory.path().join("quoted.txt");
    std::fs::write(&quoted, "a sign that says \"STOP\"\na note with \"hi\"\n").expect("written");
    let sets = ["train", "validation"].map(|set| format!("prompts.{set}={}", quoted.display()));
    let pickscore =
        format!("rewards={{ pickscore = {{ model = \"{}\" }} }}", golden("clip-tiny/transformers"));
    for (name, rewards) in [("ocr", "rewards={ ocr = 1 }"), ("pickscore", pickscore.as_str())] {
        let out = directory.path().join(name);
        let best = format!("best_by=rewards.{name}");
        train(
            directory.path(),
            &out,
            &[rewards, &best, &sets[0], &sets[1], "epochs=1", "evaluate_every=1"],
        );
        let epochs: Vec<_> =
            metrics(&out).into_iter().filter(|line| line["event"] == "epoch").collect();
        let score = epochs[0]["rewards"][name].as_f64().expect("a score");
        assert!(score.is_finite() && (name != "ocr" || (0.0..=1.0).contains(&score)), "{score}");
    }
    // A prompt without quotes is refused before anything is encoded.
    let out = directory.path().join("unquoted").to_string_lossy().into_owned();
    let unquoted = directory.path().join("train.txt");
    let set = format!("prompts.train={}", unquoted.display());
    let validation = &sets[1];
    let model = golden("sd3-tiny");
    let text = refused(&[
        "train",
        "--preset",
        "sd35m-ocr-1gpu",
        "--model",
        &model,
        "--out",
        &out,
        "--set",
        &set,
        "--set",
        validation,
        "--set",
        "model.resolution=32",
    ]);
    assert!(text.contains("reward `ocr` cannot judge \"a photo of a cat\""), "{text}");
    assert!(!directory.path().join("unquoted/prompts").exists());
}

/// The files of encoded prompts, with the times at which they were written.
fn encoded_in(prompts: &Path) -> Vec<(PathBuf, SystemTime)> {
    let directories =
        std::fs::read_dir(prompts).expect("what was read").map(|entry| entry.expect("an entry"));
    let files = directories.flat_map(|entry| {
        std::fs::read_dir(entry.path()).expect("files").map(|file| file.expect("a file"))
    });
    let mut files: Vec<_> = files
        .map(|file| (file.path(), file.metadata().expect("data").modified().expect("a time")))
        .collect();
    files.sort();
    files
}

/// Asserts that both layouts of a run's adapter give the same image, another one than the base.
fn assert_draws_with_its_adapter(directory: &Path, run: &Path) {
    let model = golden("sd3-tiny");
    let drawn = |more: &[&str]| {
        let output = directory.join("image.png").to_string_lossy().into_owned();
        let size = [
            "--prompt", "a cat", "--height", "32", "--width", "32", "--steps", "2", "--output",
            &output,
        ];
        ok(&[&["sample"], more, &size[..]].concat());
        std::fs::read(&output).expect("an image")
    };
    let adapter = run.join("adapter").to_string_lossy().into_owned();
    let file = run.join("adapter/pytorch_lora_weights.safetensors").to_string_lossy().into_owned();
    let of_run = drawn(&["--model", &model, "--adapter", &adapter]);
    assert!(of_run == drawn(&["--model", &model, "--adapter", &file]));
    assert!(of_run == drawn(&["--adapter", &adapter]), "the adapter names its model");
    assert!(of_run != drawn(&["--model", &model]));
}

#[test]
fn a_model_directory_is_trained_and_its_adapter_used_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, resumed] = ["whole", "resumed"].map(|name| directory.path().join(name));
    train(directory.path(), &whole, &[]);
    train(directory.path(), &resumed, &["epochs=1", "evaluate_every=1"]);
    let encoded = || encoded_in(&resumed.join("prompts"));
    let before = encoded();
    assert_eq!(before.len(), 2, "one by CLIP, one by T5: {before:?}");
    let run_directory = resumed.to_string_lossy().into_owned();
    ok(&["train", "--resume", &run_directory, "--set", "epochs=2", "--set", "evaluate_every=2"]);
    assert_eq!(encoded(), before, "the prompts are not encoded again");

    // A refused command changes nothing, not even the written configuration.
    let written = std::fs::read_to_string(resumed.join("config.toml")).expect("a configuration");
    for other in ["seed=7", "model.max_sequence_length=17", "epochs=1"] {
        refused(&["train", "--resume", &run_directory, "--set", other]);
    }
    assert_eq!(
        std::fs::read_to_string(resumed.join("config.toml")).expect("a configuration"),
        written
    );
    assert_eq!(encoded(), before);

    let epochs = |run: &Path| {
        metrics(run).into_iter().filter(|line| line["event"] == "epoch").collect::<Vec<_>>()
    };
    assert_eq!(epochs(&whole).len(), 2);
    assert_eq!(epochs(&whole), epochs(&resumed));
    for file in ["adapter/adapter_model.safetensors", "adapter/pytorch_lora_weights.safetensors"] {
        assert!(
            std::fs::read(whole.join(file)).expect("an adapter")
                == std::fs::read(resumed.join(file)).expect("an adapter")
        );
    }
    let epoch = &epochs(&whole)[0];
    assert!(epoch["on_policy"]["max"].as_f64().expect("a number") < 1e-5);
    assert!(epoch["gradient_norm"].as_f64().expect("a number") > 0.0);
    let factor = tensor(
        &whole.join("adapter/adapter_model.safetensors"),
        "base_model.model.transformer_blocks.1.attn.to_q.lora_B.weight",
    );
    assert!(factor.iter().any(|value| *value != 0.0), "the adapter has moved");

    assert_draws_with_its_adapter(directory.path(), &whole);
}

#[test]
fn training_and_evaluation_have_a_guidance_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let lines = |name: &str, more: &[&str]| {
        let run = directory.path().join(name);
        train(directory.path(), &run, &[&["epochs=1"][..], more].concat());
        let of = |event: &str| {
            metrics(&run).into_iter().find(|line| line["event"] == event).expect("a line")["rewards"].clone()
        };
        (of("epoch"), of("eval"))
    };
    let (trained, shown) = lines("both", &[]);
    let (same, without) = lines("shown-without", &["evaluation_guidance=1"]);
    assert!(trained == same && shown != without, "{trained} {same}, {shown} {without}");
    let (without, same) = lines("trained-without", &["grpo.rollout.guidance=1"]);
    assert!(trained != without && shown == same, "{trained} {without}, {shown} {same}");
}

#[test]
fn an_adapter_is_shown_with_the_length_of_text_that_it_was_trained_with() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    train(directory.path(), &run, &["epochs=1"]);
    let elsewhere = directory.path().join("elsewhere/adapter");
    std::fs::create_dir_all(&elsewhere).expect("made");
    for file in std::fs::read_dir(run.join("adapter")).expect("files") {
        let file = file.expect("an entry");
        std::fs::copy(file.path(), elsewhere.join(file.file_name())).expect("copied");
    }
    let output = directory.path().join("image.png").to_string_lossy().into_owned();
    let drawn = |adapter: &Path, more: &[&str]| {
        let adapter = adapter.to_string_lossy().into_owned();
        let size = [
            "--prompt", "a cat", "--height", "32", "--width", "32", "--steps", "2", "--output",
            &output,
        ];
        let text = ok(&[
            &["sample", "--model", &golden("sd3-tiny"), "--adapter", &adapter],
            &size[..],
            more,
        ]
        .concat());
        (std::fs::read(&output).expect("an image"), text.contains("T5 reads 16 tokens"))
    };
    let (of_run, said) = drawn(&run.join("adapter"), &[]);
    assert!(said && of_run == drawn(&elsewhere, &["--max-sequence-length", "16"]).0);
    assert!(drawn(&run.join("adapter/pytorch_lora_weights.safetensors"), &[]).0 == of_run);
    // Without a run, the default of diffusers applies; an option on the command line overrides it.
    let (far, said) = drawn(&elsewhere, &[]);
    assert!(
        !said
            && far != of_run
            && far == drawn(&run.join("adapter"), &["--max-sequence-length", "256"]).0
    );
}

#[test]
fn gradients_part_by_part_train_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let [parts, whole] = ["parts", "whole"].map(|name| directory.path().join(name));
    train(directory.path(), &parts, &["epochs=1"]);
    train(directory.path(), &whole, &["epochs=1", "model.recompute=false"]);
    let factor = |run: &Path| {
        let name = "base_model.model.transformer_blocks.0.attn.add_v_proj.lora_B.weight";
        tensor(&run.join("adapter/adapter_model.safetensors"), name)
    };
    assert!(crate::backend::distance(&factor(&parts), &factor(&whole)) < 1e-2);
    let norm = |run: &Path| {
        metrics(run).iter().find_map(|line| line["gradient_norm"].as_f64()).expect("a norm")
    };
    assert!((norm(&parts) / norm(&whole) - 1.0).abs() < 1e-4, "{} {}", norm(&parts), norm(&whole));
}

#[test]
fn a_model_directory_needs_its_own_presets_and_the_others_need_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run").to_string_lossy().into_owned();
    let model = golden("sd3-tiny");
    let with = |preset: &str, more: &[&str]| {
        refused(&[&["train", "--preset", preset, "--out", &out][..], more].concat())
    };
    assert!(with("shapes", &["--model", &model]).contains("use one of the presets sd35m-"));
    // A run that is refused before its prompts are encoded leaves nothing behind.
    let prompts = directory.path().join("prompts.txt");
    std::fs::write(&prompts, "a cat\n").expect("written");
    let sets = ["train", "validation"].map(|set| format!("prompts.{set}={}", prompts.display()));
    let jpeg = [
        "--model",
        &model,
        "--set",
        "rewards={ jpeg_compressibility = 1 }",
        "--set",
        "model.resolution=32",
    ];
    let refusal = |more: &[&str]| {
        let text = with("sd35m-ocr", &[&jpeg[..], more].concat());
        assert!(!directory.path().join("run/config.toml").exists(), "{text}");
        text
    };
    assert!(refusal(&[]).contains("prompts.train"), "the reference's file is not here");
    let text = refusal(&["--set", &sets[0], "--set", &sets[1]]);
    assert!(text.contains("best_by: an evaluation has no number `rewards.ocr`"), "{text}");
}

#[test]
fn a_random_model_of_full_width_can_be_sampled() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = directory.path().join("model").to_string_lossy().into_owned();
    let output = directory.path().join("image.png").to_string_lossy().into_owned();
    ok(&["init-random", "--like", "sd35-medium", "--layers", "1", "--without-t5", "--out", &model]);
    let size = [
        "--height",
        "32",
        "--width",
        "32",
        "--steps",
        "1",
        "--guidance",
        "1",
        "--max-sequence-length",
        "1",
    ];
    ok(&[
        &["sample", "--model", &model, "--prompt", "a cat, at night", "--output", &output][..],
        &size[..],
    ]
    .concat());
    assert!(
        refused(&["init-random", "--like", "sd35-medium", "--out", &model])
            .contains("already holds a model")
    );
}
