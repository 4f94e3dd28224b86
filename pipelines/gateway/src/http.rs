//! HTTP: `POST /api/v1/sql`, `POST /api/v1/ingest/{source}`, `GET /health/live`, `GET /health/ready`. Errors are `application/problem+json`.

use crate::access::{Access, admit};
use crate::format::{Format, render};
use crate::ingest::{Ingest, to_source, to_topic};
use crate::query::{Engine, QueryError};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

/// The most bytes of a request: above the longest statement, with room for JSON escapes.
const BODY_BYTES: usize = 1 << 20;

/// Says whether the pipeline takes readings: none when it does, else why not.
pub type Ready = Arc<dyn Fn() -> Option<String> + Send + Sync>;

#[derive(Clone)]
struct Gateway {
    engine: Engine,
    ready: Ready,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    sql: String,
}

/// An error as RFC 9457 has it.
#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

/// The routes, for those whom `access` lets in.
pub fn router(engine: Engine, ready: Ready, ingest: Arc<dyn Ingest>, access: Access) -> Router {
    let sources = Router::new()
        .route("/api/v1/ingest/{source}", post(to_source))
        .route("/api/v1/ingest/{source}/{*topic}", post(to_topic))
        .with_state(ingest);
    Router::new()
        .route("/api/v1/sql", post(sql))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(health_ready))
        .merge(sources)
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such path") })
        .method_not_allowed_fallback(|| async { problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method") })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(Arc::new(access), admit))
        .with_state(Gateway { engine, ready })
}

/// Listens on an address that `access` allows; port 0 takes a free one.
pub async fn bind(address: SocketAddr, access: &Access) -> std::io::Result<tokio::net::TcpListener> {
    access.allows(address)?;
    tokio::net::TcpListener::bind(address).await
}

/// Serves until `stop` is done, then ends the open requests.
pub async fn serve<S: Future<Output = ()> + Send + 'static>(
    listener: tokio::net::TcpListener,
    router: Router,
    stop: S,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn sql(State(gateway): State<Gateway>, headers: HeaderMap, body: Bytes) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let Some(format) = Format::accepted(accept) else {
        return problem(StatusCode::NOT_ACCEPTABLE, "results are JSON, NDJSON, CSV, Arrow IPC or plain text");
    };
    let statement = match statement(&headers, &body) {
        Ok(statement) => statement,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, detail),
    };
    let answer = match gateway.engine.query(&statement).await {
        Ok(answer) => answer,
        Err(error) => return refusal(&error),
    };
    match render(format, &answer.schema, &answer.batches) {
        Ok(bytes) => {
            ([(header::CONTENT_TYPE.as_str(), format.media_type()), ("x-journaled", &answer.journaled.to_string())], bytes).into_response()
        }
        Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, format!("the result has no form as {}: {error}", format.media_type())),
    }
}

/// The statement of a body: `{"sql": "…"}` with a JSON content type, else the text itself.
fn statement(headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|k| k.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json")) {
        return serde_json::from_slice::<Statement>(body).map(|s| s.sql).map_err(|e| format!("the body is not {{\"sql\": \"…\"}}: {e}"));
    }
    String::from_utf8(body.to_vec()).map_err(|e| format!("the body is not UTF-8: {e}"))
}

