//! Which readings go wrong: the exact shares of a scenario, each drawn by itself.

use super::chance::{About, Chance, Share, Spells};
use super::payload::Class;
use crate::scenario::{Scenario, Spell};

/// The shares of faults, each with the count of its own.
pub(super) struct Faults {
    pub(super) spike: Share,
    pub(super) out_of_order: Share,
    pub(super) late: Share,
    pub(super) duplicate: Share,
    malformed: Share,
    pub(super) unknown: Share,
    pub(super) offline: Option<Spells>,
    pub(super) gap: Option<Spells>,
    classes: Vec<Class>,
    broken: usize,
}

impl Faults {
    pub(super) fn new(scenario: &Scenario) -> Faults {
        let faults = &scenario.faults;
        let share = |about, share: Option<f64>| Share::new(about, share.unwrap_or(0.0));
        let spells = |about, spell: Option<Spell>| spell.and_then(|s| Spells::new(about, s.share, s.lasting));
        let chosen = faults.malformed.as_ref().map(|m| m.classes.clone()).filter(|classes| !classes.is_empty());
        Faults {
            spike: share(About::Spike, scenario.anomalies.spike.map(|s| s.share)),
            out_of_order: share(About::OutOfOrder, faults.out_of_order.map(|d| d.share)),
            late: share(About::Late, faults.late.map(|d| d.share)),
            duplicate: share(About::Duplicate, faults.duplicate.map(|d| d.share)),
            malformed: share(About::Malformed, faults.malformed.as_ref().map(|m| m.share)),
            unknown: share(About::Unknown, faults.unknown_device.map(|p| p.share)),
            offline: spells(About::Offline, faults.offline),
            gap: spells(About::Gap, faults.gap),
            classes: chosen.unwrap_or_else(|| scenario.wire.classes().to_vec()),
            broken: 0,
        }
    }

    /// How the next reading is broken, if it is; in turns.
    pub(super) fn class(&mut self, chance: Chance) -> Option<Class> {
        if !self.malformed.take(chance) {
            return None;
        }
        self.broken += 1;
        Some(self.classes[(self.broken - 1) % self.classes.len()])
    }
}
