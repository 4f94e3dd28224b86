//! What a running pipeline says of itself: its Prometheus text and the rows of its tiers, as the few numbers that the demo shows.

use flow::Metric;
use std::collections::BTreeMap;

/// A pipeline at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Messages that came in.
    pub(super) received: u64,
    /// Rows of the table `readings`.
    pub(super) stored: u64,
    /// Rows that were proven to be duplicates.
    pub(super) duplicates: u64,
    /// What could not be used.
    pub(super) dead_letters: u64,
    /// Rows too late for their window; they are in `readings` all the same.
    pub(super) late: u64,
    /// Windows emitted, each of one device.
    pub(super) windows: u64,
    /// Wall time less watermark, in seconds; none before the first reading.
    pub(super) watermark_lag: Option<f64>,
    /// Connections to the broker.
    pub(super) connected: u64,
    /// Rows of which no count says where they went.
    pub(super) unaccounted: u64,
    /// Rows of `readings` by tier.
    pub(super) tiers: BTreeMap<String, u64>,
    /// The newest sealed epoch of the lane that is behind all others.
    pub(super) epoch: u64,
}

impl Figures {
    /// Reads the counts from a page of metrics; tiers and epoch come from elsewhere.
    pub(super) fn read(page: &str) -> Self {
        let sum = |metric: Metric| sum(page, metric, None).unwrap_or(0.0) as u64;
        Self {
            received: sum(Metric::Received),
            stored: self::sum(page, Metric::Stored, Some("table=\"readings\"")).unwrap_or(0.0) as u64,
            duplicates: sum(Metric::Duplicate),
            dead_letters: sum(Metric::DeadLetters),
            late: sum(Metric::Late),
            windows: sum(Metric::WindowsEmitted),
            watermark_lag: self::sum(page, Metric::WatermarkLag, None),
            connected: sum(Metric::SourceConnected),
            unaccounted: sum(Metric::Unaccounted),
            ..Self::default()
        }
    }

    /// Messages of which it is known what became of them.
    pub(super) fn settled(&self) -> u64 {
        self.stored + self.duplicates + self.dead_letters
    }

    pub(super) fn rows(&self, tier: &str) -> u64 {
        self.tiers.get(tier).copied().unwrap_or(0)
    }
}

/// The sum over all series of a metric, or over those with this label; none when there is no such series.
fn sum(page: &str, metric: Metric, label: Option<&str>) -> Option<f64> {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(metric.name())?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        (is_it && label.is_none_or(|l| labels.contains(l))).then(|| value.parse().ok()).flatten()
    };
    page.lines().filter_map(value).reduce(|a, b| a + b)
}

/// The rows by tier from lines like `{"_tier":"hot","n":17}`.
pub(super) fn tiers(lines: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| -> Option<(String, u64)> {
        let row: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((row.get("_tier")?.as_str()?.to_owned(), row.get("n")?.as_u64()?))
    };
    lines.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_metrics_is_summed_over_its_labels() {
        let page = "# TYPE tidegate_stored_readings_total counter\n\
            tidegate_stored_readings_total{pipeline=\"demo\",table=\"readings\"} 17\n\
            tidegate_stored_readings_total{pipeline=\"demo\",table=\"per_window\"} 4\n\
            tidegate_duplicate_readings_total{pipeline=\"demo\",component=\"once\"} 2\n\
            tidegate_duplicate_readings_total{pipeline=\"demo\",component=\"again\"} 3\n\
            tidegate_dead_letters_total 1\n\
            tidegate_watermark_lag_seconds{pipeline=\"demo\"} 5.25\n";
        let figures = Figures::read(page);
        assert_eq!((figures.stored, figures.duplicates, figures.dead_letters, figures.settled()), (17, 5, 1, 23));
        assert_eq!(figures.watermark_lag, Some(5.25));
        assert_eq!(Figures::read("").watermark_lag, None);
    }

    #[test]
    fn tiers_are_read_from_json_lines() {
        let read = tiers("{\"_tier\":\"hot\",\"n\":17}\n{\"_tier\":\"cold\",\"n\":4}\n");
        assert_eq!(read, BTreeMap::from([("cold".to_owned(), 4), ("hot".to_owned(), 17)]));
    }
}
