//! GenEval's scorer: corner cases, laws over random scenes, files.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tasks::{
    geneval::{
        self, COUNTING_THRESHOLD, Channels, Class, Color, Detection, FailedPosition, LinesError,
        Metadata, Scores, THRESHOLD,
    },
    image::Image,
    shapes::Relation,
};

/// Metadata of one kind with these entries.
fn metadata(tag: &str, include: Value) -> Metadata {
    Metadata::from_value(&json!({"tag": tag, "include": include, "prompt": "a photo"}))
        .expect("metadata")
}

fn found(class: &str, corners: [f32; 4], score: f32) -> Detection {
    Detection { class: Class::named(class).expect("a class"), corners, score, color: None }
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

/// The answers to a file, or the error as text.
fn answers(lines: &str) -> Result<String, String> {
    let mut output = Vec::new();
    geneval::score_lines(lines.as_bytes(), &mut output).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(output).expect("JSON"))
}

/// A line of detections: a red bench was asked for.
const LINE: &str = r#"{"metadata": {"tag": "colors", "include": [{"class": "bench", "count": 1, "color": "red"}], "prompt": "a photo of a red bench"}, "detections": [{"class": "bench", "box": [10, 20, 110.5, 90], "score": 0.91, "color": "red"}]}"#;

#[test]
fn every_line_has_an_answer() {
    let right = "{\"official\":true,\"strict\":true,\"reward\":1.0,\"reward_reference\":1.0}\n";
    let wrong = "{\"official\":false,\"strict\":false,\"reward\":0.5,\"reward_reference\":0.5}\n";
    let blue = LINE.replace(r#""color": "red"}]}"#, r#""score": 0.91, "color": "blue"}]}"#);
    let blue = blue.replacen(r#""score": 0.91, "#, "", 1);
    // Byte order mark, line ends of Windows, empty lines, no line end at the end.
    let file = format!("\u{feff}{LINE}\r\n\r\n  \n{blue}");
    assert_eq!(answers(&file).expect("two answers"), format!("{right}{wrong}"));
    // Keys in any order, and COCO's names.
    let coco = r#"{"detections":[{"score":0.5,"class":"mouse","box":[0,0,1,1]}],"metadata":{"prompt":"","include":[{"count":1,"class":"computer mouse"}],"tag":"single_object"}}"#;
    assert_eq!(answers(coco).expect("an answer"), right);
}

#[test]
fn every_bad_line_is_named_with_its_reason() {
    let cases = [
        ("line 3, column", "unknown class `sofa`", LINE.replace("\"bench\"", "\"sofa\"")),
        ("line 3, column", "unknown variant `shape`", LINE.replace("colors", "shape")),
        ("line 3, column", "unknown variant `cyan`", LINE.replace("\"red\"", "\"cyan\"")),
        ("line 3, column", "nonzero", LINE.replace("\"count\": 1", "\"count\": 0")),
        ("line 3, column", "`colour`", LINE.replace("\"color\"", "\"colour\"")),
        (
            "line 3, column",
            "missing field `box`",
            LINE.replace("\"box\": [10, 20, 110.5, 90], ", ""),
        ),
        (
            "line 3, column",
            "missing field `detections`",
            r#"{"metadata": {"tag": "colors", "include": [], "prompt": ""}}"#.to_owned(),
        ),
        (
            "line 3, column",
            "an array of length 4",
            LINE.replace("[10, 20, 110.5, 90]", "[10, 20, 110.5]"),
        ),
        ("line 3, column", "", LINE.replace("[10, 20, 110.5, 90]", "[10, 20, 110.5, 90, 0.9]")),
        ("line 3, column", "", LINE[..40].to_owned()),
        (
            "line 3: detections[0] (`bench`)",
            "110.5",
            LINE.replace("[10, 20, 110.5, 90]", "[110.5, 20, 10, 90]"),
        ),
        ("line 3: detections[0] (`bench`)", "all of them finite", LINE.replace("110.5", "1e39")),
        ("line 3, column", "number out of range", LINE.replace("110.5", "1e999")),
        ("line 3: detections[0] (`bench`)", "score 91", LINE.replace("0.91", "91")),
        (
            "line 3: detections[0] (`bench`)",
            "no `color`",
            LINE.replace(r#", "color": "red"}]}"#, "}]}"),
        ),
        (
            "line 3: include[0]",
            "an entry before it",
            LINE.replace(r#""color": "red"}], "p"#, r#""position": ["above", 0]}], "p"#),
        ),
        (
            "line 3, column",
            "unknown variant `over`",
            LINE.replace(r#""color": "red"}], "p"#, r#""position": ["over", 0]}], "p"#),
        ),
    ];
    for (place, reason, bad) in cases {
        let error = answers(&format!("{LINE}\n\n{bad}\n{LINE}\n")).expect_err(&bad);
        assert!(error.starts_with(place) && error.contains(reason), "{error}");
        assert!(!error.contains("line 1"), "{error}");
    }
    assert_eq!(answers("\n \n").expect_err("no line"), "there is no line to read");
}

#[test]
fn a_color_is_needed_only_where_it_decides() {
    let red = metadata("colors", json!([{"class": "cup", "count": 2, "color": "red"}]));
    let bare = found("cup", LEFT, 0.9);
    // One cup is too few whatever its colour, and other classes have none to give.
    assert!(geneval::score(&red, std::slice::from_ref(&bare)).is_ok());
    assert!(geneval::score(&red, &[bare.clone(), found("dog", LEFT, 0.9)]).is_ok());
    let third = [painted("cup", 0.9, Color::Red), painted("cup", 0.8, Color::Red)];
    assert!(geneval::score(&red, &[&third[..], &[found("cup", LEFT, 0.5)]].concat()).is_ok());
    let error = geneval::score(&red, &[third[0].clone(), bare]).expect_err("no colour");
    assert!(error.to_string().starts_with("detections[1] (`cup`) has no `color`"), "{error}");
}

/// Reads newlines, or `a` for ever.
struct Endless;

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'a');
        Ok(buffer.len())
    }
}

/// Accepts nothing.
struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_endless_line_and_a_full_disk_are_errors() {
    let endless = geneval::score_lines(std::io::BufReader::new(Endless), std::io::sink());
    assert!(matches!(endless, Err(LinesError::TooLong { line: 1 })), "{endless:?}");
    let full = geneval::score_lines(LINE.as_bytes(), Full);
    assert!(matches!(full, Err(LinesError::Write { .. })), "{full:?}");
    let latin = geneval::score_lines(&b"{\"metadata\": \"\xe9\"}"[..], std::io::sink());
    assert!(matches!(latin, Err(LinesError::Malformed { line: 1, .. })), "{latin:?}");
}

/// One line per kind of prompt, in the format of the published file.
const LINES: &str = r#"{"tag": "single_object", "include": [{"class": "hair drier", "count": 1}], "prompt": "a photo of a hair drier"}
{"tag": "two_object", "include": [{"class": "sheep", "count": 1}, {"class": "tv remote", "count": 1}], "prompt": "a photo of a sheep and a tv remote"}
{"tag": "counting", "include": [{"class": "kite", "count": 4}], "exclude": [{"class": "kite", "count": 5}], "prompt": "a photo of four kites"}
{"tag": "colors", "include": [{"class": "potted plant", "count": 1, "color": "purple"}], "prompt": "a photo of a purple potted plant"}
{"tag": "position", "include": [{"class": "tie", "count": 1}, {"class": "frisbee", "count": 1, "position": ["right of", 0]}], "prompt": "a photo of a frisbee right of a tie"}
{"tag": "color_attr", "include": [{"class": "oven", "count": 1, "color": "orange"}, {"class": "skis", "count": 1, "color": "white"}], "prompt": "a photo of an orange oven and a white skis"}
"#;

/// Checks that a file of metadata keeps everything that it says.
fn assert_whole(lines: &str) -> Vec<Metadata> {
    let prompts = geneval::read_metadata(lines.as_bytes()).expect("metadata");
    for (line, metadata) in lines.lines().zip(&prompts) {
        let whole: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(serde_json::to_value(metadata).expect("JSON"), whole);
        assert_eq!(Metadata::from_value(&whole).as_ref(), Ok(metadata));
    }
    assert_eq!(prompts.len(), lines.lines().count());
    prompts
}

#[test]
fn a_file_of_metadata_is_read_and_written_as_it_was() {
    assert_whole(LINES);
    let error = |lines: &str| geneval::read_metadata(lines.as_bytes()).expect_err("bad");
    let bad = LINES.replace("frisbee", "disc");
    assert!(error(&bad).to_string().starts_with("line 5, column"), "{}", error(&bad));
    let later = LINES.replace("\"right of\", 0", "\"right of\", 1");
    assert!(error(&later).to_string().starts_with("line 5: include[1]"), "{}", error(&later));
    assert!(matches!(error(""), LinesError::Empty));
}

#[test]
#[ignore = "needs GENEVAL_METADATA, the path of the published evaluation_metadata.jsonl"]
fn the_553_published_prompts_are_read_and_make_a_complete_table() {
    let path = std::env::var_os("GENEVAL_METADATA").expect("GENEVAL_METADATA is set");
    let prompts = assert_whole(&std::fs::read_to_string(path).expect("the published file"));
    assert_eq!(prompts.len(), 553);
    let mut table = geneval::Table::default();
    for metadata in prompts.iter().flat_map(|metadata| std::iter::repeat_n(metadata, 4)) {
        assert!(!table.summary().is_some_and(|summary| summary.complete));
        table.add(metadata, geneval::score(metadata, &[]).expect("scores"));
    }
    assert!(table.summary().is_some_and(|summary| summary.complete));
}

#[test]
fn the_overall_number_is_the_mean_over_kinds_not_over_images() {
    let [one, counting] = ["single_object", "counting"]
        .map(|tag| metadata(tag, json!([{"class": "clock", "count": 1}])));
    let other = metadata("single_object", json!([{"class": "cup", "count": 1}]));
    let clock = [found("clock", LEFT, 0.95)];
    let mut table = geneval::Table::default();
    assert_eq!(table.summary(), None);
    let images: [(&Metadata, &[Detection]); 5] =
        [(&one, &clock), (&one, &[]), (&other, &clock), (&other, &[]), (&counting, &clock)];
    for (metadata, detections) in images {
        table.add(metadata, geneval::score(metadata, detections).expect("scores"));
    }
    let summary = table.summary().expect("images");
    assert_eq!(summary.overall, (0.25 + 1.0) / 2.0);
    assert!(!summary.complete);
    let text = summary.to_string();
    assert!(text.contains("overall 0.62500") && text.contains("not all"), "{text}");
    let row = serde_json::to_value(&summary).expect("JSON")["tags"]["single_object"].take();
    assert_eq!(
        row,
        json!({"prompts": 2, "images": 4, "official": 0.25, "prompts_right": 0.5, "strict": 0.25,
            "reward": 0.25, "reward_reference": 0.25})
    );
}
