//! The two routes, and who may use them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use super::{Options, Scorer, answer::answer};
use crate::json::{HEALTH, SCORE};

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub reason: String,
}

impl Refusal {
    /// The client's fault.
    pub fn of_request(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: reason.into() }
    }

    /// The server's fault.
    pub fn of_server(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, reason: reason.into() }
    }

    fn response(&self) -> Response {
        let mut response = respond(self.status, &json!({ "error": self.reason }));
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

struct Shared {
    scorer: Arc<dyn Scorer>,
    options: Options,
    /// Places for requests that are here, scored or waiting.
    places: Arc<Semaphore>,
    /// Turns at the scorer.
    turns: Arc<Semaphore>,
}

/// The routes of a server.
pub(super) fn router(scorer: Arc<dyn Scorer>, options: Options) -> Router {
    let places = options.concurrency.saturating_add(options.waiting).min(Semaphore::MAX_PERMITS);
    let turns = options.concurrency.min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        scorer,
        options,
        places: Arc::new(Semaphore::new(places)),
        turns: Arc::new(Semaphore::new(turns)),
    });
    Router::new()
        .route(SCORE, post(score))
        .route(HEALTH, get(health))
        .fallback(async || {
            let reason = format!("no such path; there are POST {SCORE} and GET {HEALTH}");
            Refusal { status: StatusCode::NOT_FOUND, reason }.response()
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Lets requests with the right token through.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let admitted = match &shared.options.token {
        None => true,
        Some(token) => header.is_some_and(|header| token.admits(header.as_bytes())),
    };
    if admitted {
        return next.run(request).await;
    }
    let reason = "the header Authorization must be: Bearer TOKEN, with this server's token";
    Refusal { status: StatusCode::UNAUTHORIZED, reason: reason.to_owned() }.response()
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let names = shared.scorer.names().into_iter();
    let rewards: BTreeMap<_, _> = names.map(|name| (name.clone(), [name])).collect();
    respond(StatusCode::OK, &json!({ "status": "ok", "rewards": rewards }))
}

async fn score(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match try_score(&shared, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(),
    }
}

async fn try_score(shared: &Arc<Shared>, request: Request) -> Result<Response, Refusal> {
    let place = Arc::clone(&shared.places).try_acquire_owned().map_err(|_| Refusal {
        status: StatusCode::TOO_MANY_REQUESTS,
        reason: "too many requests are waiting".to_owned(),
    })?;
    let Options { body_bytes, patience, .. } = shared.options;
    let body = read(request.into_body(), body_bytes, patience).await?;
    let turn = Arc::clone(&shared.turns).acquire_owned().await;
    let turn = turn.map_err(|_| Refusal::of_server("the server is closing"))?;
    let scored = spawn_blocking({
        let shared = Arc::clone(shared);
        move || {
            // Both end with the work, not with the connection: a client that hangs up and asks
            // again gets no second turn while the first request is still being scored.
            let _held: [OwnedSemaphorePermit; 2] = [place, turn];
            answer(&*shared.scorer, &shared.options, &body)
        }
    });
    let answer = scored.await.map_err(|_| Refusal::of_server("the scorer panicked"))??;
    Ok(respond(StatusCode::OK, &answer))
}

/// Reads a body that is not too long and does not come too slowly.
///
/// The rest of a body that is too long is read and dropped: a client that is still sending when
/// the connection closes would see a broken connection instead of the answer.
async fn read(mut body: Body, longest: usize, patience: Duration) -> Result<Vec<u8>, Refusal> {
    let whole = async {
        let (mut bytes, mut length) = (Vec::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| Refusal::of_request(format!("the request broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            length = length.saturating_add(data.len());
            if length > longest {
                bytes = Vec::new();
            } else {
                bytes.extend_from_slice(&data);
            }
        }
        if length <= longest {
            return Ok(bytes);
        }
        Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            reason: format!(
                "the request has {length} bytes, at most {longest} are allowed; send fewer images"
            ),
        })
    };
    timeout(patience, whole).await.unwrap_or_else(|_| {
        let reason = format!("the request did not arrive within {} s", patience.as_secs_f64());
        Err(Refusal { status: StatusCode::REQUEST_TIMEOUT, reason })
    })
}

fn respond(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec());
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
