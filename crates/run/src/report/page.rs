//! The page of a run: tables, images as data URLs, curves, and the configuration.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::{RunDir, SampleSet, lines::of_event};

/// The facts of a run that its records do not tell.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Number of epochs of the whole run.
    pub epochs: usize,
    /// Number of prompts of an epoch.
    pub prompts: usize,
    /// Number of images of a prompt.
    pub images: usize,
    /// The base model, as configured.
    pub base: &'a str,
    /// Origin of the base model.
    pub made_by: &'a str,
    /// The configuration, as TOML.
    pub configuration: &'a str,
}

/// Sets that choose nothing, with their headings.
const HELD_OUT: [(SampleSet, &str); 2] = [
    (SampleSet::Test, "Test prompts: they chose nothing"),
    (SampleSet::Unseen, "Unseen prompts: they chose nothing"),
];

/// The page of a run with these metrics and curves.
pub(super) fn of_run(run: &RunDir, facts: &Facts<'_>, lines: &[Value], svg: &str) -> String {
    let evaluations: Vec<&Value> = of_event(lines, "eval").collect();
    let (Some(first), Some(last)) = (evaluations.first(), evaluations.last()) else {
        return page(run, &html! { p { "Nothing has been evaluated yet." } });
    };
    let body = html! {
        p {
            (facts.epochs) " epochs of " (facts.prompts) " prompts with " (facts.images)
            " images each, from " code { (facts.base) } " (" (facts.made_by) ")."
        }
        @for (set, title) in HELD_OUT { (held_out(run, set, title, &evaluations)) }
        h2 { "Validation prompts: they choose the best checkpoint" }
        (results(first, last))
        (images(run, SampleSet::Validation, &evaluations))
        h2 { "Drift of the images" }
        (drift(first, last))
        (actions(lines))
        h2 { "Curves" }
        (PreEscaped(svg))
        h2 { "Configuration" }
        pre { (facts.configuration) }
    };
    page(run, &body)
}

fn page(run: &RunDir, body: &Markup) -> String {
    let title = run.path().display().to_string();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (title) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { (title) }
                (body)
                script { (PreEscaped(include_str!("slider.js"))) }
            }
        }
    };
    page.into_string()
}

/// The results on held-out prompts, if they were evaluated twice.
fn held_out(run: &RunDir, set: SampleSet, title: &str, evaluations: &[&Value]) -> Markup {
    let name = set.name();
    let lines: Vec<&Value> =
        evaluations.iter().copied().filter(|line| line.get(name).is_some()).collect();
    let [first, .., last] = lines[..] else { return html! {} };
    html! {
        h2 { (title) }
        (results(&first[name], &last[name]))
        (images(run, set, &lines))
    }
}

/// A table of accuracies and rewards before and after training.
fn results(before: &Value, after: &Value) -> Markup {
    let shown = |value: &Value| value.as_f64().map_or("-".to_owned(), |x| format!("{x:.3}"));
    let fields = |object: &'static str| {
        let found = after[object].as_object().into_iter().flatten();
        found.map(move |(name, value)| (name.as_str(), &before[object][name], value))
    };
    let overall = after.get("overall").map(|value| ("overall", &before["overall"], value));
    html! {
        table {
            tr { th {} th { "before" } th { "after" } }
            @for (name, before, after) in fields("tags").chain(fields("rewards")).chain(overall) {
                tr { td { (name) } td { (shown(before)) } td { (shown(after)) } }
            }
        }
    }
}

/// A table of the monitors of the base model's images and of the newest ones, with their ratio.
fn drift(before: &Value, after: &Value) -> Markup {
    let shown = |line: &Value, name: &str| {
        line["monitors"][name].as_f64().map_or("-".to_owned(), |x| format!("{x:.3e}"))
    };
    html! {
        table {
            tr { th {} th { "base" } th { "now" } th { "now/base" } }
            @for (name, ratio) in after["drift"].as_object().into_iter().flatten() {
                tr {
                    td { (name) }
                    td { (shown(before, name)) }
                    td { (shown(after, name)) }
                    td { (format!("{:.2}", ratio.as_f64().unwrap_or(0.0))) }
                }
            }
        }
    }
}

/// The actions of the rules, if there were any.
fn actions(lines: &[Value]) -> Markup {
    let actions: Vec<&Value> = of_event(lines, "action").collect();
    html! {
        @if !actions.is_empty() {
            h2 { "What the rules did" }
            ul {
                @for line in actions {
                    li { "epoch " (line["epoch"]) ": " (line["reason"].as_str().unwrap_or_default()) }
                }
            }
        }
    }
}

