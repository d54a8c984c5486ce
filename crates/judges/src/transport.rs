//! One exchange over HTTP, without retries: a request out, a status and a body back.

use std::{io, time::Duration};

use ureq::{Agent, Error, http::Response};

use crate::{
    SettingsError, Token,
    fault::Fault,
    retry::retry_after,
    settings::{Settings, is_loopback},
    wire::{Post, explanation},
};

/// The longest answer, in bytes. Answers are short: a number or a paragraph per image.
const LONGEST_ANSWER: u64 = 4 << 20;

/// An answer of any status.
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The wait that the server asks for.
    pub wait: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a successful answer.
    pub fn success(&self) -> Result<&[u8], Fault> {
        let (status, message) = (self.status, || explanation(&self.body));
        match status {
            200..=299 => Ok(&self.body),
            300..=399 => Err(Fault::Refused {
                status,
                message: "it redirects; `url` should be the address that it redirects to"
                    .to_owned(),
            }),
            429 | 503 => Err(Fault::Busy { status, wait: self.wait, message: message() }),
            500.. => Err(Fault::Failed { status, message: message() }),
            401 | 403 => Err(Fault::Refused {
                status,
                message: format!("{}; is `token_variable` right?", message()),
            }),
            _ => Err(Fault::Refused { status, message: message() }),
        }
    }
}

/// A connection to one judge.
pub(crate) struct Transport {
    agent: Agent,
    url: String,
    token: Option<Token>,
    timeout: Duration,
}

impl Transport {
    pub fn new(settings: &Settings, token: Option<Token>) -> Result<Self, SettingsError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(settings.concurrency)
            .max_idle_connections(settings.concurrency)
            .user_agent("flow-grpo")
            .timeout_global(Some(settings.timeout()));
        if is_loopback(&settings.url) {
            // A proxy of the environment cannot reach this machine's own addresses.
            config = config.proxy(None);
        }
        #[cfg(feature = "tls")]
        if settings.url.starts_with("https") {
            config = config.tls_config(tls()?);
        }
        let url = settings.url.trim_end_matches('/').to_owned();
        let timeout = settings.timeout();
        Ok(Self { agent: config.build().new_agent(), url, token, timeout })
    }

    /// Posts a body.
    pub fn post(&self, post: &Post) -> Result<Answer, Fault> {
        let mut request = self
            .agent
            .post(format!("{}{}", self.url, post.path))
            .header("Content-Type", post.media_type);
        if let Some(token) = &self.token {
            request = request.header("Authorization", token.header());
        }
        self.answer(request.send(&post.body))
    }

    /// Gets a path.
    pub fn get(&self, path: &str) -> Result<Answer, Fault> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token.header());
        }
        self.answer(request.call())
    }

    fn answer(&self, response: Result<Response<ureq::Body>, Error>) -> Result<Answer, Fault> {
        let response = response.map_err(|error| self.fault(error))?;
        let status = response.status().as_u16();
        let wait = response.headers().get("Retry-After").and_then(|header| header.to_str().ok());
        let wait = wait.and_then(retry_after);
        let body = response.into_body().into_with_config().limit(LONGEST_ANSWER).read_to_vec();
        let body = body.map_err(|error| self.fault(error))?;
        Ok(Answer { status, wait, body })
    }

    fn fault(&self, error: Error) -> Fault {
        match error {
            Error::Timeout(_) => Fault::Timeout(self.timeout),
            Error::HostNotFound => Fault::Unreachable("the host is not known".to_owned()),
            Error::ConnectionFailed => Fault::Unreachable("the connection failed".to_owned()),
            Error::BodyExceedsLimit(limit) => {
                Fault::Malformed(format!("it is longer than {limit} bytes"))
            }
            Error::Io(error) => self.io_fault(&error),
            other => Fault::Exchange(other.to_string()),
        }
    }

    fn io_fault(&self, error: &io::Error) -> Fault {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::TimedOut | Kind::WouldBlock => Fault::Timeout(self.timeout),
            Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::AddrNotAvailable => Fault::Unreachable(error.to_string()),
            // TLS reports certificates that it does not trust in this way.
            Kind::InvalidData | Kind::InvalidInput => Fault::Exchange(error.to_string()),
            _ => Fault::Broken(error.to_string()),
        }
    }
}

/// TLS with the root certificates of the system.
#[cfg(feature = "tls")]
fn tls() -> Result<ureq::tls::TlsConfig, SettingsError> {
    use std::sync::Arc;

    use ureq::tls::{Certificate, RootCerts, TlsConfig};

    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let reason = loaded.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(SettingsError::Certificates(reason));
    }
    let certificates: Vec<Certificate<'static>> = loaded
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}
