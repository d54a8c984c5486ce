//! The program with models by name, from a server that answers like the hub.

#[path = "../../crates/hub/tests/hub/fake.rs"]
mod fake;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use fake::{COMMIT, Hub};

use crate::cli::{metrics, program};

const NAME: &str = "hub:owner/model";

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// Serves a directory, and a copy of the whole model that nobody needs.
fn hub(directory: &Path) -> Hub {
    fn read(directory: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                read(&entry.path(), &format!("{name}/"), files);
            } else {
                files.push((name, std::fs::read(entry.path()).expect("readable")));
            }
        }
    }
    let mut files = vec![("README.md".to_owned(), b"a model".to_vec())];
    read(directory, "", &mut files);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    Hub::of(&files)
}

/// Runs the program with this hub and cache.
fn run(endpoint: &str, cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.env_remove("HF_TOKEN").env("HF_ENDPOINT", endpoint).env("HF_HUB_CACHE", cache);
    command.args(args).output().expect("the program runs")
}

fn ok(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn a_model_by_name_is_downloaded_and_sampled_like_its_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = hub(&golden("sd3-tiny"));
    let cache = directory.path().join("cache");
    let draw = |endpoint: &str, model: &str, more: &[&str]| {
        let output = directory.path().join("image.png").to_string_lossy().into_owned();
        let size = ["--height", "16", "--width", "16", "--steps", "2", "--output", &output];
        let args = [&["sample", "--prompt", "a cat", "--model", model], &size[..], more].concat();
        (ok(&run(endpoint, &cache, &args)), std::fs::read(&output).expect("an image"))
    };
    let local = golden("sd3-tiny").to_string_lossy().into_owned();
    let (_, wanted) = draw(&hub.endpoint, &local, &["--without-t5"]);
    let (said, image) = draw(&hub.endpoint, NAME, &["--without-t5"]);
    assert!(image == wanted && said.contains("downloading hub:owner/model: "), "{said}");
    let requests = hub.requests();
    let asked = |part: &str| requests.iter().any(|request| request.contains(part));
    assert!(asked("/vae/") && !asked("text_encoder_3") && !asked("README"), "{requests:?}");
    let (_, with_t5) = draw(&hub.endpoint, NAME, &[]);
    assert!(with_t5 == draw(&hub.endpoint, &local, &[]).1, "T5 is downloaded when it is needed");
    let (said, again) = draw("http://127.0.0.1:9", NAME, &[]);
    assert!(again == with_t5 && said.contains("as it is in the cache"), "{said}");
}

#[test]
fn an_adapter_by_name_is_the_same_as_its_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = golden("adapter/peft").to_string_lossy().into_owned();
    let hub = hub(Path::new(&local));
    let cache = directory.path().join("cache");
    let model = golden("sd3-tiny").to_string_lossy().into_owned();
    let output = directory.path().join("image.png").to_string_lossy().into_owned();
    let draw = |endpoint: &str, adapter: &[&str]| {
        let fixed = ["sample", "--prompt", "a cat", "--model", &model, "--output", &output];
        let size = ["--height", "16", "--width", "16", "--steps", "2"];
        ok(&run(endpoint, &cache, &[&fixed[..], &size, adapter].concat()));
        std::fs::read(&output).expect("an image")
    };
    let wanted = draw(&hub.endpoint, &["--adapter", &local]);
    assert!(wanted != draw(&hub.endpoint, &[]), "the adapter changes the image");
    assert!(wanted == draw(&hub.endpoint, &["--adapter", NAME]));
    let merged = |adapter: &str| {
        let output = directory.path().join("merged");
        let to = output.to_string_lossy().into_owned();
        let args = ["merge", "--checkpoint", &model, "--adapter", adapter, "--output", &to];
        ok(&run("http://127.0.0.1:9", &cache, &args));
        let file = output.join("diffusion_pytorch_model.safetensors");
        let bytes = std::fs::read(file).expect("weights");
        std::fs::remove_dir_all(&output).expect("removed");
        bytes
    };
    assert!(merged(&local) == merged(NAME), "the cache needs no network");
}

