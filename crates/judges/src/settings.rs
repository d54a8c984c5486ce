//! Settings of a client: where a judge is, how it is spoken to, and how patient the client is.

use std::{net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::http::Uri;

use crate::{Rubric, TokenError};

/// Where a judge is and how a client speaks to it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings: judges::Settings = toml::from_str(
///     r#"
///     url = "http://127.0.0.1:18085"
///     protocol = { kind = "flow_grpo", service = "geneval" }
///     batch_size = 64
///     "#,
/// )?;
/// assert!(settings.problems().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the judge, without the path that the protocol adds: `http://host:port`, or
    /// `https://host/v1` for `openai`.
    pub url: String,
    /// How the judge is spoken to.
    pub protocol: Protocol,
    /// Images per request, at least 1. `openai` always sends one.
    #[serde(default = "defaults::batch_size")]
    pub batch_size: usize,
    /// Requests under way at once, at least 1.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: usize,
    /// Seconds that one attempt may take, from the connection to the last byte of the answer.
    #[serde(default = "defaults::timeout_seconds")]
    pub timeout_seconds: f64,
    /// Attempts after the first one, for faults that a retry can cure.
    #[serde(default = "defaults::retries")]
    pub retries: u32,
    /// Seconds before the first retry; the wait doubles up to 30 seconds.
    #[serde(default = "defaults::first_wait_seconds")]
    pub first_wait_seconds: f64,
    /// Seed of the jitter of the waits.
    #[serde(default)]
    pub jitter_seed: u64,
    /// Environment variable that holds the judge's bearer token, if it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_variable: Option<String>,
}

mod defaults {
    pub(super) fn batch_size() -> usize {
        16
    }

    pub(super) fn concurrency() -> usize {
        4
    }

    pub(super) fn timeout_seconds() -> f64 {
        120.0
    }

    pub(super) fn retries() -> u32 {
        8
    }

    pub(super) fn first_wait_seconds() -> f64 {
        0.5
    }
}

/// How a judge is spoken to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Protocol {
    /// JSON over `POST /score`: the protocol of [`serve`](crate::serve) and of UniRL's reward
    /// service. `unirl` is a second name.
    #[serde(alias = "unirl")]
    Json {
        /// Name of the reward that is asked for.
        reward: String,
        /// Name of the number to take, if the reward has several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metric: Option<String>,
        /// Format of the images.
        #[serde(default)]
        image: ImageFormat,
    },
    /// Pickle over `POST /`: the reward servers of the reference code.
    FlowGrpo {
        /// The server.
        service: Service,
    },
    /// A vision-language model behind an OpenAI-compatible API, asked at temperature 0.
    Openai {
        /// Name of the model.
        model: String,
        /// The question, and how the answer is read.
        #[serde(default)]
        rubric: Rubric,
        /// Score of an answer without a score; if absent, such an answer is an error. The
        /// reference code takes 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unparsed: Option<f32>,
    },
}

impl Protocol {
    /// The JSON protocol with lossless images, for one reward.
    pub fn json(reward: &str) -> Self {
        Self::Json { reward: reward.to_owned(), metric: None, image: ImageFormat::Png }
    }
}

/// Format of an image on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// PNG: lossless.
    #[default]
    Png,
    /// JPEG of quality 95: smaller, as UniRL's client sends.
    Jpeg,
}

/// A reward server of the reference code, and the list of its answer that is the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// GenEval with partial credit, in `[0, 1]`: the list `scores`. The reference trains on it.
    Geneval,
    /// GenEval, 1 if every count, colour and position is exact: the list `strict_rewards`.
    GenevalStrict,
    /// GenEval by the rule of the benchmark, 0 or 1: the list `rewards`.
    GenevalOfficial,
    /// DeQA, image quality in `[0, 1]`: the list `outputs`.
    Deqa,
    /// A server that gets images, prompts and metadata, and answers `scores` or `outputs`.
    Prompted,
}

/// Settings cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Values are out of range; each text starts with the key.
    #[error("{}", .0.join("; "))]
    Values(Vec<String>),
    /// The token cannot be read.
    #[error("token_variable: {0}")]
    Token(#[from] TokenError),
    /// The system has no usable root certificates.
    #[error("no root certificates for https ({0}); install the package ca-certificates")]
    Certificates(String),
}

impl Settings {
    /// Settings with the defaults for all else.
    pub fn new(url: &str, protocol: Protocol) -> Self {
        Self {
            url: url.to_owned(),
            protocol,
            batch_size: defaults::batch_size(),
            concurrency: defaults::concurrency(),
            timeout_seconds: defaults::timeout_seconds(),
            retries: defaults::retries(),
            first_wait_seconds: defaults::first_wait_seconds(),
            jitter_seed: 0,
            token_variable: None,
        }
    }

