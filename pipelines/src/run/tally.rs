//! The conservation counts of one component: what goes in equals what comes out, is left out, late, refused or taken into state.

use std::collections::BTreeMap;

/// Rows counted at one component since the lane began. They stand in the epoch record and go on from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// True for windows: they account for their input by what they took, not by what they put out.
    pub(crate) holds_rows: bool,
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) filtered: u64,
    pub(crate) duplicate: u64,
    pub(crate) unproven: u64,
    pub(crate) late: u64,
    pub(crate) refused: u64,
    pub(crate) taken: u64,
    pub(crate) emitted: u64,
}

impl Tally {
    /// Input that no count explains; 0 when the component keeps its promise.
    pub(crate) fn unaccounted(&self) -> u64 {
        let passed = if self.holds_rows { self.taken } else { self.output };
        self.input.abs_diff(passed + self.filtered + self.duplicate + self.late + self.refused)
    }

    /// Writes the counts as `<component>.<word>`.
    pub(crate) fn store(&self, component: &str, into: &mut BTreeMap<String, u64>) {
        for (word, rows) in self.words() {
            if rows > 0 {
                into.insert(format!("{component}.{word}"), rows);
            }
        }
    }

    /// Reads what `store` wrote.
    pub(crate) fn load(&mut self, component: &str, from: &BTreeMap<String, u64>) {
        let get = |word: &str| from.get(&format!("{component}.{word}")).copied().unwrap_or(0);
        *self = Self {
            holds_rows: self.holds_rows,
            input: get("input"),
            output: get("output"),
            filtered: get("filtered"),
            duplicate: get("duplicate"),
            unproven: get("unproven"),
            late: get("late"),
            refused: get("refused"),
            taken: get("taken"),
            emitted: get("emitted"),
        };
    }

    fn words(&self) -> [(&'static str, u64); 9] {
        [
            ("input", self.input),
            ("output", self.output),
            ("filtered", self.filtered),
            ("duplicate", self.duplicate),
            ("unproven", self.unproven),
            ("late", self.late),
            ("refused", self.refused),
            ("taken", self.taken),
            ("emitted", self.emitted),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_count_explains_is_unaccounted() {
        let filter = Tally { input: 10, output: 6, filtered: 3, refused: 1, ..Tally::default() };
        assert_eq!(filter.unaccounted(), 0);
        assert_eq!(Tally { filtered: 1, ..filter }.unaccounted(), 2);
        let window = Tally { holds_rows: true, input: 10, taken: 8, late: 2, output: 4, ..Tally::default() };
        assert_eq!(window.unaccounted(), 0);
    }

    #[test]
    fn counts_go_through_a_record_unchanged() {
        let tally = Tally { input: 10, output: 6, filtered: 3, refused: 1, ..Tally::default() };
        let (mut words, mut back) = (BTreeMap::new(), Tally::default());
        tally.store("valid", &mut words);
        back.load("valid", &words);
        assert_eq!(back, tally);
    }
}
