//! Client, server and protocols across real connections on this machine.

mod fake;
mod faults;
mod python;
mod serving;
mod wires;

use image::{Rgb, RgbImage};
use judges::{Client, Protocol, Sample, Settings};
use serde_json::Value;

/// Settings of a client that waits 10 ms at most before its first retry.
fn settings(url: &str, protocol: Protocol) -> Settings {
    Settings { first_wait_seconds: 0.01, ..Settings::new(url, protocol) }
}

/// A client of a JSON judge for one reward, one image per request.
fn client(url: &str) -> Client {
    let settings = Settings { batch_size: 1, ..settings(url, Protocol::json("r")) };
    Client::new(settings).expect("settings in range")
}

/// Images of one colour each: image `i` has the red value `i`.
fn images(count: u8) -> Vec<RgbImage> {
    (0..count).map(|red| RgbImage::from_pixel(16, 8, Rgb([red, 0, 200]))).collect()
}

/// Samples of images, with prompts `prompt 0`, `prompt 1` and so on.
fn samples<'a>(images: &'a [RgbImage], prompts: &'a [String]) -> Vec<Sample<'a>> {
    let pairs = images.iter().zip(prompts);
    pairs.map(|(image, prompt)| Sample { image, prompt, metadata: &Value::Null }).collect()
}

fn prompts(count: u8) -> Vec<String> {
    (0..count).map(|index| format!("prompt {index}")).collect()
}

/// Scores `count` images and gives the scores or the error as text.
fn score(client: &Client, count: u8) -> Result<Vec<f32>, String> {
    let (images, prompts) = (images(count), prompts(count));
    client.score(&samples(&images, &prompts)).map_err(|error| error.to_string())
}

/// The bytes of a golden.
fn golden(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/judges");
    std::fs::read(format!("{folder}/{name}")).expect("a golden")
}
