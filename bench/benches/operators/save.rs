//! What a save costs when one open group in a hundred has changed, against the save of them all: in time and in bytes.
//!
//! The mean of several saves is told, and the greatest: a save that puts earlier parts together costs more than its neighbours.

use crate::input;
use crate::run::Counted;
use arrow::array::RecordBatch;
use flow::{Operator, StateWriter};
use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

/// Enough to meet each kind of save more than once.
const SAVES: usize = 32;

/// What saves took.
pub(crate) struct Saves {
    groups: usize,
    whole: Save,
    /// The sum of `SAVES` saves.
    changed: Save,
    greatest: Save,
}

#[derive(Clone, Copy, Default)]
struct Save {
    seconds: f64,
    bytes: usize,
}

/// Opens a window of `groups` groups, saves it, and then saves again and again after a hundredth of them had a reading.
pub(crate) fn measure(mut operator: Box<dyn Operator>, groups: usize) -> Result<Saves, Box<dyn Error>> {
    let mut out = Counted::default();
    for batch in input::one_window(0..groups)? {
        operator.on_batch(batch, &mut out)?;
    }
    let whole = save(operator.as_mut())?;
    let part = groups.div_ceil(100);
    let (mut changed, mut greatest) = (Save::default(), Save::default());
    for round in 0..SAVES {
        let from = round * part % groups;
        for batch in input::one_window(from..groups.min(from + part))? {
            operator.on_batch(batch, &mut out)?;
        }
        let one = save(operator.as_mut())?;
        changed = Save { seconds: changed.seconds + one.seconds, bytes: changed.bytes + one.bytes };
        greatest = Save { seconds: greatest.seconds.max(one.seconds), bytes: greatest.bytes.max(one.bytes) };
    }
    Ok(Saves { groups, whole, changed, greatest })
}

fn save(operator: &mut dyn Operator) -> Result<Save, Box<dyn Error>> {
    let (mut written, start) = (Written::default(), Instant::now());
    operator.save(&mut written)?;
    Ok(Save { seconds: start.elapsed().as_secs_f64(), bytes: written.bytes })
}

#[derive(Default)]
struct Written {
    bytes: usize,
}

impl StateWriter for Written {
    fn append(&mut self, _: &str, rows: RecordBatch) {
        self.bytes += black_box(rows).get_array_memory_size();
    }
    fn remove(&mut self, _: &str) {}
}

impl fmt::Display for Saves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = Save { seconds: self.changed.seconds / SAVES as f64, bytes: self.changed.bytes / SAVES };
        writeln!(f, "save of {} open groups", self.groups)?;
        for (name, save) in [("all of them", self.whole), ("1 % changed, mean", mean), ("1 % changed, greatest", self.greatest)] {
            let [time, bytes] = [save.seconds / self.whole.seconds, save.bytes as f64 / self.whole.bytes as f64]
                .map(|share| format!("{:.1} %", 100.0 * share));
            writeln!(
                f,
                "  {name:24} {:>9.2} ms {time:>9} {:>9.2} MiB {bytes:>9}",
                save.seconds * 1e3,
                save.bytes as f64 / f64::from(1 << 20)
            )?;
        }
        Ok(())
    }
}
