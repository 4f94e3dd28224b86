//! `tidegate simulate`: a fleet of devices from the command line, shown while it sends.

use crate::demo::on_signal;
use bench::scenario::Scenario;
use bench::simulate::{Progress, Report, Seconds, SimulateOptions};
use flow::{Error, Result};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::interval;

/// How often the view is renewed.
const EVERY: Duration = Duration::from_secs(1);

/// Sends what a scenario says until its time is over or a signal comes; says what was sent.
pub fn simulate(scenario: &Scenario, options: &SimulateOptions) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::stop("starting threads", e))?.block_on(async {
        let asked = on_signal()?;
        let progress = Arc::<Progress>::default();
        let shown = tokio::spawn(show(progress.clone()));
        let sent = bench::simulate::simulate(scenario, options.truth.as_deref(), &progress, asked.cancelled()).await;
        shown.abort();
        sent.map_err(|e| Error::stop("simulating devices", e))
    })
}

/// A line a second on a terminal.
async fn show(progress: Arc<Progress>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let (mut every, mut before) = (interval(EVERY), 0);
    loop {
        every.tick().await;
        let report = progress.report(0);
        let messages = report.counts.messages;
        let text = format!(
            "{:>6.0} s  sent {messages:>10} ({:>8}/s)  not acknowledged {:>7}  latency {}  lag {}\n",
            report.seconds,
            messages - before,
            report.unacknowledged,
            percentiles(&report.latency_seconds),
            percentiles(&report.lag_seconds),
        );
        before = messages;
        // Where stderr cannot be written there is nobody to show it to.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// What was done, for a person.
#[must_use]
pub fn words(report: &Report) -> String {
    let counts = &report.counts;
    let line = |what: &str, value: &dyn std::fmt::Display| format!("{what:<28}{value:>12}\n");
    let mut text = line("messages", &counts.messages);
    text += &line("messages a second", &format_args!("{:.0}", report.rate).to_string());
    text += &line("not acknowledged", &report.unacknowledged);
    text += &line("readings", &counts.readings);
    text += &line("  a little late", &counts.out_of_order);
    text += &line("  much too late", &counts.late);
    text += &line("  kept while offline", &counts.offline);
    text += &line("sent twice", &counts.duplicate);
    text += &line("broken", &counts.broken);
    for (reason, n) in &counts.reasons {
        text += &line(&format!("  {reason}"), n);
    }
    for (label, n) in &counts.anomalies {
        text += &line(&format!("anomaly {label}"), n);
    }
    text += &line("not measured, in gaps", &report.skipped);
    text += &line("reconnects", &report.reconnects);
    text += &format!("{:<28}{}\n", "due to acknowledged", percentiles(&report.latency_seconds));
    text + &format!("{:<28}{}\n", "own lag", percentiles(&report.lag_seconds))
}

fn percentiles(seconds: &Seconds) -> String {
    let ms = |seconds: f64| format!("{:.1}", seconds * 1e3);
    format!("p50 {} p99 {} max {} ms", ms(seconds.p50), ms(seconds.p99), ms(seconds.max))
}
