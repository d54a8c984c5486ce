//! Scenes whose scores are known.

use serde_json::json;
use tasks::{
    geneval::{
        self, COUNTING_THRESHOLD, Channels, Color, Detection, FailedPosition, Metadata, THRESHOLD,
    },
    image::Image,
};

use crate::{LEFT, RIGHT, files::answers, found, metadata, painted, scores};

#[test]
fn an_image_without_detections_shows_nothing() {
    let plain = metadata("single_object", json!([{"class": "bench", "count": 1}]));
    assert_eq!(scores(&plain, &[]), (false, false, 0.0, 0.0));
    let red = metadata("colors", json!([{"class": "bench", "count": 1, "color": "red"}]));
    assert_eq!(scores(&red, &[]), (false, false, 0.0, 0.0));
    assert_eq!(scores(&plain, &[found("dog", LEFT, 0.9)]), (false, false, 0.0, 0.0));
    assert_eq!(scores(&metadata("counting", json!([])), &[]), (true, true, 0.0, 0.0));
}

#[test]
fn overlapping_detections_all_count() {
    let one = metadata("single_object", json!([{"class": "bench", "count": 1}]));
    let twice = [found("bench", LEFT, 0.8), found("bench", LEFT, 0.7)];
    assert_eq!(scores(&one, &twice), (true, false, 0.0, 0.0));
    let two = metadata("two_object", json!([{"class": "bench", "count": 2}]));
    assert_eq!(scores(&two, &twice), (true, true, 1.0, 1.0));
}

