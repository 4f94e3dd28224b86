//! The names of all metrics, in one place, and the Prometheus endpoint that gives them out.
//!
//! Base units, `_total` for counters. Labels are `pipeline` and `component` and what a metric says below; never a device id, since labels
//! are kept for ever.

use flow::Error;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::net::{SocketAddr, TcpListener};

/// Seconds at which histograms of short things are cut: an fsync takes 0.1 to 10 ms on a good disk, a close up to seconds.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

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

            const fn unit(self) -> Unit {
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
    /// Windows that are open.
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
    /// Moves from warm to cold, by outcome.
    Moves Counter Count "moves_total",
    /// 1 while a source is connected, else 0.
    SourceConnected Gauge Count "source_connected",
    /// Connections made anew, by source.
    SourceReconnects Counter Count "source_reconnects_total",
    /// Messages received and not yet acknowledged, by source.
    SourceUnacked Gauge Count "source_unacked_messages",
    /// Bytes waiting in a queue.
    QueueBytes Gauge Bytes "queue_bytes",
    /// Bytes that fit into a queue.
    QueueCapacity Gauge Bytes "queue_capacity_bytes",
    /// Time that queries take.
    Query Histogram Seconds "query_seconds",
    /// Memory that queries hold.
    QueryMemory Gauge Bytes "query_memory_bytes",
    /// Queries refused, by reason.
    QueriesRejected Counter Count "queries_rejected_total",
    /// Things tried again, by component.
    Retries Counter Count "retries_total",
    /// 1, with the version as label.
    BuildInfo Gauge Count "build_info",
    /// 1, with the pipeline's name and a hash of its plan as labels.
    ConfigInfo Gauge Count "config_info",
}

/// Gives out metrics at `http://<listen>/metrics`, each with a label `pipeline`, and returns the address: port 0 takes a free one.
///
/// Once a process; an error means that the address is taken.
pub fn install(listen: SocketAddr, pipeline: &str) -> flow::Result<SocketAddr> {
    let failed = |e: &dyn std::fmt::Display| Error::new(flow::Remedy::Stop, format!("metrics cannot be given out at {listen}: {e}"));
    let listen = free(listen).map_err(|e| failed(&e))?;
    let mut builder = PrometheusBuilder::new().with_http_listener(listen).add_global_label("pipeline", pipeline);
    for metric in Metric::ALL.iter().filter(|m| m.kind() == Kind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), &SECONDS).map_err(|e| failed(&e))?;
    }
    builder.install().map_err(|e| failed(&e))?;
    describe();
    metrics::gauge!(Metric::BuildInfo.name(), "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(listen)
}

/// The address with a port that was free a moment ago; fails early where the wished one is taken.
fn free(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(listen)?.local_addr()
}

fn describe() {
    for metric in Metric::ALL {
        match metric.kind() {
            Kind::Counter => describe_counter!(metric.name(), metric.unit(), metric.about()),
            Kind::Gauge => describe_gauge!(metric.name(), metric.unit(), metric.about()),
            Kind::Histogram => describe_histogram!(metric.name(), metric.unit(), metric.about()),
        }
    }
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
