//! `eval --preset`: GenEval's score of a model directory, by a server or for a detector.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
};

use serde_json::{Value, json};

use crate::cli::{refused, run};

/// A server in the protocol of the reference code: an image is right if its prompt has no "dog".
/// Takes one image at a time.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                let lower = line.to_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let right = if body.windows(3).any(|word| word == b"dog") { 0_f64 } else { 1.0 };
            // {"rewards": [right]} as a pickle of protocol 2.
            let mut answer = b"\x80\x02}X\x07\0\0\0rewards]G".to_vec();
            answer.extend(right.to_be_bytes());
            answer.extend(b"as.");
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
        }
    });
    url
}

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    path.to_string_lossy().into_owned()
}

/// Writes three prompts of two kinds and returns the options of a small evaluation.
fn options(directory: &Path) -> Vec<String> {
    let prompts = directory.join("prompts.jsonl");
    let line = |tag: &str, class: &str| {
        let include = json!([{"class": class, "count": 1}]);
        json!({"tag": tag, "prompt": format!("a photo of a {class}"), "include": include})
            .to_string()
    };
    let lines =
        [line("single_object", "dog"), line("single_object", "cat"), line("counting", "clock")];
    std::fs::write(&prompts, lines.join("\n")).expect("written");
    let set = [
        format!("prompts.validation={}", prompts.display()),
        "model.resolution=32".to_owned(),
        "model.max_sequence_length=16".to_owned(),
    ];
    let fixed =
        ["eval", "--preset", "sd35m-geneval", "--model", &golden("sd3-tiny"), "--steps", "2"];
    let set = set.into_iter().flat_map(|set| ["--set".to_owned(), set]);
    fixed.into_iter().map(str::to_owned).chain(set).collect()
}

fn with<'a>(options: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    options.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn a_server_judges_four_images_a_prompt_and_the_score_is_the_mean_over_kinds() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path());
    let url = format!("rewards={{ geneval = {{ url = \"{}\", batch_size = 1 }} }}", server());
    let file = directory.path().join("score.json").to_string_lossy().into_owned();
    let output = run(&with(&options, &["--set", &url, "--output", &file]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("overall") && text.contains("not all of the benchmark"), "{text}");
    let score: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
    assert_eq!(score["overall"], json!(0.75), "the mean of 1/2 and 1");
    assert_eq!(score["tags"], json!({"single_object": 0.5, "counting": 1.0}));
    assert_eq!(score["images"], json!({"single_object": 8, "counting": 4}));
    assert_eq!(score["complete"], json!(false));
}

#[test]
fn a_detector_gets_the_images_in_the_layout_of_the_published_scripts() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(directory.path());
    let out = directory.path().join("images");
    let path = out.to_string_lossy().into_owned();
    let output = run(&with(&options, &["--images", &path]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for prompt in 0..3 {
        let folder = out.join(format!("{prompt:05}"));
        let metadata = std::fs::read_to_string(folder.join("metadata.jsonl")).expect("metadata");
        assert!(serde_json::from_str::<Value>(&metadata).is_ok_and(|it| it["include"].is_array()));
        let mut images: Vec<_> = std::fs::read_dir(folder.join("samples"))
            .expect("images")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        images.sort();
        assert_eq!(images, ["00000.png", "00001.png", "00002.png", "00003.png"]);
    }
    let one = |sample: usize| std::fs::read(out.join(format!("00001/samples/0000{sample}.png")));
    assert_ne!(one(0).expect("an image"), one(1).expect("an image"), "other noise");
    assert!(refused(&with(&options, &["--images", &path])).contains("exists: choose"));
    let nowhere = "rewards={ geneval = { url = \"http://127.0.0.1:9\" } }";
    assert!(refused(&with(&options, &["--set", nowhere])).contains("is not ready"));
    assert!(refused(&["eval", "--preset", "sd35m-geneval"]).contains("needs --model DIR"));
}
