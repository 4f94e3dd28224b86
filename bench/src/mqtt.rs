//! How fast the binary takes what waits in a real Mosquitto, beside a client that only acknowledges; then how long a reading takes from its
//! publication until SQL shows it.
//!
//! ```text
//! fill the broker: messages of one reading, 100 bytes ─► take them: a bare client, then the binary     in turn, several rounds
//! publish as fast as the broker takes ─► ask SQL for the number of readings, again and again: how many a second all together sustain
//! publish at half of that rate        ─► the same
//! ```
//! A reading is visible when an answer counts more than were published before it; its latency counts from the time at which it was to be
//! published, to the arrival of that answer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;
use crate::mosquitto::{Bare, Mosquitto, Pace};
use crate::page::post;
use crate::setup::{Fleet, Setup, folder};

const FLEET: Fleet = Fleet { devices: 10_000, readings: 1, step_ms: 1_000 };
/// Bytes of a message's payload.
const PAYLOAD: usize = 100;
/// From an answer to the next question, where latency is told. A question costs some milliseconds of a core.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The same where only the end counts.
const ASK_SELDOM: Duration = Duration::from_millis(250);
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
const FSYNCS: &str = "tidegate_journal_fsync_seconds";
const TO_DURABLE: &str = "tidegate_ingest_to_durable_seconds";

/// What is measured, and where its files lie.
#[derive(Clone, Debug, clap::Args)]
pub struct MqttOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// Folder for data.
    #[arg(long, default_value = "target/bench-mqtt")]
    pub folder: PathBuf,
    /// Messages of a run. They wait in the broker's memory.
    #[arg(long, default_value_t = 1_000_000)]
    pub messages: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How long readings are published for their latency, in seconds.
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
    /// The figures as a line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// The figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MqttReport {
    /// Messages a second that a client takes which does nothing but acknowledge.
    pub bare_per_second: f64,
    /// Messages a second that the binary takes, each durable before its acknowledgement.
    pub durable_per_second: f64,
    /// CPU seconds per million readings.
    pub cpu_seconds_per_million: f64,
    /// Readings a second that publisher, broker and binary sustain together on this machine.
    pub sustained_per_second: f64,
    /// What was seen at half of that.
    #[serde(flatten)]
    pub visible: Visible,
}

/// How long readings took that were published at a rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Visible {
    /// Readings a second.
    pub rate: f64,
    /// Half of the readings were visible within this many milliseconds.
    pub visible_p50_ms: f64,
    /// 99 of 100.
    pub visible_p99_ms: f64,
    /// 99 of 100 were durable within this many milliseconds of their receipt: the upper bound of a bucket.
    pub acks_p99_ms: f64,
    /// 99 of 100 fsyncs took as long at most.
    pub fsync_p99_ms: f64,
}

impl fmt::Display for MqttReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.durable_per_second / self.bare_per_second;
        writeln!(out, "a bare client                 {:.0} messages a second", self.bare_per_second)?;
        writeln!(out, "durable acks                  {:.0} messages a second, {share:.0} %", self.durable_per_second)?;
        writeln!(out, "CPU seconds per million       {:.2}", self.cpu_seconds_per_million)?;
        writeln!(out, "with the publisher beside it  {:.0} readings a second", self.sustained_per_second)?;
        let Visible { rate, visible_p50_ms, visible_p99_ms, acks_p99_ms, fsync_p99_ms } = self.visible;
        writeln!(out, "at {rate:.0} readings a second")?;
        writeln!(out, "publish to visible            p50 {visible_p50_ms:.1} ms, p99 {visible_p99_ms:.1} ms")?;
        write!(out, "receipt to durable            p99 {acks_p99_ms:.1} ms; an fsync p99 {fsync_p99_ms:.1} ms")
    }
}

/// Measures both.
pub fn measure_mqtt(options: &MqttOptions) -> Result<MqttReport> {
    let folder = folder(&options.folder)?;
    let broker = Mosquitto::start(&folder)?;
    let (mut bare, mut durable, mut cpu) = (0.0, (0.0, 0.0), 0.0);
    for _ in 0..options.rounds {
        let client = Bare::subscribe(&broker, "bare/+")?;
        broker.publish(messages("bare", options.messages), None)?;
        bare += client.take(options.messages)?;
        let setup = Setup::new(&folder, &broker, "durable", true)?;
        // A subscription that stays: the broker keeps what comes for it.
        setup.run(&options.tidegate, "1s")?;
        broker.publish(messages("durable", options.messages), None)?;
        let (usage, (seconds, counted)) = setup.drain(&options.tidegate)?;
        setup.stored(&options.tidegate, options.messages)?;
        (durable.0, durable.1) = (durable.0 + seconds, durable.1 + counted);
        cpu += usage.user_seconds + usage.system_seconds;
    }
    let all = (u64::from(options.rounds) * options.messages) as f64;
    let durable_per_second = durable.1 / durable.0;
    let sustained_per_second = published(options, &folder, &broker, None)?.0;
    let visible = published(options, &folder, &broker, Some(sustained_per_second / 2.0))?.1;
    let (bare_per_second, cpu_seconds_per_million) = (all / bare, cpu / (all / 1e6));
    Ok(MqttReport { bare_per_second, durable_per_second, cpu_seconds_per_million, sustained_per_second, visible })
}

