//! Walks the canonical text of stored objects: finds members, skips values and counts sizes without building anything.
//!
//! The text was written by this crate, so only its structure is followed, not checked: numbers and words are skipped
//! unseen. A text that ends too early or has something else where structure belongs is damaged; no text makes it panic.

use crate::limits::{BOOLEAN_SIZE, NUMBER_SIZE};
use crate::rejection::Damaged;

/// A cursor over the text of a stored object.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A member whose value the cursor stands before.
pub(crate) struct StoredMember<'a> {
    /// Where it starts: the quote of its name.
    pub(crate) start: usize,
    /// The content of its name's string, escaped.
    pub(crate) name: &'a str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How far the cursor is, in bytes.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to `end`.
    pub(crate) fn text(&self, start: usize, end: usize) -> Result<&'a str, Damaged> {
        self.text.get(start..end).ok_or(Damaged { at: start })
    }

    /// Whether an object comes next.
    pub(crate) fn at_object(&self) -> bool {
        self.byte() == b'{'
    }

    /// Consumes the `{` of an object.
    pub(crate) fn open(&mut self) -> Result<(), Damaged> {
        self.expect(b'{')
    }

    /// The next member of an opened object; `None` after consuming its `}`.
    #[inline]
    pub(crate) fn member(&mut self) -> Result<Option<StoredMember<'a>>, Damaged> {
        if self.byte() == b'}' {
            self.at += 1;
            return Ok(None);
        }
        if self.byte() == b',' {
            self.at += 1;
        }
        let start = self.at;
        self.expect(b'"')?;
        let end = string_end(self.text.as_bytes(), self.at).ok_or_else(|| self.damaged())?;
        let name = self.text(self.at, end - 1)?;
        self.at = end;
        self.expect(b':')?;
        Ok(Some(StoredMember { start, name }))
    }

    /// Skips the value that comes next and returns its text.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<&'a str, Damaged> {
        let start = self.at;
        self.at = value_end(self.text.as_bytes(), start).ok_or_else(|| self.damaged())?;
        self.text(start, self.at)
    }

    /// Skips the value that comes next.
    #[inline]
    pub(crate) fn skip(&mut self) -> Result<(), Damaged> {
        self.at = value_end(self.text.as_bytes(), self.at).ok_or_else(|| self.damaged())?;
        Ok(())
    }

    /// The members that remain in an opened object, with the comma before them; consumes the `}`. `outermost`: the object is
    /// the whole text, so its end need not be searched.
    pub(crate) fn rest(&mut self, outermost: bool) -> Result<&'a str, Damaged> {
        let start = self.at;
        self.at = if outermost {
            self.text.len()
        } else {
            nest_end(self.text.as_bytes(), start, 1).ok_or_else(|| self.damaged())?
        };
        self.text.get(start..self.at).and_then(|rest| rest.strip_suffix('}')).ok_or_else(|| self.damaged())
    }

    /// Checks that nothing follows.
    pub(crate) fn finish(&self) -> Result<(), Damaged> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.damaged()) }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Damaged> {
        if self.byte() == byte {
            self.at += 1;
            Ok(())
        } else {
            Err(self.damaged())
        }
    }

    fn damaged(&self) -> Damaged {
        Damaged { at: self.at }
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }
}

/// What a decoded name or string counts: its bytes without those of control characters.
pub(crate) fn text_size(decoded: &str) -> u32 {
    // C0, DEL and C1: the only bytes below a blank, 0x7f, and 0xc2 with 0x80 to 0x9f (0xc2 leads U+0080 to U+00BF).
    let plain = |byte: u8| (b' '..0x7f).contains(&byte) || byte > 0xc2 || (0x80..0xc2).contains(&byte);
    if decoded.bytes().all(plain) {
        return small(decoded.len());
    }
    small(decoded.chars().filter(|character| !character.is_control()).map(char::len_utf8).sum())
}

/// What the content of a canonical string counts.
pub(crate) fn escaped_size(mut escaped: &str) -> u32 {
    let mut size = 0;
    while let Some((before, after)) = escaped.split_once('\\') {
        size += text_size(before);
        // Of the canonical escapes only those of the quote and the backslash stand for something that counts.
        let (counts, length) = match after.as_bytes().first() {
            Some(b'"' | b'\\') => (1, 1),
            Some(b'u') => (0, 5),
            _ => (0, 1),
        };
        size += counts;
        escaped = after.get(length..).unwrap_or_default();
    }
    size + text_size(escaped)
}

