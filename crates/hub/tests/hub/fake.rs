//! A server that answers like the hub, with every fault.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use sha1::{Digest as _, Sha1};

/// The commit of the fake repository.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The state of the server.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct State {
    /// The files of `owner/model`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether files need the token `hf_right`.
    pub gated: bool,
    /// Answers of the storage that end after so many bytes.
    pub cut: Vec<usize>,
    /// Whether the storage ignores ranges.
    pub ignores_ranges: bool,
    /// Whether the storage answers every range with the whole, and says so.
    pub answers_whole: bool,
    /// Whether the storage gives other bytes than it states.
    pub lies: bool,
    /// The requests, `METHOD PATH RANGE`.
    pub requests: Vec<String>,
    /// Whether a token reached the storage.
    pub leaked: bool,
    /// The address of the storage: another host than the hub, unless a test changes it.
    pub storage: String,
}

/// A running server.
pub struct Hub {
    pub state: Arc<Mutex<State>>,
    pub endpoint: String,
}

impl Hub {
    /// Serves these files as `owner/model`; files that end in `.safetensors` lie in the storage.
    pub fn of(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let endpoint = format!("http://{address}");
        let storage = format!("http://localhost:{}/storage", address.port());
        let state = State { files: files.collect(), storage, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || answer(&stream, &state));
            }
        });
        Self { state, endpoint }
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().expect("state").requests)
    }

    /// Changes the state.
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("state"));
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<usize>,
    token: Option<String>,
}

fn request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut request = Request { method, path, range: None, token: None };
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_lowercase().as_str() {
            "range" => {
                let from = value.strip_prefix("bytes=")?.strip_suffix('-')?;
                request.range = from.parse().ok();
            }
            "authorization" => request.token = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn answer(stream: &TcpStream, state: &Mutex<State>) {
    let Some(request) = request(stream) else { return };
    let mut state = state.lock().expect("state");
    let range = request.range.map(|from| format!(" {from}")).unwrap_or_default();
    state.requests.push(format!("{} {}{range}", request.method, request.path));
    let (head, body) = response(&request, &mut state);
    drop(state);
    let mut stream = stream;
    let body = if request.method == "HEAD" { &[][..] } else { &body };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn head(status: &str, length: usize, headers: &[String]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n")
}

fn failed(status: &str, code: &str) -> (String, Vec<u8>) {
    let headers = [format!("X-Error-Code: {code}"), "X-Error-Message: the hub's words".to_owned()];
    (head(status, 0, &headers), Vec::new())
}

fn response(request: &Request, state: &mut State) -> (String, Vec<u8>) {
    let path = request.path.as_str();
    if let Some(digest) = path.strip_prefix("/storage/") {
        return stored(request, digest, state);
    }
    if let Some(rest) = path.strip_prefix("/api/models/") {
        return match rest.split_once("/revision/") {
            Some(("owner/model", "main" | COMMIT)) => {
                let names: Vec<_> = state
                    .files
                    .keys()
                    .map(|name| format!("{{\"rfilename\":\"{name}\"}}"))
                    .collect();
                let body = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", names.join(","));
                (head("200 OK", body.len(), &[]), body.into_bytes())
            }
            Some(("owner/model", _)) => failed("404 Not Found", "RevisionNotFound"),
            _ if request.token.is_none() => failed("401 Unauthorized", "RepoNotFound"),
            _ => failed("404 Not Found", "RepoNotFound"),
        };
    }
    if state.gated && request.token.as_deref() != Some("Bearer hf_right") {
        let status = if request.token.is_none() { "401 Unauthorized" } else { "403 Forbidden" };
        return failed(status, "GatedRepo");
    }
    let file = path.strip_prefix(&format!("/owner/model/resolve/{COMMIT}/"));
    let Some((name, bytes)) = file.and_then(|file| Some((file, state.files.get(file)?))) else {
        return failed("404 Not Found", "EntryNotFound");
    };
    let commit = format!("X-Repo-Commit: {COMMIT}");
    if name.ends_with(".safetensors") {
        let digest = files::sha256(bytes);
        let headers = [
            commit,
            format!("X-Linked-Etag: \"{digest}\""),
            format!("X-Linked-Size: {}", bytes.len()),
            format!("Location: {}/{digest}", state.storage),
        ];
        return (head("302 Found", 0, &headers), Vec::new());
    }
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", bytes.len()));
    digest.update(bytes);
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (head("200 OK", bytes.len(), &[commit, format!("ETag: \"{digest}\"")]), bytes.clone())
}

/// The bytes of a large file, or some of them.
fn stored(request: &Request, digest: &str, state: &mut State) -> (String, Vec<u8>) {
    state.leaked |= request.token.is_some();
    let bytes = state.files.values().find(|bytes| files::sha256(bytes) == digest);
    let Some(mut bytes) = bytes.cloned() else { return failed("404 Not Found", "EntryNotFound") };
    if state.lies {
        bytes[0] ^= 1;
    }
    let all = bytes.len();
    let from = request.range.filter(|_| !state.ignores_ranges);
    let from = from.map(|from| if state.answers_whole { 0 } else { from });
    let mut body = bytes.split_off(from.unwrap_or(0));
    let length = body.len();
    if !state.cut.is_empty() {
        body.truncate(state.cut.remove(0));
    }
    let head = match from {
        None => head("200 OK", length, &[]),
        Some(from) => {
            let range = format!("Content-Range: bytes {from}-{}/{all}", all - 1);
            head("206 Partial Content", length, &[range])
        }
    };
    (head, body)
}
