//! A fleet of simulated thermometers: which message is due when, and what it says. Seeded, so the same options give the same
//! messages; pure, so the same fleet serves the simulator, the demo and tests.
//!
//! Devices take turns, evenly spread over each interval. Some readings are faulty in the ways of real fleets:
//! ```text
//! out of order   measured up to 4 s before it is sent (within the watermark's tolerance)
//! late           measured 30 to 60 s before it is sent
//! duplicate      the device sends the same bytes twice
//! broken         cut JSON, a text for a number, no time, a clock ten years ahead; in turns
//! ```

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

const OUT_OF_ORDER_BY_MS: i64 = 4_000;
const LATE_BY_MS: std::ops::Range<i64> = 30_000..60_000;
const TEN_YEARS_MS: i64 = 10 * 365 * 86_400_000;
/// Devices of one site share the topic level `site-<n>`.
const DEVICES_PER_SITE: u32 = 50;

/// The size of the fleet and the share of its faults. Shares are of 1, counted per reading.
#[derive(Clone, Debug, clap::Args)]
pub struct FleetOptions {
    /// The same seed gives the same messages.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Devices in the fleet.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub devices: u32,
    /// Readings a second of each device.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// Share of readings sent up to 4 s after they were measured.
    #[arg(long, default_value_t = 0.02)]
    pub out_of_order: f64,
    /// Share of readings sent 30 to 60 s after they were measured.
    #[arg(long, default_value_t = 0.002)]
    pub late: f64,
    /// Share of readings sent twice.
    #[arg(long, default_value_t = 0.01)]
    pub duplicate: f64,
    /// Share of readings nobody can use.
    #[arg(long, default_value_t = 0.005)]
    pub broken: f64,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions { seed: 1, devices: 200, rate: 5.0, out_of_order: 0.02, late: 0.002, duplicate: 0.01, broken: 0.005 }
    }
}

/// What is special about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Measured and sent at once.
    OnTime,
    /// Sent up to 4 s after it was measured.
    OutOfOrder,
    /// Sent 30 to 60 s after it was measured.
    Late,
    /// The same bytes as the message before.
    Duplicate,
    /// Belongs to the dead letters.
    Broken,
}

/// One message of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// When it is sent, from the start of the simulation.
    pub due: Duration,
    /// `plant/<site>/<device>/telemetry`.
    pub topic: String,
    /// `{"ts":<unix ms>,"t":<celsius>,"seq":<number from 0, per device>}` unless broken.
    pub payload: Vec<u8>,
    /// What is special about it.
    pub kind: Kind,
}

/// How many messages of each kind were made; what a pipeline behind them must account for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Truth {
    /// All messages, `on_time + out_of_order + late + duplicate + broken`.
    pub messages: u64,
    /// Measured and sent at once.
    pub on_time: u64,
    /// Sent up to 4 s late.
    pub out_of_order: u64,
    /// Sent 30 to 60 s late.
    pub late: u64,
    /// Sent a second time.
    pub duplicate: u64,
    /// Of no use.
    pub broken: u64,
}

impl Truth {
    /// Counts one message.
    pub fn add(&mut self, kind: Kind) {
        self.messages += 1;
        match kind {
            Kind::OnTime => self.on_time += 1,
            Kind::OutOfOrder => self.out_of_order += 1,
            Kind::Late => self.late += 1,
            Kind::Duplicate => self.duplicate += 1,
            Kind::Broken => self.broken += 1,
        }
    }

    /// Different good readings: what is in the tables once duplicates are gone and late rows are counted.
    pub fn readings(&self) -> u64 {
        self.on_time + self.out_of_order + self.late
    }
}

/// The endless messages of a fleet, in the order they are due.
pub struct Fleet {
    options: FleetOptions,
    start_ms: i64,
    random: StdRng,
    turn: u64,
    broken: u32,
    again: Option<Message>,
}

impl Fleet {
    /// A fleet whose first message is sent at `start_ms` (Unix milliseconds).
    pub fn new(options: FleetOptions, start_ms: i64) -> Fleet {
        let random = StdRng::seed_from_u64(options.seed);
        Fleet { options, start_ms, random, turn: 0, broken: 0, again: None }
    }

