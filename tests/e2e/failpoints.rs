//! The process ends at each place of `world::Point`, between two durable steps of journal, start, seal and move; nothing is lost, nothing is
//! twice, no window is wrong. `make failpoints` runs it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kills::Campaign;
use tests::from_environment;
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
