//! A server that offers a scorer over HTTP, in the JSON protocol of `json.rs`.
//!
//! `POST /score` scores images, `GET /health` names the rewards; every error is JSON,
//! `{"error": "…"}`. A server listens on this machine alone unless told otherwise, and then wants
//! a token. It bounds the size of a request, the number and sides of its images, the requests that
//! wait, and the time that a request may take to arrive. It has no TLS: put a proxy in front.

mod answer;
mod routes;

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};

use self::routes::router;
use crate::{Sample, Token};

/// Rewards that a server offers.
///
/// `score` runs on a thread of its own, several at once if [`Options::concurrency`] says so.
pub trait Scorer: Send + Sync {
    /// Names of the rewards.
    fn names(&self) -> Vec<String>;

    /// Scores samples by every reward: one number per sample under each name.
    ///
    /// # Errors
    /// The reason why the samples cannot be scored.
    fn score(&self, samples: &[Sample]) -> Result<BTreeMap<String, Vec<f32>>, ScorerError>;
}

/// A scorer could not score.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct ScorerError {
    /// Index of the sample, if one sample is the cause. A client does not ask again for this
    /// sample; without an index the fault is the server's, and a client retries.
    pub sample: Option<usize>,
    /// The reason, for people.
    pub reason: String,
}

/// Address and limits of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes any free port.
    pub address: SocketAddr,
    /// The token that clients must send; obligatory if other machines can reach the address.
    pub token: Option<Token>,
    /// Most bytes of a request. Base64 makes an image a third longer.
    pub body_bytes: usize,
    /// Most images of a request.
    pub images: usize,
    /// Most pixels of a side of an image.
    pub side: u32,
    /// Most pixels of all images of a request together; small files can hold large images.
    pub pixels: u64,
    /// Requests that are scored at once.
    pub concurrency: usize,
    /// Requests that wait beyond those; more are refused with status 429.
    pub waiting: usize,
    /// Time in which a request must arrive whole.
    pub patience: Duration,
    /// Time that requests under way have to finish when the server stops.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 18087)),
            token: None,
            body_bytes: 64 << 20,
            images: 256,
            side: 4096,
            pixels: 1 << 26,
            concurrency: 1,
            waiting: 16,
            patience: Duration::from_mins(1),
            grace: Duration::from_secs(30),
        }
    }
}

/// A server cannot start, or did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Other machines can reach the address, but there is no token.
    #[error("{0} can be reached from other machines; a server there needs a token")]
    NoToken(SocketAddr),
    /// A limit is 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is the port free?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A thread or its event loop cannot start.
    #[error("the server cannot start: {0}")]
    Start(io::Error),
    /// Requests were still under way at the end of the grace.
    #[error("requests were still under way {} s after the stop; they were cut", .0.as_secs_f64())]
    Cut(Duration),
    /// The server's thread panicked.
    #[error("the server broke")]
    Broken,
}

/// A running server. Dropping it stops it without waiting for requests under way.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), ServeError>>,
}

/// Starts a server on a thread of its own; it accepts connections when this returns.
///
/// # Errors
/// If an option is out of range, other machines could use the scorer without a token, or the
/// address cannot be listened on.
pub fn serve(scorer: Arc<dyn Scorer>, options: Options) -> Result<Server, ServeError> {
    let limits = [
        ("body_bytes", options.body_bytes),
        ("images", options.images),
        ("side", options.side as usize),
        ("concurrency", options.concurrency),
    ];
    if let Some((name, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
        return Err(ServeError::Zero(name));
    }
    if !options.address.ip().is_loopback() && options.token.is_none() {
        return Err(ServeError::NoToken(options.address));
    }
    let failed = |source| ServeError::Listen { address: options.address, source };
    let listener = TcpListener::bind(options.address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
    let (stop, stopped) = watch::channel(false);
    let thread = thread::Builder::new()
        .name("judge-server".to_owned())
        .spawn(move || run(runtime, listener, scorer, options, stopped))
        .map_err(ServeError::Start)?;
    Ok(Server { address, stop, thread })
}

impl Server {
    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, waits for requests under way, and ends the server.
    ///
    /// # Errors
    /// If requests were not done within [`Options::grace`].
    pub fn stop(self) -> Result<(), ServeError> {
        // The receiver is gone only if the thread has ended, and then `join` says how.
        let _ = self.stop.send(true);
        self.thread.join().unwrap_or(Err(ServeError::Broken))
    }
}

/// Serves until told to stop, or until the handle of the server is dropped.
fn run(
    runtime: Runtime,
    listener: TcpListener,
    scorer: Arc<dyn Scorer>,
    options: Options,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let grace = options.grace;
    let ended = runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Start)?;
        let mut signal = stopped.clone();
        let serving = axum::serve(listener, router(scorer, options))
            .with_graceful_shutdown(async move { drop(signal.wait_for(|stop| *stop).await) });
        let serving = tokio::spawn(serving.into_future());
        if stopped.wait_for(|stop| *stop).await.is_err() {
            return Ok(());
        }
        match timeout(grace, serving).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(ServeError::Start(error)),
            Ok(Err(_)) => Err(ServeError::Broken),
            Err(_) => Err(ServeError::Cut(grace)),
        }
    });
    runtime.shutdown_background();
    ended
}
