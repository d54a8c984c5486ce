//! The section about a run: programs, commands, machine, time.

use maud::{Markup, html};
use serde_json::Value;

use super::{Facts, charts::Progress};
use crate::{Program, RunDir, lines::of_event};

/// The facts about a run in a table; `about.json` may be missing or damaged.
pub(super) fn about(run: &RunDir, facts: &Facts<'_>, lines: &[Value], time: &Progress) -> Markup {
    let epochs = of_event(lines, "epoch").count();
    let per_epoch = facts.prompts * facts.images;
    let memory =
        of_event(lines, "epoch").filter_map(|line| line["time"]["peak_memory_mib"].as_u64());
    html! {
        div .scroll {
            table .facts {
                @match run.programs() {
                    Ok(programs) => @for (index, program) in programs.iter().enumerate() {
                        (session(&session_name(index, programs.len()), program))
                    },
                    Err(error) => tr { th { "program" } td { "unknown: " (error) } }
                }
                tr { th { "base model" } td { code { (facts.base) } " (" (facts.made_by) ")" } }
                @if let Some(best) = facts.best {
                    tr {
                        th { "best evaluation" }
                        td { "epoch " (best.epoch) ": " (facts.best_by) " " (format!("{:.4}", best.value)) }
                    }
                }
                tr {
                    th { "training" }
                    td {
                        (epochs) " epochs with " (epochs * per_epoch) " images in "
                        (duration(time.seconds())) ", without evaluations"
                    }
                }
                @if let Some(rate) = mean(lines, "images_per_second") {
                    tr { th { "sampling" } td { (format!("{rate:.1}")) " images per second" } }
                }
                @if let Some(rate) = mean(lines, "transitions_per_second") {
                    tr { th { "updates" } td { (format!("{rate:.1}")) " transitions per second" } }
                }
                @if let Some(peak) = memory.max() {
                    tr { th { "peak memory" } td { (peak) " MiB" } }
                }
            }
        }
    }
}

fn session_name(index: usize, count: usize) -> String {
    if count == 1 { "program".to_owned() } else { format!("session {}", index + 1) }
}

/// The row of a program that worked on a run.
pub(super) fn session(name: &str, program: &Program) -> Markup {
    html! {
        tr {
            th { (name) }
            td {
                "version " (program.version) " (" (program.revision) "), " (program.place())
                @if !program.machine.is_empty() { ", " (program.machine) }
                @if let Some(started) = program.started { ", " (date(started)) }
                br;
                code { (program.command_line()) }
            }
        }
    }
}

/// The mean over the epochs of one of their times.
fn mean(lines: &[Value], name: &str) -> Option<f64> {
    let rates: Vec<f64> =
        of_event(lines, "epoch").filter_map(|line| line["time"][name].as_f64()).collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

/// A time as `3 h 7 min`, `7 min 5 s` or `5.2 s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// The date and time of seconds since 1970, UTC.
///
/// The Gregorian calendar repeats every 400 years, 146,097 days; the year begins in March, so that
/// the leap day is its last.
pub(super) fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * from_march + 2) / 5 + 1, (from_march + 2) % 12 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dates = [0, 951_782_399, 951_782_400, 1_709_164_800, 1_764_144_060, 4_102_444_800];
        assert_eq!(
            dates.map(date),
            [
                "1970-01-01 00:00 UTC",
                "2000-02-28 23:59 UTC",
                "2000-02-29 00:00 UTC",
                "2024-02-29 00:00 UTC",
                "2025-11-26 08:01 UTC",
                "2100-01-01 00:00 UTC",
            ]
        );
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!([5.25, 425.9, 11_220.0].map(duration), ["5.2 s", "7 min 5 s", "3 h 7 min"]);
    }
}
