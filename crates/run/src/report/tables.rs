//! The tables of a report: results, faults, drift, and the actions of rules.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::Value;

use super::charts::short;
use crate::lines::of_event;

/// Accuracies and rewards before and after training, with the intervals that are recorded.
pub(super) fn results(before: &Value, after: &Value) -> Markup {
    let fields = |object: &'static str| after[object].as_object().into_iter().flatten();
    let overall = after.get("overall").is_some();
    html! {
        div .scroll {
            table {
                tr { th {} th { "images" } th { "before" } th { "after" } }
                @for (name, _) in fields("tags") {
                    tr {
                        td { (name) }
                        td { (after["images"][name].as_u64().map_or("-".to_owned(), |n| n.to_string())) }
                        @for line in [before, after] {
                            (cell(&line["tags"][name], &line["intervals"][name]))
                        }
                    }
                }
                @if overall {
                    tr .total {
                        td { "overall" } td {}
                        @for line in [before, after] { (cell(&line["overall"], &line["overall_interval"])) }
                    }
                }
                @for (name, _) in fields("rewards") {
                    tr {
                        td { (name) } td {}
                        @for line in [before, after] { (cell(&line["rewards"][name], &Value::Null)) }
                    }
                }
                @for (name, _) in fields("gold") {
                    tr {
                        td { (name) " (gold)" } td {}
                        @for line in [before, after] { (cell(&line["gold"][name], &Value::Null)) }
                    }
                }
            }
        }
    }
}

/// A number with its interval.
fn cell(value: &Value, interval: &Value) -> Markup {
    let number = |value: &Value| value.as_f64().map(|x| format!("{x:.3}"));
    html! {
        td {
            (number(value).unwrap_or_else(|| "-".to_owned()))
            @if let (Some(low), Some(high)) = (number(&interval[0]), number(&interval[1])) {
                " " small { (low) "\u{2013}" (high) }
            }
        }
    }
}

/// The share of images with each first fault by kind of prompt, before and after training; nothing
/// if images are not verified.
pub(super) fn faults(before: &Value, after: &Value) -> Markup {
    let of = |line: &Value| {
        let kinds = line["faults"].as_object().into_iter().flatten();
        let names = kinds.flat_map(|(_, faults)| faults.as_object().into_iter().flatten());
        names.map(|(name, _)| name.clone()).collect::<BTreeSet<String>>()
    };
    let names: BTreeSet<String> = of(before).union(&of(after)).cloned().collect();
    let percent = |line: &Value, kind: &str, name: &str| {
        100.0 * line["faults"][kind][name].as_f64().unwrap_or(0.0)
    };
    html! {
        @if let (Some(kinds), false) = (after["faults"].as_object(), names.is_empty()) {
            h3 { "First faults, % of a kind: before → after" }
            div .scroll {
                table {
                    tr { th {} @for name in &names { th { (name) } } }
                    @for (kind, _) in kinds {
                        tr {
                            td { (kind) }
                            @for name in &names {
                                @let [before, after] = [before, after].map(|line| percent(line, kind, name));
                                td { (format!("{before:.0} → {after:.0}")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The monitors of the base model's images and of the newest ones, with their ratio.
pub(super) fn drift(before: &Value, after: &Value) -> Markup {
    let monitor =
        |line: &Value, name: &str| line["monitors"][name].as_f64().map_or("-".to_owned(), short);
    let ratios = after["drift"].as_object();
    html! {
        @if let Some(ratios) = ratios {
            h3 { "Drift of the images" }
            div .scroll {
                table {
                    tr { th {} th { "base" } th { "now" } th { "now/base" } }
                    @for (name, ratio) in ratios {
                        tr {
                            td { (name) }
                            td { (monitor(before, name)) }
                            td { (monitor(after, name)) }
                            td { (ratio.as_f64().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))) }
                        }
                    }
                }
            }
        }
    }
}

/// The actions of the rules, if there were any.
pub(super) fn actions(lines: &[Value]) -> Markup {
    let actions: Vec<&Value> = of_event(lines, "action").collect();
    html! {
        @if !actions.is_empty() {
            h3 { "Actions of the rules" }
            ul {
                @for line in actions {
                    li { "epoch " (line["epoch"]) ": " (line["reason"].as_str().unwrap_or_default()) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn intervals_stand_beside_their_numbers_and_missing_ones_are_dashes() {
        let before = json!({"overall": 0.5, "overall_interval": [0.4, 0.6], "tags": {}});
        let after = json!({"overall": 0.75, "tags": {"<a>": 0.25}, "intervals": {"<a>": [0.1, 0.4]},
                           "images": {"<a>": 50}, "rewards": {"x": 1.0}, "gold": {"y": 2.0}});
        let table = results(&before, &after).into_string();
        for part in [
            "<td>&lt;a&gt;</td><td>50</td><td>-</td><td>0.250 <small>0.100\u{2013}0.400</small></td>",
            "<td>0.500 <small>0.400\u{2013}0.600</small></td><td>0.750</td>",
            "<td>x</td><td></td><td>-</td><td>1.000</td>",
            "<td>y (gold)</td><td></td><td>-</td><td>2.000</td>",
        ] {
            assert!(table.contains(part), "`{part}` is missing in:\n{table}");
        }
    }

    #[test]
    fn a_fault_that_went_away_is_shown_and_an_unverified_run_has_no_table() {
        let before = json!({"faults": {"few": {"colors": 0.5}}});
        let after = json!({"faults": {"few": {}, "many": {"shapes": 0.25}}});
        let table = faults(&before, &after).into_string();
        assert!(table.contains("<td>few</td><td>50 → 0</td><td>0 → 0</td>"), "{table}");
        assert!(table.contains("<td>many</td><td>0 → 0</td><td>0 → 25</td>"), "{table}");
        assert_eq!(faults(&json!({}), &json!({})).into_string(), "");
    }
}
