//! Tidegate's page of metrics, as Prometheus reads it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// What is answered to a text that is posted to a path; none while nobody answers, or where it is refused.
pub(crate) fn post(port: u16, path: &str, text: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(ANSWERED_WITHIN)).ok()?;
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nAccept: text/csv\r\nContent-Type: text/plain\r\nContent-Length: {}",
        text.len()
    );
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{text}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200").then(|| body.to_owned())
}

/// The samples of one moment: name with labels, and value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page(Vec<(String, f64)>);

impl Page {
    /// Asks for the page; none while nobody answers.
    pub(crate) fn of(port: u16) -> Option<Page> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(ANSWERED_WITHIN)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(Page::read(&text))
    }

    fn read(text: &str) -> Page {
        let sample = |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Page(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum over all labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of = |sample: &str| sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(sample, _)| of(sample)).map(|(_, value)| value).sum()
    }

    /// The upper bound, in seconds, of the bucket in which the share `q` of the values since `before` is reached; none without values.
    /// Infinite behind the last bound.
    pub(crate) fn quantile(&self, before: &Page, histogram: &str, q: f64) -> Option<f64> {
        let (now, then) = (self.buckets(histogram), before.buckets(histogram));
        let counts: Vec<(f64, f64)> =
            now.into_iter().map(|(bound, (limit, count))| (limit, count - then.get(&bound).map_or(0.0, |b| b.1))).collect();
        let all = counts.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        let mut reached: Vec<f64> = counts.iter().filter(|(_, count)| all > 0.0 && *count >= q * all).map(|(limit, _)| *limit).collect();
        reached.sort_by(f64::total_cmp);
        reached.first().copied()
    }

    /// Upper bound as written, as a number, and how many values lie at or below it, over all labels.
    fn buckets(&self, histogram: &str) -> BTreeMap<String, (f64, f64)> {
        let prefix = format!("{histogram}_bucket{{");
        let mut buckets: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (sample, count) in &self.0 {
            let Some(labels) = sample.strip_prefix(&prefix) else { continue };
            let Some(bound) = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()) else { continue };
            let limit = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::NAN) };
            buckets.entry(bound.to_owned()).or_insert((limit, 0.0)).1 += count;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_quantiles_are_over_all_labels_and_since_the_page_before() {
        let before = Page::read("d_bucket{s=\"a\",le=\"0.5\"} 100\nd_bucket{s=\"a\",le=\"1\"} 100\nd_bucket{s=\"a\",le=\"+Inf\"} 100\n");
        let after = Page::read(
            "# TYPE n counter\nn{s=\"a\"} 3\nn{s=\"b\"} 4\nn_other 100\nd_bucket{s=\"a\",le=\"0.5\"} 150\nd_bucket{s=\"a\",le=\"1\"} 198\n\
             d_bucket{s=\"a\",le=\"+Inf\"} 198\nd_bucket{s=\"b\",le=\"0.5\"} 1\nd_bucket{s=\"b\",le=\"1\"} 1\nd_bucket{s=\"b\",le=\"+Inf\"} 2\n",
        );
        assert_eq!(after.sum("n"), 7.0);
        // 51 of 100 up to 0.5 s, 99 up to 1 s.
        assert_eq!(after.quantile(&before, "d", 0.5), Some(0.5));
        assert_eq!(after.quantile(&before, "d", 0.99), Some(1.0));
        assert_eq!(after.quantile(&before, "d", 1.0), Some(f64::INFINITY));
        assert_eq!(after.quantile(&after, "d", 0.5), None);
    }
}
