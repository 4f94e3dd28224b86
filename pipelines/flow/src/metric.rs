//! The names of all metrics, in one place: whoever counts something takes the name from here.
//!
//! Base units, `_total` for counters. Labels are `pipeline` and `component` and what a metric says below; never a device id, since labels
//! are kept for ever.

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How values are spread.
    Histogram,
}

/// What a metric counts or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

macro_rules! metrics {
    ($($(#[doc = $about:literal])+ $variant:ident $kind:ident $unit:ident $name:literal,)+) => {
        /// Every metric of the product.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric {
            $($(#[doc = $about])+ $variant,)+
        }

        impl Metric {
            /// Every metric, in the order of the enum.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that Prometheus sees.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("tidegate_", $name),)+
                }
            }

            /// What its value does.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$variant => Kind::$kind,)+
                }
            }

            /// What it says, for people.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($about,)+).trim_ascii(),)+
                }
            }

            /// What it counts or measures.
            #[must_use]
            pub const fn unit(self) -> Unit {
                match self {
                    $(Self::$variant => Unit::$unit,)+
                }
            }
        }
    };
}

metrics! {
    /// Readings that came in, an unreadable message counted as one, by source.
    Received Counter Count "received_readings_total",
    /// Bytes of the messages that came in, by source.
    ReceivedBytes Counter Bytes "received_bytes_total",
    /// Messages that the broker delivered again and that were left out, by source.
    Redelivered Counter Count "redelivered_messages_total",
    /// Rows stored, by table.
    Stored Counter Count "stored_readings_total",
    /// Rows that a filter left out.
    Filtered Counter Count "filtered_readings_total",
    /// Rows that were proven to be duplicates.
    Duplicate Counter Count "duplicate_readings_total",
    /// Rows of which a dedupe could not prove that they are no duplicates.
    Unproven Counter Count "unproven_readings_total",
    /// Rows that came too late for their window.
    Late Counter Count "late_readings_total",
    /// Rows and messages that could not be used, by reason.
    DeadLetters Counter Count "dead_letters_total",
    /// Dead letters that are counted and not in the table, because more came at once than `dead_letters.max_per_second`; by reason.
    DeadLettersUnstored Counter Count "dead_letters_unstored_total",
    /// Rows of which no count says where they went: 0, or there is a mistake in the program.
    Unaccounted Gauge Count "unaccounted_readings",
    /// Readings received and not yet taken by their lane.
    InFlight Gauge Count "in_flight_readings",
    /// Time from the receipt of a message to its fsync.
    IngestToDurable Histogram Seconds "ingest_to_durable_seconds",
    /// Time from a reading's event time until a query sees it.
    EndToEnd Histogram Seconds "end_to_end_seconds",
    /// Time that an fsync of the journal takes.
    JournalFsync Histogram Seconds "journal_fsync_seconds",
    /// Bytes of the journal on disk.
    JournalBytes Gauge Bytes "journal_bytes",
    /// Bytes free on the journal's disk.
    JournalFreeBytes Gauge Bytes "journal_free_bytes",
    /// The least watermark of the lanes, as seconds since 1970.
    Watermark Gauge Seconds "watermark_timestamp_seconds",
    /// Wall time less the least watermark of the lanes.
    WatermarkLag Gauge Seconds "watermark_lag_seconds",
    /// Windows that are open, of all keys.
    WindowsOpen Gauge Count "windows_open",
    /// Windows emitted.
    WindowsEmitted Counter Count "windows_emitted_total",
    /// Keys that an operator holds.
    StateKeys Gauge Count "state_keys",
    /// Bytes that an operator holds.
    StateBytes Gauge Bytes "state_bytes",
    /// Time from a cut to its seal.
    EpochClose Histogram Seconds "epoch_close_seconds",
    /// When the lane sealed last, as seconds since 1970; the least of the lanes.
    EpochLastSeal Gauge Seconds "epoch_last_seal_timestamp_seconds",
    /// Closes that failed.
    EpochFailures Counter Count "epoch_failures_total",
    /// Rows by tier and table.
    TierRows Gauge Count "tier_rows",
    /// Bytes by tier and table.
    TierBytes Gauge Bytes "tier_bytes",
    /// Damaged segments that keep moves waiting, by table.
    DamagedSegments Gauge Count "damaged_segments",
    /// Rows of damaged segments that a person gave up, by table.
    Quarantined Counter Count "quarantined_readings_total",
    /// Moves from warm to cold, by outcome.
    Moves Counter Count "moves_total",
    /// Merges of small segments into greater ones, by outcome.
    Compactions Counter Count "compactions_total",
    /// Bytes that merges of segments wrote.
    CompactedBytes Counter Bytes "compacted_bytes_total",
    /// Rows past their age that went for good, by table.
    Expired Counter Count "expired_readings_total",
    /// Segments of the warm tier, by table.
    WarmSegments Gauge Count "warm_segments",
    /// Work on cold tables beside the moves: files rewritten (commits), days dropped, files deleted, checkpoints; and what failed of it.
    ColdUpkeep Counter Count "cold_upkeep_total",
    /// Object stores of cold tables that are left alone for a while because they fail again and again.
    ColdStoresDown Gauge Count "cold_stores_down",
    /// 1 while a source is connected, else 0.
    SourceConnected Gauge Count "source_connected",
    /// Connections made anew, by source.
    SourceReconnects Counter Count "source_reconnects_total",
    /// How often another client took our client id, by source; MQTT 3.1.1 does not tell.
    SourceTakeovers Counter Count "source_takeovers_total",
    /// Messages received and not yet acknowledged, by source.
    SourceUnacked Gauge Count "source_unacked_messages",
    /// Records of Kafka partitions that are there and not taken, by source.
    KafkaLag Gauge Count "kafka_lag_records",
    /// Records that were gone before they were read, by source (`on_gap`).
    KafkaMissing Counter Count "kafka_missing_records_total",
    /// Records without a value, by source.
    KafkaTombstones Counter Count "kafka_tombstones_total",
    /// Rows that sinks have published, by sink.
    OutboxPublished Counter Count "outbox_published_total",
    /// Rows that wait for sinks to publish them, of all lanes, by sink.
    OutboxPending Gauge Count "outbox_pending",
    /// Bytes waiting in a queue.
    QueueBytes Gauge Bytes "queue_bytes",
    /// Bytes that fit into a queue.
    QueueCapacity Gauge Bytes "queue_capacity_bytes",
    /// Versions of a lookup table that were taken, by lookup.
    LookupVersions Counter Count "lookup_versions_total",
    /// Versions of a lookup table that could not be used, by lookup; the one before goes on.
    LookupFailures Counter Count "lookup_failures_total",
    /// Rows of the version in use, by lookup.
    LookupRows Gauge Count "lookup_rows",
    /// Time that queries take.
    Query Histogram Seconds "query_seconds",
    /// Memory that queries hold.
    QueryMemory Gauge Bytes "query_memory_bytes",
    /// Queries refused, by reason.
    QueriesRejected Counter Count "queries_rejected_total",
    /// Things tried again, by component.
    Retries Counter Count "retries_total",
    /// Lanes that this process has.
    Lanes Gauge Count "lanes",
    /// So many processes like this one would carry its load at 70 % of their cores and make up its lag in a minute.
    ScaleHint Gauge Count "scale_hint",
    /// 1, with the version as label.
    BuildInfo Gauge Count "build_info",
    /// 1, with a hash of the plan as label.
    ConfigInfo Gauge Count "config_info",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_their_own_and_say_their_kind() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            assert_eq!(metric.name().ends_with("_total"), metric.kind() == Kind::Counter, "{}", metric.name());
            assert!(metric.kind() != Kind::Histogram || metric.name().ends_with("_seconds"), "{}", metric.name());
            assert!(metric.about().ends_with('.'), "{}", metric.about());
        }
    }
}
