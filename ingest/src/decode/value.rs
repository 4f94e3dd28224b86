//! Values: what a column takes, and how text and numbers become it. Nothing here rounds or clips in silence: what does not fit is refused.

use super::time::TimeReader;
use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Float32Builder, Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder,
    StringViewBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::DataType;
use std::sync::Arc;

/// The types a column may have, for hints.
pub(super) const TYPES: &str =
    "bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float32, float64, decimal(p,s), utf8, timestamp";

/// A value on its way into a column. Text lies in the payload, or in the decoder's scratch where it had to be unescaped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Unset,
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Decimal(i128),
    Text(&'a str),
    Scratch(usize, usize),
}

impl Cell<'_> {
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Unset | Self::Null)
    }

    /// The same value, which is no text and so borrows nothing.
    pub(super) fn without_text(self) -> Cell<'static> {
        match self {
            Cell::Text(text) => unreachable!("{text} is borrowed text"),
            Cell::Unset => Cell::Unset,
            Cell::Null => Cell::Null,
            Cell::Bool(v) => Cell::Bool(v),
            Cell::Int(v) => Cell::Int(v),
            Cell::UInt(v) => Cell::UInt(v),
            Cell::Float(v) => Cell::Float(v),
            Cell::Decimal(v) => Cell::Decimal(v),
            Cell::Scratch(from, to) => Cell::Scratch(from, to),
        }
    }
}

/// The Arrow type of a type's word; none for a word we do not know.
pub(super) fn type_of(word: &str) -> Option<DataType> {
    Some(match word {
        "bool" => DataType::Boolean,
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        "utf8" => DataType::Utf8View,
        "timestamp" => flow::event_time_type(),
        _ => {
            let (precision, scale) = word.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<i8>().ok()?);
            if !(1..=38).contains(&precision) || scale < 0 || scale as u8 > precision {
                return None;
            }
            DataType::Decimal128(precision, scale)
        }
    })
}

/// Reads a number, written as JSON writes it or a little freer, as `kind`. None when it is none or does not fit.
pub(super) fn number<'a>(text: &'a str, kind: &DataType, times: &TimeReader) -> Option<Cell<'a>> {
    match kind {
        DataType::Int64 => integer(text).map(Cell::Int),
        DataType::Int32 => integer(text).filter(|v| i32::try_from(*v).is_ok()).map(Cell::Int),
        DataType::Int16 => integer(text).filter(|v| i16::try_from(*v).is_ok()).map(Cell::Int),
        DataType::Int8 => integer(text).filter(|v| i8::try_from(*v).is_ok()).map(Cell::Int),
        DataType::UInt64 => unsigned(text).map(Cell::UInt),
        DataType::UInt32 => unsigned(text).filter(|v| u32::try_from(*v).is_ok()).map(Cell::UInt),
        DataType::UInt16 => unsigned(text).filter(|v| u16::try_from(*v).is_ok()).map(Cell::UInt),
        DataType::UInt8 => unsigned(text).filter(|v| u8::try_from(*v).is_ok()).map(Cell::UInt),
        DataType::Float64 => float(text).map(Cell::Float),
        DataType::Float32 => text.parse().ok().filter(|v: &f32| v.is_finite()).map(|v| Cell::Float(f64::from(v))),
        DataType::Decimal128(precision, scale) => {
            let limit = 10_i128.pow(u32::from(*precision));
            scaled(text, i32::from(*scale), Rest::Refuse).filter(|v| -limit < *v && *v < limit).map(Cell::Decimal)
        }
        DataType::Timestamp(..) => times.number(text).map(Cell::Int),
        _ => None,
    }
}

/// Reads text as `kind`. Only text and times are written so, unless `parse`.
pub(super) fn text<'a>(text: &'a str, kind: &DataType, parse: bool, times: &TimeReader) -> Option<Cell<'a>> {
    match kind {
        DataType::Utf8View => Some(Cell::Text(text)),
        DataType::Timestamp(..) => match times.text(text) {
            None if times.is_unix() => TimeReader::Rfc3339.text(text).map(Cell::Int),
            micros => micros.map(Cell::Int),
        },
        DataType::Boolean if parse => match text.trim() {
            "true" | "True" | "TRUE" | "1" => Some(Cell::Bool(true)),
            "false" | "False" | "FALSE" | "0" => Some(Cell::Bool(false)),
            _ => None,
        },
        _ if parse => number(text.trim(), kind, times),
        _ => None,
    }
}

