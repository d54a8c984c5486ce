//! Numbers of an epoch that are more than one: histograms of rewards and advantages, and heat maps of
//! what every denoising step did.

use maud::{Markup, html};
use serde_json::Value;

use super::panels::several_updates;
use crate::{
    chart::{
        SIZE,
        heat::{Heat, heat},
        histogram::{Histogram, histograms},
    },
    lines::of_event,
};

/// Number of epochs whose histograms are shown, and most columns of a heat map.
const EPOCHS: usize = 8;
const COLUMNS: usize = 80;

/// A heat map by denoising step: its title, the place of its number in an entry of `steps`, and
/// whether it says something only if an epoch has several updates.
const MAPS: [(&str, &str, bool); 3] = [
    ("KL to the reference, by denoising step", "/kl_reference", false),
    ("std of the ratio, by denoising step", "/ratio/std", true),
    ("approximate KL to the policy of the rollout, by denoising step", "/kl_old", true),
];
const HISTOGRAMS: [(&str, &str); 2] =
    [("rewards of the images of an epoch", "reward"), ("advantages of an epoch", "advantage")];

/// The figures for which the metrics have numbers; those of older runs may have none.
pub(super) fn figures(lines: &[Value]) -> Markup {
    let several = several_updates(lines);
    let drawn = MAPS.iter().filter(|(_, _, updates)| several || !updates);
    let maps: Vec<_> = drawn
        .map(|(title, at, _)| (*title, map(lines, at)))
        .filter(|(_, map)| map.range().is_some())
        .collect();
    let counted: Vec<_> = HISTOGRAMS
        .iter()
        .map(|(title, name)| (*title, of_epochs(lines, name)))
        .filter(|(_, of_epochs)| !of_epochs.is_empty())
        .collect();
    html! {
        @if !(maps.is_empty() && counted.is_empty()) {
            section id="distributions" {
                h2 { "Distributions" }
                div .panels {
                    @for (title, all) in &counted {
                        (figure(title, &histograms(all), &format!(
                            "{} epochs; each is as high as its highest bar", all.len()
                        )))
                    }
                    @for (title, map) in &maps {
                        (figure(title, &heat(map, "epochs"), "the stronger, the larger; a logarithmic scale"))
                    }
                }
            }
        }
    }
}

fn figure(title: &str, content: &Markup, note: &str) -> Markup {
    html! {
        figure .panel {
            figcaption { (title) }
            small { (note) }
            svg viewBox={ "0 0 " (SIZE[0]) " " (SIZE[1]) } role="img"
                aria-label={ (title) "; " (note) } { (content) }
        }
    }
}

/// A metric of the denoising steps over the epochs. Long runs have the mean of several epochs in a
/// column.
fn map(lines: &[Value], at: &str) -> Heat {
    let epochs: Vec<&Value> =
        of_event(lines, "epoch").filter(|line| line["steps"].is_array()).collect();
    let steps = |line: &Value| line["steps"].as_array().cloned().unwrap_or_default();
    let number = |line: &Value, step: u64| {
        let entry = steps(line).into_iter().find(|entry| entry["step"].as_u64() == Some(step))?;
        entry.pointer(at)?.as_f64().filter(|value| *value > 0.0)
    };
    let last = epochs.iter().flat_map(|line| steps(line)).filter_map(|e| e["step"].as_u64()).max();
    let together: Vec<&[&Value]> = epochs.chunks(epochs.len().div_ceil(COLUMNS).max(1)).collect();
    let mean = |values: Vec<f64>| {
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let column = |lines: &&[&Value], step: u64| {
        mean(lines.iter().filter_map(|line| number(line, step)).collect())
    };
    let rows = 0..last.map_or(0, |last| last + 1);
    Heat {
        rows: rows.clone().map(|step| format!("step {step}")).collect(),
        columns: together
            .iter()
            .filter_map(|lines| mean(lines.iter().filter_map(|l| l["epoch"].as_f64()).collect()))
            .collect(),
        cells: rows
            .map(|step| together.iter().map(|lines| column(lines, step)).collect())
            .collect(),
    }
}

/// The histograms of epochs that are evenly spread over the run, the first and the last included.
fn of_epochs(lines: &[Value], name: &str) -> Vec<Histogram> {
    let counted = |line: &Value| {
        let histogram = &line["histograms"][name];
        let counts: Vec<f64> =
            histogram["counts"].as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
        let range = [histogram["low"].as_f64()?, histogram["high"].as_f64()?];
        let title = format!("epoch {}", line["epoch"].as_u64()?);
        (!counts.is_empty()).then_some(Histogram { title, range, counts })
    };
    let all: Vec<Histogram> = of_event(lines, "epoch").filter_map(counted).collect();
    let shown = all.len().min(EPOCHS);
    let at = |i: usize| i * (all.len() - 1) / shown.saturating_sub(1).max(1);
    (0..shown).map(|i| all[at(i)].clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn epoch(epoch: usize, updates: usize) -> Value {
        json!({"event": "epoch", "epoch": epoch, "updates": updates,
            "histograms": {"reward": {"low": 0.0, "high": 1.0, "counts": [epoch, 1]}},
            "steps": [{"step": 1, "kl_reference": 1e-4, "kl_old": 1e-9, "ratio": {"std": 0.0}}]})
    }

    #[test]
    fn the_first_and_the_last_epoch_have_a_histogram() {
        let lines: Vec<Value> = (1..=30).map(|i| epoch(i, 1)).collect();
        let shown = of_epochs(&lines, "reward");
        let titles: Vec<&str> = shown.iter().map(|one| one.title.as_str()).collect();
        assert_eq!(titles.len(), EPOCHS);
        assert_eq!([titles[0], titles[EPOCHS - 1]], ["epoch 1", "epoch 30"]);
        assert_eq!(of_epochs(&lines[..2], "reward").len(), 2);
        assert!(of_epochs(&lines, "advantage").is_empty());
    }

    #[test]
    fn a_map_has_a_row_for_every_step_and_few_columns() {
        let lines: Vec<Value> = (1..=200).map(|i| epoch(i, 2)).collect();
        let heat = map(&lines, "/kl_reference");
        assert_eq!(heat.rows, ["step 0", "step 1"]);
        assert_eq!([heat.columns.len(), heat.cells[1].len()], [67, 67]);
        assert!((heat.columns[0] - 2.0).abs() < 1e-12, "epochs 1 to 3");
        assert!(heat.cells[0].iter().all(Option::is_none));
        assert_eq!(heat.range(), Some([1e-4, 1e-4]));
        assert_eq!(map(&lines, "/ratio/std").range(), None, "zero has no logarithm");
    }

    #[test]
    fn an_older_run_lacks_the_figures_and_ratios_need_several_updates() {
        let old = json!({"event": "epoch", "epoch": 1, "reward": 0.5});
        assert!(figures(&[old]).into_string().is_empty());
        let page = |updates| figures(&[epoch(1, updates), epoch(2, updates)]).into_string();
        assert!(
            page(1).contains("KL to the reference") && page(1).contains("rewards of the images")
        );
        assert!(
            !page(1).contains("policy of the rollout") && page(2).contains("policy of the rollout")
        );
    }
}
