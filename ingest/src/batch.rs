//! A batch of messages becomes frames for the lanes: decode, put aside what cannot be used, route.
//!
//! Pure: the same messages with the same arrival give the same frames. Each row of a message goes to the lane of its key; the rejects of
//! a topic go to one lane, by a hash of source and topic.

use crate::Rejected;
use crate::beside::{raw, traces};
use crate::decode::{Decoded, Decoder, Message, TopicPattern};
use crate::journal::Body;
use crate::mqtt::{Received, publish_hash};
use crate::route::{lanes_of, split};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewBuilder};
use arrow::buffer::Buffer;
use flow::{Batch, Error, Origin, Reason, Result, Span, WallTime, trail};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes frames of messages.
pub(crate) struct Batcher {
    pub(crate) source: Arc<str>,
    pub(crate) producer: u32,
    pub(crate) decoder: Box<dyn Decoder>,
    pub(crate) topics: Topics,
    /// Indices of the key columns in the decoder's schema.
    pub(crate) key: Vec<usize>,
    pub(crate) lanes: u32,
    pub(crate) max_message: usize,
    pub(crate) max_future: Span,
    /// Whoever sent the messages is told which could not be used.
    pub(crate) explain: bool,
}

/// What a batch became.
pub(crate) struct Made {
    /// Lane and content; rows first.
    pub(crate) frames: Vec<(Option<u32>, Body)>,
    pub(crate) rows: u64,
    pub(crate) rejects: u64,
    /// The messages that could not be used, in their order, where somebody is told.
    pub(crate) refused: Vec<Unusable>,
}

/// The patterns of a source; each names the same captures.
pub(crate) struct Topics {
    patterns: Vec<(TopicPattern, Vec<usize>)>,
    captures: usize,
}

/// A message that could not be used: its place in the batch, why, and what a person should know.
pub(crate) type Unusable = (usize, Reason, String);

impl Topics {
    /// Captures come out in the order of the first pattern.
    pub(crate) fn new(patterns: Vec<TopicPattern>) -> Self {
        let names = patterns.first().map_or_else(Vec::new, |p| p.captures().to_vec());
        let places = |p: &TopicPattern| {
            let place = |name| p.captures().iter().position(|c| c == name);
            names.iter().map(|name| place(name).expect("checked: every pattern has the captures of the first")).collect()
        };
        let patterns = patterns
            .into_iter()
            .map(|p| {
                let order = places(&p);
                (p, order)
            })
            .collect();
        Self { patterns, captures: names.len() }
    }

    /// Appends the captures of `topic` to `out`; false, and nothing appended, where no pattern fits.
    fn captures<'t>(&self, topic: &'t str, out: &mut Vec<&'t str>) -> bool {
        let mut found = Vec::with_capacity(self.captures);
        for (pattern, order) in &self.patterns {
            found.clear();
            if pattern.match_into(topic, &mut found) {
                out.extend(order.iter().map(|place| found[*place]));
                return true;
            }
        }
        false
    }
}

impl Batcher {
    /// The frames of `messages`, which reached us at `arrival`.
    pub(crate) fn make(&mut self, messages: &[Received], arrival: WallTime) -> Result<Made> {
        let mut unusable: Vec<Unusable> = Vec::new();
        let mut usable: Vec<(usize, &str)> = Vec::with_capacity(messages.len());
        let mut captures = Vec::with_capacity(messages.len() * self.topics.captures);
        for (place, message) in messages.iter().enumerate() {
            match self.admit(message, &mut captures) {
                Ok(topic) => usable.push((place, topic)),
                Err((reason, detail)) => unusable.push((place, reason, detail)),
            }
        }
        let width = self.topics.captures;
        let list: Vec<Message<'_>> = usable
            .iter()
            .enumerate()
            .map(|(n, (place, topic))| Message {
                topic: Some(topic),
                captures: &captures[n * width..(n + 1) * width],
                payload: &messages[*place].payload,
            })
            .collect();
        let mut decoded = self.decoder.decode(&list, arrival);
        let refused = std::mem::take(&mut decoded.rejects);
        unusable.extend(refused.into_iter().map(|r| (usable[r.message as usize].0, r.reason, r.detail)));
        unusable.sort_by_key(|(place, ..)| *place);

        let (rows, rejects) = (decoded.rows.num_rows() as u64, unusable.len() as u64);
        let mut frames = Vec::new();
        if rows > 0 {
            self.route(self.with_origin(decoded, &list, messages, &usable, arrival)?, &mut frames)?;
        }
        let refused = if self.explain { unusable.clone() } else { vec![] };
        self.put_aside(unusable, messages, arrival, &mut frames);
        Ok(Made { frames, rows, rejects, refused })
    }

