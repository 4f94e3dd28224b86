use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::scenario::{FaultOptions, MalformedOptions, Part, RateOptions, Span, Spell};

const START_US: i64 = 1_767_225_600_000_000;

fn scenario(seed: u64, seconds: u64, faults: FaultOptions) -> Scenario {
    Scenario { seed, lasting: Some(Span::from_secs(seconds)), faults, ..Scenario::demo() }
}

fn messages(scenario: &Scenario) -> Vec<Message> {
    Fleet::new(scenario, START_US).collect()
}

fn delay(share: f64, seconds: u64) -> Option<Delay> {
    Some(Delay { share, by: Span::from_secs(seconds) })
}

#[test]
fn the_same_seed_gives_the_same_messages() {
    let run = |seed| messages(&scenario(seed, 5, FaultOptions::usual()));
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn two_hundred_devices_at_five_a_second_send_a_thousand_a_second() {
    assert_eq!(messages(&scenario(1, 3, FaultOptions::default())).len(), 3_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn faults_have_their_shares_and_bounds(seed: u64, out in 0.0..0.1_f64, late in 0.0..0.1_f64, twice in 0.0..0.1_f64, bad in 0.0..0.1_f64) {
        let faults = FaultOptions {
            out_of_order: delay(out, 4),
            late: delay(late, 20),
            duplicate: delay(twice, 2),
            malformed: Some(MalformedOptions { share: bad, classes: Vec::new() }),
            ..FaultOptions::default()
        };
        let all = messages(&scenario(seed, 10, faults));
        let readings = all.iter().filter(|m| m.reading.duplicate_of.is_none()).count() as f64;
        prop_assert_eq!(readings, 10_000.0);
        let count = |of: &dyn Fn(&Reading) -> bool| all.iter().filter(|m| of(&m.reading)).count() as f64;
        let first = |r: &Reading| r.duplicate_of.is_none();
        prop_assert!((count(&|r| r.duplicate_of.is_some()) - readings * twice).abs() <= 1.0);
        prop_assert!((count(&|r| first(r) && r.class.is_some()) - readings * bad).abs() <= 1.0);
        prop_assert!((count(&|r| first(r) && r.timing == Timing::Late) - readings * late).abs() <= 1.0);
        // One that is both is late.
        let both = count(&|r| first(r) && r.timing == Timing::OutOfOrder);
        prop_assert!(both <= readings * out + 1.0 && both >= readings * (out - late) - 2.0);
        for message in all.iter().filter(|m| first(&m.reading)) {
            let delay = START_US as i128 + message.due.as_micros() as i128 - message.reading.measured_us as i128;
            let bound = match message.reading.timing {
                Timing::OnTime => 1,
                Timing::OutOfOrder => 4_000_000,
                _ => 20_000_000,
            };
            prop_assert!((0..=bound).contains(&delay), "{:?} by {}", message.reading.timing, delay);
        }
    }

    #[test]
    fn messages_come_in_the_order_they_are_due_and_sequences_have_no_hole(seed: u64) {
        let offline = Some(Spell { share: 0.2, lasting: Span::from_secs(3) });
        let faults = FaultOptions { offline, gap: Some(Spell { share: 0.1, lasting: Span::from_secs(2) }), ..FaultOptions::usual() };
        let mut options = scenario(seed, 10, faults);
        options.rate = RateOptions { churn: Some(Span::from_secs(4)), ..RateOptions::default() };
        let all = messages(&options);
        prop_assert!(all.windows(2).all(|pair| pair[0].due <= pair[1].due));
        prop_assert!(all.iter().any(|m| m.reading.timing == Timing::Offline));
        let mut sequences: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for message in &all {
            sequences.entry(&message.reading.device).or_default().insert(message.reading.sequence);
        }
        prop_assert!(sequences.len() > 200, "devices were replaced");
        prop_assert!(sequences.values().all(|of| of.iter().copied().eq(0..of.len() as u64)));
        let numbers: BTreeSet<u64> = all.iter().map(|m| m.reading.number).collect();
        prop_assert!(numbers.len() == all.len() && numbers.iter().copied().eq(0..all.len() as u64));
    }
}

#[test]
fn a_duplicate_repeats_the_bytes_of_its_original() {
    let all = messages(&scenario(3, 10, FaultOptions { duplicate: delay(0.1, 3), ..FaultOptions::default() }));
    let by_number: BTreeMap<u64, &Message> = all.iter().map(|m| (m.reading.number, m)).collect();
    let twice: Vec<_> = all.iter().filter_map(|m| Some((m, by_number[&m.reading.duplicate_of?]))).collect();
    assert_eq!(twice.len(), 1_000);
    assert!(twice.iter().all(|(again, first)| again.payload == first.payload && again.topic == first.topic && again.due >= first.due));
}

#[test]
fn a_clock_that_jumps_is_a_reason_and_one_that_is_off_is_not() {
    let clock = crate::scenario::ClockOptions {
        offset: delay(0.5, 20),
        drift: delay(1.0, 60),
        jump: Some(crate::scenario::JumpOptions { share: 0.2, lasting: Span::from_secs(2) }),
    };
    let malformed = Some(MalformedOptions { share: 0.1, classes: Vec::new() });
    let all = messages(&scenario(1, 20, FaultOptions { clock: Some(clock), malformed, ..FaultOptions::default() }));
    let (broken, all): (Vec<_>, Vec<_>) = all.into_iter().partition(|m| m.reading.class.is_some());
    assert!(broken.iter().all(|m| m.reading.clock == Clock::Right), "what is broken has one reason");
    let of = |clock: Clock| all.iter().filter(move |m| m.reading.clock == clock).map(|m| &m.reading);
    assert!(of(Clock::In1970).all(|r| r.reason == Some("time_too_old") && r.event_time_us < Some(60_000_000)));
    assert!(of(Clock::In2099).all(|r| r.reason == Some("time_in_future") && r.event_time_us > Some(4_000_000_000_000_000)));
    assert!(of(Clock::Offset).all(|r| r.reason.is_none() && (r.event_time_us.unwrap() - r.measured_us).abs() <= 20_001_000));
    assert!(of(Clock::Drift).all(|r| (r.measured_us - r.event_time_us.unwrap()) < 60_000_000));
    for clock in [Clock::In1970, Clock::In2099, Clock::Offset, Clock::Drift] {
        assert!(of(clock).count() > 500, "{clock:?}");
    }
}

#[test]
fn drifted_payloads_and_unknown_devices_are_said_in_the_truth() {
    let mut options = scenario(1, 5, FaultOptions::default());
    options.faults.schema_drift = Some(Part { share: 0.4 });
    options.faults.unknown_device = Some(Part { share: 0.01 });
    options.signals.insert("humidity".to_owned(), Default::default());
    let all = messages(&options);
    for message in &all {
        let text = std::str::from_utf8(&message.payload).unwrap();
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(json["t"].as_f64(), message.reading.values[0]);
        assert_eq!(json.get("humidity").and_then(|v| v.as_f64()), message.reading.values[1]);
        assert_eq!(json.get("firmware").is_some(), message.reading.schema == Some(Schema::ExtraField));
        assert_eq!(message.topic.contains("/unknown-"), message.reading.unknown_device);
    }
    assert_eq!(all.iter().filter(|m| m.reading.unknown_device).count(), 50);
    assert!(all.iter().any(|m| m.reading.schema == Some(Schema::MissingField)));
}