    fn kind(&mut self) -> Kind {
        let FleetOptions { out_of_order, late, broken, .. } = self.options;
        let draw: f64 = self.random.random();
        match draw {
            _ if draw < broken => Kind::Broken,
            _ if draw < broken + late => Kind::Late,
            _ if draw < broken + late + out_of_order => Kind::OutOfOrder,
            _ => Kind::OnTime,
        }
    }

    fn delay_ms(&mut self, kind: Kind) -> i64 {
        match kind {
            Kind::OutOfOrder => self.random.random_range(1..=OUT_OF_ORDER_BY_MS),
            Kind::Late => self.random.random_range(LATE_BY_MS),
            Kind::OnTime | Kind::Duplicate | Kind::Broken => 0,
        }
    }

    fn message(&mut self) -> Message {
        let devices = u64::from(self.options.devices);
        let (device, seq) = ((self.turn % devices) as u32, self.turn / devices);
        let due = Duration::from_secs_f64(self.turn as f64 / (devices as f64 * self.options.rate));
        self.turn += 1;
        let kind = self.kind();
        let ts = self.start_ms + due.as_millis() as i64 - self.delay_ms(kind);
        let celsius = 60.0 + f64::from(device % 40) + self.random.random_range(-2.0..2.0);
        let payload =
            if kind == Kind::Broken { self.broken_payload(ts, seq) } else { format!(r#"{{"ts":{ts},"t":{celsius:.2},"seq":{seq}}}"#) };
        let topic = format!("plant/site-{}/boiler-{device}/telemetry", device / DEVICES_PER_SITE);
        Message { due, topic, payload: payload.into_bytes(), kind }
    }

    fn broken_payload(&mut self, ts: i64, seq: u64) -> String {
        self.broken += 1;
        match self.broken % 4 {
            1 => format!(r#"{{"ts":{ts},"t":71."#),
            2 => format!(r#"{{"ts":{ts},"t":"hot","seq":{seq}}}"#),
            3 => format!(r#"{{"t":71.5,"seq":{seq}}}"#),
            _ => format!(r#"{{"ts":{},"t":71.5,"seq":{seq}}}"#, ts + TEN_YEARS_MS),
        }
    }
}

impl Iterator for Fleet {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.again.take() {
            return Some(message);
        }
        let message = self.message();
        if message.kind != Kind::Broken && self.random.random_bool(self.options.duplicate.clamp(0.0, 1.0)) {
            self.again = Some(Message { kind: Kind::Duplicate, ..message.clone() });
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(count: usize, seed: u64) -> Vec<Message> {
        Fleet::new(FleetOptions { seed, ..FleetOptions::default() }, 1_700_000_000_000).take(count).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_messages() {
        assert_eq!(first(2_000, 7), first(2_000, 7));
        assert_ne!(first(2_000, 7), first(2_000, 8));
    }

    #[test]
    fn every_fault_occurs_about_as_often_as_asked() {
        let mut truth = Truth::default();
        first(100_000, 1).iter().for_each(|message| truth.add(message.kind));
        assert_eq!(truth.messages, 100_000);
        assert_eq!(truth.readings() + truth.duplicate + truth.broken, truth.messages);
        for (count, share) in [(truth.out_of_order, 0.02), (truth.late, 0.002), (truth.duplicate, 0.01), (truth.broken, 0.005)] {
            let expected = 100_000.0 * share;
            assert!((count as f64 - expected).abs() < expected * 0.3, "{count} for {expected}");
        }
    }

    #[test]
    fn a_duplicate_repeats_the_message_before_it() {
        let messages = first(20_000, 3);
        let pairs: Vec<_> = messages.windows(2).filter(|pair| pair[1].kind == Kind::Duplicate).collect();
        assert!(!pairs.is_empty());
        assert!(pairs.iter().all(|pair| pair[0].payload == pair[1].payload && pair[0].topic == pair[1].topic));
    }

    #[test]
    fn two_hundred_devices_at_five_a_second_send_a_thousand_a_second() {
        let options = FleetOptions { duplicate: 0.0, ..FleetOptions::default() };
        let second = Fleet::new(options, 0).take_while(|message| message.due < Duration::from_secs(1)).count();
        assert_eq!(second, 1_000);
    }
}
