//! What the demo shows: a table that renews itself on a terminal, a line now and then otherwise.

use super::figures::Figures;
use flow::{Error, Result};
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Off a terminal, how often there is a line.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Readings a second are of this time: the pipeline renews its counts once a second, so less would jump.
const RATE_OVER: Duration = Duration::from_millis(5_500);

/// Standard output.
pub(super) struct Screen {
    is_terminal: bool,
    began: Instant,
    /// When how many readings were received, as of the last seconds.
    received: VecDeque<(Instant, u64)>,
    line_at: Option<Instant>,
    /// Lines of the table that the next one takes the place of.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), began: Instant::now(), received: VecDeque::new(), line_at: None, drawn: 0 }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        self.drawn = 0;
        write(&format!("{text}\n"))
    }

    /// Shows a pipeline at this moment.
    pub(super) fn show(&mut self, figures: &Figures) -> Result<()> {
        let now = Instant::now();
        let rate = self.rate(now, figures.received);
        if self.is_terminal {
            return self.draw(&cells(figures, rate));
        }
        if self.line_at.is_some_and(|at| now - at < LINE_EVERY) {
            return Ok(());
        }
        self.line_at = Some(now);
        let words: Vec<String> = cells(figures, rate).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        write(&format!("{:3} s  {}\n", self.began.elapsed().as_secs(), words.join(" | ")))
    }

    /// Readings a second over the last seconds; none at first.
    fn rate(&mut self, now: Instant, received: u64) -> Option<f64> {
        self.received.push_back((now, received));
        while self.received.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.received.pop_front();
        }
        let (at, before) = *self.received.front()?;
        (at < now).then(|| received.saturating_sub(before) as f64 / (now - at).as_secs_f64())
    }

    /// Shows a pipeline at its end, whatever was shown a moment before.
    pub(super) fn show_last(&mut self, figures: &Figures) -> Result<()> {
        self.line_at = None;
        self.show(figures)
    }

    fn draw(&mut self, cells: &[(&str, String)]) -> Result<()> {
        let up = if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) };
        let lines: String = cells.iter().map(|(name, value)| format!("\x1b[2K  {name:<16}\x1b[1m{value:>12}\x1b[0m\n")).collect();
        self.drawn = cells.len();
        write(&format!("{up}{lines}"))
    }
}

fn cells(figures: &Figures, rate: Option<f64>) -> Vec<(&'static str, String)> {
    let unknown = || "-".to_owned();
    vec![
        ("readings/s", rate.map_or_else(unknown, |rate| number(rate.round() as u64))),
        ("received", number(figures.received)),
        ("watermark lag", figures.watermark_lag.map_or_else(unknown, |lag| format!("{lag:.1} s"))),
        ("windows closed", number(figures.windows)),
        ("hot rows", number(figures.rows("hot"))),
        ("warm rows", number(figures.rows("warm"))),
        ("cold rows", number(figures.rows("cold"))),
        ("epoch", number(figures.epoch)),
        ("unaccounted", number(figures.unaccounted)),
    ]
}

/// A number with a comma between its thousands.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::stop("writing to stdout", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 12_345, 1_234_567].map(number), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn every_tier_has_its_cell() {
        let figures = Figures { tiers: [("cold".to_owned(), 1_234)].into(), watermark_lag: Some(5.04), ..Figures::default() };
        let cells = cells(&figures, Some(999.6));
        assert!(cells.contains(&("cold rows", "1,234".to_owned())) && cells.contains(&("hot rows", "0".to_owned())));
        assert!(cells.contains(&("readings/s", "1,000".to_owned())) && cells.contains(&("watermark lag", "5.0 s".to_owned())));
    }
}
