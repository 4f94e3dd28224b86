//! Two tables as CSV, one from SQL and one from the judge, and whether they are the same.

/// The rows of a CSV text without its header, sorted. No field of ours holds a comma or a quote.
pub fn rows(csv: &str) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = csv.lines().skip(1).filter(|line| !line.is_empty()).map(fields).collect();
    rows.sort();
    rows
}

fn fields(line: &str) -> Vec<String> {
    assert!(!line.contains('"'), "a quoted field: {line}");
    line.split(',').map(str::to_owned).collect()
}

/// Panics at the first difference. The first `exact` columns (keys, counts, extremes) must be equal as numbers or words, the others
/// (averages, deviations) to a relative 1e-9.
#[track_caller]
pub fn assert_same(what: &str, actual: &str, expected: &str, exact: usize) {
    let (actual, expected) = (rows(actual), rows(expected));
    assert!(!expected.is_empty(), "{what}: the judge expects no rows at all");
    for (got, want) in actual.iter().zip(&expected) {
        let same = got.len() == want.len() && got.iter().zip(want).enumerate().all(|(column, (a, b))| same(a, b, column < exact));
        assert!(same, "{what}: got {got:?}, expected {want:?}");
    }
    assert_eq!(actual.len(), expected.len(), "{what}: number of rows");
}

fn same(a: &str, b: &str, exact: bool) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) if exact => a == b,
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_spelling_of_numbers_do_not_matter() {
        assert_same("t", "k,n,v\nb,1,2.0\na,3,1.0000000000001\n", "k,n,v\na,3,1\nb,1.0,2\n", 2);
    }

    #[test]
    #[should_panic(expected = "expected")]
    fn an_exact_column_takes_no_tolerance() {
        assert_same("t", "k,n\na,1.0000000000001\n", "k,n\na,1\n", 2);
    }

    #[test]
    #[should_panic(expected = "number of rows")]
    fn a_missing_row_is_seen() {
        assert_same("t", "k\na\n", "k\na\nb\n", 1);
    }
}
