//! The hub over HTTP: the list of a repository's files, and what it states about each.

use std::{io, io::Read, sync::Arc, time::Duration};

use serde::Deserialize;
use ureq::{
    Agent, Body, Error,
    config::RedirectAuthHeaders,
    http::{HeaderMap, Response},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{HubError, Name, Settings, Token, name::is_commit};

/// What the hub states about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    /// SHA-256 of a large file, or git's digest of a small one, in hexadecimal.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
}

/// A connection to the hub, for one repository.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    agent: Agent,
    endpoint: &'a str,
    token: Option<&'a Token>,
    name: &'a Name,
}

/// Longest answers to other questions than for files, in bytes: a repository of 100,000 files.
const LONGEST_ANSWER: u64 = 64 << 20;
/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 8;
/// A connection that gives nothing for this long is broken.
const SILENCE: Duration = Duration::from_mins(1);

impl<'a> Wire<'a> {
    pub fn new(settings: &'a Settings, name: &'a Name) -> Result<Self, HubError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(MOST_REDIRECTS)
            // The storage behind the hub gets no token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent("flow-grpo")
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        let host = settings.endpoint.split_once("://").map_or("", |(_, host)| host);
        if ["127.0.0.1", "localhost", "[::1]"].iter().any(|own| host.starts_with(own)) {
            // A proxy of the environment cannot reach this machine's own addresses.
            config = config.proxy(None);
        }
        if settings.endpoint.starts_with("https") {
            config = config.tls_config(tls()?);
        }
        let (agent, token) = (config.build().new_agent(), settings.token.as_ref());
        Ok(Self { agent, endpoint: &settings.endpoint, token, name })
    }

    /// The commit of the revision, and the paths of its files.
    pub fn list(&self) -> Result<(String, Vec<String>), HubError> {
        #[derive(Deserialize)]
        struct File {
            rfilename: String,
        }
        #[derive(Deserialize)]
        struct Model {
            sha: String,
            siblings: Vec<File>,
        }
        let (repository, revision) = (self.name.repository(), self.name.revision());
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{repository}/revision/{revision}", self.endpoint);
        let response = self.checked(self.agent.get(&url).call_with(self.token), &url, None)?;
        let mut text = Vec::new();
        let mut body = response.into_body().into_reader().take(LONGEST_ANSWER);
        body.read_to_end(&mut text).map_err(|error| self.unreachable(&error))?;
        let bad = |reason: String| HubError::Answer { url: url.clone(), reason };
        let model: Model = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("this is no answer of a model hub: {error}")))?;
        if !is_commit(&model.sha) {
            return Err(bad(format!("`{}` is no commit", model.sha)));
        }
        Ok((model.sha, model.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    /// What the hub states about a file of a commit.
    pub fn stated(&self, commit: &str, file: &str) -> Result<Stated, HubError> {
        let mut url = self.address(commit, file);
        for _ in 0..MOST_REDIRECTS {
            let head = self.agent.head(&url).config().max_redirects(0);
            let head = head.max_redirects_will_error(false).build();
            let response = self.checked(head.call_with(self.token), &url, Some(file))?;
            let headers = response.headers();
            let moved = header(headers, "location").filter(|to| to.starts_with('/'));
            match moved {
                // A renamed repository; a large file leads to another host and states its digest.
                Some(to) if header(headers, "x-linked-etag").is_none() => {
                    url = format!("{}{to}", self.endpoint);
                }
                _ => return stated(headers).map_err(|reason| HubError::Answer { url, reason }),
            }
        }
        Err(HubError::Answer { url, reason: "it redirects without end".to_owned() })
    }

    /// The bytes of a file from `from` on, and whether the answer does begin there; otherwise it
    /// begins at the file's start.
    pub fn bytes(
        &self,
        commit: &str,
        file: &str,
        from: u64,
    ) -> Result<(impl Read + use<>, bool), HubError> {
        let url = self.address(commit, file);
        let mut request = self.agent.get(&url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = self.checked(request.call_with(self.token), &url, Some(file))?;
        let range = header(response.headers(), "content-range").unwrap_or_default();
        let resumed = response.status() == 206 && range.starts_with(&format!("bytes {from}-"));
        Ok((response.into_body().into_reader(), resumed))
    }

    /// The address of the hub.
    pub fn endpoint(&self) -> &str {
        self.endpoint
    }

    fn address(&self, commit: &str, file: &str) -> String {
        let file = file.replace('+', "%2B");
        format!("{}/{}/resolve/{commit}/{file}", self.endpoint, self.name.repository())
    }

    fn unreachable(&self, reason: &dyn std::error::Error) -> HubError {
        HubError::Unreachable { endpoint: self.endpoint.to_owned(), reason: reason.to_string() }
    }

    /// The answer, if its status is good.
    fn checked(
        &self,
        answer: Result<Response<Body>, Error>,
        url: &str,
        file: Option<&str>,
    ) -> Result<Response<Body>, HubError> {
        let response = answer.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let headers = response.headers();
        let code = header(headers, "x-error-code").unwrap_or_default();
        let message = header(headers, "x-error-message").unwrap_or_default().to_owned();
        let repository = self.name.repository().to_owned();
        let with_token = self.token.is_some();
        let page = format!("{}/{repository}", self.endpoint);
        Err(match (status, code) {
            (401 | 403, "GatedRepo") => HubError::Gated { repository, page, with_token, message },
            (404, "RevisionNotFound") => {
                HubError::NoRevision { repository, revision: self.name.revision().to_owned() }
            }
            (404, "EntryNotFound") => {
                let file = file.unwrap_or_default().to_owned();
                HubError::NoFile { repository, file }
            }
            // Without a token, the hub does not tell a private model from none.
            (404, _) | (401, "RepoNotFound") => self.no_repository(),
            (401, _) if !with_token => self.no_repository(),
            (401 | 403, _) => HubError::Denied { page, status, message },
            (429 | 500.., _) => {
                let reason = format!("it answers with status {status} {message}");
                HubError::Unreachable { endpoint: self.endpoint.to_owned(), reason }
            }
            _ => HubError::Answer {
                url: url.to_owned(),
                reason: format!("the hub answers with status {status} {message}"),
            },
        })
    }

    fn no_repository(&self) -> HubError {
        HubError::NoRepository {
            repository: self.name.repository().to_owned(),
            endpoint: self.endpoint.to_owned(),
            with_token: self.token.is_some(),
        }
    }
}

/// A request that may carry a token.
trait CallWith {
    fn call_with(self, token: Option<&Token>) -> Result<Response<Body>, Error>;
}

impl CallWith for ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    fn call_with(self, token: Option<&Token>) -> Result<Response<Body>, Error> {
        match token {
            Some(token) => self.header("Authorization", token.header()).call(),
            None => self.call(),
        }
    }
}

/// The value of a header, if it is text.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Digest and size in the headers of a file.
fn stated(headers: &HeaderMap) -> Result<Stated, String> {
    let either = |linked: &str, plain: &str| header(headers, linked).or(header(headers, plain));
    let etag = either("x-linked-etag", "etag").unwrap_or_default();
    let digest = etag.trim_start_matches("W/").trim_matches('"').to_owned();
    let hexadecimal = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !(hexadecimal && matches!(digest.len(), 40 | 64)) {
        return Err(format!("`{etag}` is no digest of a file"));
    }
    let size = either("x-linked-size", "content-length").and_then(|size| size.parse().ok());
    Ok(Stated { digest, size: size.ok_or("it states no size")? })
}

/// TLS with the root certificates of the system.
fn tls() -> Result<TlsConfig, HubError> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let reason = loaded.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(HubError::Certificates(reason));
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

/// Whether reading an answer failed because of the connection.
pub(crate) fn says(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "nothing came for a minute".to_owned()
        }
        _ => error.to_string(),
    }
}
