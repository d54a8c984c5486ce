//! A vision-language model as a judge, behind an OpenAI-compatible API (`POST /chat/completions`).
//!
//! One request per image, at temperature 0: the image as a data URL, then the question. Servers
//! such as vLLM and SGLang speak this protocol.

use serde_json::{Value, json};

use crate::{
    Rubric, Sample, codec,
    fault::Fault,
    transport::Answer,
    wire::{Post, Scores, Wire, parse},
};

/// A client's side of the protocol.
pub(crate) struct Openai {
    pub model: String,
    pub rubric: Rubric,
}

impl Wire for Openai {
    fn post(&self, samples: &[Sample]) -> Result<Post, Fault> {
        let [sample] = samples else {
            return Err(Fault::Request(format!("{} images, not one", samples.len())));
        };
        let url = match self.rubric.side() {
            Some(side) => codec::data_url(&codec::squared(sample.image, side))?,
            None => codec::data_url(sample.image)?,
        };
        let content = json!([
            { "type": "image_url", "image_url": { "url": url } },
            { "type": "text", "text": self.rubric.question(sample.prompt) },
        ]);
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": content }],
            "temperature": 0,
        });
        let (path, media_type) = ("/chat/completions", "application/json");
        Ok(Post { path, media_type, body: body.to_string().into_bytes() })
    }

    fn scores(&self, body: &[u8]) -> Result<Scores, Fault> {
        let answer = parse(body)?;
        let text = content(&answer).ok_or_else(|| {
            Fault::Malformed("no text in `choices[0].message.content`".to_owned())
        })?;
        Ok(vec![self.rubric.score(&text)])
    }

    fn health_path(&self) -> &'static str {
        "/models"
    }

    /// Servers that list no models are taken as they are.
    fn check(&self, answer: &Answer) -> Result<(), Fault> {
        if matches!(answer.status, 404 | 405) {
            return Ok(());
        }
        let models = parse(answer.success()?)?;
        let Some(models) = models.get("data").and_then(Value::as_array) else {
            return Ok(());
        };
        let names: Vec<&str> = models.iter().filter_map(|model| model["id"].as_str()).collect();
        if names.contains(&self.model.as_str()) {
            return Ok(());
        }
        let some = names.iter().take(10).copied().collect::<Vec<_>>().join(", ");
        Err(Fault::Unjudged(format!("it has no model {:?}; it has: {some}", self.model)))
    }

    fn most_images(&self) -> usize {
        1
    }
}

/// The text of an answer: a string, or the texts of a list of parts.
fn content(answer: &Value) -> Option<String> {
    match answer.get("choices")?.get(0)?.get("message")?.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            Some(texts.join("\n"))
        }
        _ => None,
    }
}
