//! Pickle over HTTP: the reward servers of the reference code.
//!
//! ```text
//! GenEval   {"images": [JPEG], "meta_datas": [dict], "only_strict": bool}
//!           → {"scores": [float], "rewards": [float], "strict_rewards": [float], …}
//! DeQA      {"images": [JPEG]} → {"outputs": [float]}
//! prompted  {"images": [JPEG], "prompts": [str], "metadata": [dict]}
//!           → {"scores": [float]} or {"outputs": [float]}, or {"error": str}
//! ```
//!
//! An error of the first two is status 500 with a traceback. Source: `yifan123/flow_grpo`
//! (`rewards.py`) and yifan123/reward-server.

use serde_json::Value as Json;

use crate::{
    Sample, codec,
    fault::{Fault, end_of},
    pickle::{self, Value},
    settings::Service,
    transport::Answer,
    wire::{Post, Scores, Wire},
};

/// Quality of the JPEG files: Pillow's default, which the reference code takes.
const QUALITY: u8 = 75;

/// A client's side of the protocol.
pub(crate) struct FlowGrpo {
    pub service: Service,
}

impl Wire for FlowGrpo {
    fn post(&self, samples: &[Sample]) -> Result<Post, Fault> {
        let image = |sample: &Sample| codec::jpeg(sample.image, QUALITY).map(Value::Bytes);
        let mut entries = vec![("images", list(samples, image)?)];
        match self.service {
            Service::Deqa => {}
            Service::Prompted => {
                entries.push(("prompts", list(samples, |sample| Ok(sample.prompt.into()))?));
                entries.push(("metadata", list(samples, metadata)?));
            }
            Service::Geneval | Service::GenevalStrict | Service::GenevalOfficial => {
                let only_strict = self.service != Service::GenevalOfficial;
                entries.push(("meta_datas", list(samples, metadata)?));
                entries.push(("only_strict", Value::Bool(only_strict)));
            }
        }
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let body = pickle::write(&Value::Dict(entries));
        Ok(Post { path: "/", media_type: "application/octet-stream", body })
    }

    fn scores(&self, body: &[u8]) -> Result<Scores, Fault> {
        let answer = pickle::read(body).map_err(|error| Fault::Malformed(format!("{error}")))?;
        if let Some(Value::Text(reason)) = answer.get("error") {
            return Err(Fault::Malformed(format!("it is an error: {}", end_of(reason))));
        }
        let keys = self.keys();
        let Some(list) = keys.iter().find_map(|key| answer.get(key)) else {
            return Err(Fault::Malformed(format!("no list `{}`", keys.join("` or `"))));
        };
        let Value::List(scores) = list else {
            return Err(Fault::Malformed(format!("`{}` is no list", keys.join("` or `"))));
        };
        Ok(scores.iter().map(score).collect())
    }

    fn health_path(&self) -> &'static str {
        "/"
    }

    /// The reference's servers know one request alone, so any answer below 500 is a sign of life.
    fn check(&self, answer: &Answer) -> Result<(), Fault> {
        if answer.status < 500 { Ok(()) } else { answer.success().map(drop) }
    }

    fn accepts(&self, metadata: &Json) -> Result<(), String> {
        let needed: &[&str] = match self.service {
            Service::Deqa | Service::Prompted => &[],
            Service::Geneval | Service::GenevalStrict | Service::GenevalOfficial => {
                &["tag", "prompt", "include"]
            }
        };
        match needed.iter().find(|key| metadata.get(key).is_none()) {
            Some(key) => Err(format!("GenEval's server needs `{key}` in the prompt's metadata")),
            None => Ok(()),
        }
    }
}

impl FlowGrpo {
    /// Keys of the answer that hold the scores; the first that is there counts.
    fn keys(&self) -> &'static [&'static str] {
        match self.service {
            Service::Geneval => &["scores"],
            Service::GenevalStrict => &["strict_rewards"],
            Service::GenevalOfficial => &["rewards"],
            Service::Deqa => &["outputs"],
            Service::Prompted => &["scores", "outputs"],
        }
    }
}

fn list(
    samples: &[Sample],
    value: impl Fn(&Sample) -> Result<Value, Fault>,
) -> Result<Value, Fault> {
    samples.iter().map(value).collect::<Result<_, _>>().map(Value::List)
}

fn metadata(sample: &Sample) -> Result<Value, Fault> {
    Value::from_json(sample.metadata).ok_or_else(|| {
        Fault::Request("the metadata has an integer of more than 64 bits".to_owned())
    })
}

fn score(value: &Value) -> Result<f32, Fault> {
    match value {
        Value::Float(number) => Ok(*number as f32),
        Value::Int(number) => Ok(*number as f32),
        other => Err(Fault::NotFinite(end_of(&format!("{other:?}")))),
    }
}
