//! GenEval's colours: the logits of transformers on the crops of `golden/geneval-colors`, and the
//! colours that `score` gives to detections.

use std::path::Path;

use models::{preference::ZeroShot, rgb8::Rgb8};
use serde_json::{Value, json};
use tasks::{
    geneval::{Class, Color, Mask, color_texts, crop},
    image::Image,
};

use crate::{
    backend::{Device, Plain},
    cli::{refused, run},
    clip::picture,
};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(golden("geneval-colors/golden.json")).expect("committed");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    golden["cases"].as_array().expect("cases").clone()
}

fn picture_of(case: &Value) -> Rgb8 {
    let number = |name: &str| case[name].as_u64().expect("a number") as usize;
    picture(number("picture"), [number("height"), number("width")])
}

#[test]
fn the_logits_of_the_ten_colours_are_those_of_transformers() {
    let clip = golden("clip-tiny/transformers");
    let clip = ZeroShot::<Plain>::open(&clip, &Device::default()).expect("a model");
    for case in cases() {
        let whole = picture_of(&case);
        let image = Image::from_rgb8(whole.pixels(), whole.width(), whole.height());
        let corners: [f32; 4] = serde_json::from_value(case["box"].clone()).expect("a box");
        let class = Class::named(case["class"].as_str().expect("a class")).expect("a class");
        let mask: Option<Mask> =
            case.get("mask").map(|mask| serde_json::from_value(mask.clone()).expect("a mask"));
        if let Some(text) = case.get("compressed") {
            let same = json!({"size": case["mask"]["size"], "counts": text});
            assert_eq!(serde_json::from_value::<Mask>(same).ok(), mask, "COCO's text");
        }
        let crop = crop(&image, corners, mask.as_ref()).expect("a crop");
        assert_eq!(case["crop"], json!([crop.height, crop.width]));
        let crop = Rgb8::new([crop.height, crop.width], crop.rgb8()).expect("an image");
        let texts = Color::ALL.map(|color| color_texts(color, class).to_vec());
        let logits = clip.logits(&[crop], &clip.classes(&texts).expect("texts")).remove(0);
        let wanted: Vec<f32> = serde_json::from_value(case["logits"].clone()).expect("numbers");
        for (got, wanted) in logits.iter().zip(&wanted) {
            assert!((got - wanted).abs() < 1e-4, "{class}: {logits:?} {wanted:?}");
        }
    }
}

/// The line of a prompt for this colour, with what was found.
fn line(color: &str, found: &Value) -> String {
    let metadata = json!({
        "tag": "colors", "prompt": format!("a photo of a {color} bench"),
        "include": [{"class": "bench", "count": 1, "color": color}],
    });
    json!({"metadata": metadata, "detections": found}).to_string() + "\n"
}

#[test]
fn score_names_the_colours_that_detections_lack() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = directory.path().join("images/00000/samples");
    std::fs::create_dir_all(&images).expect("made");
    let case = &cases()[0];
    let whole = picture_of(case);
    let (width, height) = (whole.width() as u32, whole.height() as u32);
    let png = image::RgbImage::from_raw(width, height, whole.pixels().to_vec()).expect("an image");
    png.save(images.join("00000.png")).expect("written");
    png.save(images.join("00001.png")).expect("written");
    png.save(directory.path().join("images/00000/grid.png")).expect("written");
    let bench = |color: Option<&str>| {
        let mut found = json!({"class": "bench", "box": case["box"], "score": 0.9});
        if let Some(color) = color {
            found["color"] = json!(color);
        }
        json!([found])
    };
    let color = case["color"].as_str().expect("a colour");
    // What a line says stays.
    let lines = line(color, &bench(None)) + &line("white", &bench(Some("white")));
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let file = path("found.jsonl");
    std::fs::write(&file, lines).expect("written");
    let clip = golden("clip-tiny/transformers").to_string_lossy().into_owned();
    let images = path("images");
    let bare = ["score", "--reward", "geneval", "--detections", &file];
    assert!(refused(&bare).contains("detections[0] (`bench`) has no `color`"));
    let painted = [&bare[..], &["--model", &clip, "--images", &images]].concat();
    let output = run(&[&painted[..], &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("\"official\":true").count(), 2, "{text}");
    let table = run(&painted);
    assert!(String::from_utf8_lossy(&table.stdout).contains("overall 1.00000"));

    let other = Color::ALL.iter().map(|other| other.name()).find(|other| *other != color);
    std::fs::write(&file, line(other.expect("another"), &bench(None))).expect("written");
    let output = run(&[&painted[..], &["--json"]].concat());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"official\":false"));

    let three = line("white", &bench(None)).repeat(3);
    std::fs::write(&file, three).expect("written");
    assert!(refused(&painted).contains("line 3: this is image 3, and"));
    assert!(refused(&[&bare[..], &["--model", &clip]].concat()).contains("go together"));
}
