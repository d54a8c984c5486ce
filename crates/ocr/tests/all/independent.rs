//! Tesseract, an independent reader, reads the same large words. Only where it is installed.

use std::{io::ErrorKind, path::Path, process::Command};

use image::imageops::crop_imm;
use ocr::{reward, text};
use serde_json::Value;

use crate::reader;

#[test]
fn tesseract_agrees_on_large_words() {
    match Command::new("tesseract").arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: there is no program `tesseract` (Debian: tesseract-ocr)");
            return;
        }
        version => assert!(version.expect("tesseract").status.success()),
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ocr");
    let sheet = image::open(golden.join("sheet.png")).expect("sheet").into_rgb8();
    let json = std::fs::read_to_string(golden.join("expected.json")).expect("read");
    let expected: Value = serde_json::from_str(&json).expect("parse");
    let folder = tempfile::tempdir().expect("folder");
    let (reader, mut agreed, mut words) = (reader(), 0, 0);
    for case in expected["images"].as_array().expect("images") {
        let number = |name: &str| case[name].as_u64().expect("number") as u32;
        let [x, y, width, height] = ["x", "y", "width", "height"].map(number);
        let image = crop_imm(&sheet, x, y, width, height).to_image();
        let lines = reader.read(image.as_raw(), width as usize, height as usize).expect("lines");
        let level = |line: &ocr::Line| (line.polygon[0][1] - line.polygon[1][1]).abs() < 2.0;
        if width < 256 || lines.len() != 1 || !lines.iter().all(level) {
            continue;
        }
        let file = folder.path().join("image.png");
        image.save(&file).expect("save");
        let output = Command::new("tesseract").arg(&file).args(["-", "--psm", "7"]).output();
        let theirs = String::from_utf8(output.expect("tesseract").stdout).expect("UTF-8");
        let agrees = reward(theirs.trim(), &text(&lines)) == 1.0;
        println!("{} | {}", text(&lines), theirs.trim());
        agreed += usize::from(agrees);
        words += 1;
    }
    println!("{agreed} of {words} words");
    assert!(words >= 10 && 10 * agreed >= 8 * words, "{agreed} of {words}");
}
