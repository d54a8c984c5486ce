//! Downloads from a server that answers like the hub.

mod fake;

use std::{fs, path::Path, sync::Mutex};

use fake::{COMMIT, Hub};
use hub::{HubError, Name, Settings, Snapshot, Token, Watch, fetch};

impl Hub {
    /// Settings for this server.
    fn settings(&self, cache: &Path, token: Option<&str>) -> Settings {
        Settings {
            endpoint: self.endpoint.clone(),
            cache: cache.to_owned(),
            token: token.and_then(Token::new),
            offline: false,
        }
    }
}

/// Counts what a download tells.
#[derive(Default)]
struct Told {
    notes: Mutex<Vec<String>>,
    begun: Mutex<Vec<u64>>,
    bytes: Mutex<u64>,
    /// The download stops after so many bytes.
    stop_after: Option<u64>,
}

impl Watch for Told {
    fn note(&self, line: &str) {
        self.notes.lock().expect("notes").push(line.to_owned());
    }

    fn begin(&self, _name: &Name, bytes: u64) {
        self.begun.lock().expect("begun").push(bytes);
    }

    fn advance(&self, bytes: u64) {
        *self.bytes.lock().expect("bytes") += bytes;
    }

    fn interrupted(&self) -> bool {
        self.stop_after.is_some_and(|stop| *self.bytes.lock().expect("bytes") >= stop)
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name").expect("with its prefix")
}

fn fetched(settings: &Settings, told: &Told) -> Result<Snapshot, HubError> {
    fetch(settings, &name("hub:owner/model"), &[], told)
}

fn weights() -> Vec<u8> {
    (0..3_000_000_u32).map(|number| (number * 7 % 251) as u8).collect()
}

const CONFIG: (&str, &[u8]) = ("config.json", b"{\"model_type\": \"clip\"}");

fn one(weights: &[u8]) -> Hub {
    Hub::of(&[CONFIG, ("README.md", b"no"), ("model.safetensors", weights), ("merges.txt", b"")])
}

/// All files below a directory, sorted.
fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("a type").is_dir() {
            found.extend(tree(&entry.path()).into_iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn a_model_is_downloaded_once_into_the_layout_of_python() {
    let directory = tempfile::tempdir().expect("a directory");
    let (weights, told) = (weights(), Told::default());
    let hub = one(&weights);
    let settings = hub.settings(directory.path(), None);
    let snapshot = fetched(&settings, &told).expect("downloaded");
    let root = directory.path().join("models--owner--model");
    assert_eq!(snapshot.path, root.join("snapshots").join(COMMIT));
    assert_eq!(snapshot.name.to_string(), format!("hub:owner/model@{COMMIT}"));
    assert_eq!(fs::read(snapshot.path.join("model.safetensors")).expect("it is there"), weights);
    assert_eq!(fs::read_to_string(root.join("refs/main")).expect("a reference"), COMMIT);
    let link = fs::read_link(snapshot.path.join("model.safetensors")).expect("a link");
    let digest = files::sha256(&weights);
    assert_eq!(link, Path::new("../../blobs").join(&digest));
    assert!(root.join("blobs").join(&digest).is_file());
    assert_eq!(tree(&snapshot.path), ["config.json", "merges.txt", "model.safetensors"]);
    let all = (weights.len() + CONFIG.1.len()) as u64;
    assert_eq!(
        (&told.begun.lock().expect("begun")[..], *told.bytes.lock().expect("bytes")),
        (&[all][..], all)
    );

    hub.requests();
    assert_eq!(fetched(&settings, &told).expect("cached"), snapshot);
    assert_eq!(hub.requests(), ["GET /api/models/owner/model/revision/main"]);
    let again = fetch(&settings, &snapshot.name, &[], &told).expect("cached");
    assert_eq!((again, hub.requests().len()), (snapshot, 0), "a commit needs no network");
}

#[test]
fn a_file_of_a_model_comes_with_the_configurations_beside_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = Hub::of(&[CONFIG, ("a.safetensors", b"one"), ("b.safetensors", b"other")]);
    let settings = hub.settings(directory.path(), None);
    let several = fetched(&settings, &Told::default()).expect_err("which?").to_string();
    assert!(
        several.contains("several files of weights: a.safetensors, b.safetensors"),
        "{several}"
    );
    let file = name("hub:owner/model/b.safetensors");
    let snapshot = fetch(&settings, &file, &[], &Told::default()).expect("downloaded");
    assert_eq!(fs::read(&snapshot.path).expect("it is there"), b"other");
    assert_eq!(
        tree(snapshot.path.parent().expect("a directory")),
        ["b.safetensors", "config.json"]
    );
}

#[test]
fn parts_that_are_left_out_are_not_downloaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let index = br#"{"vae": ["a", "b"], "text_encoder_3": ["a", "b"], "nothing": [null, null]}"#;
    let hub = Hub::of(&[
        ("model_index.json", index),
        ("vae/config.json", b"{}"),
        ("vae/diffusion_pytorch_model.safetensors", b"numbers"),
        ("text_encoder_3/config.json", b"{ }"),
        ("text_encoder_3/model.safetensors", b"many numbers"),
        ("whole.safetensors", b"the whole model"),
    ]);
    let settings = hub.settings(directory.path(), None);
    let model = name("hub:owner/model");
    let snapshot =
        fetch(&settings, &model, &["text_encoder_3"], &Told::default()).expect("downloaded");
    let first = ["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"];
    assert_eq!(tree(&snapshot.path), first);
    // What was left out is missing for others.
    let offline = Settings { offline: true, ..settings.clone() };
    assert_eq!(
        fetch(&offline, &model, &["text_encoder_3"], &Told::default()),
        Ok(snapshot.clone())
    );
    assert!(fetch(&offline, &model, &[], &Told::default()).is_err());
    fetch(&settings, &snapshot.name, &[], &Told::default()).expect("downloaded");
    assert_eq!(tree(&snapshot.path).len(), 5);
}

#[test]
fn a_token_opens_gated_models_and_stays_with_the_hub() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = one(b"numbers");
    hub.set(|state| state.gated = true);
    let refused = |token| {
        let settings = hub.settings(directory.path(), token);
        fetched(&settings, &Told::default()).expect_err("gated").to_string()
    };
    let page = format!("{}/owner/model", hub.endpoint);
    let without = refused(None);
    assert!(
        without.contains(&format!("accept its licence at {page}"))
            && without.contains("set HF_TOKEN"),
        "{without}"
    );
    let wrong = refused(Some("hf_wrong"));
    assert!(wrong.contains("this one has no access"), "{wrong}");
    let settings = hub.settings(directory.path(), Some("hf_right"));
    fetched(&settings, &Told::default()).expect("downloaded");
    let state = hub.state.lock().expect("state");
    assert!(state.requests.iter().any(|request| request.contains("/storage/")));
    assert!(!state.leaked, "the storage is another host");
}