    /// The message's topic, with its captures appended; or why the decoder need not see it.
    fn admit<'m>(&self, message: &'m Received, captures: &mut Vec<&'m str>) -> Result<&'m str, (Reason, String)> {
        if message.payload.len() > self.max_message {
            return Err((Reason::TooLarge, format!("{} bytes, max_message is {}", message.payload.len(), self.max_message)));
        }
        let topic = std::str::from_utf8(&message.topic).map_err(|e| (Reason::Malformed, format!("topic: {e}")))?;
        if !self.topics.captures(topic, captures) {
            return Err((Reason::UnknownTopic, "the topic fits none of the source's patterns".into()));
        }
        Ok(topic)
    }

    /// The rows with their topic, and with the bytes of those that are too far ahead of their arrival.
    fn with_origin(
        &self,
        decoded: Decoded,
        list: &[Message<'_>],
        messages: &[Received],
        usable: &[(usize, &str)],
        arrival: WallTime,
    ) -> Result<Batch> {
        let topic_of = |row: &u32| list[*row as usize].topic.unwrap_or_default();
        let first = topic_of(&decoded.messages[0]);
        let one_topic = decoded.messages.iter().all(|row| topic_of(row) == first);
        let origin = Origin { source: self.source.clone(), producer: self.producer, topic: one_topic.then(|| first.into()), arrival };
        let batch = Batch::new(decoded.rows, Arc::new(origin))?;
        let mut beside: Vec<(&str, ArrayRef, bool)> = Vec::new();
        if !one_topic {
            let mut topics = StringViewBuilder::with_capacity(batch.len()).with_deduplicate_strings();
            decoded.messages.iter().for_each(|row| topics.append_value(topic_of(row)));
            beside.push((trail::TOPIC, Arc::new(topics.finish()), true));
        }
        let message_of = |row: u32| &messages[usable[row as usize].0];
        let latest = arrival.plus(self.max_future).0;
        if let Some(raw) = raw(batch.times(), latest, &decoded.messages, |row| Buffer::from(message_of(row).payload.clone()))? {
            beside.push((trail::RAW, raw, true));
        }
        if let Some(traces) = traces(&decoded.messages, |row| message_of(row).trace.as_deref()) {
            beside.push((trail::TRACE, traces, true));
        }
        if beside.is_empty() {
            return Ok(batch);
        }
        let beside = RecordBatch::try_from_iter_with_nullable(beside).map_err(|e| Error::stop("columns beside the rows", e))?;
        Ok(batch.with_trail(Some(beside)))
    }

    fn route(&self, batch: Batch, frames: &mut Vec<(Option<u32>, Body)>) -> Result<()> {
        let mut lanes = Vec::with_capacity(batch.len());
        lanes_of(batch.rows(), &self.key, self.lanes, &mut lanes);
        for (lane, rows) in split(&lanes, self.lanes) {
            let part = batch.take(&rows)?;
            frames.push((Some(lane), Body::Rows(if self.lanes > 1 { compact(&part)? } else { part })));
        }
        Ok(())
    }

    fn put_aside(&self, unusable: Vec<Unusable>, messages: &[Received], arrival: WallTime, frames: &mut Vec<(Option<u32>, Body)>) {
        let mut by_lane: BTreeMap<u32, Vec<Rejected>> = BTreeMap::new();
        for (place, reason, detail) in unusable {
            let message = &messages[place];
            let lane = (publish_hash(self.source.as_bytes(), &message.topic) % u64::from(self.lanes)) as u32;
            by_lane.entry(lane).or_default().push(Rejected {
                source: self.source.clone(),
                topic: Some(String::from_utf8_lossy(&message.topic).into()),
                offset: None,
                reason,
                detail,
                payload: Rejected::cut(&message.payload),
                length: message.payload.len() as u64,
                arrival,
            });
        }
        frames.extend(by_lane.into_iter().map(|(lane, rejects)| (Some(lane), Body::Rejects(rejects))));
    }
}

/// Text of its own for a part of a batch: a selection of views still holds the text of all rows, and every queue and table behind would
/// count and keep it for each lane. The bytes kept in `trail::RAW` are left alone, since rows of one message share them.
fn compact(part: &Batch) -> Result<Batch> {
    let columns = |of: &RecordBatch| of.columns().iter().map(|c| c.as_string_view_opt().map_or(c.clone(), |c| Arc::new(c.gc()))).collect();
    let same = |of: &RecordBatch| RecordBatch::try_new(of.schema(), columns(of)).map_err(|e| Error::stop("a part of a batch", e));
    let trail = part.trail().map(same).transpose()?;
    Ok(part.with_rows(same(part.rows())?)?.with_trail(trail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_come_out_in_the_order_of_the_first_pattern() {
        let patterns = ["plant/{site}/{device}", "{device}/at/{site}/#"].map(|p| TopicPattern::parse(p).unwrap());
        let topics = Topics::new(patterns.to_vec());
        let mut out = vec!["before"];
        assert!(topics.captures("plant/north/press", &mut out));
        assert!(topics.captures("saw/at/south/now", &mut out));
        assert!(!topics.captures("elsewhere", &mut out));
        assert_eq!(out, ["before", "north", "press", "south", "saw"]);
    }
}
