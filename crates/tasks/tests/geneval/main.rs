//! GenEval's scorer: corner cases, laws over random scenes, files.

mod cases;
mod files;
mod laws;

use serde_json::{Value, json};
use tasks::geneval::{self, Class, Color, Detection, Metadata, Scores};

/// Metadata of one kind with these entries.
fn metadata(tag: &str, include: Value) -> Metadata {
    Metadata::from_value(&json!({"tag": tag, "include": include, "prompt": "a photo"}))
        .expect("metadata")
}

fn found(class: &str, corners: [f32; 4], score: f32) -> Detection {
    Detection {
        class: Class::named(class).expect("a class"),
        corners,
        score,
        color: None,
        mask: None,
    }
}

fn painted(class: &str, score: f32, color: Color) -> Detection {
    Detection { color: Some(color), ..found(class, [0.0, 0.0, 10.0, 10.0], score) }
}

const LEFT: [f32; 4] = [0.0, 0.0, 10.0, 10.0];
const RIGHT: [f32; 4] = [40.0, 0.0, 50.0, 10.0];

/// `(official, strict, reward, reward_reference)`.
fn scores(metadata: &Metadata, detections: &[Detection]) -> (bool, bool, f64, f64) {
    let Scores { official, strict, reward, reward_reference } =
        geneval::score(metadata, detections).expect("scores");
    (official, strict, reward, reward_reference)
}