/// The first evaluation's images beside those of a later one, chosen by a slider.
fn images(run: &RunDir, set: SampleSet, evaluations: &[&Value]) -> Markup {
    let epochs: Vec<u64> = evaluations.iter().filter_map(|line| line["epoch"].as_u64()).collect();
    let [first, later @ ..] = &epochs[..] else { return html! {} };
    let shown = spread(later, SHOWN);
    html! {
        div .pair {
            figure {
                (image(run, set, *first))
                figcaption { "epoch " (first) }
            }
            @if let Some(last) = shown.len().checked_sub(1) {
                figure .slider {
                    @for epoch in shown {
                        div .frame data-name={ "epoch " (epoch) } { (image(run, set, epoch)) }
                    }
                    figcaption {
                        input type="range" min="0" max=(last) value=(last) aria-label="evaluation";
                        " "
                        output {}
                    }
                }
            }
        }
    }
}

/// The sample grid after an epoch, or the reason why it cannot be shown.
fn image(run: &RunDir, set: SampleSet, epoch: u64) -> Markup {
    match std::fs::read(run.samples(set, epoch as usize)) {
        Ok(png) => html! {
            img alt={ "epoch " (epoch) } src={ "data:image/png;base64," (STANDARD.encode(png)) };
        },
        Err(error) => html! { p { "epoch " (epoch) ": the image cannot be read (" (error) ")" } },
    }
}

/// Number of evaluations behind a slider: all evaluations of a long run would make a page of
/// hundreds of megabytes. All are in `samples/`.
const SHOWN: usize = 16;

/// At most `count` of some epochs, evenly spread, including the last.
fn spread(epochs: &[u64], count: usize) -> Vec<u64> {
    let n = epochs.len();
    let count = count.min(n);
    (1..=count).map(|i| epochs[i * n / count - 1]).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Program;

    /// The page of an evaluated run, whose texts are those of somebody who knows HTML.
    fn report() -> String {
        let home = tempfile::tempdir().expect("a directory");
        let program: Program =
            serde_json::from_str(r#"{"version":"1","revision":"a","backend":"flex","command":[]}"#)
                .expect("a program");
        let run = RunDir::create(&home.path().join("a<b"), program).expect("created");
        for epoch in [0, 2] {
            std::fs::write(run.samples(SampleSet::Validation, epoch), "png").expect("written");
        }
        let evaluation = |epoch: usize, overall: f64| {
            json!({"event": "eval", "epoch": epoch, "overall": overall,
                   "tags": {"a & \"b\"/c": overall}, "rewards": {"<x>": 1.0},
                   "monitors": {"diversity": 0.5}, "drift": {"diversity": 0.25}})
        };
        let lines = [
            evaluation(0, 0.25),
            json!({"event": "action", "epoch": 1, "reason": "x < 3"}),
            evaluation(2, 0.75),
            evaluation(4, 0.5),
        ];
        let facts = Facts {
            epochs: 4,
            prompts: 2,
            images: 3,
            base: "<script>",
            made_by: "me",
            configuration: "a = \"<b>\"",
        };
        of_run(&run, &facts, &lines, "<svg></svg>")
    }

    #[test]
    fn texts_are_escaped_and_numbers_stand_in_their_tables() {
        let report = report();
        for part in [
            "4 epochs of 2 prompts with 3 images each, from <code>&lt;script&gt;</code> (me).",
            "<td>a &amp; &quot;b&quot;/c</td><td>0.250</td><td>0.500</td>",
            "<td>&lt;x&gt;</td><td>1.000</td><td>1.000</td>",
            "<td>overall</td><td>0.250</td><td>0.500</td>",
            "<td>diversity</td><td>5.000e-1</td><td>5.000e-1</td><td>0.25</td>",
            "<li>epoch 1: x &lt; 3</li>",
            "<svg></svg>",
            "<pre>a = &quot;&lt;b&gt;&quot;</pre>",
            "a&lt;b</title>",
        ] {
            assert!(report.contains(part), "`{part}` is missing in:\n{report}");
        }
        assert_eq!(report.matches("<script>").count(), 1, "only the slider's");
    }

    #[test]
    fn the_page_needs_no_network_and_says_which_image_is_missing() {
        let report = report();
        assert_eq!(report.matches(" src=\"data:image/png;base64,").count(), 2);
        assert_eq!(report.matches(" src=").count(), 2);
        assert!(!report.contains("http") && !report.contains("@import"), "{report}");
        assert!(report.contains("epoch 4: the image cannot be read ("), "{report}");
        assert!(report.contains("data-name=\"epoch 4\"") && report.contains("max=\"1\""));
    }

    #[test]
    fn the_images_of_a_long_run_are_few_and_evenly_spread() {
        let epochs: Vec<u64> = (1..=800).collect();
        assert_eq!(spread(&epochs, 4), [200, 400, 600, 800]);
        assert_eq!(spread(&epochs[..3], 4), [1, 2, 3]);
        assert_eq!(spread(&epochs[..5], 4), [1, 2, 3, 5]);
    }
}
