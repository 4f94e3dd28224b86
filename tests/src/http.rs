//! A client of a running instance, as small as HTTP/1.1 allows.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Where the instance that owns a data directory listens; none while it does not say so.
pub fn address(data_dir: &Path) -> Option<String> {
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(data_dir.join("instance.json")).ok()?).ok()?;
    Some(facts.get("http")?.as_str()?.to_owned())
}

/// Sends a request and waits for its answer: status and body. None when there is no answer: it may have been taken or not.
pub fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
