//! The Prometheus endpoint: gives out the metrics that `flow::Metric` names.

use flow::Error;
use flow::metric::{Kind, Metric, Unit};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::net::{SocketAddr, TcpListener};

/// Seconds at which histograms of short things are cut: an fsync takes 0.1 to 10 ms on a good disk, a close up to seconds.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Gives out metrics at `http://<listen>/metrics`, each with a label `pipeline`, and returns the address: port 0 takes a free one.
/// `plan` is a hash of the plan, so that instances with different configurations can be told apart.
///
/// Once a process; an error means that the address is taken.
pub fn install(listen: SocketAddr, pipeline: &str, plan: &str) -> flow::Result<SocketAddr> {
    let failed = |e: &dyn std::fmt::Display| Error::new(flow::Remedy::Stop, format!("metrics cannot be given out at {listen}: {e}"));
    let listen = free(listen).map_err(|e| failed(&e))?;
    let mut builder = PrometheusBuilder::new().with_http_listener(listen).add_global_label("pipeline", pipeline);
    for metric in Metric::ALL.iter().filter(|m| m.kind() == Kind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), &SECONDS).map_err(|e| failed(&e))?;
    }
    builder.install().map_err(|e| failed(&e))?;
    describe();
    metrics::gauge!(Metric::BuildInfo.name(), "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!(Metric::ConfigInfo.name(), "plan" => plan.to_owned()).set(1.0);
    Ok(listen)
}

/// The address with a port that was free a moment ago; fails early where the wished one is taken.
fn free(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(listen)?.local_addr()
}

fn describe() {
    for metric in Metric::ALL {
        match metric.kind() {
            Kind::Counter => describe_counter!(metric.name(), unit(*metric), metric.about()),
            Kind::Gauge => describe_gauge!(metric.name(), unit(*metric), metric.about()),
            Kind::Histogram => describe_histogram!(metric.name(), unit(*metric), metric.about()),
        }
    }
}

fn unit(metric: Metric) -> metrics::Unit {
    match metric.unit() {
        Unit::Count => metrics::Unit::Count,
        Unit::Bytes => metrics::Unit::Bytes,
        Unit::Seconds => metrics::Unit::Seconds,
    }
}
