//! A reader of JSON text (RFC 8259) that makes nothing: it hands out pieces of the text it stands on. Strict in what it takes.

use super::layout::Wrong;
use flow::Reason;

/// Deepest nesting that is read. Devices send three or four levels.
const MAX_DEPTH: u32 = 64;

/// A string between its quotes, still escaped where `escaped`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a str,
    pub(super) escaped: bool,
}

/// A value that is neither object nor array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Text<'a>),
}

pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    pub(super) fn wrong(&self, what: &str) -> Box<Wrong> {
        Wrong::new(Reason::Malformed, format!("byte {}: {what}", self.at))
    }

    /// All of the text.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The byte on which we stand.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// How deep we are in objects and arrays.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// We are so deep in objects and arrays: brackets were passed as text.
    pub(super) fn be_at(&mut self, depth: u32) {
        self.depth = depth;
    }

    /// Where we stand, to go back to.
    pub(super) fn place(&self) -> (usize, u32) {
        (self.at, self.depth)
    }

    pub(super) fn go_back(&mut self, (at, depth): (usize, u32)) {
        (self.at, self.depth) = (at, depth);
    }

    /// Passes over this very text; false, and nothing passed, where there is other text.
    pub(super) fn pass(&mut self, text: &str) -> bool {
        let is_here = self.text.as_bytes()[self.at..].starts_with(text.as_bytes());
        self.at += if is_here { text.len() } else { 0 };
        is_here
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn pass_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// The first byte of the next value or sign.
    pub(super) fn peek(&mut self) -> Result<u8, Box<Wrong>> {
        self.pass_space();
        self.byte().ok_or_else(|| self.wrong("the text ends early"))
    }

    /// Nothing but space may follow the value.
    pub(super) fn end(&mut self) -> Result<(), Box<Wrong>> {
        self.pass_space();
        if self.at < self.text.len() { Err(self.wrong("more text after the value")) } else { Ok(()) }
    }

    /// Goes into the object or array on whose bracket we stand.
    pub(super) fn enter(&mut self) -> Result<(), Box<Wrong>> {
        self.depth += 1;
        self.at += 1;
        if self.depth > MAX_DEPTH {
            return Err(Wrong::new(Reason::TooDeep, format!("byte {}: nested deeper than {MAX_DEPTH}", self.at)));
        }
        Ok(())
    }

    /// The next key of the object we are in; its value comes next. None leaves the object.
    pub(super) fn next_key(&mut self, first: bool) -> Result<Option<Text<'a>>, Box<Wrong>> {
        if !self.next_item(first, b'}')? {
            return Ok(None);
        }
        if self.peek()? != b'"' {
            return Err(self.wrong("a key is expected"));
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(self.wrong("`:` is expected"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the array we are in has another element, on which we then stand. False leaves the array.
    pub(super) fn next_element(&mut self, first: bool) -> Result<bool, Box<Wrong>> {
        self.next_item(first, b']')
    }

    fn next_item(&mut self, first: bool, close: u8) -> Result<bool, Box<Wrong>> {
        let byte = self.peek()?;
        if byte == close {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !first {
            if byte != b',' {
                return Err(self.wrong("`,` or the end is expected"));
            }
            self.at += 1;
            if self.peek()? == close {
                return Err(self.wrong("a value is expected after `,`"));
            }
        }
        Ok(true)
    }

    /// Reads a value that is neither object nor array.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Box<Wrong>> {
        match self.peek()? {
            b'"' => self.string().map(Scalar::Text),
            b'-' | b'0'..=b'9' => self.number().map(Scalar::Number),
            b't' => self.word("true", Scalar::Bool(true)),
            b'f' => self.word("false", Scalar::Bool(false)),
            b'n' => self.word("null", Scalar::Null),
            _ => Err(self.wrong("no JSON value")),
        }
    }

    /// Passes over a value, checking its grammar.
    pub(super) fn skip(&mut self) -> Result<(), Box<Wrong>> {
        match self.peek()? {
            b'{' => {
                self.enter()?;
                let mut first = true;
                while self.next_key(first)?.is_some() {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.enter()?;
                let mut first = true;
                while self.next_element(first)? {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            _ => self.scalar().map(|_| ()),
        }
    }

    fn word(&mut self, word: &str, value: Scalar<'a>) -> Result<Scalar<'a>, Box<Wrong>> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong("no JSON value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<&'a str, Box<Wrong>> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.at;
        self.digits()?;
        if self.at - whole > 1 && self.text.as_bytes()[whole] == b'0' {
            return Err(self.wrong("a number begins with 0"));
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Box<Wrong>> {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.wrong("a digit is expected")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Text<'a>, Box<Wrong>> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.wrong("a control character stands in a string")),
                None => return Err(self.wrong("a string does not end")),
            }
        }
        self.at += 1;
        Ok(Text { raw: &self.text[start..self.at - 1], escaped })
    }

    fn escape(&mut self) -> Result<(), Box<Wrong>> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let length = match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if rest.len() >= 5 && rest[1..5].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.wrong("no escape that JSON knows")),
        };
        self.at += length;
        Ok(())
    }
}

/// How many bytes stand before the first that means something in a string: a quote, a backslash, a control character. Eight at a time;
/// of the bits that mark such bytes the lowest is always right.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if found != 0 {
            return 8 * at + found.trailing_zeros() as usize / 8;
        }
    }
    let means = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    bytes.len() - rest.len() + rest.iter().position(means).unwrap_or(rest.len())
}

impl Text<'_> {
    /// Appends the text without its escapes; false when half a surrogate pair stands in it.
    pub(super) fn unescape(&self, out: &mut String) -> bool {
        let mut rest = self.raw;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let letter = rest.as_bytes()[at + 1];
            rest = &rest[at + 2..];
            match letter {
                b'b' => out.push('\u{8}'),
                b'f' => out.push('\u{c}'),
                b'n' => out.push('\n'),
                b'r' => out.push('\r'),
                b't' => out.push('\t'),
                b'u' => {
                    let Some((character, length)) = unicode(rest) else { return false };
                    out.push(character);
                    rest = &rest[length..];
                }
                other => out.push(char::from(other)),
            }
        }
        out.push_str(rest);
        true
    }
}

