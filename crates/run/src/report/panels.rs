//! The panels of a run's curves, as a table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    curves::{Curve, Panel},
    lines::of_event,
};

/// A panel: its title, and where its curves come from.
struct Spec {
    title: &'static str,
    /// Whether the panel says something only if an epoch has several updates.
    several_updates: bool,
    curves: &'static [Source],
}

/// The source of curves; `event` is `epoch` or `eval`, and numbers have JSON pointers in a line.
#[derive(Clone, Copy)]
enum Source {
    /// One number, and the place of its interval, if it has one.
    Number { event: &'static str, name: &'static str, at: &'static str, interval: &'static str },
    /// Every field of an object, under the name of the field, and the object of their intervals.
    Each { event: &'static str, object: &'static str, intervals: &'static str },
    /// One number of every denoising step that was trained.
    ByStep { at: &'static str },
    /// The share of every fault among all images of an evaluation.
    Faults,
}

const fn epoch(name: &'static str, at: &'static str) -> Source {
    Source::Number { event: "epoch", name, at, interval: "" }
}

const fn evaluation(name: &'static str, at: &'static str) -> Source {
    Source::Number { event: "eval", name, at, interval: "" }
}

const fn each(event: &'static str, object: &'static str) -> Source {
    Source::Each { event, object, intervals: "" }
}

const fn panel(title: &'static str, curves: &'static [Source]) -> Spec {
    Spec { title, several_updates: false, curves }
}

const fn of_updates(title: &'static str, curves: &'static [Source]) -> Spec {
    Spec { title, several_updates: true, curves }
}

const OVERALL: Source = Source::Number {
    event: "eval",
    name: "overall",
    at: "/overall",
    interval: "/overall_interval",
};
const TAGS: Source = Source::Each { event: "eval", object: "/tags", intervals: "/intervals" };

const PANELS: &[Spec] = &[
    panel("strict accuracy on validation prompts (40-step ODE)", &[OVERALL]),
    panel("strict accuracy by kind of prompt", &[TAGS]),
    panel("share of images by their first fault", &[Source::Faults]),
    panel("rewards on validation prompts", &[each("eval", "/rewards")]),
    panel("gold rewards on validation prompts", &[each("eval", "/gold")]),
    panel("training reward", &[epoch("reward", "/reward")]),
    panel("standard deviation of the training reward", &[epoch("std", "/reward_std")]),
    panel("training rewards by name", &[each("epoch", "/rewards")]),
    panel("gold rewards on the training images, not trained on", &[each("epoch", "/gold")]),
    panel("training reward by kind of prompt", &[each("epoch", "/kinds")]),
    panel("share of each reward in the advantages", &[each("epoch", "/advantage_shares")]),
    panel("share of groups without spread", &[epoch("share", "/zero_spread")]),
    panel(
        "feature distance to the base model's images",
        &[evaluation("distance", "/monitors/base_distance")],
    ),
    panel("images relative to the base model's", &[each("eval", "/drift")]),
    panel(
        "diversity inside groups",
        &[
            epoch("training", "/monitors/diversity"),
            evaluation("validation", "/monitors/diversity"),
        ],
    ),
    panel(
        "entropy of open colours",
        &[
            epoch("training", "/monitors/color_entropy"),
            evaluation("validation", "/monitors/color_entropy"),
        ],
    ),
    panel("KL to the reference", &[epoch("KL", "/kl_reference")]),
    panel("weight of that KL", &[epoch("weight", "/kl_weight")]),
    of_updates("std of the ratio, by denoising step", &[Source::ByStep { at: "/ratio/std" }]),
    of_updates(
        "share of transitions stopped by the clip",
        &[epoch("below", "/clipped_low"), epoch("above", "/clipped_high")],
    ),
    of_updates(
        "approximate KL to the policy of the rollout, by denoising step",
        &[Source::ByStep { at: "/kl_old" }],
    ),
    panel("gradient norm before clipping", &[epoch("norm", "/gradient_norm")]),
    panel("learning rate", &[epoch("rate", "/learning_rate")]),
    panel("seconds of an epoch", &[epoch("seconds", "/time/seconds")]),
];

/// The panels of a run with these metrics, without those that have no line.
pub(super) fn of_run(lines: &[Value]) -> Vec<Panel> {
    let several = several_updates(lines);
    let drawn = PANELS.iter().filter(|spec| several || !spec.several_updates);
    let panel = |spec: &Spec| {
        let curves = spec.curves.iter().flat_map(|source| source.curves(lines));
        Panel::new(spec.title, curves.collect())
    };
    drawn.map(panel).filter(|panel| !panel.curves.is_empty()).collect()
}

/// The titles of all panels, in their order.
pub(super) fn titles() -> impl Iterator<Item = &'static str> {
    PANELS.iter().map(|spec| spec.title)
}

/// Whether some epoch had more than one update: with one, the policy is that of the rollout, and
/// ratios show rounding.
pub(super) fn several_updates(lines: &[Value]) -> bool {
    of_event(lines, "epoch").any(|line| line["updates"].as_u64().is_some_and(|updates| updates > 1))
}

impl Panel {
    /// The value of a panel whose curves never change, and are equal.
    pub(super) fn constant(&self) -> Option<f64> {
        let mut values = self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
        let first = values.next()?;
        let more = self.curves.iter().any(|curve| curve.points.len() > 1);
        (more && values.all(|value| value == first)).then_some(first)
    }
}

impl Source {
    /// The curves that have points.
    fn curves(self, lines: &[Value]) -> Vec<Curve> {
        let found = match self {
            Self::Number { event, name, at, interval } => {
                vec![curve(name, lines, event, at, interval)]
            }
            Self::Each { event, object, intervals } => {
                let of_field = |name: &String| {
                    let field = escaped(name);
                    let interval = match intervals {
                        "" => String::new(),
                        intervals => format!("{intervals}/{field}"),
                    };
                    curve(name, lines, event, &format!("{object}/{field}"), &interval)
                };
                fields(lines, event, object).iter().map(of_field).collect()
            }
            Self::ByStep { at } => trained_steps(lines)
                .into_iter()
                .map(|step| Curve::new(format!("step {step}"), step_points(lines, step, at)))
                .collect(),
            Self::Faults => faults(lines),
        };
        found.into_iter().filter(|line| !line.points.is_empty()).collect()
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// One number over the epochs.
fn curve(name: &str, lines: &[Value], event: &str, at: &str, interval: &str) -> Curve {
    let point = |line: &Value| Some((line["epoch"].as_f64()?, line.pointer(at)?.as_f64()?));
    let bounds = |line: &Value| {
        let bounds = line.pointer(interval)?;
        Some([line["epoch"].as_f64()?, bounds[0].as_f64()?, bounds[1].as_f64()?])
    };
    Curve {
        name: name.to_owned(),
        points: of_event(lines, event).filter_map(point).collect(),
        band: of_event(lines, event).filter_map(bounds).collect(),
    }
}

/// The field names of an object in any line; a kind of prompt may be drawn late.
fn fields(lines: &[Value], event: &str, object: &str) -> BTreeSet<String> {
    let objects = of_event(lines, event).filter_map(|line| line.pointer(object)?.as_object());
    objects.flat_map(|object| object.keys().cloned()).collect()
}

/// The denoising steps that were trained in some epoch.
fn trained_steps(lines: &[Value]) -> BTreeSet<u64> {
    of_event(lines, "epoch")
        .filter_map(|line| line["steps"].as_array())
        .flatten()
        .filter_map(|step| step["step"].as_u64())
        .collect()
}

/// A metric of one denoising step over the epochs.
fn step_points(lines: &[Value], step: u64, at: &str) -> Vec<(f64, f64)> {
    let point = |line: &Value| {
        let of_step =
            line["steps"].as_array()?.iter().find(|entry| entry["step"].as_u64() == Some(step))?;
        Some((line["epoch"].as_f64()?, of_step.pointer(at)?.as_f64()?))
    };
    of_event(lines, "epoch").filter_map(point).collect()
}

/// The share of every fault that occurs: 0 in an evaluation without it.
fn faults(lines: &[Value]) -> Vec<Curve> {
    let shares: Vec<(f64, BTreeMap<String, f64>)> = of_event(lines, "eval")
        .filter_map(|line| Some((line["epoch"].as_f64()?, fault_shares(line)?)))
        .collect();
    let names: BTreeSet<&String> = shares.iter().flat_map(|(_, shares)| shares.keys()).collect();
    let point = |name: &String| {
        let of = move |shares: &BTreeMap<String, f64>| shares.get(name).copied().unwrap_or(0.0);
        shares.iter().map(|(epoch, shares)| (*epoch, of(shares))).collect()
    };
    names.into_iter().map(|name| Curve::new(name, point(name))).collect()
}

/// The share of every fault among all images of an evaluation.
fn fault_shares(line: &Value) -> Option<BTreeMap<String, f64>> {
    let (mut shares, mut all) = (BTreeMap::new(), 0.0);
    for (kind, faults) in line["faults"].as_object()? {
        let images = line["images"][kind].as_f64()?;
        all += images;
        for (name, share) in faults.as_object()? {
            *shares.entry(name.clone()).or_insert(0.0) += share.as_f64()? * images;
        }
    }
    for share in shares.values_mut() {
        *share /= f64::max(all, 1.0);
    }
    Some(shares)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The curves of the panel whose title begins so: names and points.
    fn drawn(lines: &[Value], title: &str) -> Vec<(String, Vec<(f64, f64)>)> {
        let panels = of_run(lines);
        let panel = panels.iter().find(|panel| panel.title.starts_with(title));
        let curves = panel.map(|panel| panel.curves.clone()).unwrap_or_default();
        curves.into_iter().map(|curve| (curve.name, curve.points)).collect()
    }

    fn named(name: &str, points: &[(f64, f64)]) -> (String, Vec<(f64, f64)>) {
        (name.to_owned(), points.to_vec())
    }

    #[test]
    fn numbers_fields_and_steps_become_curves_over_the_epochs() {
        let lines = [
            json!({"event": "eval", "epoch": 0, "overall": 0.5, "tags": {"a/b": 0.25},
                   "overall_interval": [0.4, 0.6], "intervals": {"a/b": [0.1, 0.5]}}),
            json!({"event": "epoch", "epoch": 1, "reward": 0.75, "updates": 2,
                   "kinds": {"a": 1.0}, "steps": [{"step": 4, "kl_old": 0.125}]}),
            json!({"event": "epoch", "epoch": 2, "updates": 2, "kinds": {"a": 0.5, "late": 0.25},
                   "steps": [{"step": 9, "kl_old": 0.5}]}),
        ];
        assert_eq!(drawn(&lines, "training reward"), [named("reward", &[(1.0, 0.75)])]);
        assert_eq!(drawn(&lines, "strict accuracy by"), [named("a/b", &[(0.0, 0.25)])]);
        assert_eq!(
            drawn(&lines, "training reward by kind"),
            [named("a", &[(1.0, 1.0), (2.0, 0.5)]), named("late", &[(2.0, 0.25)])]
        );
        assert_eq!(
            drawn(&lines, "approximate KL"),
            [named("step 4", &[(1.0, 0.125)]), named("step 9", &[(2.0, 0.5)])]
        );
        let bands: Vec<Vec<[f64; 3]>> =
            of_run(&lines).iter().take(2).map(|panel| panel.curves[0].band.clone()).collect();
        assert_eq!(bands, [[[0.0, 0.4, 0.6]], [[0.0, 0.1, 0.5]]]);
        assert!(of_run(&lines).iter().skip(2).all(|panel| panel.curves[0].band.is_empty()));
    }

    #[test]
    fn faults_are_shares_of_all_images_and_absent_ones_are_0() {
        let line = |epoch: usize, faults: Value| {
            json!({"event": "eval", "epoch": epoch, "faults": faults,
                   "images": {"few": 10, "many": 30}})
        };
        let lines = [
            line(0, json!({"few": {"colors": 0.5}, "many": {"colors": 0.5, "shapes": 0.25}})),
            line(9, json!({"few": {}, "many": {"shapes": 0.5}})),
        ];
        assert_eq!(
            drawn(&lines, "share of images by their first fault"),
            [
                named("colors", &[(0.0, 0.5), (9.0, 0.0)]),
                named("shapes", &[(0.0, 0.1875), (9.0, 0.375)])
            ]
        );
    }

    #[test]
    fn ratios_are_left_out_if_every_epoch_has_one_update() {
        let line = |updates: usize| {
            json!({"event": "epoch", "epoch": 1, "updates": updates, "kl_weight": 0.5,
                   "clipped_low": 0.0, "clipped_high": 0.0})
        };
        assert!(drawn(&[line(1)], "share of transitions").is_empty());
        assert_eq!(drawn(&[line(2)], "share of transitions").len(), 2);
        let mut second = line(2);
        second["epoch"] = 2.into();
        let constant = |lines: &[Value]| {
            let panels = of_run(lines);
            panels
                .iter()
                .filter_map(|panel| Some((panel.title.clone(), panel.constant()?)))
                .collect()
        };
        let all: Vec<(String, f64)> = constant(&[line(2), second.clone()]);
        let clip = "share of transitions stopped by the clip";
        assert_eq!(all, [("weight of that KL".to_owned(), 0.5), (clip.to_owned(), 0.0)]);
        second["clipped_high"] = 0.25.into();
        second["kl_weight"] = 0.25.into();
        assert!(constant(&[line(2), second]).is_empty());
    }
}
