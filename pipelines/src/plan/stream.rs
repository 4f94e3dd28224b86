//! What is known about the rows between two parts: their columns, and which columns decide the lane they are in.

use super::join;
use arrow::datatypes::SchemaRef;

/// The rows that a source or an operator puts out.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// Their columns.
    pub(super) schema: SchemaRef,
    /// The columns that name a device or a group: tables are sorted by them.
    pub(super) key: Vec<String>,
    /// The columns that decide a row's lane, in the order of hashing; none where they are no longer among the columns.
    pub(super) lane_key: Option<Vec<String>>,
    /// The sources that reach them, rising.
    pub(super) sources: Vec<usize>,
    /// Whether they are in the second stage, where all rows are in one lane.
    pub(super) second: bool,
}

impl Stream {
    /// The rows of several parts together. The error says what differs.
    pub(super) fn join(inputs: &[(&str, &Self)]) -> Result<Self, String> {
        let schemas: Vec<_> = inputs.iter().map(|(name, s)| (*name, s.schema.clone())).collect();
        Ok(Self::with_schema(inputs, join::join(&schemas)?))
    }

    /// The rows of several parts together, with these columns.
    pub(super) fn with_schema(inputs: &[(&str, &Self)], schema: SchemaRef) -> Self {
        let first = inputs[0].1;
        let lane_key = first.lane_key.clone().filter(|key| inputs.iter().all(|(_, s)| s.lane_key.as_ref() == Some(key)));
        let mut sources: Vec<usize> = inputs.iter().flat_map(|(_, s)| s.sources.iter().copied()).collect();
        sources.sort_unstable();
        sources.dedup();
        let second = inputs.iter().any(|(_, s)| s.second);
        Self { schema, key: first.key.clone(), lane_key, sources, second }
    }

    /// The rows after `select`, a list of (new column, SQL): a key column goes on where it is taken over as it is.
    pub(super) fn mapped<'s>(&self, schema: SchemaRef, select: impl Iterator<Item = (&'s str, &'s str)> + Clone) -> Self {
        let renamed = |column: &String| {
            let mut same = select.clone().filter(|(_, sql)| sql.trim().trim_matches('"') == column).map(|(name, _)| name.to_owned());
            same.next()
        };
        let lane_key = self.lane_key.as_ref().and_then(|key| key.iter().map(renamed).collect());
        Self { schema, key: self.key.iter().filter_map(renamed).collect(), lane_key, sources: self.sources.clone(), second: self.second }
    }

    /// True if rows that agree in `key` are all in one lane.
    pub(super) fn is_split_by(&self, key: &[String], lanes: u32) -> bool {
        lanes == 1 || self.second || self.holds_lane_key(key)
    }

    /// True if rows that agree in `key` agree in what decides their lane: they are of one device.
    pub(super) fn holds_lane_key(&self, key: &[String]) -> bool {
        self.lane_key.as_ref().is_some_and(|of| of.iter().all(|column| key.contains(column)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    fn stream(lane_key: &[&str], source: usize) -> Stream {
        let key: Vec<String> = lane_key.iter().map(|k| (*k).to_owned()).collect();
        Stream { schema: Arc::new(Schema::empty()), key: key.clone(), lane_key: Some(key), sources: vec![source], second: false }
    }

    fn words(of: &[&str]) -> Vec<String> {
        of.iter().map(|k| (*k).to_owned()).collect()
    }

    #[test]
    fn a_group_is_in_one_lane_only_if_its_key_holds_the_lanes_key() {
        let rows = stream(&["device"], 0);
        assert!(rows.is_split_by(&words(&["site", "device"]), 4));
        assert!(!rows.is_split_by(&words(&["site"]), 4));
        assert!(rows.is_split_by(&words(&["site"]), 1));
        assert!(Stream { second: true, ..rows }.is_split_by(&words(&["site"]), 4));
    }

    #[test]
    fn a_map_may_rename_the_key_but_not_lose_it() {
        let mapped =
            |select: &[(&'static str, &'static str)]| stream(&["device"], 0).mapped(Arc::new(Schema::empty()), select.iter().copied());
        assert_eq!(mapped(&[("d", "device"), ("x", "1")]).lane_key, Some(words(&["d"])));
        assert_eq!(mapped(&[("device", "upper(device)")]).lane_key, None);
    }

    #[test]
    fn sources_with_different_keys_share_no_lane_key() {
        let (a, b) = (stream(&["device"], 1), stream(&["site"], 0));
        let both = Stream::join(&[("a", &a), ("b", &b)]).unwrap();
        assert_eq!((both.lane_key, both.sources), (None, vec![0, 1]));
    }
}