#[test]
fn what_cannot_be_downloaded_is_refused_with_advice() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = hub(&golden("clip-tiny/transformers"));
    hub.set(|state| state.gated = true);
    let refused = |args: &[&str]| {
        let output = run(&hub.endpoint, directory.path(), args);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let sample = |model| ["sample", "--prompt", "a cat", "--model", model];
    assert!(refused(&sample(NAME)).contains("is gated: log in, accept its licence at"));
    assert!(refused(&sample("hub:owner/none")).contains("there is no model owner/none"));
    assert!(refused(&sample("hub:gpt2")).contains("write hub:OWNER/NAME"));
}

#[test]
fn a_run_keeps_the_commit_of_its_models_and_resumes_without_network() {
    let directory = tempfile::tempdir().expect("a directory");
    let (sd3, clip) = (hub(&golden("sd3-tiny")), hub(&golden("clip-tiny/transformers")));
    let cache = directory.path().join("cache");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let prompts = path("prompts.txt");
    std::fs::write(&prompts, "a cat\na dog\n").expect("written");
    // Two models of one name: the reward's is in another cache.
    let reward = clip_in(&clip, &directory.path().join("clip"));
    let settings = [
        format!("prompts.train={prompts}"),
        format!("prompts.validation={prompts}"),
        format!("rewards={{ pickscore = {{ model = \"{reward}\" }} }}"),
        "best_by=rewards.pickscore".to_owned(),
    ];
    let fixed = [
        "model.resolution=32",
        "model.max_sequence_length=16",
        "model.t5=false",
        "epochs=1",
        "checkpoint_every=1",
        "evaluate_every=1",
        "grpo.groups=2",
        "grpo.group_size=3",
        "evaluation_samples=1",
        "grpo.rollout.steps=3",
        "tuning.rank=4",
        "tuning.alpha=8.0",
    ];
    let settings = settings.iter().map(String::as_str).chain(fixed);
    let run_directory = path("run");
    let start = ["train", "--preset", "sd35m-ocr-1gpu", "--model", NAME, "--out", &run_directory];
    let args: Vec<&str> =
        start.into_iter().chain(settings.flat_map(|setting| ["--set", setting])).collect();
    let said = ok(&run(&sd3.endpoint, &cache, &args));
    assert!(said.contains("MiB rewards"), "the reward's model is in the plan: {said}");
    let config = std::fs::read_to_string(path("run/config.toml")).expect("a configuration");
    assert!(config.contains(&format!("base = \"{NAME}@{COMMIT}\"")), "{config}");
    let resume = ["train", "--resume", &run_directory, "--set", "epochs=2"];
    ok(&run("http://127.0.0.1:9", &cache, &resume));
    let epochs = metrics(Path::new(&run_directory));
    assert_eq!(epochs.iter().filter(|line| line["event"] == "epoch").count(), 2);
    // The adapter names its base model.
    let (adapter, image) = (path("run/adapter"), path("image.png"));
    let sample = ["sample", "--prompt", "a cat", "--steps", "1", "--adapter", &adapter];
    let size = ["--height", "16", "--width", "16", "--without-t5", "--output", &image];
    ok(&run("http://127.0.0.1:9", &cache, &[&sample[..], &size[..]].concat()));
}

/// Downloads a model by `score`, which gets it by name, and returns its directory in the cache.
fn clip_in(hub: &Hub, cache: &Path) -> String {
    let image = cache.with_extension("png");
    image::RgbImage::new(8, 8).save(&image).expect("written");
    let image = image.to_string_lossy().into_owned();
    let args = ["score", "--reward", "pickscore", "--model", NAME, "--prompt", "a cat", &image];
    ok(&run(&hub.endpoint, cache, &args));
    let path = cache.join("models--owner--model/snapshots").join(COMMIT);
    assert!(path.join("model.safetensors").exists());
    path.to_string_lossy().into_owned()
}