#[test]
fn a_score_at_the_threshold_does_not_count() {
    let entry = json!([{"class": "bench", "count": 1}]);
    for (tag, threshold) in [
        ("single_object", THRESHOLD),
        ("two_object", THRESHOLD),
        ("counting", COUNTING_THRESHOLD),
        ("colors", THRESHOLD),
        ("position", THRESHOLD),
        ("color_attr", THRESHOLD),
    ] {
        let one = metadata(tag, entry.clone());
        let official = |score| scores(&one, &[found("bench", LEFT, score)]).0;
        assert!(!official(threshold) && official(threshold.next_up()), "{tag}");
    }
    // The detector's scores are f32: this is the f32 nearest to 0.3, written as an f64.
    let line = r#"{"metadata":{"tag":"colors","include":[{"class":"bench","count":1}],"prompt":""},"detections":[{"class":"bench","box":[0,0,1,1],"score":0.30000001192092896}]}"#;
    assert!(answers(line).expect("an answer").contains(r#""official":false"#));
}

#[test]
fn at_most_sixteen_objects_of_a_class_count() {
    let all: Vec<Detection> = (0..20).map(|_| found("bench", LEFT, 0.95)).collect();
    let asked = |count| metadata("counting", json!([{"class": "bench", "count": count}]));
    assert_eq!(scores(&asked(16), &all), (true, true, 1.0, 1.0));
    assert_eq!(scores(&asked(17), &all), (false, false, 16.0 / 17.0, 16.0 / 17.0));
    assert_eq!(scores(&asked(1), &all), (true, false, -14.0, -14.0));
    let mut both = all;
    both.extend((0..3).map(|_| found("dog", LEFT, 0.95)));
    let dogs = metadata("counting", json!([{"class": "dog", "count": 3}]));
    assert_eq!(scores(&dogs, &both), (true, true, 1.0, 1.0));
}

#[test]
fn the_official_rule_looks_at_the_most_confident_objects_only() {
    let red = metadata("colors", json!([{"class": "bench", "count": 1, "color": "red"}]));
    let sure = [painted("bench", 0.5, Color::Blue), painted("bench", 0.8, Color::Red)];
    assert_eq!(scores(&red, &sure), (true, false, 0.0, 0.0));
    let unsure = [painted("bench", 0.5, Color::Red), painted("bench", 0.8, Color::Blue)];
    assert_eq!(scores(&red, &unsure), (false, false, 0.0, 0.0));
    // Of equal scores the later one is first.
    let tie = [painted("bench", 0.5, Color::Blue), painted("bench", 0.5, Color::Red)];
    assert!(scores(&red, &tie).0);
}

#[test]
fn colors_count_one_by_one() {
    let two = metadata("colors", json!([{"class": "cup", "count": 2, "color": "pink"}]));
    let cups = |a, b| [painted("cup", 0.8, a), painted("cup", 0.9, b)];
    assert_eq!(scores(&two, &cups(Color::Pink, Color::Pink)), (true, true, 1.0, 1.0));
    assert_eq!(scores(&two, &cups(Color::Pink, Color::Red)), (false, false, 0.75, 0.75));
    assert_eq!(scores(&two, &cups(Color::White, Color::Red)), (false, false, 0.5, 0.5));
    assert_eq!(scores(&two, &[painted("cup", 0.9, Color::Pink)]), (false, false, 0.25, 0.25));
}

/// A dog, and a cat left of it.
fn placed() -> Metadata {
    metadata(
        "position",
        json!([{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]),
    )
}

#[test]
fn a_wrong_place_adds_a_zero_and_in_the_public_servers_also_a_one() {
    let right = [found("cat", LEFT, 0.8), found("dog", RIGHT, 0.9)];
    assert_eq!(scores(&placed(), &right), (true, true, 1.0, 1.0));
    let wrong = [found("cat", RIGHT, 0.8), found("dog", LEFT, 0.9)];
    assert_eq!(scores(&placed(), &wrong), (false, false, 2.0 / 3.0, 3.0 / 4.0));
    let by = |rule| geneval::reward(&placed(), &wrong, rule).expect("scores").score;
    assert_eq!(by(FailedPosition::default()), 2.0 / 3.0);
    assert_eq!(by(FailedPosition::ZeroAndOne), 3.0 / 4.0);
}

#[test]
fn an_object_placed_relative_to_one_that_was_not_found_is_wrong() {
    let cat = [found("cat", LEFT, 0.8)];
    assert_eq!(scores(&placed(), &cat), (false, false, 1.0 / 3.0, 1.0 / 3.0));
    // Two dogs are one too many for the reward alone.
    let dogs = [found("cat", LEFT, 0.8), found("dog", RIGHT, 0.9), found("dog", RIGHT, 0.4)];
    assert_eq!(scores(&placed(), &dogs), (true, false, 1.0 / 3.0, 1.0 / 3.0));
}

#[test]
fn every_pair_of_objects_must_be_in_place() {
    let many = metadata(
        "position",
        json!([{"class": "dog", "count": 2}, {"class": "cat", "count": 2, "position": ["left of", 0]}]),
    );
    let at = |class, x: f32| found(class, [x, 0.0, x + 10.0, 10.0], 0.5 + x / 1000.0);
    let pairs = |cats: [f32; 2], dogs: [f32; 2]| {
        let cats = cats.map(|x| at("cat", x));
        scores(&many, &[cats, dogs.map(|x| at("dog", x))].concat()).0
    };
    assert!(pairs([0.0, 50.0], [100.0, 150.0]));
    assert!(!pairs([0.0, 120.0], [100.0, 150.0]), "one cat is right of a dog");
    assert!(!pairs([50.0, 60.0], [0.0, 150.0]), "the cats are right of one dog");
}

#[test]
fn after_a_wrong_color_no_place_is_judged() {
    let both = metadata(
        "position",
        json!([{"class": "dog", "count": 1},
            {"class": "cat", "count": 1, "color": "black", "position": ["left of", 0]}]),
    );
    let dog = painted("dog", 0.9, Color::Brown);
    let white = [dog.clone(), painted("cat", 0.9, Color::White)];
    assert_eq!(scores(&both, &white), (false, false, 2.0 / 3.0, 2.0 / 3.0));
    // Right colour, wrong place: one term more.
    let black = [dog, painted("cat", 0.9, Color::Black)];
    assert_eq!(scores(&both, &black), (false, false, 3.0 / 4.0, 4.0 / 5.0));
}

#[test]
fn exclusions_matter_to_the_official_rule_alone() {
    let without = metadata("counting", json!([{"class": "clock", "count": 2}]));
    let with = Metadata::from_value(&json!({
        "tag": "counting", "include": [{"class": "clock", "count": 2}],
        "exclude": [{"class": "clock", "count": 3}, {"class": "cup", "count": 1}], "prompt": "two clocks"
    }))
    .expect("metadata");
    let clocks = |count| vec![found("clock", LEFT, 0.95); count];
    assert!(scores(&with, &clocks(2)).0);
    assert_eq!(scores(&with, &clocks(3)), (false, false, 0.5, 0.5));
    assert_eq!(scores(&without, &clocks(3)), (true, false, 0.5, 0.5));
    let cup = [clocks(2), vec![found("cup", LEFT, 0.95)]].concat();
    assert_eq!(scores(&with, &cup), (false, true, 1.0, 1.0));
    // Below the threshold of counting nothing is there.
    let faint = [clocks(2), vec![found("cup", LEFT, 0.5)]].concat();
    assert!(scores(&with, &faint).0);
}

/// A detector that knows one class: images that are red are stop signs.
fn stop_signs(image: &Image) -> Vec<Detection> {
    let [red, _, blue] = image.rgb(0, 0);
    if red > blue { vec![found("stop sign", LEFT, 0.9)] } else { vec![] }
}

#[test]
fn swapped_channels_change_the_image_that_the_detector_sees() {
    let sign = metadata("single_object", json!([{"class": "stop sign", "count": 1}]));
    let pixels: Vec<f32> = [[0.9; 6], [0.2; 6], [0.1; 6]].concat();
    let image = Image { channels: 3, height: 2, width: 3, pixels };
    let seen = |channels: Channels| stop_signs(&channels.for_detector(&image));
    assert_eq!(Channels::default(), Channels::Official);
    assert_eq!(scores(&sign, &seen(Channels::Official)), (true, true, 1.0, 1.0));
    assert_eq!(scores(&sign, &seen(Channels::RedBlueSwapped)), (false, false, 0.0, 0.0));
    let swapped = Channels::RedBlueSwapped.for_detector(&image);
    assert_eq!(swapped.pixels, [[0.1; 6], [0.2; 6], [0.9; 6]].concat());
    assert_eq!(Channels::RedBlueSwapped.for_detector(&swapped), image);
    let grey = Image { channels: 1, height: 1, width: 3, pixels: vec![0.1, 0.2, 0.3] };
    assert_eq!(Channels::RedBlueSwapped.for_detector(&grey), grey);
}

#[test]
fn options_have_names() {
    for (name, rule) in
        [("zero", FailedPosition::Zero), ("zero_and_one", FailedPosition::ZeroAndOne)]
    {
        assert_eq!(serde_json::from_value::<FailedPosition>(json!(name)).expect("a name"), rule);
    }
    for (name, order) in
        [("official", Channels::Official), ("red_blue_swapped", Channels::RedBlueSwapped)]
    {
        assert_eq!(serde_json::from_value::<Channels>(json!(name)).expect("a name"), order);
    }
}
