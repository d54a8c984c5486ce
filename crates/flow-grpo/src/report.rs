//! `curves.svg` and `report.html`: a run for people, in files that need nothing else.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    network::Card,
    plot::{Curve, Panel, curves},
    run_dir::RunDir,
    train_config::TrainConfig,
};

/// Draws the curves and writes the report of what the run has done so far.
pub fn write(run: &RunDir, config: &TrainConfig, card: &Card) -> Result<()> {
    let lines = run.metrics()?;
    let svg = curves(&panels(&lines))?;
    run.write("curves.svg", &svg)?;
    run.write("report.html", &html(run, config, card, &lines, &svg)?)
}

/// Lines of one kind.
fn of<'a>(lines: &'a [Value], event: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["event"] == event)
}

fn curve<'a>(name: &str, lines: impl Iterator<Item = &'a Value>, pointer: &str) -> Curve {
    let points = lines.filter_map(|line| Some((line["epoch"].as_f64()?, line.pointer(pointer)?.as_f64()?)));
    Curve { name: name.to_owned(), points: points.collect() }
}

/// Names of the fields of an object in the first line that has it.
fn fields(lines: &[Value], event: &str, pointer: &str) -> Vec<String> {
    let object = of(lines, event).find_map(|line| line.pointer(pointer)?.as_object());
    object.map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

fn panels(lines: &[Value]) -> Vec<Panel> {
    let panel = |title: &str, curves: Vec<Curve>| Panel { title: title.to_owned(), curves };
    let epochs = |name: &str, pointer: &str| curve(name, of(lines, "epoch"), pointer);
    let each = |event: &str, object: &str| -> Vec<Curve> {
        fields(lines, event, object).iter().map(|field| curve(field, of(lines, event), &format!("{object}/{field}"))).collect()
    };
    let mut accuracy = each("eval", "/tags");
    accuracy.push(curve("overall", of(lines, "eval"), "/overall"));
    vec![
        panel("training reward", vec![epochs("reward", "/reward")]),
        panel("rewards by name", each("epoch", "/rewards")),
        panel("training reward by kind of prompt", each("epoch", "/kinds")),
        panel("strict accuracy on held-out prompts (40-step ODE)", accuracy),
        panel("share of clipped transitions", vec![epochs("clipped", "/clipped")]),
        panel("approximate KL to the policy of the rollout", vec![epochs("kl", "/kl_old")]),
        panel("gradient norm before clipping", vec![epochs("norm", "/gradient_norm")]),
    ]
}

fn html(run: &RunDir, config: &TrainConfig, card: &Card, lines: &[Value], svg: &str) -> Result<String> {
    let evaluations: Vec<&Value> = of(lines, "eval").collect();
    let (Some(first), Some(last)) = (evaluations.first(), evaluations.last()) else {
        return Ok(page(&run.path().display().to_string(), "<p>Nothing has been evaluated yet.</p>"));
    };
    let images = |name: &str| -> Result<String> {
        let figure = |line: &Value, caption: &str| -> Result<String> {
            let epoch = line["epoch"].as_u64().unwrap_or(0);
            let path = run.samples(&format!("{name}-{epoch:04}"));
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(format!(
                "<figure><img src=\"data:image/png;base64,{}\"><figcaption>{caption}, epoch {epoch}</figcaption></figure>",
                STANDARD.encode(bytes)
            ))
        };
        Ok(format!("<div class=pair>{}{}</div>", figure(first, "before")?, figure(last, "after")?))
    };
    let mut body = format!(
        "<p>{} epochs of {} prompts with {} images each, from <code>{}</code> ({}).</p>",
        config.epochs,
        config.grpo.groups,
        config.grpo.group_size,
        escape(&config.base),
        escape(&card.made_by)
    );
    body += &format!("<h2>Held-out prompts</h2>{}{}", table(first, last), images("epoch")?);
    if last.get("unseen").is_some() {
        body += &format!("<h2>Pairs never trained on</h2>{}{}", table(&first["unseen"], &last["unseen"]), images("unseen")?);
    }
    body += &format!("<h2>Curves</h2>{svg}<h2>Configuration</h2><pre>{}</pre>", escape(&toml::to_string(config)?));
    Ok(page(&run.path().display().to_string(), &body))
}

/// Accuracy and rewards before and after.
fn table(before: &Value, after: &Value) -> String {
    let number =
        |line: &Value, pointer: &str| line.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |x| format!("{x:.3}"));
    let mut pointers: Vec<(String, String)> = Vec::new();
    for object in ["tags", "rewards"] {
        let keys = after[object].as_object().into_iter().flat_map(|object| object.keys());
        pointers.extend(keys.map(|key| (key.clone(), format!("/{object}/{key}"))));
    }
    if after.get("overall").is_some() {
        pointers.push(("overall".to_owned(), "/overall".to_owned()));
    }
    let rows = pointers.iter().map(|(name, pointer)| {
        format!("<tr><td>{}</td><td>{}</td><td>{}</td></tr>", escape(name), number(before, pointer), number(after, pointer))
    });
    format!("<table><tr><th></th><th>before</th><th>after</th></tr>{}</table>", rows.collect::<String>())
}

fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>\
         body{{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}}\
         table{{border-collapse:collapse;margin:1em 0}}td,th{{padding:.2em 1em;border-bottom:1px solid #ddd;text-align:right}}\
         td:first-child{{text-align:left}}.pair{{display:flex;gap:1em;flex-wrap:wrap}}figure{{margin:0;flex:1 1 30em}}\
         img,svg{{max-width:100%;height:auto}}pre{{background:#f6f6f6;padding:1em;overflow:auto}}figcaption{{color:#666}}\
         </style><h1>{title}</h1>{body}</html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