/// What a canonical value counts.
pub(crate) fn value_size(value: &str) -> u32 {
    let bytes = value.as_bytes();
    let mut size: u32 = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at + 1).unwrap_or(bytes.len());
                size = size.saturating_add(escaped_size(value.get(at + 1..end - 1).unwrap_or_default()));
                at = end;
            }
            b't' | b'f' => {
                size = size.saturating_add(BOOLEAN_SIZE);
                at += if *byte == b't' { 4 } else { 5 };
            }
            b'-' | b'0'..=b'9' => {
                size = size.saturating_add(NUMBER_SIZE);
                at = scalar_end(bytes, at);
            }
            _ => at += 1,
        }
    }
    size
}

/// The end of the value that starts at `at`.
#[inline]
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at + 1),
        b'{' | b'[' => nest_end(bytes, at + 1, 1),
        _ => Some(scalar_end(bytes, at)).filter(|end| *end > at),
    }
}

/// The end of a number or word: the structure that follows it.
fn scalar_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b',' | b'}' | b']' | b'"' | b'{' | b'[' | b':')) {
        at += 1;
    }
    at
}

/// The end of the innermost `depth` objects and arrays that are open at `at`.
fn nest_end(bytes: &[u8], mut at: usize, mut depth: usize) -> Option<usize> {
    while depth > 0 {
        at = match bytes.get(at)? {
            b'"' => string_end(bytes, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' => {
                depth -= 1;
                at + 1
            }
            _ => at + 1,
        };
    }
    Some(at)
}

/// The end, beyond the quote, of the string whose content starts at `at`.
///
/// Most of a stored text is inside strings, so they are searched eight bytes at a time (half the time of a change).
#[inline]
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
            let word = u64::from_le_bytes(*chunk);
            let hits = zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES);
            if hits != 0 {
                at += (hits.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A word of bytes 1.
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;
const QUOTES: u64 = EACH_BYTE * b'"' as u64;
const BACKSLASHES: u64 = EACH_BYTE * b'\\' as u64;

/// The highest bit of each byte that is zero. Bytes above a zero byte may be reported falsely; the lowest report is right.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EACH_BYTE) & !word & (EACH_BYTE << 7)
}

/// Texts are limited to far less than 4 GiB.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_as_documented() {
        for (value, size) in [
            (r#"{}"#, 0),
            (r#"{"ab":1}"#, 10),
            (r#"{"ab":-1.5e3,"c":true,"d":false}"#, 20),
            (r#"{"a":["x","é",[],{"k":[1,2]}]}"#, 1 + 1 + 2 + 1 + 16),
            (r#"{"a":"x\"\\\n\u0001y"}"#, 1 + 4),
            ("{\"a\":\"\u{85}\u{7f}é\u{a0}\"}", 1 + 4),
        ] {
            assert_eq!(value_size(value), size, "{value}");
        }
    }

    #[test]
    fn walks_members() {
        let mut cursor = Cursor::new(r#"{"a":{"x":[1,"]}"]},"b\"":-1,"c":"","d":{"e":1},"f":2}"#);
        cursor.open().unwrap();
        for (name, value) in [("a", r#"{"x":[1,"]}"]}"#), ("b\\\"", "-1"), ("c", "\"\"")] {
            assert_eq!(cursor.member().unwrap().unwrap().name, name);
            assert_eq!(cursor.value().unwrap(), value);
        }
        cursor.member().unwrap();
        cursor.open().unwrap();
        assert_eq!(cursor.rest(false).unwrap(), r#""e":1"#);
        assert_eq!(cursor.rest(true).unwrap(), r#","f":2"#);
        cursor.finish().unwrap();
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[{}\[\]",:\\a0é]{0,20}"#) {
            let mut cursor = Cursor::new(&text);
            let _ = value_size(&text);
            let _ = cursor.open();
            while let Ok(Some(_)) = cursor.member() {
                let _ = cursor.value();
            }
            let _ = cursor.rest(false);
        }

        #[test]
        fn finds_the_end_of_every_string(text in r#"["\\\PC]{0,40}"#, after in r#"["\\a]{0,9}"#) {
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string_end(format!("{quoted}{after}").as_bytes(), 1), Some(quoted.len()));
            let open = quoted.strip_suffix('"').unwrap();
            prop_assert_eq!(string_end(open.as_bytes(), 1), None);
        }

        #[test]
        fn sizes_of_texts_agree(text in any::<String>()) {
            let decoded: usize = text.chars().filter(|c| !c.is_control()).map(char::len_utf8).sum();
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(text_size(&text) as usize, decoded);
            prop_assert_eq!(value_size(&quoted) as usize, decoded);
        }
    }
}