async fn health_ready(State(gateway): State<Gateway>) -> Response {
    match (gateway.ready)() {
        None => "ready\n".into_response(),
        Some(why) => problem(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn refusal(error: &QueryError) -> Response {
    let status = match error {
        QueryError::Refused(_) => StatusCode::BAD_REQUEST,
        QueryError::TooManyRows(_) => StatusCode::UNPROCESSABLE_ENTITY,
        QueryError::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
        QueryError::Memory(_) => StatusCode::SERVICE_UNAVAILABLE,
        QueryError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, error.to_string())
}

pub(crate) fn problem(status: StatusCode, detail: impl Into<String>) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body = Problem { r#type: "about:blank", title, status: status.as_u16(), detail: detail.into() };
    let text = serde_json::to_vec(&body).expect("a problem is plain words");
    (status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{NotTaken, Reject, Sent, Taken};
    use crate::query::{Limits, Tables};
    use storage::view::Stored;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn gateway() -> SocketAddr {
        gateway_for(Access::default()).await
    }

    async fn gateway_for(access: Access) -> SocketAddr {
        let tables = Tables { specs: Vec::new(), views: Arc::new(Stored::default()), cold: None, warm: std::env::temp_dir() };
        let engine = Engine::new(tables, Limits { rows: 3, ..Limits::default() }).unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap(), &access).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(engine, Arc::new(|| Some("starting".into())), Arc::new(Floor), access);
        tokio::spawn(serve(listener, router, std::future::pending()));
        address
    }

    /// A source that takes what is not `busy`, and counts its lines.
    struct Floor;

    #[async_trait::async_trait]
    impl Ingest for Floor {
        fn max_body(&self, source: &str) -> Option<usize> {
            (source == "floor").then_some(40)
        }

        async fn take(&self, _: &str, sent: Sent) -> Result<Taken, NotTaken> {
            if sent.body == "busy" {
                return Err(NotTaken::Busy);
            }
            let accepted = sent.body.split(|b| *b == b'\n').count() as u64;
            let reject = Reject { message: 1, reason: "malformed", detail: sent.topic };
            Ok(Taken { accepted, rejected: 1, rejects: vec![reject], duplicate: sent.key.is_some() })
        }
    }

    async fn post(address: SocketAddr, head: &str, body: &str) -> String {
        post_to(address, "/api/v1/sql", head, body).await
    }

    async fn post_to(address: SocketAddr, path: &str, head: &str, body: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let text = format!("POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn statements_are_answered_in_the_form_asked_for_and_mistakes_are_problems() {
        let at = gateway().await;
        let local = "Host: localhost";
        assert!(post(at, local, "SELECT 1 AS x").await.ends_with("[{\"x\":1}]\n"));
        let json = "Host: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: text/csv";
        assert!(post(at, json, "{\"sql\": \"SELECT 1 AS x\"}").await.ends_with("x\n1\n"));
        let long = format!("SELECT 1{}", "+1".repeat(1_001));
        for refused in ["SELEC", "CREATE TABLE x (y INT)", "SELECT repeat('x', 2)", &long] {
            let answer = post(at, local, refused).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("application/problem+json"), "{refused}: {answer}");
        }
        assert!(post(at, local, "SELECT * FROM (VALUES (1), (2), (3), (4))").await.starts_with("HTTP/1.1 422"));
        assert!(post(at, "Host: evil.example", "SELECT 1").await.starts_with("HTTP/1.1 403"));
    }

    #[tokio::test]
    async fn messages_go_to_their_source_and_refusals_are_problems() {
        let at = gateway().await;
        let (local, keyed) = ("Host: localhost", "Host: localhost\r\nIdempotency-Key: a");
        let taken = post_to(at, "/api/v1/ingest/floor/plant/a%20b", keyed, "1\n2").await;
        assert!(taken.starts_with("HTTP/1.1 202"), "{taken}");
        let expected =
            r#"{"accepted":2,"rejected":1,"rejects":[{"message":1,"reason":"malformed","detail":"plant/a b"}],"duplicate":true}"#;
        assert!(taken.ends_with(expected), "{taken}");
        let busy = post_to(at, "/api/v1/ingest/floor", local, "busy").await;
        assert!(busy.starts_with("HTTP/1.1 429") && busy.contains("retry-after: 1") && busy.contains("problem+json"), "{busy}");
        assert!(post_to(at, "/api/v1/ingest/none", local, "1").await.starts_with("HTTP/1.1 404"));
        assert!(post_to(at, "/api/v1/ingest/floor", local, &"x".repeat(41)).await.starts_with("HTTP/1.1 413"));
        let elsewhere = "Host: localhost\r\nOrigin: https://evil.example";
        assert!(post_to(at, "/api/v1/ingest/floor", elsewhere, "1").await.starts_with("HTTP/1.1 403"));
        assert!(
            post_to(at, "/api/v1/ingest/floor", "Host: localhost\r\nOrigin: http://127.0.0.1:3000", "1").await.starts_with("HTTP/1.1 202")
        );
    }

    #[tokio::test]
    async fn bodies_may_be_compressed_and_are_bounded_as_they_are_then() {
        let gzip = |text: &str| {
            let mut to = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
            std::io::Write::write_all(&mut to, text.as_bytes()).unwrap();
            to.finish().unwrap()
        };
        let send = async |encoding: &str, body: &[u8]| {
            let mut stream = tokio::net::TcpStream::connect(gateway().await).await.unwrap();
            let head = "POST /api/v1/ingest/floor HTTP/1.1\r\nHost: localhost\r\nConnection: close";
            let head = format!("{head}\r\nContent-Length: {}\r\nContent-Encoding: {encoding}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let taken = send("gzip", &gzip("1\n2\n3")).await;
        assert!(taken.starts_with("HTTP/1.1 202") && taken.contains("\"accepted\":3"), "{taken}");
        let taken = send("zstd", &zstd::encode_all("1\n2".as_bytes(), 1).unwrap()).await;
        assert!(taken.starts_with("HTTP/1.1 202") && taken.contains("\"accepted\":2"), "{taken}");
        assert!(send("gzip", &gzip(&"x".repeat(41))).await.starts_with("HTTP/1.1 413"));
        assert!(send("gzip", b"no gzip").await.starts_with("HTTP/1.1 400"));
        assert!(send("br", b"x").await.starts_with("HTTP/1.1 415"));
        assert!(send("identity", b"x").await.starts_with("HTTP/1.1 202"));
    }

    #[tokio::test]
    async fn a_token_lets_in_and_one_for_sending_lets_send() {
        let [token, ingest_token] = ["all", "in"].map(|word| Some(crate::access::Token(word.into())));
        let at = gateway_for(Access { token, ingest_token }).await;
        let with = |word: &str| format!("Host: plant.example\r\nAuthorization: Bearer {word}");
        let (sql, ingest) = ("/api/v1/sql", "/api/v1/ingest/floor");
        for (word, path, status) in
            [("all", sql, 200), ("all", ingest, 202), ("in", ingest, 202), ("in", sql, 403), ("no", ingest, 401), ("al", sql, 401)]
        {
            let answer = post_to(at, path, &with(word), "SELECT 1").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{word} {path}: {answer}");
        }
        let nobody = post_to(at, sql, "Host: localhost", "SELECT 1").await;
        assert!(nobody.starts_with("HTTP/1.1 401") && nobody.to_lowercase().contains("www-authenticate: bearer"), "{nobody}");
        assert!(
            post_to(at, "/health/ready", "Host: plant.example", "").await.starts_with("HTTP/1.1 405"),
            "no token, but the wrong method"
        );
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on_without_a_token() {
        let (all, none) = ("0.0.0.0:0".parse().unwrap(), Access::default());
        assert!(bind(all, &none).await.is_err());
        assert!(bind(all, &Access { token: Some(crate::access::Token("x".into())), ..none }).await.is_ok());
    }
}
