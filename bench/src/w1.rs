//! The input of the benchmark W1: NDJSON readings of many devices, a little out of order, as `{"device_id","ts","metric","value","seq"}`.
//!
//! Each device sends one reading a second in turn, so 10 M readings of 10,000 devices span 1,000 s: 100 windows of 10 s with 10
//! readings of each device. 1 % were measured up to 4 s before they stand in the file, 0.1 % more than 5 s (to 30 s).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{Error, Result};

/// 2025-01-01T00:00:00Z.
const START_MS: u64 = 1_735_689_600_000;

/// How much input is made.
#[derive(Clone, Debug, clap::Args)]
pub struct W1Options {
    /// Readings in the file.
    #[arg(long, default_value_t = 10_000_000)]
    pub readings: u64,
    /// Devices that take turns.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub devices: u64,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct W1Truth {
    /// Lines in the file.
    pub readings: u64,
    /// Of these, up to 4 s behind.
    pub out_of_order: u64,
    /// Of these, more than 5 s behind.
    pub late: u64,
}

/// Writes the input to `path`, replacing what is there.
pub fn write_w1(options: &W1Options, path: &Path) -> Result<W1Truth> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(Error::file(path))?);
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut truth = W1Truth { readings: options.readings, out_of_order: 0, late: 0 };
    for number in 0..options.readings {
        let (device, seq) = (number % options.devices, number / options.devices);
        let ts = START_MS + number * 1_000 / options.devices - behind_ms(&mut random, &mut truth);
        let value = 20.0 + (device % 50) as f64 + random.random_range(-500..500) as f64 / 100.0;
        writeln!(file, r#"{{"device_id":"device-{device:05}","ts":{ts},"metric":"temperature","value":{value:.2},"seq":{seq}}}"#)
            .map_err(Error::file(path))?;
    }
    file.flush().map_err(Error::file(path))?;
    Ok(truth)
}

fn behind_ms(random: &mut StdRng, truth: &mut W1Truth) -> u64 {
    match random.random_range(0..1_000) {
        0 => {
            truth.late += 1;
            random.random_range(5_001..=30_000)
        }
        1..=10 => {
            truth.out_of_order += 1;
            random.random_range(1..=4_000)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_every_reading_and_the_promised_shares() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w1.ndjson");
        let truth = write_w1(&W1Options { readings: 50_000, devices: 100, seed: 1 }, &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 50_000);
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((line["device_id"].as_str(), line["seq"].as_u64()), (Some("device-00099"), Some(499)));
        assert!((400..600).contains(&truth.out_of_order) && (25..80).contains(&truth.late), "{truth:?}");
    }
}
