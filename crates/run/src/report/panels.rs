//! The panels of a run's curves, as a table.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    curves::{Curve, Panel},
    lines::of_event,
};

/// A panel: its title, and where its curves come from.
struct Spec {
    title: &'static str,
    curves: &'static [Source],
}

/// The source of curves; `event` is `epoch` or `eval`, and numbers have JSON pointers in a line.
#[derive(Clone, Copy)]
enum Source {
    /// One number.
    Number { event: &'static str, name: &'static str, at: &'static str },
    /// Every field of an object, under the name of the field.
    Each { event: &'static str, object: &'static str },
    /// One number of every denoising step that was trained.
    ByStep { at: &'static str },
}

const fn epoch(name: &'static str, at: &'static str) -> Source {
    Source::Number { event: "epoch", name, at }
}

const fn evaluation(name: &'static str, at: &'static str) -> Source {
    Source::Number { event: "eval", name, at }
}

const fn each(event: &'static str, object: &'static str) -> Source {
    Source::Each { event, object }
}

const PANELS: &[Spec] = &[
    Spec { title: "training reward", curves: &[epoch("reward", "/reward")] },
    Spec { title: "rewards by name", curves: &[each("epoch", "/rewards")] },
    Spec {
        title: "gold rewards on the training images, not trained on",
        curves: &[each("epoch", "/gold")],
    },
    Spec {
        title: "share of each reward in the advantages",
        curves: &[each("epoch", "/advantage_shares")],
    },
    Spec { title: "training reward by kind of prompt", curves: &[each("epoch", "/kinds")] },
    Spec {
        title: "strict accuracy on validation prompts (40-step ODE)",
        curves: &[each("eval", "/tags"), evaluation("overall", "/overall")],
    },
    Spec {
        title: "feature distance to the base model's images",
        curves: &[evaluation("distance", "/monitors/base_distance")],
    },
    Spec { title: "images relative to the base model's", curves: &[each("eval", "/drift")] },
    Spec {
        title: "diversity inside groups",
        curves: &[
            epoch("training", "/monitors/diversity"),
            evaluation("validation", "/monitors/diversity"),
        ],
    },
    Spec {
        title: "entropy of open colours",
        curves: &[
            epoch("training", "/monitors/color_entropy"),
            evaluation("validation", "/monitors/color_entropy"),
        ],
    },
    Spec { title: "KL to the reference", curves: &[epoch("KL", "/kl_reference")] },
    Spec { title: "weight of that KL", curves: &[epoch("weight", "/kl_weight")] },
    Spec {
        title: "std of the ratio, by denoising step",
        curves: &[Source::ByStep { at: "/ratio/std" }],
    },
    Spec {
        title: "share of transitions stopped by the clip",
        curves: &[epoch("below", "/clipped_low"), epoch("above", "/clipped_high")],
    },
    Spec {
        title: "approximate KL to the policy of the rollout, by denoising step",
        curves: &[Source::ByStep { at: "/kl_old" }],
    },
    Spec { title: "share of groups without spread", curves: &[epoch("share", "/zero_spread")] },
    Spec { title: "gradient norm before clipping", curves: &[epoch("norm", "/gradient_norm")] },
];

/// The panels of a run with these metrics.
pub(super) fn of_run(lines: &[Value]) -> Vec<Panel> {
    let panel = |spec: &Spec| Panel {
        title: spec.title.to_owned(),
        curves: spec.curves.iter().flat_map(|source| source.curves(lines)).collect(),
    };
    PANELS.iter().map(panel).collect()
}

impl Source {
    fn curves(self, lines: &[Value]) -> Vec<Curve> {
        match self {
            Self::Number { event, name, at } => vec![curve(name, lines, event, at)],
            Self::Each { event, object } => fields(lines, event, object)
                .iter()
                .map(|name| curve(name, lines, event, &format!("{object}/{}", escaped(name))))
                .collect(),
            Self::ByStep { at } => trained_steps(lines)
                .into_iter()
                .map(|step| Curve {
                    name: format!("step {step}"),
                    points: step_points(lines, step, at),
                })
                .collect(),
        }
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// One number over the epochs.
fn curve(name: &str, lines: &[Value], event: &str, at: &str) -> Curve {
    let point = |line: &Value| Some((line["epoch"].as_f64()?, line.pointer(at)?.as_f64()?));
    Curve { name: name.to_owned(), points: of_event(lines, event).filter_map(point).collect() }
}

/// The field names of an object in the first line that has it.
fn fields(lines: &[Value], event: &str, object: &str) -> Vec<String> {
    let found = of_event(lines, event).find_map(|line| line.pointer(object)?.as_object());
    found.map(|object| object.keys().cloned().collect()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_fields_and_steps_become_curves_over_the_epochs() {
        let lines = [
            json!({"event": "eval", "epoch": 0, "overall": 0.5, "tags": {"a/b": 0.25}}),
            json!({"event": "epoch", "epoch": 1, "reward": 0.75,
                   "steps": [{"step": 4, "kl_old": 0.125}]}),
            json!({"event": "epoch", "epoch": 2, "steps": [{"step": 9, "kl_old": 0.5}]}),
        ];
        let panels = of_run(&lines);
        let curves = |title: &str| -> Vec<(String, Vec<(f64, f64)>)> {
            let panel = panels.iter().find(|panel| panel.title.starts_with(title));
            let curves = &panel.expect("a panel").curves;
            curves.iter().map(|curve| (curve.name.clone(), curve.points.clone())).collect()
        };
        let named = |name: &str, points: &[(f64, f64)]| (name.to_owned(), points.to_vec());
        assert_eq!(curves("training reward"), [named("reward", &[(1.0, 0.75)])]);
        assert_eq!(
            curves("strict accuracy"),
            [named("a/b", &[(0.0, 0.25)]), named("overall", &[(0.0, 0.5)])]
        );
        assert_eq!(
            curves("approximate KL"),
            [named("step 4", &[(1.0, 0.125)]), named("step 9", &[(2.0, 0.5)])]
        );
    }
}