#[test]
fn what_is_not_there_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = one(b"numbers");
    let refused = |text: &str, token| {
        let settings = hub.settings(directory.path(), token);
        fetch(&settings, &name(text), &[], &Told::default()).expect_err("not there").to_string()
    };
    let nobody = refused("hub:owner/none", None);
    assert!(
        nobody.contains("there is no model owner/none") && nobody.contains("HF_TOKEN"),
        "{nobody}"
    );
    assert!(!refused("hub:owner/none", Some("hf_right")).contains("HF_TOKEN"));
    let revision = refused("hub:owner/model@v9", None);
    assert_eq!(revision, "owner/model has no branch, tag or commit `v9`");
    assert_eq!(refused("hub:owner/model/none.pt", None), "owner/model has no file none.pt");
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let weights = weights();
    let hub = one(&weights);
    hub.set(|state| state.cut = vec![1_000_000, 500_000]);
    let settings = hub.settings(directory.path(), None);
    let snapshot = fetched(&settings, &Told::default()).expect("downloaded");
    assert_eq!(fs::read(snapshot.path.join("model.safetensors")).expect("whole"), weights);
    let ranges: Vec<String> =
        hub.requests().into_iter().filter(|request| request.contains("/storage/")).collect();
    assert_eq!(ranges.len(), 3);
    assert!(ranges[1].ends_with(" 1000000") && ranges[2].ends_with(" 1500000"), "{ranges:?}");

    // A server without ranges begins anew, and so does one that answers with another range.
    let anew = |change: fn(&mut fake::State)| {
        let other = tempfile::tempdir().expect("a directory");
        hub.set(|state| state.cut = vec![1_000_000]);
        hub.set(change);
        let settings = hub.settings(other.path(), None);
        let snapshot = fetched(&settings, &Told::default()).expect("downloaded");
        assert!(fs::read(snapshot.path.join("model.safetensors")).expect("whole") == weights);
    };
    anew(|state| state.ignores_ranges = true);
    anew(|state| (state.ignores_ranges, state.answers_whole) = (false, true));
}

