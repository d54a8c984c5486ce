//! `score`: rewards as products of their own.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{refused, run};

/// The lines of a command's output, as JSON.
pub fn lines(args: &[&str]) -> Vec<Value> {
    let output = run(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

pub fn grey(path: &Path, value: u8) {
    let image = image::RgbImage::from_pixel(8, 4, image::Rgb([value; 3]));
    // The content decides, not the name.
    image.save_with_format(path, image::ImageFormat::Png).expect("written");
}

#[test]
fn images_and_directories_are_scored_line_by_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = directory.path().join("images");
    std::fs::create_dir(&images).expect("created");
    for (name, value) in [("b.png", 255), ("a.jpg", 0), ("note.txt", 0)] {
        if name.ends_with("txt") {
            std::fs::write(images.join(name), "no image").expect("written");
        } else {
            grey(&images.join(name), value);
        }
    }
    let prompts = directory.path().join("prompts.txt");
    std::fs::write(&prompts, "night\nsnow\n").expect("written");
    let [images, prompts] = [&images, &prompts].map(|path| path.to_string_lossy().into_owned());
    let rewards = ["score", "--reward", "darkness", "--reward", "jpeg_compressibility"];
    let scored = lines(&[&rewards[..], &[&images, "--prompt-file", &prompts, "--json"]].concat());
    assert_eq!(scored.len(), 2);
    for (line, (name, prompt, darkness)) in
        scored.iter().zip([("a.jpg", "night", 1.0), ("b.png", "snow", -1.0)])
    {
        assert!(line["image"].as_str().is_some_and(|path| path.ends_with(name)), "{line}");
        assert_eq!(
            (&line["prompt"], &line["scores"]["darkness"]),
            (&json!(prompt), &json!(darkness))
        );
        assert!(line["scores"]["jpeg_compressibility"].as_f64().is_some_and(|score| score < 0.0));
    }
    // One prompt for all, as text; a prompt's images stand in a row.
    let output = run(&["score", "--reward", "darkness", "--prompt", "x", &images]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("a.jpg  darkness 1.0000\n"), "{text}");
    let one = directory.path().join("one.txt");
    std::fs::write(&one, "both\n").expect("written");
    let one = one.to_string_lossy().into_owned();
    let both = lines(&["score", "--reward", "darkness", "--json", "--prompt-file", &one, &images]);
    assert!(both.iter().all(|line| line["prompt"] == "both") && both.len() == 2);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    grey(Path::new(&path("a.png")), 9);
    std::fs::write(path("broken.png"), "no image").expect("written");
    std::fs::write(path("two.txt"), "a\nb\n").expect("written");
    std::fs::create_dir(path("empty")).expect("created");
    let (a, two) = (path("a.png"), path("two.txt"));
    let refused = |args: &[&str]| refused(&[&["score", "--reward"], args].concat());
    assert!(refused(&["beauty", &a]).contains("there is no reward `beauty`; there are: "));
    assert!(refused(&["darkness", &path("none.png")]).contains("cannot read the image"));
    assert!(refused(&["darkness", &path("broken.png")]).contains("cannot read the image"));
    assert!(refused(&["darkness", &path("empty")]).contains("holds no png, jpg"));
    assert!(
        refused(&["darkness", &a, "--prompt-file", &two]).contains("1 images for the 2 prompts")
    );
    assert!(refused(&["darkness", &a, "--set", "size=3"]).contains("unknown field `size`"));
    assert!(refused(&["shapes_strict", &a, "--prompt", "a circle"]).contains("it has no metadata"));
    assert!(
        refused(&["darkness", "--detections", &two])
            .contains("--detections needs --reward geneval")
    );
}

#[test]
fn detections_are_scored_by_genevals_rules() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("detections.jsonl");
    let metadata = |count: usize| {
        json!({
            "tag": "counting", "prompt": "a photo of two dogs",
            "include": [{"class": "dog", "count": count}],
            "exclude": [{"class": "dog", "count": count + 1}],
        })
    };
    let dog = |x: f64| json!({"class": "dog", "box": [x, 0, x + 9.0, 9], "score": 0.95});
    let line = |count, found: &[Value]| {
        json!({"metadata": metadata(count), "detections": found}).to_string() + "\n"
    };
    let text = line(2, &[dog(0.0), dog(20.0)]) + &line(2, &[dog(0.0)]);
    std::fs::write(&file, &text).expect("written");
    let path = file.to_string_lossy().into_owned();
    let arguments = ["score", "--reward", "geneval", "--detections", &path];
    let answers = lines(&[&arguments[..], &["--json"]].concat());
    assert_eq!(
        answers,
        [
            json!({"official": true, "strict": true, "reward": 1.0, "reward_reference": 1.0}),
            json!({"official": false, "strict": false, "reward": 0.5, "reward_reference": 0.5}),
        ]
    );
    let table = run(&arguments);
    assert!(String::from_utf8_lossy(&table.stdout).contains("counting"));
    assert!(
        refused(&[&arguments[..], &["--set", "channels=official"]].concat())
            .contains("unknown field `channels`")
    );
    std::fs::write(&file, text + "{\"metadata\": 3}\n").expect("written");
    assert!(refused(&[&arguments[..], &["--json"]].concat()).contains("line 3"));
}