    /// All values that are out of range, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let seconds = |value: f64| value.is_finite() && (0.0..=86_400.0).contains(&value);
        let mut problems: Vec<String> = address_problem(&self.url).into_iter().collect();
        let rules = [
            (self.batch_size >= 1, "batch_size: at least one image per request"),
            (self.concurrency >= 1, "concurrency: at least one request at once"),
            (
                seconds(self.timeout_seconds) && self.timeout_seconds >= 0.001,
                "timeout_seconds: between 0.001 and 86400",
            ),
            (seconds(self.first_wait_seconds), "first_wait_seconds: between 0 and 86400"),
        ];
        problems.extend(
            rules.iter().filter(|(holds, _)| !holds).map(|(_, problem)| (*problem).to_owned()),
        );
        problems
            .extend(self.protocol.problems().into_iter().map(|text| format!("protocol.{text}")));
        problems
    }

    /// Time that one attempt may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds)
    }
}

impl Protocol {
    fn problems(&self) -> Vec<String> {
        match self {
            Self::Json { reward, .. } if reward.is_empty() => {
                vec!["reward: the name of a reward".to_owned()]
            }
            Self::Openai { model, rubric, unparsed } => {
                let mut problems = rubric.problems();
                if model.is_empty() {
                    problems.push("model: the name of a model".to_owned());
                }
                if unparsed.is_some_and(|score| !score.is_finite()) {
                    problems.push("unparsed: a finite number".to_owned());
                }
                problems
            }
            Self::Json { .. } | Self::FlowGrpo { .. } => Vec::new(),
        }
    }
}

/// What is wrong with an address, if anything is.
fn address_problem(url: &str) -> Option<String> {
    let Ok(address) = url.parse::<Uri>() else {
        return Some(format!("url: {url:?} is no address; write http://host:port"));
    };
    let Some(authority) = address.authority() else {
        return Some(format!("url: {url:?} has no host; write http://host:port"));
    };
    if authority.as_str().contains('@') {
        return Some("url: no user or password in an address; see `token_variable`".to_owned());
    }
    if address.query().is_some() {
        return Some(format!("url: {url:?} has a query; the protocol adds its own path"));
    }
    match address.scheme_str() {
        Some("http") => None,
        Some("https") if cfg!(feature = "tls") => None,
        Some("https") => Some("url: this build has no https; use http".to_owned()),
        _ => Some(format!("url: {url:?} is neither http nor https")),
    }
}

/// Whether an address is this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let address: Option<Uri> = url.parse().ok();
    let host = address.as_ref().and_then(Uri::host).unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_with_its_key() {
        let mut settings = Settings::new("ftp://host", Protocol::json(""));
        settings.batch_size = 0;
        settings.concurrency = 0;
        settings.timeout_seconds = f64::NAN;
        settings.first_wait_seconds = -1.0;
        let problems = settings.problems();
        let keys = [
            "url",
            "batch_size",
            "concurrency",
            "timeout_seconds",
            "first_wait_seconds",
            "protocol.reward",
        ];
        assert_eq!(problems.len(), keys.len(), "{problems:?}");
        for key in keys {
            let start = format!("{key}:");
            assert!(problems.iter().any(|text| text.starts_with(&start)), "{key}: {problems:?}");
        }
    }

    #[test]
    fn addresses_with_secrets_queries_or_no_host_are_refused() {
        for url in ["http://user:pass@host", "http://host/?a=b", "host:80", "/score", "", "http://"]
        {
            assert!(address_problem(url).is_some(), "{url:?}");
        }
        for url in ["http://127.0.0.1:1", "http://[::1]:80/judge", "https://api.example.com/v1"] {
            assert_eq!(address_problem(url), None, "{url:?}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let base = "url = \"http://h\"\nprotocol = { kind = \"json\", reward = \"r\" }\n";
        assert!(toml::from_str::<Settings>(base).is_ok());
        assert!(toml::from_str::<Settings>(&format!("{base}retry = 3")).is_err());
        let typo = "url = \"http://h\"\nprotocol = { kind = \"json\", rewards = \"r\" }";
        assert!(toml::from_str::<Settings>(typo).is_err());
    }

    #[test]
    fn settings_survive_a_configuration_file() {
        for protocol in [
            Protocol::json("pickscore"),
            Protocol::FlowGrpo { service: Service::GenevalStrict },
            Protocol::Openai {
                model: "m".to_owned(),
                rubric: Rubric::default(),
                unparsed: Some(0.0),
            },
        ] {
            let settings = Settings::new("http://host:1", protocol);
            let text = toml::to_string(&settings).expect("TOML");
            assert_eq!(toml::from_str::<Settings>(&text).expect("read back"), settings, "{text}");
        }
        let unirl = "url = \"http://h\"\nprotocol = { kind = \"unirl\", reward = \"clip\" }";
        let settings: Settings = toml::from_str(unirl).expect("TOML");
        assert_eq!(settings.protocol, Protocol::json("clip"));
    }

    #[test]
    fn this_machine_is_recognised() {
        for url in ["http://localhost:80", "http://127.0.0.1:1/x", "http://[::1]:80"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://10.0.0.1", "https://localhost.example.com", "nonsense"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
