//! A server for the files of a folder, on this machine only.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    thread::JoinHandle,
};

use anyhow::{Context, Result};

/// A running server; it ends with the program.
pub struct Server {
    port: u16,
    thread: JoinHandle<()>,
}

impl Server {
    /// Serves a folder on a port, or on a free one if `port` is 0.
    pub fn start(folder: &Path, port: u16) -> Result<Self> {
        let folder = folder.canonicalize().context("the book is not built")?;
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("cannot listen on port {port}"))?;
        let port = listener.local_addr()?.port();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let folder = folder.clone();
                // A browser that goes away in the middle of an answer is no fault.
                std::thread::spawn(move || drop(answer(stream, &folder)));
            }
        });
        Ok(Self { port, thread })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until the program is stopped.
    pub fn wait(self) {
        let _ = self.thread.join();
    }
}

/// Answers one request.
fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let file = file_of(&request, folder).and_then(|path| Some((fs::read(&path).ok()?, path)));
    let (status, kind, body) = match file {
        Some((body, path)) => ("200 OK", kind(&path), body),
        None => ("404 Not Found", "text/plain", b"there is no such page".to_vec()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// The file that a request like `GET /a/b.html?x HTTP/1.1` asks for, inside the folder.
fn file_of(request: &str, folder: &Path) -> Option<PathBuf> {
    let path = request.strip_prefix("GET /")?.split([' ', '?', '#']).next()?;
    let path = Path::new(if path.is_empty() { "index.html" } else { path });
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| folder.join(path))
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_file_inside_the_folder_and_no_other() {
        let file = |request: &str| file_of(request, Path::new("book"));
        assert_eq!(file("GET / HTTP/1.1"), Some("book/index.html".into()));
        assert_eq!(file("GET /a/b.js?v=1 HTTP/1.1"), Some("book/a/b.js".into()));
        for outside in
            ["GET /../Cargo.toml HTTP/1.1", "GET //etc/passwd HTTP/1.1", "PUT /a HTTP/1.1"]
        {
            assert_eq!(file(outside), None, "{outside}");
        }
    }
}
