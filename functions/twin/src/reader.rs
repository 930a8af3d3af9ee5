//! Reads JSON (RFC 8259) as it comes from a client: a cursor over the text that borrows what it can.

use std::borrow::Cow;

use crate::limits::MAX_IGNORED_DEPTH;

/// Where and why a text is not JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Offset in bytes.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) what: &'static str,
}

/// A cursor over a JSON text.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// A string, not yet decoded.
pub(crate) struct Quoted<'a> {
    /// With the quotes.
    pub(crate) quoted: &'a str,
    /// Without the quotes.
    raw: &'a str,
    start: usize,
    /// Whether there is no escape in it.
    pub(crate) plain: bool,
}

/// A number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Number<'a> {
    /// No fraction and no exponent; in its only possible spelling.
    Integer(&'a str),
    /// With fraction or exponent.
    Float(&'a str),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The error `what` at the current place.
    pub(crate) fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError { at: self.at, what }
    }

    /// Skips white space; the byte that follows, not consumed, or 0 at the end (a NUL is valid nowhere outside of strings).
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        loop {
            match self.byte() {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Consumes `byte` if it comes next, after white space.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn finish(&mut self) -> Result<(), SyntaxError> {
        self.peek();
        if self.at < self.text.len() { Err(self.error("something follows the value")) } else { Ok(()) }
    }

    /// The next name of an object whose `{` has been consumed, with its colon; `None` after consuming the `}`.
    pub(crate) fn name(&mut self, first: bool) -> Result<Option<Quoted<'a>>, SyntaxError> {
        if first && self.take(b'}') {
            return Ok(None);
        }
        if !first {
            if self.take(b'}') {
                return Ok(None);
            }
            if !self.take(b',') {
                return Err(self.error("expected ',' or '}'"));
            }
        }
        if self.peek() != b'"' {
            return Err(self.error("expected a name"));
        }
        let name = self.string()?;
        if !self.take(b':') {
            return Err(self.error("expected ':'"));
        }
        Ok(Some(name))
    }

    /// Whether the array whose `[` has been consumed has another element; consumes the comma or the `]`.
    pub(crate) fn element(&mut self, first: bool) -> Result<bool, SyntaxError> {
        if self.take(b']') {
            return Ok(false);
        }
        if first || self.take(b',') { Ok(true) } else { Err(self.error("expected ',' or ']'")) }
    }

    /// The string that starts here. Its escapes are not checked before it is decoded.
    pub(crate) fn string(&mut self) -> Result<Quoted<'a>, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let mut plain = true;
        loop {
            match self.text.as_bytes().get(self.at) {
                None => return Err(SyntaxError { at: start, what: "the string has no end" }),
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    self.at += 2;
                }
                Some(0..0x20) => return Err(self.error("a control character must be escaped")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        let raw = self.text.get(start + 1..self.at - 1).unwrap_or_default();
        Ok(Quoted { quoted, raw, start, plain })
    }

    /// The number that starts here.
    pub(crate) fn number(&mut self) -> Result<Number<'a>, SyntaxError> {
        let start = self.at;
        self.at += usize::from(self.byte() == b'-');
        let zero = self.byte() == b'0';
        let digits = self.digits()?;
        if zero && digits > 1 {
            return Err(SyntaxError { at: start, what: "a number must not begin with 0" });
        }
        let mut integer = true;
        if self.byte() == b'.' {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            integer = false;
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(if integer { Number::Integer(text) } else { Number::Float(text) })
    }

    /// Consumes `true`, `false` or `null`.
    pub(crate) fn word(&mut self) -> Result<&'static str, SyntaxError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for word in ["true", "false", "null"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(word);
            }
        }
        Err(self.error("expected a value"))
    }

    /// Checks and skips the value that follows.
    pub(crate) fn skip(&mut self) -> Result<(), SyntaxError> {
        self.skip_below(0)
    }

    fn skip_below(&mut self, depth: usize) -> Result<(), SyntaxError> {
        match self.peek() {
            b'{' | b'[' if depth >= MAX_IGNORED_DEPTH => return Err(self.error("nested too deeply")),
            b'{' => {
                self.at += 1;
                let mut first = true;
                while let Some(name) = self.name(first)? {
                    name.check()?;
                    self.skip_below(depth + 1)?;
                    first = false;
                }
            }
            b'[' => {
                self.at += 1;
                let mut first = true;
                while self.element(first)? {
                    self.skip_below(depth + 1)?;
                    first = false;
                }
            }
            b'"' => self.string()?.check()?,
            b'-' | b'0'..=b'9' => {
                self.number()?;
            }
            _ => {
                self.word()?;
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<usize, SyntaxError> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(self.at - start) }
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }
}

