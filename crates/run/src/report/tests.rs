//! Tests of whole pages.

use serde_json::json;

use super::*;
use crate::{Expected, Program, SampleSet};

const FACTS: Facts<'_> = Facts {
    epochs: 4,
    prompts: 2,
    images: 3,
    base: "<script>",
    made_by: "me",
    best_by: "overall",
    best: Some(Best { epoch: 2, value: 0.75 }),
    configuration: "a = \"<b>\"",
};

/// A run in a directory whose name somebody who knows HTML chose.
fn run(home: &Path) -> RunDir {
    let program: Program =
        serde_json::from_value(json!({"version": "1", "revision": "a<b", "backend": "flex",
        "command": ["flow-grpo", "a b"], "machine": "<cpu>", "started": 951_782_400}))
        .expect("a program");
    let mut run = RunDir::create(&home.join("a<b"), program).expect("created");
    run.record_after(None, Expected { event: "epoch", every: 1 }).expect("recorded");
    run.describe(&json!({"seed": 1})).expect("described");
    run
}

fn evaluate(run: &mut RunDir, epoch: usize, overall: f64) {
    std::fs::write(run.samples(SampleSet::Validation, epoch), format!("image {epoch}"))
        .expect("written");
    let line = json!({"event": "eval", "epoch": epoch, "overall": overall, "overall_interval": [0.1, 0.9],
        "tags": {"a & \"b\"/c": overall}, "intervals": {"a & \"b\"/c": [0.2, 0.8]}, "images": {"a & \"b\"/c": 50},
        "rewards": {"<x>": 1.0}, "faults": {"a & \"b\"/c": {"colors": 0.5}},
        "monitors": {"diversity": 0.5}, "drift": {"diversity": 0.25}});
    run.append(&line).expect("appended");
}

fn train(run: &mut RunDir, epoch: usize) {
    let line = json!({"event": "epoch", "epoch": epoch, "reward": 0.5, "updates": 1, "kl_weight": 0.1,
        "learning_rate": epoch, "clipped_low": 0.25, "time": {"seconds": 90.0, "peak_memory_mib": 64}});
    run.append(&line).expect("appended");
}

fn page(run: &RunDir) -> String {
    std::fs::read_to_string(run.path().join(PAGE)).expect("a page")
}

/// The data URL of the image of an epoch.
fn image(epoch: usize) -> String {
    pictures::data_url(format!("image {epoch}").as_bytes())
}

#[test]
fn texts_are_escaped_and_numbers_stand_in_their_places() {
    let home = tempfile::tempdir().expect("a directory");
    let mut run = run(home.path());
    evaluate(&mut run, 0, 0.25);
    train(&mut run, 1);
    run.append(&json!({"event": "action", "epoch": 1, "reason": "x < 3"})).expect("appended");
    train(&mut run, 2);
    evaluate(&mut run, 2, 0.75);
    std::fs::remove_file(run.samples(SampleSet::Validation, 2)).expect("removed");
    Report::default().write(&run, &FACTS).expect("written");
    let page = page(&run);
    for part in [
        "4 epochs of 2 prompts with 3 images each, from <code>&lt;script&gt;</code> (me).",
        "<td>a &amp; &quot;b&quot;/c</td><td>50</td><td>0.250 <small>0.200\u{2013}0.800</small></td>",
        "<td>a &amp; &quot;b&quot;/c</td><td>50 → 50</td>",
        "<td>&lt;x&gt;</td><td></td><td>1.000</td><td>1.000</td>",
        "<td>diversity</td><td>0.5000</td><td>0.5000</td><td>0.25</td>",
        "<li>epoch 1: x &lt; 3</li>",
        "<title>x &lt; 3</title>",
        "<title>best evaluation: overall 0.7500</title>",
        "<pre>a = &quot;&lt;b&gt;&quot;</pre>",
        "<title>a&lt;b</title>",
        "version 1 (a&lt;b), flex in f32, &lt;cpu&gt;, 2000-02-29 00:00 UTC<br><code>flow-grpo &#39;a b&#39;</code>",
        "epoch 2: overall 0.7500",
        "2 epochs with 12 images in 3 min 0 s, without evaluations",
        "64 MiB",
        "Without change: share of images by their first fault 0.5000, rewards on validation prompts 1.000, ",
        "epoch 2: the image cannot be read (",
    ] {
        let part = part.replace("&#39;", "'");
        assert!(page.contains(&part), "`{part}` is missing in:\n{page}");
    }
    assert!(!page.contains("stopped by the clip"), "one update: nothing is clipped");
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
}

