//! `POST /api/v1/ingest/{source}` and `/api/v1/ingest/{source}/{topic}`: messages by HTTP, answered when they are durable.
//!
//! 202 with what was taken and what not, 413 for too large a body (as it is unpacked), 429 with `Retry-After` when too much waits, 503 while the pipeline
//! stops. An `Idempotency-Key` makes a request that is sent again count once.

use crate::http::problem;
use async_trait::async_trait;
use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::read::MultiGzDecoder;
use serde::Serialize;
use std::io::Read;
use std::sync::Arc;

/// Refused messages that an answer names; all are counted.
const NAMED: usize = 100;

/// How a body may be packed (`Content-Encoding`).
const CODINGS: [&str; 4] = ["", "identity", "gzip", "zstd"];

/// The longest `Idempotency-Key`.
const KEY_BYTES: usize = 255;

/// The sources that are sent to by HTTP.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// The most bytes of a body; none: there is no such source.
    fn max_body(&self, source: &str) -> Option<usize>;

    /// Takes what was sent; resolves when it is durable.
    async fn take(&self, source: &str, sent: Sent) -> Result<Taken, NotTaken>;
}

/// A request to a source.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What follows the source's name in the path.
    pub topic: String,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Idempotency-Key`.
    pub key: Option<String>,
    /// `traceparent`.
    pub trace: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Messages that were taken.
    pub accepted: u64,
    /// Messages that are dead letters.
    pub rejected: u64,
    /// The first of these.
    pub rejects: Vec<Reject>,
    /// It was taken before; nothing of it was taken now.
    pub duplicate: bool,
}

/// A message that is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Its number in the request, from 1.
    pub message: u64,
    /// The reason as `dead_letters` has it.
    pub reason: &'static str,
    /// What a person should know.
    pub detail: String,
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// There is no such source.
    NoSource,
    /// Too much waits.
    Busy,
    /// The pipeline stops.
    Stopping,
}

pub(crate) async fn to_source(ingest: State<Arc<dyn Ingest>>, Path(source): Path<String>, headers: HeaderMap, body: Body) -> Response {
    to_topic(ingest, Path((source, String::new())), headers, body).await
}

pub(crate) async fn to_topic(
    State(ingest): State<Arc<dyn Ingest>>,
    Path((source, topic)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(most) = ingest.max_body(&source) else { return refusal(NotTaken::NoSource) };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let coding = text(header::CONTENT_ENCODING.as_str()).unwrap_or_default().to_ascii_lowercase();
    if !CODINGS.contains(&coding.as_str()) {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body is plain, gzip or zstd");
    }
    let key = text("idempotency-key");
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES) {
        return problem(StatusCode::BAD_REQUEST, format!("an Idempotency-Key has 1 to {KEY_BYTES} bytes"));
    }
    let Ok(body) = to_bytes(body, most).await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body did not come whole, or has more than {most} bytes (max_body)"));
    };
    let body = match decoded(&coding, body, most) {
        Ok(Some(body)) => body,
        Ok(None) => return problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes (max_body) unpacked")),
        Err(e) => return problem(StatusCode::BAD_REQUEST, format!("the body is not {coding}: {e}")),
    };
    let sent = Sent { topic, content_type: text("content-type"), key, trace: text("traceparent"), body };
    match ingest.take(&source, sent).await {
        Ok(mut taken) => {
            taken.rejects.truncate(NAMED);
            (StatusCode::ACCEPTED, Json(taken)).into_response()
        }
        Err(why) => refusal(why),
    }
}

/// The bytes that were packed; none where they are more than `most`.
fn decoded(coding: &str, body: Bytes, most: usize) -> std::io::Result<Option<Bytes>> {
    let mut plain = vec![];
    let limit = most as u64 + 1;
    match coding {
        "gzip" => MultiGzDecoder::new(&*body).take(limit).read_to_end(&mut plain)?,
        "zstd" => zstd::Decoder::new(&*body)?.take(limit).read_to_end(&mut plain)?,
        _ => return Ok(Some(body)),
    };
    Ok((plain.len() <= most).then(|| plain.into()))
}

fn refusal(why: NotTaken) -> Response {
    match why {
        NotTaken::NoSource => problem(StatusCode::NOT_FOUND, "no HTTP source has this name"),
        NotTaken::Stopping => problem(StatusCode::SERVICE_UNAVAILABLE, "the pipeline is stopping; what was sent may or may not be stored"),
        NotTaken::Busy => {
            let busy = problem(StatusCode::TOO_MANY_REQUESTS, "too much waits for the disk; nothing of this was taken");
            ([(header::RETRY_AFTER, "1")], busy).into_response()
        }
    }
}