#[test]
fn a_cache_that_is_out_of_date_or_damaged_is_put_right() {
    let directory = tempfile::tempdir().expect("a directory");
    let weights = weights();
    let hub = one(&weights);
    let root = directory.path().join("models--owner--model");
    let put = |path: &str, bytes: &[u8]| {
        let file = root.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, bytes).expect("written");
    };
    put("refs/main", b"fedcba9876543210fedcba9876543210fedcba98");
    put(&format!("blobs/{}", files::sha256(&weights)), &weights[..1_000]);
    let snapshot =
        fetched(&hub.settings(directory.path(), None), &Told::default()).expect("downloaded");
    assert_eq!(fs::read_to_string(root.join("refs/main")).expect("a reference"), COMMIT);
    assert!(fs::read(snapshot.path.join("model.safetensors")).expect("whole") == weights);
}

#[test]
fn a_storage_on_the_hubs_own_host_states_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let weights = weights();
    let hub = one(&weights);
    hub.set(|state| state.storage = "/storage".to_owned());
    let snapshot =
        fetched(&hub.settings(directory.path(), None), &Told::default()).expect("downloaded");
    assert!(fs::read(snapshot.path.join("model.safetensors")).expect("whole") == weights);
}

#[test]
fn a_part_is_never_taken_for_the_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let weights = weights();
    let hub = one(&weights);
    hub.set(|state| state.cut = vec![1_000_000, 0, 0, 0, 0]);
    let settings = hub.settings(directory.path(), None);
    let broken = fetched(&settings, &Told::default()).expect_err("it breaks off").to_string();
    assert!(
        broken.contains("model.safetensors: the download broke off after 1000000 of"),
        "{broken}"
    );
    let snapshot = directory.path().join("models--owner--model/snapshots").join(COMMIT);
    assert_eq!(tree(&snapshot), ["config.json", "merges.txt"]);
    let offline = Settings { offline: true, ..settings.clone() };
    assert!(fetched(&offline, &Told::default()).is_err(), "the weights are missing");
    hub.set(|state| state.cut.clear());
    hub.requests();
    fetched(&settings, &Told::default()).expect("downloaded");
    assert!(hub.requests().iter().any(|request| request.ends_with(" 1000000")));
    assert_eq!(fs::read(snapshot.join("model.safetensors")).expect("whole"), weights);
}

#[test]
fn other_bytes_than_the_hub_states_are_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = one(&weights());
    hub.set(|state| state.lies = true);
    let settings = hub.settings(directory.path(), None);
    let corrupt = fetched(&settings, &Told::default()).expect_err("other bytes").to_string();
    assert!(corrupt.contains("not what the hub states"), "{corrupt}");
    let blobs = tree(&directory.path().join("models--owner--model/blobs"));
    assert!(blobs.iter().all(|name| name.len() == 40), "small files alone: {blobs:?}");
    hub.set(|state| state.lies = false);
    fetched(&settings, &Told::default()).expect("downloaded");
}

#[test]
fn a_stopped_download_is_resumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let weights = weights();
    let hub = one(&weights);
    let settings = hub.settings(directory.path(), None);
    let told = Told { stop_after: Some(1_000_000), ..Told::default() };
    let stopped = fetched(&settings, &told).expect_err("stopped").to_string();
    assert!(stopped.contains("was stopped"), "{stopped}");
    let snapshot = fetched(&settings, &Told::default()).expect("downloaded");
    assert_eq!(fs::read(snapshot.path.join("model.safetensors")).expect("whole"), weights);
    assert!(hub.requests().iter().filter(|request| request.contains("/storage/")).count() == 2);
}

#[test]
fn without_network_the_cache_is_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let hub = one(b"numbers");
    let away = Settings {
        endpoint: "http://127.0.0.1:9".to_owned(),
        ..hub.settings(directory.path(), None)
    };
    let nowhere = fetched(&away, &Told::default()).expect_err("no hub").to_string();
    assert!(nowhere.contains("http://127.0.0.1:9 cannot be reached"), "{nowhere}");
    let offline = Settings { offline: true, ..away.clone() };
    let nothing = fetched(&offline, &Told::default()).expect_err("empty").to_string();
    assert!(nothing.contains("HF_HUB_OFFLINE"), "{nothing}");
    let snapshot =
        fetched(&hub.settings(directory.path(), None), &Told::default()).expect("downloaded");
    let told = Told::default();
    assert_eq!(fetched(&away, &told), Ok(snapshot.clone()));
    assert!(told.notes.lock().expect("notes")[0].contains("as it is in the cache"));
    assert_eq!(fetched(&offline, &Told::default()), Ok(snapshot));
}

#[test]
fn names_of_the_server_do_not_lead_out_of_the_cache() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = directory.path().join("cache");
    let hub =
        Hub::of(&[CONFIG, ("model.safetensors", b"numbers"), ("../../../../evil.json", b"{}")]);
    fetched(&hub.settings(&cache, None), &Told::default()).expect("downloaded");
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
}