/// Messages of one reading, of `PAYLOAD` bytes.
fn messages(topic: &str, count: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    FLEET.messages(topic, count).map(|(topic, mut payload)| {
        payload.pop();
        payload.extend_from_slice(b",\"p\":\"");
        payload.resize(PAYLOAD - 2, b'x');
        payload.extend_from_slice(b"\"}");
        (topic, payload)
    })
}

/// Publishes at a rate, or as fast as it can, while it asks how many readings are visible: how many became visible a second, and how soon.
fn published(options: &MqttOptions, folder: &Path, broker: &Mosquitto, rate: Option<f64>) -> Result<(f64, Visible)> {
    let setup = Setup::new(folder, broker, "visible", true)?;
    setup.run(&options.tidegate, "1s")?;
    let count = rate.map_or(options.messages, |rate| (rate * f64::from(options.seconds)) as u64);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| setup.run(&options.tidegate, "5s"));
        let measured = setup.ready().and_then(|before| {
            // The pipeline has subscribed before; it needs some moments to come back.
            let pace = Pace { start: Instant::now() + Duration::from_secs(1), a_second: rate.unwrap_or(f64::INFINITY) };
            let publishing = scope.spawn(move || {
                std::thread::sleep(pace.start.saturating_duration_since(Instant::now()));
                broker.publish(messages("visible", count), rate.map(|_| pace))
            });
            let answers = answers(&setup, count, pace.start, if rate.is_some() { ASK_EVERY } else { ASK_SELDOM });
            publishing.join().unwrap_or_else(|_| Err(setup.failed("the thread that published panicked".to_owned())))?;
            let after = setup.ready()?;
            let share = |histogram, q| after.quantile(&before, histogram, q).ok_or_else(|| setup.failed(format!("nothing in {histogram}")));
            let answers = answers?;
            let seconds = answers.last().map_or(0.0, |(last, _)| last.saturating_duration_since(pace.start).as_secs_f64());
            let latencies = latencies(&answers, &pace, count);
            let of = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
            let visible = Visible {
                rate: pace.a_second,
                visible_p50_ms: of(0.5),
                visible_p99_ms: of(0.99),
                acks_p99_ms: 1e3 * share(TO_DURABLE, 0.99)?,
                fsync_p99_ms: 1e3 * share(FSYNCS, 0.99)?,
            };
            Ok((count as f64 / seconds, visible))
        });
        running.join().unwrap_or_else(|_| Err(setup.failed("the thread that waited for it panicked".to_owned())))?;
        measured
    })
}

/// When answers came, and how many readings each counted, until all were.
fn answers(setup: &Setup, count: u64, start: Instant, every: Duration) -> Result<Vec<(Instant, u64)>> {
    let (mut answers, mut progress) = (vec![], (start, 0));
    loop {
        let text = post(setup.http, "/api/v1/sql", "SELECT count(*) FROM readings");
        let now = Instant::now();
        // It says nothing before it is ready.
        if let Some(visible) = text.as_deref().and_then(|text| text.trim().lines().last()?.trim().parse().ok()) {
            answers.push((now, visible));
            if visible >= count {
                return Ok(answers);
            }
            if visible > progress.1 {
                progress = (now, visible);
            }
        }
        if now.saturating_duration_since(progress.0) > VISIBLE_WITHIN {
            return Err(setup.failed(format!("{} of {count} readings are visible, and no more come: {text:?}", progress.1)));
        }
        std::thread::sleep(every);
    }
}

/// Milliseconds from each reading's time to the first answer that counts it, rising.
fn latencies(answers: &[(Instant, u64)], pace: &Pace, count: u64) -> Vec<f64> {
    let (mut latencies, mut next) = (Vec::with_capacity(count as usize), 0);
    for (at, visible) in answers {
        for number in next..(*visible).min(count) {
            latencies.push(at.saturating_duration_since(pace.at(number as usize)).as_secs_f64() * 1e3);
        }
        next = next.max(*visible);
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_is_json() {
        for (_, payload) in messages("t", 12) {
            assert_eq!(payload.len(), PAYLOAD);
            let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert!(value["r"][0]["v"].is_number());
        }
    }

    #[test]
    fn a_latency_counts_from_the_time_of_the_reading_to_the_first_answer_with_it() {
        let start = Instant::now();
        let pace = Pace { start, a_second: 100.0 };
        let at = |ms| start + Duration::from_millis(ms);
        // Readings are due after 0, 10, 20 and 30 ms.
        let found = latencies(&[(at(5), 1), (at(12), 1), (at(25), 3), (at(90), 4)], &pace, 4);
        assert_eq!(found.iter().map(|ms| ms.round()).collect::<Vec<_>>(), [5.0, 5.0, 15.0, 60.0]);
    }
}
