//! What the client library has to know of a session that the broker kept: nothing. We never publish, so no packet of ours is open when a
//! connection ends.
//!
//! Without a word about our side the library takes a kept session, but refuses every SUBSCRIBE in it. A session that ended before its first SUBSCRIBE, or
//! that was kept by a run with other topics, would then bring nothing for ever.

use super::wire::OWN_PACKETS;
use rumqttc::{PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey};
use std::future::{Future, ready};
use std::pin::Pin;

/// The version of `PersistedSession` that the library knows.
const FORMAT: u16 = 1;

/// Always tells of a session in which nothing is open.
#[derive(Debug)]
pub(super) struct NothingOpen;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for NothingOpen {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Answer<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: FORMAT,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(OWN_PACKETS),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: vec![],
            incoming_qos2: vec![],
        };
        Box::pin(ready(Ok(Some(session))))
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Answer<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Answer<'a, ()> {
        Box::pin(ready(Ok(())))
    }
}
