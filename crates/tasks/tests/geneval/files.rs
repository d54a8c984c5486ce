//! Files of detections and of metadata, and the table.

use serde_json::{Value, json};
use tasks::geneval::{self, Color, Detection, LinesError, Metadata};

use crate::{LEFT, found, metadata, painted};

/// The answers to a file, or the error as text.
pub fn answers(lines: &str) -> Result<String, String> {
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
        (
            "line 3: detections[0] (`bench`)",
            "110.5",
            LINE.replace("[10, 20, 110.5, 90]", "[10, 90, 110.5, 20]"),
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

/// As many prompts of every kind as the benchmark has, each of its own text.
fn as_many_as_published() -> String {
    let counts = [
        ("single_object", 80),
        ("two_object", 99),
        ("counting", 80),
        ("colors", 94),
        ("position", 100),
        ("color_attr", 100),
    ];
    let of_kind = |(tag, count): (&str, usize)| {
        let line = LINES.lines().find(|line| line.contains(&format!("\"{tag}\"")));
        let mut line: Value =
            serde_json::from_str(line.expect("a line of every kind")).expect("JSON");
        let text = line["prompt"].as_str().expect("a text").to_owned();
        let numbered = move |number| {
            line["prompt"] = format!("{text} {number}").into();
            format!("{line}\n")
        };
        (0..count).map(numbered).collect::<String>()
    };
    counts.into_iter().map(of_kind).collect()
}

#[test]
fn as_many_prompts_as_published_make_a_complete_table() {
    let prompts = assert_whole(&as_many_as_published());
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
    assert_eq!(summary.overall, 0.625);
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