/// An integer; also one written as a fraction (`5.0`, `1e3`), as some devices write every number.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| scaled(text, 0, Rest::Refuse).and_then(|v| i64::try_from(v).ok()))
}

fn unsigned(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| scaled(text, 0, Rest::Refuse).and_then(|v| u64::try_from(v).ok()))
}

/// Powers of ten that 64 bits hold.
const POWERS: [i64; 19] = {
    let mut powers = [1; 19];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = 10 * powers[at - 1];
        at += 1;
    }
    powers
};

/// A number without an exponent, as devices mostly write them.
struct Plain {
    negative: bool,
    /// All its digits, at most 18.
    digits: i64,
    /// How many of them stand behind the point.
    fraction: usize,
}

impl Plain {
    fn read(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if rest.len() >= POWERS.len() {
            return None;
        }
        let (mut digits, mut point) = (0, None);
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'0'..=b'9' => digits = 10 * digits + i64::from(byte - b'0'),
                b'.' if point.is_none() => point = Some(at),
                _ => return None,
            }
        }
        let fraction = point.map_or(0, |at| rest.len() - at - 1);
        (rest.len() > usize::from(point.is_some())).then_some(Self { negative, digits, fraction })
    }

    /// The number times a power of ten; none where it is none or cannot be told here.
    fn scaled(&self, shift: i32, rest: Rest) -> Option<i128> {
        let value = if self.negative { -self.digits } else { self.digits };
        let power = shift.checked_sub(self.fraction as i32)?;
        let factor = *POWERS.get(power.unsigned_abs() as usize)?;
        match power >= 0 {
            true => Some(i128::from(value) * i128::from(factor)),
            false => (rest == Rest::Floor || value % factor == 0).then(|| i128::from(value.div_euclid(factor))),
        }
    }
}

/// The nearest floating number, if it is finite. Where digits and power of ten are both exact as floating numbers, so is their quotient as
/// far as it can be (Clinger, "How to Read Floating Point Numbers Accurately", PLDI 1990); other texts are left to the standard library.
fn float(text: &str) -> Option<f64> {
    match Plain::read(text) {
        Some(Plain { negative, digits, fraction }) if digits <= 1 << 53 => {
            let value = digits as f64 / POWERS[fraction] as f64;
            Some(if negative { -value } else { value })
        }
        _ => text.parse().ok().filter(|v: &f64| v.is_finite()),
    }
}

/// What to do with digits below the scale.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Refuse,
    Floor,
}

/// The number in `text` times 10 to the power of `shift`, exactly.
pub(super) fn scaled(text: &str, shift: i32, rest: Rest) -> Option<i128> {
    match Plain::read(text).and_then(|plain| plain.scaled(shift, rest)) {
        None => scaled_at_length(text, shift, rest),
        known => known,
    }
}

fn scaled_at_length(text: &str, shift: i32, rest: Rest) -> Option<i128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let value = if negative { -value } else { value };
    let power = shift.checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if value == 0 || power == 0 {
        return Some(value);
    }
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    match (power > 0, factor) {
        (true, factor) => value.checked_mul(factor?),
        (false, Some(factor)) if rest == Rest::Floor || value % factor == 0 => Some(value.div_euclid(factor)),
        (false, None) if rest == Rest::Floor => Some(if negative { -1 } else { 0 }),
        (false, _) => None,
    }
}

