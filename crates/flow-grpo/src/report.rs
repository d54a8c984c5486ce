//! `curves.svg` and `report.html`: the results of a run in self-contained files.

use std::collections::BTreeSet;

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    plot::{Curve, Panel, curves},
    run_dir::RunDir,
    train::{TEST, UNSEEN, VALIDATION},
    train_config::TrainConfig,
};

/// Draws the curves and writes the report of the run so far.
pub fn write(run: &RunDir, config: &TrainConfig, made_by: &str) -> Result<()> {
    let lines = run.metrics()?;
    let svg = curves(&panels(&lines))?;
    run.write("curves.svg", &svg)?;
    run.write("report.html", &html(run, config, made_by, &lines, &svg)?)
}

/// The lines of one kind of event.
fn of<'a>(lines: &'a [Value], event: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["event"] == event)
}

fn curve<'a>(name: &str, lines: impl Iterator<Item = &'a Value>, pointer: &str) -> Curve {
    let points =
        lines.filter_map(|line| Some((line["epoch"].as_f64()?, line.pointer(pointer)?.as_f64()?)));
    Curve { name: name.to_owned(), points: points.collect() }
}

/// Converts a name to a part of a JSON pointer.
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The field names of an object in the first line that has it.
fn fields(lines: &[Value], event: &str, pointer: &str) -> Vec<String> {
    let object = of(lines, event).find_map(|line| line.pointer(pointer)?.as_object());
    object.map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

fn panels(lines: &[Value]) -> Vec<Panel> {
    let panel = |title: &str, curves: Vec<Curve>| Panel { title: title.to_owned(), curves };
    let epochs = |name: &str, pointer: &str| curve(name, of(lines, "epoch"), pointer);
    let each = |event: &str, object: &str| -> Vec<Curve> {
        fields(lines, event, object)
            .iter()
            .map(|field| curve(field, of(lines, event), &format!("{object}/{}", pointer(field))))
            .collect()
    };
    let by_step = |pointer: &str| -> Vec<Curve> {
        let steps = trained_steps(lines).into_iter();
        let of_step = |step: u64| Curve {
            name: format!("step {step}"),
            points: step_points(lines, step, pointer),
        };
        steps.map(of_step).collect()
    };
    let mut accuracy = each("eval", "/tags");
    accuracy.push(curve("overall", of(lines, "eval"), "/overall"));
    vec![
        panel("training reward", vec![epochs("reward", "/reward")]),
        panel("rewards by name", each("epoch", "/rewards")),
        panel("gold rewards on the training images, not trained on", each("epoch", "/gold")),
        panel("training reward by kind of prompt", each("epoch", "/kinds")),
        panel("strict accuracy on validation prompts (40-step ODE)", accuracy),
        panel(
            "feature distance to the base model's images",
            vec![curve("distance", of(lines, "eval"), "/monitors/base_distance")],
        ),
        panel("images relative to the base model's", each("eval", "/drift")),
        panel(
            "diversity inside groups",
            vec![
                epochs("training", "/monitors/diversity"),
                curve("validation", of(lines, "eval"), "/monitors/diversity"),
            ],
        ),
        panel(
            "entropy of open colours",
            vec![
                epochs("training", "/monitors/color_entropy"),
                curve("validation", of(lines, "eval"), "/monitors/color_entropy"),
            ],
        ),
        panel("KL to the reference", vec![epochs("KL", "/kl_reference")]),
        panel("weight of that KL", vec![epochs("weight", "/kl_weight")]),
        panel("std of the ratio, by denoising step", by_step("/ratio/std")),
        panel(
            "share of transitions stopped by the clip",
            vec![epochs("below", "/clipped_low"), epochs("above", "/clipped_high")],
        ),
        panel("approximate KL to the policy of the rollout, by denoising step", by_step("/kl_old")),
        panel("share of groups without spread", vec![epochs("share", "/zero_spread")]),
        panel("gradient norm before clipping", vec![epochs("norm", "/gradient_norm")]),
    ]
}

/// The denoising steps that were trained in some epoch.
fn trained_steps(lines: &[Value]) -> BTreeSet<u64> {
    of(lines, "epoch")
        .filter_map(|line| line["steps"].as_array())
        .flatten()
        .filter_map(|step| step["step"].as_u64())
        .collect()
}

/// A metric of one denoising step over the epochs.
fn step_points(lines: &[Value], step: u64, pointer: &str) -> Vec<(f64, f64)> {
    let point = |line: &Value| {
        let of_step =
            line["steps"].as_array()?.iter().find(|entry| entry["step"].as_u64() == Some(step))?;
        Some((line["epoch"].as_f64()?, of_step.pointer(pointer)?.as_f64()?))
    };
    of(lines, "epoch").filter_map(point).collect()
}

fn html(
    run: &RunDir,
    config: &TrainConfig,
    made_by: &str,
    lines: &[Value],
    svg: &str,
) -> Result<String> {
    let evaluations: Vec<&Value> = of(lines, "eval").collect();
    let (Some(first), Some(last)) = (evaluations.first(), evaluations.last()) else {
        return Ok(page(
            &run.path().display().to_string(),
            "<p>Nothing has been evaluated yet.</p>",
        ));
    };
    let mut body = format!(
        "<p>{} epochs of {} prompts with {} images each, from <code>{}</code> ({}).</p>",
        config.epochs,
        config.grpo.groups,
        config.grpo.group_size,
        escape(&config.base),
        escape(made_by)
    );
    for (name, title) in
        [(TEST, "Test prompts: they chose nothing"), (UNSEEN, "Unseen prompts: they chose nothing")]
    {
        let lines: Vec<&Value> =
            evaluations.iter().copied().filter(|line| line.get(name).is_some()).collect();
        if let [first, .., last] = lines[..] {
            body += &format!(
                "<h2>{title}</h2>{}{}",
                table(&first[name], &last[name]),
                images(run, name, &lines)
            );
        }
    }
    let shown = images(run, VALIDATION, &evaluations);
    body += &format!(
        "<h2>Validation prompts: they choose the best checkpoint</h2>{}{shown}",
        table(first, last)
    );
    body += &drift_table(first, last);
    let actions: String = of(lines, "action")
        .map(|line| {
            format!(
                "<li>epoch {}: {}</li>",
                line["epoch"],
                escape(line["reason"].as_str().unwrap_or_default())
            )
        })
        .collect();
    if !actions.is_empty() {
        body += &format!("<h2>What the rules did</h2><ul>{actions}</ul>");
    }
    body += &format!(
        "<h2>Curves</h2>{svg}<h2>Configuration</h2><pre>{}</pre>",
        escape(&toml::to_string(config)?)
    );
    Ok(page(&run.path().display().to_string(), &body))
}

/// The first evaluation's images beside those of a later one, chosen by a slider.
fn images(run: &RunDir, name: &str, evaluations: &[&Value]) -> String {
    let epochs: Vec<u64> = evaluations.iter().filter_map(|line| line["epoch"].as_u64()).collect();
    let image = |epoch: u64| match std::fs::read(run.samples(name, epoch as usize)) {
        Ok(bytes) => format!(
            "<img alt=\"epoch {epoch}\" src=\"data:image/png;base64,{}\">",
            STANDARD.encode(bytes)
        ),
        Err(error) => format!(
            "<p>epoch {epoch}: the image cannot be read ({})</p>",
            escape(&error.to_string())
        ),
    };
    let [first, later @ ..] = &epochs[..] else { return String::new() };
    let before =
        format!("<figure>{}<figcaption>epoch {first}</figcaption></figure>", image(*first));
    if later.is_empty() {
        return format!("<div class=pair>{before}</div>");
    }
    let shown = spread(later, SHOWN);
    let last = shown.len() - 1;
    let frames: String = shown
        .iter()
        .map(|&epoch| {
            format!("<div class=frame data-name=\"epoch {epoch}\">{}</div>", image(epoch))
        })
        .collect();
    let slider =
        format!("<input type=range min=0 max={last} value={last} aria-label=\"evaluation\">");
    format!(
        "<div class=pair>{before}<figure class=slider>{frames}<figcaption>{slider} <output></output></figcaption></figure></div>"
    )
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

/// A table of the monitors of the base model's images and of the newest ones, with their ratio.
fn drift_table(before: &Value, after: &Value) -> String {
    let drift = after["drift"].as_object().into_iter().flatten();
    let shown = |value: &Value| value.as_f64().map_or("-".to_owned(), |x| format!("{x:.3e}"));
    let rows: String = drift
        .map(|(name, ratio)| {
            let [base, now] = [before, after].map(|line| shown(&line["monitors"][name]));
            format!(
                "<tr><td>{}</td><td>{base}</td><td>{now}</td><td>{:.2}</td></tr>",
                escape(name),
                ratio.as_f64().unwrap_or(0.0)
            )
        })
        .collect();
    format!(
        "<h2>Drift of the images</h2><table><tr><th></th><th>base</th><th>now</th><th>now/base</th></tr>{rows}</table>"
    )
}

/// A table of accuracy and rewards before and after training.
fn table(before: &Value, after: &Value) -> String {
    let number = |line: &Value, pointer: &str| {
        line.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |x| format!("{x:.3}"))
    };
    let mut pointers: Vec<(String, String)> = Vec::new();
    for object in ["tags", "rewards"] {
        let keys = after[object].as_object().into_iter().flat_map(|object| object.keys());
        pointers.extend(keys.map(|key| (key.clone(), format!("/{object}/{}", pointer(key)))));
    }
    if after.get("overall").is_some() {
        pointers.push(("overall".to_owned(), "/overall".to_owned()));
    }
    let rows = pointers.iter().map(|(name, pointer)| {
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(name),
            number(before, pointer),
            number(after, pointer)
        )
    });
    format!(
        "<table><tr><th></th><th>before</th><th>after</th></tr>{}</table>",
        rows.collect::<String>()
    )
}

fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}}\
         table{{border-collapse:collapse;margin:1em 0}}td,th{{padding:.2em 1em;border-bottom:1px solid #ddd;text-align:right}}\
         td:first-child{{text-align:left}}.pair{{display:flex;gap:1em;flex-wrap:wrap}}figure{{margin:0;flex:1 1 30em}}\
         input{{width:60%;vertical-align:middle}}img,svg{{max-width:100%;height:auto}}pre{{background:#f6f6f6;padding:1em;overflow:auto}}figcaption{{color:#666}}\
         </style><h1>{title}</h1>{body}<script>{SLIDER}</script></html>"
    )
}

/// Shows the evaluation at the slider's position; without scripts all evaluations are below each
/// other.
const SLIDER: &str = "for (const figure of document.querySelectorAll('.slider')) {\
    const frames = [...figure.querySelectorAll('.frame')];\
    const input = figure.querySelector('input');\
    const show = () => {\
        frames.forEach((frame, i) => frame.hidden = i != input.value);\
        figure.querySelector('output').textContent = frames[input.value].dataset.name;\
    };\
    input.addEventListener('input', show);\
    show();\
}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_of_a_long_run_are_few_and_evenly_spread() {
        let epochs: Vec<u64> = (1..=800).collect();
        assert_eq!(spread(&epochs, 4), [200, 400, 600, 800]);
        assert_eq!(spread(&epochs[..3], 4), [1, 2, 3]);
        assert_eq!(spread(&epochs[..5], 4), [1, 2, 3, 5]);
    }
}
