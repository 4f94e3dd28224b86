//! Where days, weeks, months and years begin in a time zone.
//!
//! A step begins at its first local midnight; where a clock change leaves midnight out, at the first moment after it. So a day in a
//! zone with daylight saving may have 23 or 25 hours, and every moment belongs to exactly one step.

use super::options::Unit;
use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// The step `[start, end)` that holds a moment; all in microseconds since 1970 UTC. Beyond the years that the calendar knows it reaches
/// to the end of time.
pub(super) fn step(unit: Unit, zone: Tz, time: i64) -> (i64, i64) {
    let Some(moment) = DateTime::<Utc>::from_timestamp_micros(time) else { return beyond(time) };
    let mut number = number_of(unit, moment.with_timezone(&zone).date_naive()).saturating_add(1);
    // A clock set back over midnight shows a date again: the first time it is shown counts.
    loop {
        match (begin(unit, zone, number), begin(unit, zone, number + 1)) {
            (Some(start), Some(end)) if start <= time => return (start, end),
            (Some(_), Some(_)) => number -= 1,
            _ => return beyond(time),
        }
    }
}

fn beyond(time: i64) -> (i64, i64) {
    if time < 0 { (i64::MIN, time.saturating_add(1)) } else { (time, i64::MAX) }
}

/// The number of the step that holds a date.
fn number_of(unit: Unit, date: NaiveDate) -> i32 {
    let days = date.num_days_from_ce() - 719_163;
    match unit {
        Unit::Days(n) => days.div_euclid(n),
        Unit::Weeks(n) => (days - 4).div_euclid(7 * n),
        Unit::Months(n) => ((date.year() - 1970) * 12 + date.month0() as i32).div_euclid(n),
    }
}

/// The date with which a step begins.
fn date_of(unit: Unit, number: i32) -> Option<NaiveDate> {
    match unit {
        Unit::Days(n) => NaiveDate::from_num_days_from_ce_opt(number.checked_mul(n)?.checked_add(719_163)?),
        Unit::Weeks(n) => NaiveDate::from_num_days_from_ce_opt(number.checked_mul(7 * n)?.checked_add(719_163 + 4)?),
        Unit::Months(n) => {
            let months = number.checked_mul(n)?;
            NaiveDate::from_ymd_opt(1970 + months.div_euclid(12), months.rem_euclid(12) as u32 + 1, 1)
        }
    }
}

fn begin(unit: Unit, zone: Tz, number: i32) -> Option<i64> {
    let midnight = NaiveDateTime::new(date_of(unit, number)?, NaiveTime::MIN);
    match zone.from_local_datetime(&midnight) {
        LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => Some(moment.timestamp_micros()),
        LocalResult::None => after_the_jump(zone, midnight),
    }
}

/// The moment at which a clock that has no `local` is set forward over it.
fn after_the_jump(zone: Tz, local: NaiveDateTime) -> Option<i64> {
    let sure = |day: NaiveDateTime| zone.from_local_datetime(&day).earliest().map(|moment| moment.timestamp());
    let (mut before, mut after) = (sure(local.checked_sub_days(Days::new(1))?)?, sure(local.checked_add_signed(TimeDelta::days(1))?)?);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        let shown = DateTime::<Utc>::from_timestamp(middle, 0)?.with_timezone(&zone).naive_local();
        if shown < local { before = middle } else { after = middle }
    }
    after.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::{America, Australia, Europe, Pacific, UTC};
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000;

    fn at(text: &str) -> i64 {
        text.parse::<DateTime<Utc>>().unwrap().timestamp_micros()
    }

    fn hours(unit: Unit, zone: Tz, text: &str) -> i64 {
        let (start, end) = step(unit, zone, at(text));
        (end - start) / HOUR
    }

    #[test]
    fn days_have_23_24_or_25_hours() {
        let day = Unit::Days(1);
        assert_eq!(hours(day, Europe::Berlin, "2024-03-31T12:00:00Z"), 23);
        assert_eq!(hours(day, Europe::Berlin, "2024-10-27T12:00:00Z"), 25);
        assert_eq!(hours(day, Europe::Berlin, "2024-07-01T12:00:00Z"), 24);
        assert_eq!(step(day, Europe::Berlin, at("2024-03-30T23:00:00Z")).0, at("2024-03-30T23:00:00Z"));
        // Half an hour of daylight saving.
        assert_eq!(
            step(day, Australia::Lord_Howe, at("2024-10-05T20:00:00Z")).1 - step(day, Australia::Lord_Howe, at("2024-10-05T20:00:00Z")).0,
            24 * HOUR - HOUR / 2
        );
    }

    #[test]
    fn a_day_without_midnight_begins_after_the_jump() {
        // Clocks in Sao Paulo went from 00:00 to 01:00 on 2018-11-04 (IANA tz, southamerica).
        let (start, end) = step(Unit::Days(1), America::Sao_Paulo, at("2018-11-04T12:00:00Z"));
        assert_eq!((start, end), (at("2018-11-04T03:00:00Z"), at("2018-11-05T02:00:00Z")));
    }

    #[test]
    fn a_day_that_a_zone_left_out_has_no_length() {
        // Apia skipped 2011-12-30 (IANA tz, australasia).
        let (start, end) = step(Unit::Days(1), Pacific::Apia, at("2011-12-30T10:30:00Z"));
        assert_eq!((start, end), (at("2011-12-30T10:00:00Z"), at("2011-12-31T10:00:00Z")));
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        assert_eq!(step(Unit::Weeks(1), UTC, at("2026-11-26T10:00:00Z")), (at("2026-11-23T00:00:00Z"), at("2026-11-30T00:00:00Z")));
        assert_eq!(step(Unit::Months(1), UTC, at("2024-02-10T10:00:00Z")), (at("2024-02-01T00:00:00Z"), at("2024-03-01T00:00:00Z")));
        assert_eq!(step(Unit::Months(3), UTC, at("1969-12-10T10:00:00Z")), (at("1969-10-01T00:00:00Z"), at("1970-01-01T00:00:00Z")));
        assert_eq!(step(Unit::Months(12), UTC, at("2026-11-26T10:00:00Z")).1, at("2027-01-01T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn each_moment_is_in_one_step_and_steps_follow_each_other(
            time in -2_000_000_000i64..4_000_000_000, zone in 0..6usize, unit in 0..4usize,
        ) {
            let zone = [Europe::Berlin, America::Sao_Paulo, America::St_Johns, Pacific::Apia, Australia::Lord_Howe, UTC][zone];
            let unit = [Unit::Days(1), Unit::Days(3), Unit::Weeks(1), Unit::Months(1)][unit];
            let time = time * 1_000_000;
            let (start, end) = step(unit, zone, time);
            prop_assert!(start <= time && time < end);
            prop_assert_eq!(step(unit, zone, start), (start, end));
            prop_assert_eq!(step(unit, zone, end - 1), (start, end));
            prop_assert_eq!(step(unit, zone, end).0, end);
        }
    }
}
