//! The process ends at each place of `world::Point`, between two durable steps of journal, start, seal, move and relay; nothing is lost, nothing
//! is twice, no window is wrong. `make failpoints` runs it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kafka::{Fleet, assert_published, assert_whole, pipeline};
use crate::kills::Campaign;
use tests::{Kafka, from_environment, until};
use world::Point;

/// After how many times that it is reached, and how long is waited for that: what a start does once it does not do twice.
const ROUNDS: [(u64, Duration); 2] = [(0, Duration::from_secs(30)), (1, Duration::from_secs(20))];

/// How long acks may take before the connection is cut.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn ended_at_every_fail_point_nothing_is_lost_or_twice() {
    let mut campaign = Campaign::new(false, from_environment("SEED", 1));
    campaign.tidegate.start(&[]).wait_until_ready();
    let mut hits: BTreeMap<String, u64> = Point::ALL.iter().map(|point| (format!("{point:?}"), 0)).collect();
    for (times, limit) in ROUNDS {
        for point in Point::ALL {
            let since = Instant::now();
            let hit = end_at(&mut campaign, point, times, limit);
            say(&format!("{point:?} after {times}: {hit} {:.1?}", since.elapsed()));
            campaign.done.kills += u64::from(hit);
            *hits.get_mut(&format!("{point:?}")).expect("all are there") += u64::from(hit);
        }
    }
    let running = campaign.tidegate.start(&[]);
    campaign.end(running);
    let missed: Vec<_> = hits.iter().filter(|(_, hits)| **hits == 0).collect();
    assert!(missed.is_empty(), "never ended at {missed:?}");
}

/// From Kafka to tables and topics: the same, for the places that such a pipeline comes to.
#[test]
fn ended_at_every_fail_point_of_a_relay_each_row_is_published_once() {
    let kafka = Kafka::start();
    kafka.create("readings", 3);
    kafka.create("per-device", 2);
    kafka.create("everywhere", 1);
    let (pipeline, mut fleet) = (pipeline(&kafka, ""), Fleet::new(&kafka));
    for times in [0, 1, 3] {
        for point in Point::OF_SINKS {
            let since = Instant::now();
            let mut running = pipeline.start_failing_at(point, times);
            // The first readings of a round close windows of the one before.
            until("the fail point", Duration::from_secs(60), || {
                fleet.send(300);
                std::thread::sleep(Duration::from_millis(300));
                !running.is_running()
            });
            assert!(running.was_aborted(), "{point:?} after {times}\n{}", running.log());
            say(&format!("{point:?} after {times}: {:.1?}, {} readings", since.elapsed(), fleet.sent));
        }
    }
    pipeline.run(&["--until-idle", "5s"]);
    assert_whole(&pipeline, fleet.sent);
    assert_published(&kafka, &pipeline, "per-device", "per_device", "device, window_start", "device");
    assert_published(&kafka, &pipeline, "everywhere", "everywhere", "window_start", "");
}

/// Starts it so that it ends there, and sends until it does. False when it did not come there so often within the limit.
fn end_at(campaign: &mut Campaign, point: Point, times: u64, limit: Duration) -> bool {
    campaign.misbehave();
    let mut running = campaign.tidegate.start_failing_at(point, times);
    let deadline = Instant::now() + limit;
    while running.is_running() && Instant::now() < deadline {
        campaign.send();
        let patience = Instant::now() + PATIENCE;
        while running.is_running() && campaign.broker.missing() > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(20));
        }
        if campaign.broker.missing() > 0 {
            // What waits for an ack that was lost comes again on a new connection alone.
            campaign.broker.cut();
        }
        // Segments grow old enough to move.
        std::thread::sleep(Duration::from_millis(200));
    }
    let hit = running.was_aborted();
    running.kill();
    hit
}

/// Written itself, so that it is seen also when the test passes.
fn say(text: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
}