/// The character of `XXXX` or `XXXX\uXXXX`, and how many bytes say it.
fn unicode(rest: &str) -> Option<(char, usize)> {
    let unit = |at: usize| rest.get(at..at + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let high = unit(0)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).map(|c| (c, 4));
    }
    if rest.get(4..6) != Some("\\u") {
        return None;
    }
    let low = unit(6).filter(|l| (0xdc00..0xe000).contains(l))?;
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).map(|c| (c, 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        let mut scan = Scan::new(text);
        scan.skip().and_then(|()| scan.end()).is_ok()
    }

    #[test]
    fn it_takes_what_json_is_and_nothing_else() {
        for good in ["{}", "[]", " [1, -0.5e+7 ,\"\\u00e9\\n\", null,true,false,{\"a\":{}}] ", "0", "1e400", "\"é\""] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "+1",
            "NaN",
            "tru",
            "\"\\x\"",
            "\"a\nb\"",
            "1 2",
            "[1 2]",
            "{\"a\" 1}",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn it_goes_64_levels_deep() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(accepts(&nested(64)));
        assert_eq!(Scan::new(&nested(65)).skip().unwrap_err().reason, Reason::TooDeep);
        assert_eq!(Scan::new(&"[".repeat(1_000_000)).skip().unwrap_err().reason, Reason::TooDeep);
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts(text in r#"[\[\]{}:,"\\a1.e\-nul tr0 ]{0,12}"#) {
            prop_assert_eq!(accepts(&text), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        }

        #[test]
        fn strings_are_read_as_serde_json_wrote_them(value in any::<String>()) {
            let text = serde_json::to_string(&value).unwrap();
            let Scalar::Text(read) = Scan::new(&text).scalar().unwrap() else { panic!("no text") };
            let mut out = String::new();
            prop_assert!(read.unescape(&mut out));
            prop_assert_eq!(out, value);
        }
    }

    proptest! {
        #[test]
        fn plain_bytes_end_where_one_means_something(bytes in prop::collection::vec(prop_oneof![4 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 8 => 0x1e..0x24u8], 0..40)) {
            let first = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\').unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), first);
        }
    }

    #[test]
    fn surrogates_come_in_pairs() {
        let read = |raw| {
            let mut out = String::new();
            Text { raw, escaped: true }.unescape(&mut out).then_some(out)
        };
        assert_eq!(read(r"\ud83d\ude00!"), Some("😀!".into()));
        assert_eq!(read(r"\ud83d"), None);
        assert_eq!(read(r"\ud83d\u0041"), None);
        assert_eq!(read(r"\ude00"), None);
    }
}
