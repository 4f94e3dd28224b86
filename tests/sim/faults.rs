//! What a seed switches on: a random subset of faults at random rates.

use crate::chance::Chance;

/// Options of one seed. Rates are of 10,000 operations.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    pub(crate) lanes: u32,
    pub(crate) connections: u32,
    pub(crate) messages: u64,
    pub(crate) devices: u64,
    /// Most publishes a connection has open.
    pub(crate) receive_maximum: u64,
    /// Bytes of a journal segment.
    pub(crate) segment_bytes: u64,
    pub(crate) epoch_ms: u64,
    pub(crate) idle_ms: u64,
    /// How often one message follows another at once.
    pub(crate) bursts: u64,
    /// How far event times are out of order, in milliseconds.
    pub(crate) disorder_ms: u64,
    pub(crate) out_of_orderness_ms: u64,
    /// A crash at about so many disk operations of a start; 0 for none.
    pub(crate) crash_every: u64,
    /// Crashes also while starting.
    pub(crate) crash_in_recovery: bool,
    /// A crash takes what was not forced.
    pub(crate) power_cut: u64,
    pub(crate) fsync_error: u64,
    /// Errors without effect.
    pub(crate) io_error: u64,
    /// Errors although it was done.
    pub(crate) unknown_outcome: u64,
    /// The disk fills up at about this rate, for a while.
    pub(crate) full_disk: u64,
    pub(crate) bit_flip: u64,
    /// Starts at which the journal's last segment has a bit that flipped on the medium.
    pub(crate) rot: u64,
    /// Restarts that leave the lanes of the old process running.
    pub(crate) zombie: u64,
    /// Steps of the wall clock, in a second.
    pub(crate) clock_step: u64,
    /// A connection breaks at this rate for each message.
    pub(crate) disconnect: u64,
    pub(crate) lose_session: u64,
    /// The broker delivers again in another order.
    pub(crate) shuffle: bool,
    pub(crate) malformed: u64,
    /// Longest time of a job, in microseconds.
    pub(crate) job_us: u64,
    pub(crate) cold_error: u64,
    /// Commits to cold that happen after their error.
    pub(crate) late_commit: u64,
    /// So many segments of one size are merged.
    pub(crate) fan_in: u64,
    /// How long rows stay in warm.
    pub(crate) warm_s: u64,
    /// How long rows stay in memory.
    pub(crate) hot_s: u64,
    /// Length of a partition of warm.
    pub(crate) partition_s: u64,
    /// Broken messages that are sent twice, as messages of their own.
    pub(crate) twins: u64,
    /// Windows are published too.
    pub(crate) sinks: bool,
    /// A transaction of a sink fails without effect, or at its beginning.
    pub(crate) publish_error: u64,
    /// It is done although it fails.
    pub(crate) publish_unknown: u64,
}

impl Faults {
    pub(crate) fn of(seed: u64) -> Self {
        let mut c = Chance::new(seed);
        let on = |c: &mut Chance, of: u64, rates: &[u64]| if c.happens(of) { c.pick(rates) } else { 0 };
        let disorder_ms = on(&mut c, 5_000, &[500, 3_000, 12_000]);
        Self {
            lanes: 1 + c.below(3) as u32,
            connections: 1 + c.below(2) as u32,
            messages: 30 + c.below(120),
            devices: 1 + c.below(5),
            receive_maximum: c.pick(&[1, 3, 20, 60]),
            segment_bytes: c.pick(&[1_500, 6_000, 40_000]),
            epoch_ms: c.pick(&[300, 1_000, 2_500]),
            idle_ms: c.pick(&[2_000, 3_600_000]),
            bursts: c.pick(&[0, 5_000, 9_000]),
            disorder_ms,
            out_of_orderness_ms: if c.happens(7_000) { disorder_ms + 1_000 } else { 500 },
            crash_every: on(&mut c, 7_500, &[30, 100, 300, 800]),
            crash_in_recovery: c.happens(5_000),
            power_cut: c.pick(&[0, 5_000, 10_000]),
            fsync_error: on(&mut c, 3_500, &[20, 100, 300]),
            io_error: on(&mut c, 3_000, &[5, 20, 60]),
            unknown_outcome: on(&mut c, 3_500, &[20, 100, 300]),
            full_disk: on(&mut c, 4_000, &[10, 60, 200]),
            bit_flip: on(&mut c, 4_000, &[20, 100]),
            rot: on(&mut c, 3_000, &[2_000, 6_000]),
            zombie: on(&mut c, 4_000, &[5_000, 9_000]),
            clock_step: on(&mut c, 3_000, &[1_000, 5_000]),
            disconnect: on(&mut c, 6_000, &[50, 300, 1_000]),
            lose_session: on(&mut c, 2_000, &[1_000, 5_000]),
            shuffle: c.happens(3_000),
            malformed: on(&mut c, 4_000, &[300, 2_000]),
            job_us: c.pick(&[100, 20_000, 1_500_000]),
            cold_error: on(&mut c, 4_000, &[300, 2_000]),
            late_commit: on(&mut c, 4_000, &[2_000, 6_000]),
            fan_in: c.pick(&[2, 2, 4]),
            warm_s: c.pick(&[1, 3, 12]),
            partition_s: c.pick(&[5, 60]),
            twins: on(&mut c, 5_000, &[3_000, 8_000]),
            sinks: c.happens(6_000),
            publish_error: on(&mut c, 5_000, &[1_500, 4_000]),
            publish_unknown: on(&mut c, 5_000, &[1_500, 4_000]),
            // Last, so that earlier seeds stay what they were.
            hot_s: c.pick(&[1, 1, 10]),
        }
    }

    /// Whether no reading can be late or too far in the future. What a broker delivers again in another order may be out of order by as much
    /// as the pipeline was away.
    pub(crate) fn all_on_time(&self) -> bool {
        self.out_of_orderness_ms > self.disorder_ms && self.idle_ms > 1_000_000 && self.clock_step == 0 && !self.shuffle
    }
}