/// A column being filled.
pub(super) enum Column {
    Bool(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringViewBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Column {
    pub(super) fn new(kind: &DataType) -> Self {
        match kind {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int8 => Self::Int8(Int8Builder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::UInt8 => Self::UInt8(UInt8Builder::new()),
            DataType::UInt16 => Self::UInt16(UInt16Builder::new()),
            DataType::UInt32 => Self::UInt32(UInt32Builder::new()),
            DataType::UInt64 => Self::UInt64(UInt64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(kind.clone())),
            DataType::Utf8View => Self::Text(StringViewBuilder::new()),
            DataType::Timestamp(..) => Self::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            other => unreachable!("columns of type {other} are not declared"),
        }
    }

    /// Appends a value that `number` or `text` made for this column's type; a missing one becomes null.
    pub(super) fn push(&mut self, cell: Cell<'_>, scratch: &str) {
        match (self, cell) {
            (Self::Bool(b), Cell::Bool(v)) => b.append_value(v),
            (Self::Int8(b), Cell::Int(v)) => b.append_value(v as i8),
            (Self::Int16(b), Cell::Int(v)) => b.append_value(v as i16),
            (Self::Int32(b), Cell::Int(v)) => b.append_value(v as i32),
            (Self::Int64(b), Cell::Int(v)) => b.append_value(v),
            (Self::UInt8(b), Cell::UInt(v)) => b.append_value(v as u8),
            (Self::UInt16(b), Cell::UInt(v)) => b.append_value(v as u16),
            (Self::UInt32(b), Cell::UInt(v)) => b.append_value(v as u32),
            (Self::UInt64(b), Cell::UInt(v)) => b.append_value(v),
            (Self::Float32(b), Cell::Float(v)) => b.append_value(v as f32),
            (Self::Float64(b), Cell::Float(v)) => b.append_value(v),
            (Self::Decimal(b), Cell::Decimal(v)) => b.append_value(v),
            (Self::Time(b), Cell::Int(v)) => b.append_value(v),
            (Self::Text(b), Cell::Text(v)) => b.append_value(v),
            (Self::Text(b), Cell::Scratch(from, to)) => b.append_value(&scratch[from..to]),
            (column, cell) => {
                assert!(cell.is_missing(), "{cell:?} is not of its column's type");
                column.push_null();
            }
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int8(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::UInt8(b) => b.append_null(),
            Self::UInt16(b) => b.append_null(),
            Self::UInt32(b) => b.append_null(),
            Self::UInt64(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Decimal(b) => b.append_null(),
            Self::Text(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int8(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::UInt8(b) => Arc::new(b.finish()),
            Self::UInt16(b) => Arc::new(b.finish()),
            Self::UInt32(b) => Arc::new(b.finish()),
            Self::UInt64(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(value: &str, word: &str) -> Option<Cell<'static>> {
        number(value, &type_of(word).unwrap(), &TimeReader::Rfc3339).map(Cell::without_text)
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        assert_eq!(read("18446744073709551615", "uint64"), Some(Cell::UInt(u64::MAX)));
        assert_eq!(read("18446744073709551616", "uint64"), None);
        assert_eq!(read("-1", "uint8"), None);
        assert_eq!(read("128", "int8"), None);
        assert_eq!(read("5.0", "int8"), Some(Cell::Int(5)));
        assert_eq!(read("5.5", "int64"), None);
        assert_eq!(read("1e400", "float64"), None);
        assert_eq!(read("1e39", "float32"), None);
        assert_eq!(read("NaN", "float64"), None);
        assert_eq!(read("12.30", "decimal(4,2)"), Some(Cell::Decimal(1230)));
        assert_eq!(read("100.00", "decimal(4,2)"), None);
        assert_eq!(read("1.001", "decimal(9,2)"), None);
        assert_eq!(read("1e999999999", "decimal(9,2)"), None);
    }

    proptest! {
        #[test]
        fn short_ways_end_where_the_long_ones_do(text in r"-?[0-9]{0,20}\.?[0-9]{0,20}(e-?[0-9]{1,2})?", shift in -20..20i32, floor in any::<bool>()) {
            let rest = if floor { Rest::Floor } else { Rest::Refuse };
            prop_assert_eq!(scaled(&text, shift, rest), scaled_at_length(&text, shift, rest));
            let want = text.parse().ok().filter(|v: &f64| v.is_finite());
            prop_assert_eq!(float(&text).map(f64::to_bits), want.map(f64::to_bits));
        }
    }

    #[test]
    fn only_known_types_are_types() {
        assert_eq!(type_of("decimal(10, 2)"), Some(DataType::Decimal128(10, 2)));
        for bad in ["double", "decimal(39,1)", "decimal(2,3)", "decimal(2)", ""] {
            assert_eq!(type_of(bad), None, "{bad}");
        }
    }
}
