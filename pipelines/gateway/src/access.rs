//! Who may ask, and who may send.
//!
//! Without a token the gateway listens on loopback only, and answers only to a `Host` that says so, so that a page in a browser cannot reach it under
//! a name of its own (DNS rebinding); nor does it take what a page of another origin sends. With one it answers whoever sends it (RFC 6750).

use crate::http::problem;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Where sources are sent to.
const INGEST: &str = "/api/v1/ingest/";
/// What everybody may know.
const HEALTH: &str = "/health/";

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Opens everything. None: whoever is on this machine may do everything.
    pub token: Option<Token>,
    /// Opens the way in alone.
    pub ingest_token: Option<Token>,
}

/// A secret word. Does not show itself.
#[derive(Clone)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Takes as long for a wrong word as for a right one of its length.
    fn is(&self, word: &str) -> bool {
        self.0.as_bytes().ct_eq(word.as_bytes()).into()
    }
}

impl Access {
    /// Whether an address may be listened on.
    pub fn allows(&self, address: SocketAddr) -> std::io::Result<()> {
        if self.token.is_some() || address.ip().is_loopback() {
            return Ok(());
        }
        let text = format!("{address} can be reached from outside: it needs a token");
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text))
    }
}

pub(crate) async fn admit(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let Some(token) = &access.token else { return local_only(request, next).await };
    let path = request.uri().path();
    let words = request.headers().get(header::AUTHORIZATION).and_then(|words| words.to_str().ok());
    let word = words.and_then(|words| words.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let is_sender = |word: &str| access.ingest_token.as_ref().is_some_and(|token| token.is(word));
    match word.map(|(_, word)| word.trim()) {
        _ if path.starts_with(HEALTH) => next.run(request).await,
        Some(word) if token.is(word) => next.run(request).await,
        Some(word) if is_sender(word) && path.starts_with(INGEST) => next.run(request).await,
        Some(word) if is_sender(word) => problem(StatusCode::FORBIDDEN, "this token is for sending readings alone"),
        _ => ([(header::WWW_AUTHENTICATE, "Bearer")], problem(StatusCode::UNAUTHORIZED, "a token is asked for: Authorization: Bearer …"))
            .into_response(),
    }
}

async fn local_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let origin = request.headers().get(header::ORIGIN).map(|o| o.to_str().unwrap_or_default());
    if !is_local(host) {
        return problem(StatusCode::FORBIDDEN, "the Host header does not name this machine's loopback");
    }
    if origin.is_some_and(|origin| !origin.split_once("://").is_some_and(|(_, host)| is_local(host))) {
        return problem(StatusCode::FORBIDDEN, "the request comes from a page of another origin");
    }
    next.run(request).await
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