#[test]
fn a_wrong_place_pays_half_by_the_rule_of_the_public_servers() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("detections.jsonl");
    let found =
        |class: &str, x: f64| json!({"class": class, "box": [x, 0, x + 9.0, 9], "score": 0.95});
    let line = json!({
        "metadata": {
            "tag": "position", "prompt": "a photo of a cat right of a dog",
            "include": [
                {"class": "dog", "count": 1},
                {"class": "cat", "count": 1, "position": ["right of", 0]},
            ],
        },
        "detections": [found("cat", 0.0), found("dog", 50.0)],
    });
    std::fs::write(&file, line.to_string()).expect("written");
    let path = file.to_string_lossy().into_owned();
    let arguments = ["score", "--reward", "geneval", "--detections", &path];
    let answer = |more: &[&str]| {
        let answer = lines(&[&arguments[..], &["--json"], more].concat()).remove(0);
        ["reward", "reward_reference"].map(|name| answer[name].as_f64().expect("a number"))
    };
    assert_eq!(answer(&[]), [2.0 / 3.0, 3.0 / 4.0]);
    let public = ["--set", "failed_position=zero_and_one"];
    assert_eq!(answer(&public), [3.0 / 4.0, 3.0 / 4.0]);
    let table = run(&[&arguments[..], &public].concat());
    assert!(String::from_utf8_lossy(&table.stdout).contains("0.7500     0.7500"));
    assert!(
        refused(&[&arguments[..], &["--set", "failed_position=half"]].concat())
            .contains("zero_and_one")
    );
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    path.to_string_lossy().into_owned()
}

#[test]
fn text_in_images_is_read_and_compared_with_the_prompts_quotes() {
    let directory = tempfile::tempdir().expect("a directory");
    let sheet = image::open(golden("ocr/sheet.png")).expect("the golden is committed").to_rgb8();
    let path = directory.path().join("word.png").to_string_lossy().into_owned();
    // The third image of the golden shows "garde".
    image::imageops::crop_imm(&sheet, 64, 0, 32, 32).to_image().save(&path).expect("written");
    let reward = ["score", "--reward", "ocr", "--json", &path, "--prompt"];
    for (prompt, score) in [
        (r#"a sign that says "garde""#, 1.0),
        (r#"a sign that says "GAR DE""#, 1.0),
        (r#"a sign that says "garden""#, 1.0 - 1.0 / 6.0),
        (r#"a sign that says "STOP""#, 0.0),
    ] {
        let line = lines(&[&reward[..], &[prompt]].concat()).remove(0);
        let got = line["scores"]["ocr"].as_f64().expect("a score");
        assert!((got - score).abs() < 1e-6 && line["text"] == "garde", "{line}");
    }
    let unquoted = refused(&[&reward[..], &["a sign"]].concat());
    assert!(unquoted.contains("reward `ocr` cannot judge"), "{unquoted}");
}

#[test]
fn preference_models_score_from_their_directories() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("grey.png").to_string_lossy().into_owned();
    grey(Path::new(&path), 90);
    let [clip, open_clip] =
        ["transformers", "open_clip"].map(|name| golden(&format!("clip-tiny/{name}")));
    for (name, model) in
        [("clipscore", &clip), ("pickscore", &clip), ("hpsv2", &open_clip), ("aesthetic", &clip)]
    {
        let score = |more: &[&str]| {
            lines(
                &[&["score", "--reward", name, "--prompt", "a cat", "--json", &path], more]
                    .concat(),
            )
            .remove(0)["scores"][name]
                .as_f64()
                .expect("a score")
        };
        let set = format!("model={model}");
        assert_eq!(score(&["--model", model]), score(&["--set", &set]), "{name}");
        let missing = refused(&["score", "--reward", name, &path]);
        assert!(missing.contains(&format!("{name}: `model` is missing")), "{missing}");
    }
}
