//! The few MQTT packets that a broker needs toward one subscriber, in versions 3.1.1 and 5.
//!
//! ```text
//! type and flags (1) | remaining length (1..4, 7 bits each) | body
//! ```

use std::io::{self, Read};

/// MQTT 5; a client that says 4 speaks 3.1.1.
pub(super) const V5: u8 = 5;

/// A packet of the client.
pub(super) enum Packet {
    /// The version: 4 is 3.1.1.
    Connect {
        level: u8,
    },
    /// Packet id and the number of filters.
    Subscribe {
        id: u16,
        filters: usize,
    },
    PubAck {
        id: u16,
    },
    PingReq,
    Disconnect,
}

/// Reads one packet; `level` says how its body is laid out.
pub(super) fn read(from: &mut impl Read, level: u8) -> io::Result<Packet> {
    let mut first = [0; 1];
    from.read_exact(&mut first)?;
    let mut body = vec![0; length(from)?];
    from.read_exact(&mut body)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("packet type {} of {} bytes", first[0] >> 4, body.len()));
    let packet = match first[0] >> 4 {
        1 => connect(&body),
        4 => Some(Packet::PubAck { id: u16_at(&body, 0).ok_or_else(wrong)? }),
        8 => subscribe(&body, level),
        12 => Some(Packet::PingReq),
        14 => Some(Packet::Disconnect),
        _ => None,
    };
    packet.ok_or_else(wrong)
}

fn connect(body: &[u8]) -> Option<Packet> {
    // "MQTT" with its length stands before the level.
    Some(Packet::Connect { level: *body.get(6)? })
}

fn subscribe(body: &[u8], level: u8) -> Option<Packet> {
    let id = u16_at(body, 0)?;
    let mut rest = body.get(2..)?;
    if level == V5 {
        rest = after_properties(rest)?;
    }
    let mut filters = 0;
    while !rest.is_empty() {
        rest = rest.get(2 + usize::from(u16_at(rest, 0)?) + 1..)?;
        filters += 1;
    }
    Some(Packet::Subscribe { id, filters })
}

fn after_properties(mut bytes: &[u8]) -> Option<&[u8]> {
    let length = length(&mut bytes).ok()?;
    bytes.get(length..)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn length(from: &mut impl Read) -> io::Result<usize> {
    let (mut value, mut byte) = (0, [0; 1]);
    for shift in [0, 7, 14, 21] {
        from.read_exact(&mut byte)?;
        value |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a length of more than four bytes"))
}

pub(super) fn connack(level: u8, session_present: bool) -> Vec<u8> {
    packet(0x20, if level == V5 { vec![u8::from(session_present), 0, 0] } else { vec![u8::from(session_present), 0] })
}

pub(super) fn suback(level: u8, id: u16, filters: usize) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == V5 {
        body.push(0);
    }
    body.extend(std::iter::repeat_n(1, filters));
    packet(0x90, body)
}

/// A publish at QoS 1; `trace` becomes a user property where the version has those.
pub(super) fn publish(level: u8, id: u16, dup: bool, topic: &str, payload: &[u8], trace: Option<&str>) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(id.to_be_bytes());
    if level == V5 {
        let mut properties = vec![];
        if let Some(trace) = trace {
            properties.push(0x26);
            properties.extend(text("traceparent"));
            properties.extend(text(trace));
        }
        body.extend(length_bytes(properties.len()));
        body.extend(properties);
    }
    body.extend(payload);
    packet(0x32 | (u8::from(dup) << 3), body)
}

pub(super) fn pingresp() -> Vec<u8> {
    packet(0xd0, vec![])
}

/// "Session taken over"; only version 5 can say it.
pub(super) fn taken_over() -> Vec<u8> {
    packet(0xe0, vec![0x8e, 0])
}

fn packet(first: u8, body: Vec<u8>) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(length_bytes(body.len()));
    bytes.extend(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).expect("texts of tests are short").to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn length_bytes(mut length: usize) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let rest = length >> 7;
        bytes.push((length & 0x7f) as u8 | if rest > 0 { 0x80 } else { 0 });
        if rest == 0 {
            return bytes;
        }
        length = rest;
    }
}
