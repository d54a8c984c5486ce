//! Laws over random scenes.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tasks::{
    geneval::{self, Class, Color, Detection, Metadata, Scores},
    shapes::Relation,
};

use crate::{LEFT, found, metadata};

/// Random metadata over three classes, and detections that often fit.
fn random_scene(rng: &mut ChaCha8Rng) -> (Metadata, Vec<Detection>) {
    let classes = ["dog", "cat", "tv remote"];
    let mut include = Vec::new();
    for (index, class) in classes.iter().enumerate().take(rng.random_range(1..=3)) {
        let mut entry = json!({"class": class, "count": rng.random_range(1..=2)});
        if rng.random_bool(0.3) {
            entry["color"] = json!(Color::ALL[rng.random_range(0..2)]);
        }
        if index > 0 && rng.random_bool(0.6) {
            let relation = Relation::ALL[rng.random_range(0..4)];
            entry["position"] = json!([relation, rng.random_range(0..index)]);
        }
        include.push(entry);
    }
    let tag = ["counting", "position", "colors"][rng.random_range(0..3)];
    let mut metadata = metadata(tag, json!(include));
    if rng.random_bool(0.2) {
        let class = classes[rng.random_range(0..3)];
        metadata.exclude =
            serde_json::from_value(json!([{"class": class, "count": 3}])).expect("an exclusion");
    }
    let count = rng.random_range(0..8_u16);
    let detections = (0..count).map(|index| {
        let (x, y) = (rng.random_range(0..100_u8), rng.random_range(0..100_u8));
        let (x, y) = (f32::from(x), f32::from(y));
        let (w, h) = (f32::from(rng.random_range(0..40_u8)), f32::from(rng.random_range(0..40_u8)));
        Detection {
            class: Class::named(classes[rng.random_range(0..3)]).expect("a class"),
            corners: [x, y, x + w, y + h],
            // Different for every detection.
            score: 0.85 + 0.015 * f32::from(index),
            color: Some(Color::ALL[rng.random_range(0..2)]),
            mask: None,
        }
    });
    let detections = detections.collect();
    (metadata, detections)
}

/// Checks a law on many random scenes, of which some must be right, strict, and wrong.
fn law(check: impl Fn(&Metadata, &[Detection], Scores, &mut ChaCha8Rng)) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut official, mut strict, mut unplaced) = (0, 0, 0);
    for _ in 0..5_000 {
        let (metadata, detections) = random_scene(&mut rng);
        let scores = geneval::score(&metadata, &detections).expect("scores");
        official += u32::from(scores.official);
        strict += u32::from(scores.strict);
        unplaced += u32::from(scores.reward != scores.reward_reference);
        check(&metadata, &detections, scores, &mut rng);
    }
    assert!(official > strict && strict > 150 && unplaced > 50, "{official} {strict} {unplaced}");
}

#[test]
fn the_order_of_detections_does_not_matter() {
    law(|metadata, detections, scores, rng| {
        let mut shuffled = detections.to_vec();
        shuffled.shuffle(rng);
        assert_eq!(geneval::score(metadata, &shuffled), Ok(scores));
    });
}

#[test]
fn a_detection_below_the_threshold_changes_nothing() {
    law(|metadata, detections, scores, rng| {
        let mut more = detections.to_vec();
        let class = Class::all().nth(rng.random_range(0..80)).expect("80 classes");
        let asked = metadata.include[0].class;
        for class in [class, asked] {
            let faint = Detection { class, color: None, ..found("dog", LEFT, 0.3) };
            more.insert(rng.random_range(0..=more.len()), faint);
        }
        assert_eq!(geneval::score(metadata, &more), Ok(scores));
    });
}

#[test]
fn an_object_that_nobody_asked_for_changes_nothing() {
    law(|metadata, detections, scores, rng| {
        let mut more = detections.to_vec();
        more.insert(rng.random_range(0..=more.len()), found("bench", LEFT, 0.99));
        assert_eq!(geneval::score(metadata, &more), Ok(scores));
    });
}

#[test]
fn the_reward_is_one_exactly_if_an_image_is_strictly_right() {
    law(|metadata, _, scores, _| {
        assert_eq!(scores.strict, scores.reward == 1.0);
        assert!(scores.reward <= scores.reward_reference && scores.reward_reference <= 1.0);
        assert_eq!(scores.reward_reference == 1.0, scores.strict);
        // Exact counts, and all else as the official rule has it.
        assert!(!scores.strict || scores.official || !metadata.exclude.is_empty());
    });
}

#[test]
fn a_moved_or_doubled_image_has_the_same_scores() {
    law(|metadata, detections, scores, _| {
        for change in [|corner: f32| corner + 64.0, |corner: f32| 2.0 * corner] {
            let changed: Vec<Detection> = detections
                .iter()
                .map(|found| Detection { corners: found.corners.map(change), ..found.clone() })
                .collect();
            assert_eq!(geneval::score(metadata, &changed), Ok(scores));
        }
    });
}

#[test]
fn a_mirrored_image_shows_the_mirrored_prompt() {
    law(|metadata, detections, scores, _| {
        let mut mirrored = metadata.clone();
        for entry in &mut mirrored.include {
            entry.position = entry.position.map(|(relation, target)| match relation {
                Relation::LeftOf => (Relation::RightOf, target),
                Relation::RightOf => (Relation::LeftOf, target),
                vertical => (vertical, target),
            });
        }
        let mirror = |[x0, y0, x1, y1]: [f32; 4]| [128.0 - x1, y0, 128.0 - x0, y1];
        let images: Vec<Detection> = detections
            .iter()
            .map(|found| Detection { corners: mirror(found.corners), ..found.clone() })
            .collect();
        assert_eq!(geneval::score(&mirrored, &images), Ok(scores));
    });
}