#[test]
fn the_page_needs_no_network() {
    let home = tempfile::tempdir().expect("a directory");
    let mut run = run(home.path());
    (0..3).for_each(|epoch| evaluate(&mut run, epoch, 0.5));
    Report::default().write(&run, &FACTS).expect("written");
    let page = page(&run).replace("http://www.w3.org/2000/svg", "");
    assert_eq!(page.matches(" src=\"data:image/png;base64,").count(), 3);
    assert_eq!(page.matches(" src=").count(), 3);
    assert!(!page.contains("http") && !page.contains("@import") && !page.contains("url("));
}

#[test]
fn the_navigation_links_to_every_section_and_to_nothing_else() {
    let home = tempfile::tempdir().expect("a directory");
    let mut run = run(home.path());
    run.append(&json!({"event": "epoch", "epoch": 1, "reward": 0.5,
        "histograms": {"reward": {"low": 0.0, "high": 1.0, "counts": [1, 2]}}}))
        .expect("appended");
    Report::default().write(&run, &FACTS).expect("written");
    let page = page(&run);
    let names = |before: &str| -> std::collections::BTreeSet<String> {
        page.split(before).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.into())).collect()
    };
    let sections = names("<section id=\"");
    assert!(sections.contains("distributions"), "{sections:?}");
    assert_eq!(names("<a href=\"#"), sections);
}

#[test]
fn a_run_without_evaluations_has_a_page() {
    let home = tempfile::tempdir().expect("a directory");
    let mut run = run(home.path());
    Report::default().write(&run, &FACTS).expect("written");
    assert!(page(&run).contains("Nothing has been evaluated yet."));
    train(&mut run, 1);
    train(&mut run, 2);
    Report::default().write(&run, &FACTS).expect("written");
    assert!(page(&run).contains("learning rate"));
}

#[test]
fn images_are_added_and_not_read_or_drawn_again() {
    let home = tempfile::tempdir().expect("a directory");
    let mut run = run(home.path());
    let mut report = Report::default();
    evaluate(&mut run, 0, 0.25);
    report.update(&run, &FACTS).expect("written");
    let first = page(&run);
    // What is on the page needs no file, and its bytes are left as they are.
    std::fs::remove_file(run.samples(SampleSet::Validation, 0)).expect("removed");
    evaluate(&mut run, 2, 0.75);
    report.update(&run, &FACTS).expect("written");
    let second = page(&run);
    let kept = first.find("<section").expect("a section");
    assert_eq!(first[..kept], second[..kept]);
    assert!(second.contains(&image(0)) && second.contains(&image(2)), "{second}");
    assert_eq!(second.matches("id=\"data\"").count(), 1, "the sections are written once");
    // The same run, reported at once.
    std::fs::write(run.samples(SampleSet::Validation, 0), "image 0").expect("written");
    Report::default().write(&run, &FACTS).expect("written");
    assert_eq!(page(&run), second);
    // A page that somebody else has changed is written as a whole.
    std::fs::write(run.path().join(PAGE), "x").expect("written");
    report.update(&run, &FACTS).expect("written");
    assert_eq!(page(&run), second);
}

#[test]
fn a_long_run_writes_few_bytes_and_shows_few_images() {
    let home = tempfile::tempdir().expect("a directory");
    let mut run = run(home.path());
    let mut report = Report::default();
    let (mut most, mut whole) = (0, 0);
    for epoch in 0..=150 {
        evaluate(&mut run, epoch, 0.5);
        train(&mut run, epoch + 1);
        let before = report.written.as_ref().map_or(0, |written| written.pictures.len());
        report.update(&run, &FACTS).expect("written");
        let after = report.written.as_ref().map_or(0, |written| written.pictures.len());
        whole += usize::from(after != before + 1);
        most = most.max(page(&run).matches("<img").count());
    }
    assert_eq!(most, 1 + 2 * SHOWN);
    assert!(whole <= 8, "the page was written as a whole {whole} times");
    report.write(&run, &FACTS).expect("written");
    assert_eq!(page(&run).matches("<img").count(), 1 + SHOWN);
    assert!(page(&run).contains(&image(150)));
}
