//! A judge written by hand that misbehaves as a test says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A request that a judge got.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// First line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

/// What a judge does with a request.
pub(crate) enum Reply {
    /// Answers with a status, further headers (each with its line end) and a body.
    Answer(u16, &'static str, Vec<u8>),
    /// Answers after a while.
    Late(Duration, Vec<u8>),
    /// Says nothing and keeps the connection.
    Silence,
    /// Closes the connection without a word.
    HangUp,
    /// Promises a longer body than it sends.
    Truncated(Vec<u8>),
    /// Sends these bytes as they are.
    Raw(&'static [u8]),
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(200, "", body.into())
    }
}

/// A judge that replies by a rule, which gets the number of the request and the request.
pub(crate) struct Fake {
    pub url: String,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Fake {
    pub(crate) fn new(rule: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (rule, kept) = (Arc::new(rule), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (rule, kept) = (Arc::clone(&rule), Arc::clone(&kept));
                thread::spawn(move || {
                    let Some(received) = receive(&stream) else { return };
                    let number = {
                        let mut kept = kept.lock().expect("no panic");
                        kept.push(received.clone());
                        kept.len() - 1
                    };
                    reply(stream, rule(number, &received));
                });
            }
        });
        Self { url, requests }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn receive(stream: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().expect("a number"))];
    reader.read_exact(&mut body).ok()?;
    Some(Received { head, body })
}

fn reply(mut stream: TcpStream, reply: Reply) {
    let mut answer = |status: u16, headers: &str, length: usize, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n{headers}");
        // The client may have hung up.
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
    };
    match reply {
        Reply::Answer(status, headers, body) => answer(status, headers, body.len(), &body),
        Reply::Late(wait, body) => {
            thread::sleep(wait);
            answer(200, "", body.len(), &body);
        }
        Reply::Truncated(body) => answer(200, "", body.len() + 10, &body),
        Reply::HangUp => {}
        Reply::Raw(bytes) => drop(stream.write_all(bytes)),
        Reply::Silence => drop(stream.read(&mut [0])),
    }
}

/// A JSON answer with one score per image of the request: its number in the prompt.
pub(crate) fn numbers(received: &Received) -> String {
    let request: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
    let results: Vec<String> = request["requests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            let prompt = item["history"][0]["text"].as_str().expect("a prompt");
            let number = prompt.strip_prefix("prompt ").expect("a number");
            format!(r#"{{"r": {{"r": {number}}}}}"#)
        })
        .collect();
    format!(r#"{{"results": [{}]}}"#, results.join(","))
}
