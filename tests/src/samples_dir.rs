//! `eval --samples-dir`: images that another program made.

use std::path::Path;

use tasks::{
    image::Image,
    shapes::{self, Metadata, Split},
};
use training::noise::{Key, Purpose};

use crate::cli::{refused, run};

/// Writes an image as a PNG file.
fn write(image: &Image, path: &Path) {
    let (width, height) = (image.width as u32, image.height as u32);
    let rgb = image::RgbImage::from_raw(width, height, image.rgb8()).expect("three bytes a pixel");
    rgb.save(path).expect("written");
}

/// A directory with two renderings of each of some prompts, the second of which is right, and the
/// text of its prompt file.
fn rendered(directory: &Path) -> String {
    let mut set = shapes::prompts(Split::Test);
    set.prompts.truncate(6);
    let noise = Key::new(3, Purpose::Order);
    for (index, prompt) in set.prompts.iter().enumerate() {
        let scene = |metadata: &Metadata| {
            shapes::Scene::sample(metadata, 24, &mut noise.row(index, 0).rng())
        };
        let right = shapes::render(&scene(&Metadata::of(prompt).expect("metadata")), 24);
        let blank = Image { channels: 3, height: 24, width: 24, pixels: vec![0.2; 3 * 576] };
        write(&blank, &directory.join(format!("{index:03}-0.png")));
        write(&right, &directory.join(format!("{index:03}-1.png")));
    }
    set.to_jsonl()
}

fn output(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn images_of_another_program_have_the_table_of_an_evaluation() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = directory.path().join("images");
    std::fs::create_dir(&images).expect("created");
    let prompts = rendered(&images);
    let path = images.to_string_lossy().into_owned();
    let eval = ["eval", "--samples-dir", &path];
    assert!(refused(&eval).contains("has no prompts.jsonl and no prompts.txt: give --prompts"));
    std::fs::write(images.join("prompts.jsonl"), &prompts).expect("written");
    let json = directory.path().join("out.json").to_string_lossy().into_owned();
    let table = output(&[&eval[..], &["--output", &json]].concat());
    assert!(table.contains("overall ") && table.contains("   50.0 %"), "{table}");
    let text = std::fs::read_to_string(&json).expect("JSON");
    let evaluation: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(evaluation["overall"], 0.5);
    // The rewards of a preset, with settings, and those of a run.
    let rewards = ["--preset", "shapes", "--set", "rewards={ darkness = 1, shapes_strict = 1 }"];
    let table = output(&[&eval[..], &rewards].concat());
    assert!(table.contains("shapes_strict 0.5000\n") && table.contains("\ndarkness 0."), "{table}");
    // A prompt file beside the directory, without metadata.
    let other = directory.path().join("other.txt");
    std::fs::write(&other, "one\ntwo\nthree\n").expect("written");
    let other = other.to_string_lossy().into_owned();
    let plain = [&eval[..], &["--prompts", &other]].concat();
    assert!(refused(&plain).contains("cannot be verified: give --preset NAME or --as-in RUN"));
    let jpeg = ["--preset", "toy-2d", "--set", "rewards={ jpeg_compressibility = 1 }"];
    let table = output(&[&plain[..], &jpeg].concat());
    assert!(table.starts_with("jpeg_compressibility -0.0"), "{table}");
}

#[test]
fn images_that_cannot_be_evaluated_together_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = directory.path().to_string_lossy().into_owned();
    let eval = ["eval", "--samples-dir", &images];
    let prompts = rendered(directory.path());
    let file = directory.path().join("prompts.jsonl");
    std::fs::write(&file, prompts.lines().take(5).collect::<Vec<_>>().join("\n")).expect("written");
    assert!(refused(&eval).contains("12 images for the 5 prompts of"));
    std::fs::write(&file, &prompts).expect("written");
    let wide = Image { channels: 3, height: 24, width: 32, pixels: vec![0.2; 3 * 24 * 32] };
    write(&wide, &directory.path().join("005-1.png"));
    assert!(refused(&eval).contains("all images must have one size"));
    for entry in std::fs::read_dir(directory.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "png") {
            write(&wide, &path);
        }
    }
    assert!(refused(&eval).contains("which are square; these are of 24 x 32 pixels"));
    assert!(refused(&[&eval[..], &["--preset", "beauty"]].concat()).contains("beauty"));
    assert!(refused(&[&eval[..], &["--steps", "3"]].concat()).contains("cannot be used with"));
    assert!(refused(&["eval", "--preset", "shapes"]).contains("--samples-dir"));
}
