//! The template of a page. Every text is escaped; the style sheet and the script are files beside
//! this one.
//!
//! A page ends with its sections, because they change with every report, and its images, which
//! stand before them in the file, do not: the style sheet puts them in the order of reading. HTML
//! needs no end tags of `html` and `body`.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::{
    Facts, about,
    charts::{self, Chart, Progress, short},
    distributions, panels,
    pictures::{Picture, SETS},
    tables,
};
use crate::{RunDir, chart::Mark, lines::of_event};

/// The parts of a page, with the links to them. The style sheet hides the link to `distributions` on a
/// page that has none.
const PARTS: [(&str, &str); 5] = [
    ("results", "Results"),
    ("curves", "Curves"),
    ("distributions", "Distributions"),
    ("about", "About"),
    ("settings", "Settings"),
];

/// The beginning of a page: all that never changes.
pub(super) fn opening(title: &str) -> Markup {
    html! {
        (DOCTYPE)
        (PreEscaped("<html lang=\"en\">"))
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            title { (title) }
            style { (PreEscaped(include_str!("page.css"))) }
        }
        header {
            h1 { (title) }
            nav {
                @for (id, name) in PARTS { a href={ "#" (id) } { (name) } " " }
                button type="button" id="theme" hidden { "Dark or light" }
            }
        }
    }
}

/// The end of a page: the script.
pub(super) fn ending() -> Markup {
    html! { script { (PreEscaped(include_str!("page.js"))) } }
}

/// The sections of a run's page.
pub(super) fn sections(
    run: &RunDir,
    facts: &Facts<'_>,
    lines: &[Value],
    pictures: &[Picture],
) -> Markup {
    let progress = Progress::of_run(lines, Some(facts.prompts * facts.images));
    let panels = panels::of_run(lines);
    let (flat, drawn): (Vec<_>, Vec<_>) =
        panels.into_iter().partition(|panel| panel.constant().is_some());
    let marks = marks(facts, lines);
    let charts: Vec<Chart> = drawn
        .into_iter()
        .map(|panel| Chart {
            title: panel.title,
            runs: vec![0; panel.curves.len()],
            curves: panel.curves,
            marks: marks.clone(),
        })
        .collect();
    html! {
        (results(facts, lines))
        @for (set, title) in SETS {
            @if pictures.iter().any(|picture| picture.set == set) { (images(set.name(), title)) }
        }
        section id="curves" {
            h2 { "Curves" }
            (controls())
            (charts::figures(&charts, 0))
            @if !flat.is_empty() {
                p {
                    "Without change: "
                    @for (i, panel) in flat.iter().enumerate() {
                        @if i > 0 { ", " }
                        (panel.title) " " (short(panel.constant().unwrap_or_default()))
                    }
                    "."
                }
            }
            @if !panels::several_updates(lines) {
                p { "An epoch has one update, so ratios and clipping show rounding alone and are not drawn." }
            }
        }
        (distributions::figures(lines))
        section id="about" { h2 { "About" } (about::about(run, facts, lines, &progress)) }
        section id="settings" { h2 { "Settings" } pre { (facts.configuration) } }
        (charts::data(&[(name_of(run), progress)], &charts))
    }
}

/// The name of a run: that of its directory.
pub(super) fn name_of(run: &RunDir) -> String {
    let path = run.path();
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into())
}

/// The numbers before and after training.
fn results(facts: &Facts<'_>, lines: &[Value]) -> Markup {
    let evaluations: Vec<&Value> = of_event(lines, "eval").collect();
    let held_out = |name: &str| {
        let of_set: Vec<&Value> = evaluations.iter().filter_map(|line| line.get(name)).collect();
        (of_set.len() > 1).then(|| [of_set[0], of_set[of_set.len() - 1]])
    };
    html! {
        section id="results" {
            h2 { "Results" }
            p {
                (facts.epochs) " epochs of " (facts.prompts) " prompts with " (facts.images)
                " images each, from " code { (facts.base) } " (" (facts.made_by) ")."
            }
            @if let [first, .., last] = evaluations[..] {
                div .side {
                    @for (name, title) in [("test", "Test prompts"), ("unseen", "Unseen prompts")] {
                        @if let Some([before, after]) = held_out(name) {
                            div {
                                h3 { (title) ", which chose nothing" }
                                (tables::results(before, after))
                            }
                        }
                    }
                    div {
                        h3 { "Validation prompts, after epoch " (last["epoch"]) }
                        (tables::results(first, last))
                    }
                    div { (tables::faults(first, last)) }
                    div { (tables::drift(first, last)) }
                }
            } @else if let [only] = evaluations[..] {
                (tables::results(only, only))
            } @else {
                p { "Nothing has been evaluated yet." }
            }
            (tables::actions(lines))
        }
    }
}

/// The place of a set's images, which the style sheet puts below the heading.
fn images(set: &str, title: &str) -> Markup {
    html! {
        section .images .(set) {
            h2 { (title) }
            div .pair {}
            label hidden { "evaluation " input type="range" min="0" value="0" step="1"; output {} }
        }
    }
}

/// The switches of the curves, for the script.
pub(super) fn controls() -> Markup {
    html! {
        form id="controls" hidden {
            label {
                "against " select name="x" {
                    option value="epoch" { "epochs" }
                    option value="images" { "images" }
                    option value="seconds" { "time of training" }
                }
            }
            label { input type="checkbox" name="log"; " logarithm" }
            label { "smoothing " input type="range" name="smooth" min="0" max="0.95" step="0.05" value="0"; }
            button type="button" id="csv" { "Save as CSV" }
        }
    }
}

/// The best evaluation and the actions of rules, as marks of the curves.
fn marks(facts: &Facts<'_>, lines: &[Value]) -> Vec<Mark> {
    let best = facts.best.map(|best| Mark {
        x: best.epoch as f64,
        kind: "best",
        text: format!("best evaluation: {} {:.4}", facts.best_by, best.value),
    });
    let action = |line: &Value| {
        let text = line["reason"].as_str().unwrap_or_default().to_owned();
        Some(Mark { x: line["epoch"].as_f64()?, kind: "action", text })
    };
    best.into_iter().chain(of_event(lines, "action").filter_map(action)).collect()
}