impl<'a> Quoted<'a> {
    /// The characters that the string stands for.
    pub(crate) fn decode(&self) -> Result<Cow<'a, str>, SyntaxError> {
        if self.plain {
            return Ok(Cow::Borrowed(self.raw));
        }
        let mut decoded = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(place) = rest.find('\\') {
            let (before, escaped) = rest.split_at(place);
            decoded.push_str(before);
            let (character, length) = unescape(escaped).ok_or(SyntaxError {
                at: self.start + 1 + self.raw.len() - escaped.len(),
                what: "this escape does not exist",
            })?;
            decoded.push(character);
            rest = escaped.get(length..).unwrap_or_default();
        }
        decoded.push_str(rest);
        Ok(Cow::Owned(decoded))
    }

    /// Checks the escapes.
    fn check(&self) -> Result<(), SyntaxError> {
        if self.plain { Ok(()) } else { self.decode().map(|_| ()) }
    }
}

/// The character of the escape at the start of `text`, and the length of the escape.
fn unescape(text: &str) -> Option<(char, usize)> {
    let simple = match text.as_bytes().get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let high = hex(text.get(2..6)?)?;
            if let Some(character) = char::from_u32(high) {
                return Some((character, 6));
            }
            let low = hex(text.get(6..12)?.strip_prefix("\\u")?)?;
            if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
                return None;
            }
            return char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                .map(|character| (character, 12));
        }
        _ => return None,
    };
    Some((simple, 2))
}

/// Four hexadecimal digits; a sign, which the standard library's parser would take, is none.
fn hex(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Appends `decoded` as the content of a JSON string, escaped only where JSON demands it: the canonical form.
pub(crate) fn escape(decoded: &str, out: &mut String) {
    for character in decoded.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' => {
                let code = u32::from(character);
                out.push_str("\\u00");
                out.extend([code >> 4, code & 15].into_iter().filter_map(|digit| char::from_digit(digit, 16)));
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().and_then(|()| reader.finish()).is_ok()
    }

    fn decode(text: &str) -> Result<String, SyntaxError> {
        Reader::new(text).string()?.decode().map(Cow::into_owned)
    }

    #[test]
    fn decodes_every_escape() {
        assert_eq!(decode(r#""a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00é""#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\tA😀é");
    }

    #[test]
    fn refuses_false_escapes() {
        for text in [
            r#""\x""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\udc00""#,
            r#""\ud83d\ud83d""#,
            "\"\\é\"",
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tells_integers_from_floats() {
        for (text, integer) in
            [("0", true), ("-17", true), ("-0", true), ("1.0", false), ("1e3", false), ("1E-3", false)]
        {
            let number = Reader::new(text).number().unwrap();
            assert_eq!(number, if integer { Number::Integer(text) } else { Number::Float(text) });
        }
        for text in ["01", "-", "1.", ".5", "1e", "+1", "1e+", "--1"] {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn refuses_a_bomb_of_brackets() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&nested(MAX_IGNORED_DEPTH)));
        assert!(!accepts(&nested(MAX_IGNORED_DEPTH + 1)));
        assert!(!accepts(&"[".repeat(1_000_000)));
        assert!(!accepts(&"{\"a\":".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn accepts_what_serde_json_accepts(text in r#"[\[\]{}:,"a\\u0-9eE.+\- tfn]{0,12}|\{"a":[\[\]{}0-9.,e"\\ -]{0,10}\}|(true|false|null|"[^"]{0,6}")"#) {
            // Not serde_json::Value: it refuses numbers beyond the range of floats, of which the grammar knows nothing.
            prop_assert_eq!(accepts(&text), serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
        }

        #[test]
        fn escapes_and_decodes(text in any::<String>()) {
            let mut escaped = String::from("\"");
            escape(&text, &mut escaped);
            escaped.push('"');
            prop_assert_eq!(&escaped, &serde_json::to_string(&text).unwrap());
            prop_assert_eq!(decode(&escaped).unwrap(), text);
        }
    }
}
