//! JSON over HTTP: `POST /score` and `GET /health`, the protocol of UniRL's reward service.
//!
//! ```text
//! POST /score   {"requests": [{"history": [{"text": "…", "image_b64": "…"}],
//!                              "required_rewards": ["name"], "metadata": {…}}]}
//! answer        {"results": [{"name": {"metric": 0.5}}], "errors": [{}]}
//! GET /health   {"status": "ok", "rewards": {"name": ["metric"]}}
//! ```
//!
//! `results` and `errors` have one object per request. A reward that failed has no entry in the
//! first and a text in the second. This file is the client's side and the types of both sides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Sample, codec,
    fault::Fault,
    settings::ImageFormat,
    transport::Answer,
    wire::{Post, Scores, Wire, parse},
};

/// The path of requests for scores.
pub(crate) const SCORE: &str = "/score";

/// The path that tells which rewards a server has.
pub(crate) const HEALTH: &str = "/health";

/// Body of a request.
#[derive(Serialize, Deserialize)]
pub(crate) struct ScoreRequest {
    pub requests: Vec<Item>,
}

/// One image of a request.
#[derive(Serialize, Deserialize)]
pub(crate) struct Item {
    pub history: Vec<Turn>,
    #[serde(default)]
    pub required_rewards: Vec<String>,
    #[serde(default)]
    pub metadata: Value,
}

/// A prompt with its image.
#[derive(Serialize, Deserialize)]
pub(crate) struct Turn {
    #[serde(default)]
    pub text: String,
    pub image_b64: Option<String>,
}

/// Body of an answer.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct ScoreAnswer {
    pub results: Vec<BTreeMap<String, BTreeMap<String, Value>>>,
    #[serde(default)]
    pub errors: Option<Vec<BTreeMap<String, String>>>,
}

/// A client's side of the protocol.
pub(crate) struct Json {
    pub reward: String,
    pub metric: Option<String>,
    pub image: ImageFormat,
}

impl Wire for Json {
    fn post(&self, samples: &[Sample]) -> Result<Post, Fault> {
        let item = |sample: &Sample| {
            let image_b64 = Some(codec::base64(sample.image, self.image)?);
            Ok(Item {
                history: vec![Turn { text: sample.prompt.to_owned(), image_b64 }],
                required_rewards: vec![self.reward.clone()],
                metadata: sample.metadata.clone(),
            })
        };
        let requests = samples.iter().map(item).collect::<Result<_, Fault>>()?;
        let body = serde_json::to_vec(&ScoreRequest { requests })
            .map_err(|error| Fault::Request(error.to_string()))?;
        Ok(Post { path: SCORE, media_type: "application/json", body })
    }

    fn scores(&self, body: &[u8]) -> Result<Scores, Fault> {
        let answer: ScoreAnswer = serde_json::from_value(parse(body)?)
            .map_err(|error| Fault::Malformed(error.to_string()))?;
        let errors = answer.errors.unwrap_or_default();
        let score = |(index, result): (usize, &BTreeMap<_, _>)| {
            let error = errors.get(index).and_then(|errors| errors.get(&self.reward));
            match (result.get(&self.reward), error) {
                (_, Some(reason)) => Err(Fault::Unjudged(reason.clone())),
                (Some(metrics), None) => self.metric(metrics),
                (None, None) => Err(Fault::Malformed(format!(
                    "no score and no error for the reward {:?}",
                    self.reward
                ))),
            }
        };
        Ok(answer.results.iter().enumerate().map(score).collect())
    }

    fn health_path(&self) -> &'static str {
        HEALTH
    }

    fn check(&self, answer: &Answer) -> Result<(), Fault> {
        let health = parse(answer.success()?)?;
        let Some(rewards) = health.get("rewards").and_then(Value::as_object) else {
            return Err(Fault::Malformed(format!("{HEALTH} has no object `rewards`")));
        };
        if rewards.contains_key(&self.reward) {
            return Ok(());
        }
        let names: Vec<&str> = rewards.keys().map(String::as_str).collect();
        Err(Fault::Unjudged(format!(
            "it has no reward {:?}; it has: {}",
            self.reward,
            names.join(", ")
        )))
    }

    fn accepts(&self, metadata: &Value) -> Result<(), String> {
        match metadata {
            Value::Null | Value::Object(_) => Ok(()),
            _ => Err("the metadata is no JSON object".to_owned()),
        }
    }
}

impl Json {
    /// The chosen number of a reward; without a choice, the only one or the one of its name.
    fn metric(&self, metrics: &BTreeMap<String, Value>) -> Result<f32, Fault> {
        let value = match &self.metric {
            Some(metric) => metrics.get(metric),
            None if metrics.len() == 1 => metrics.values().next(),
            None => metrics.get(&self.reward),
        };
        let Some(value) = value else {
            let names: Vec<&str> = metrics.keys().map(String::as_str).collect();
            return Err(Fault::Malformed(format!(
                "the reward {:?} has the numbers [{}]; name one as `metric`",
                self.reward,
                names.join(", ")
            )));
        };
        let number = value.as_f64().ok_or_else(|| Fault::NotFinite(value.to_string()))?;
        Ok(number as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(metric: Option<&str>) -> Json {
        let metric = metric.map(str::to_owned);
        Json { reward: "ocr".to_owned(), metric, image: ImageFormat::Png }
    }

    #[test]
    fn one_of_several_numbers_must_be_named() {
        let body = br#"{"results": [{"ocr": {"edit": 0.5, "exact": 0}}], "errors": [{}]}"#;
        assert_eq!(wire(Some("edit")).scores(body), Ok(vec![Ok(0.5)]));
        let scores = wire(None).scores(body).expect("an answer");
        let fault = scores[0].as_ref().expect_err("two numbers");
        assert!(fault.to_string().contains("[edit, exact]"), "{fault}");
    }

    #[test]
    fn the_number_of_the_rewards_name_is_its_score() {
        let body = br#"{"results": [{"ocr": {"edit": 0.5, "ocr": 1}}]}"#;
        assert_eq!(wire(None).scores(body), Ok(vec![Ok(1.0)]));
    }

    #[test]
    fn null_and_texts_are_no_scores() {
        for value in ["null", "\"0.5\"", "true"] {
            let body = format!(r#"{{"results": [{{"ocr": {{"ocr": {value}}}}}]}}"#);
            let scores = wire(None).scores(body.as_bytes()).expect("an answer");
            assert_eq!(scores, [Err(Fault::NotFinite(value.to_owned()))]);
        }
    }

    #[test]
    fn an_error_outweighs_a_score() {
        let body = br#"{"results": [{"ocr": {"ocr": 1}}], "errors": [{"ocr": "no text"}]}"#;
        assert_eq!(wire(None).scores(body), Ok(vec![Err(Fault::Unjudged("no text".to_owned()))]));
    }
}
