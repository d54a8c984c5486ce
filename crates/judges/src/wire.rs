//! A protocol on the wire: requests out of samples, scores out of answers.

use serde_json::Value;

use crate::{
    Sample,
    fault::{Fault, end_of},
    transport::Answer,
};

/// A body to post.
pub(crate) struct Post {
    /// The path behind the judge's address.
    pub path: &'static str,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// The scores of the images of one request, or why an image has none.
pub(crate) type Scores = Vec<Result<f32, Fault>>;

/// A protocol: no state, no network.
pub(crate) trait Wire: Send + Sync {
    /// Writes the request for a batch; a fault concerns the first sample.
    fn post(&self, samples: &[Sample]) -> Result<Post, Fault>;

    /// Reads the body of a successful answer. The caller compares the number of scores.
    fn scores(&self, body: &[u8]) -> Result<Scores, Fault>;

    /// The path that tells whether the judge is well.
    fn health_path(&self) -> &'static str;

    /// Judges the answer about the judge's health.
    fn check(&self, answer: &Answer) -> Result<(), Fault>;

    /// Whether samples with this metadata can be sent.
    fn accepts(&self, _metadata: &Value) -> Result<(), String> {
        Ok(())
    }

    /// The most images of one request.
    fn most_images(&self) -> usize {
        usize::MAX
    }
}

/// Parses JSON of an answer.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        let text = String::from_utf8_lossy(body);
        let not_json = ["NaN", "Infinity"].iter().any(|word| text.contains(word));
        let hint = if not_json { " (JSON has neither NaN nor Infinity)" } else { "" };
        Fault::Malformed(format!("no JSON{hint}: {error}: {:?}", end_of(&text)))
    })
}

/// The explanation in the body of an error: the message of a JSON body, or the end of a text.
pub(crate) fn explanation(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| {
        let error =
            json.get("error").or_else(|| json.get("detail")).or_else(|| json.get("message"));
        let error = error?;
        Some(match error.get("message").unwrap_or(error) {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    });
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    if text.trim().is_empty() { "no explanation".to_owned() } else { end_of(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_many_servers_are_explained() {
        for (body, text) in [
            (r#"{"error": "too hot"}"#, "too hot"),
            (r#"{"error": {"message": "no such model", "code": 404}}"#, "no such model"),
            (r#"{"detail": [{"loc": ["body"]}]}"#, r#"[{"loc":["body"]}]"#),
            ("Traceback:\n  line 1\nKeyError: 'tag'\n", "Traceback:\n  line 1\nKeyError: 'tag'"),
            (" ", "no explanation"),
        ] {
            assert_eq!(explanation(body.as_bytes()), text);
        }
    }

    #[test]
    fn nan_in_json_is_named() {
        let fault = parse(br#"{"score": NaN}"#).expect_err("no JSON");
        assert!(fault.to_string().contains("neither NaN"), "{fault}");
    }
}
