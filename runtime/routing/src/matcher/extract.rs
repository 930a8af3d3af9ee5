//! Takes the values of all wanted paths out of a JSON text in one validating pass, without building a document.
//!
//! It accepts and refuses exactly what [`crate::Json::parse`] does, and finds what [`crate::Json::at`] finds: names
//! without regard to case, the last of equal names, numbers as the nearest double. Property tests compare the two.
//!
//! Strings are scanned sixteen bytes at a time with instructions that every x86-64 and aarch64 processor has. Strings with
//! escapes, and numbers that are long or have an exponent, take a slow path through the standard library.

use super::paths::{NOWHERE, PathId, PathTree, TOP};
use super::scan::{classify, digits, last_chunk};
use super::slot::{Origin, Slot, TextPlace};
use super::vocabulary::TermId;

/// How deep arrays and objects may be nested: the bound of `serde_json`.
const MAX_NESTING: u32 = 127;

/// The text is not JSON, is nested too deeply or holds a number beyond the range of a double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Checked<T> = Result<T, Malformed>;

/// Memory that is kept between messages.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// For each node of the tree that has children: the part of `set` that its latest value wrote.
    written: Vec<(usize, usize)>,
    /// The terms that were set, in order.
    set: Vec<TermId>,
}

/// Sets the slots of every path of the tree that leads somewhere in `text`. After an error, some slots may have been set.
pub(super) fn extract(
    text: &[u8],
    tree: &PathTree,
    origin: Origin,
    slots: &mut [Slot],
    unescaped: &mut String,
    marks: &mut Marks,
) -> Checked<()> {
    if u32::try_from(text.len()).is_err() {
        return Err(Malformed);
    }
    marks.set.clear();
    marks.written.clear();
    marks.written.resize(tree.len(), (0, 0));
    let mut run = Extraction { text, at: 0, beyond_ascii: false, tree, origin, slots, unescaped, marks };
    run.white_space();
    run.value(TOP, tree.goal(TOP).term, 0)?;
    run.white_space();
    let valid = run.at == text.len() && (!run.beyond_ascii || std::str::from_utf8(text).is_ok());
    if valid { Ok(()) } else { Err(Malformed) }
}

struct Extraction<'a> {
    text: &'a [u8],
    at: usize,
    /// Some string has a byte that is not ASCII, so the whole must be checked to be UTF-8.
    beyond_ascii: bool,
    tree: &'a PathTree,
    origin: Origin,
    slots: &'a mut [Slot],
    unescaped: &'a mut String,
    marks: &'a mut Marks,
}

/// A string between its quotes.
#[derive(Clone, Copy)]
struct Quoted {
    start: usize,
    end: usize,
    escaped: bool,
    ascii: bool,
}

impl Extraction<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn step(&mut self) {
        self.at = self.at.wrapping_add(1);
    }

    #[inline]
    fn white_space(&mut self) {
        // Most texts have none: machines write them.
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.step();
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Checked<()> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.step();
        Ok(())
    }

    #[inline]
    fn set(&mut self, term: Option<TermId>, slot: Slot) {
        if let Some(term) = term
            && let Some(place) = self.slots.get_mut(term as usize)
        {
            *place = slot;
            self.marks.set.push(term);
        }
    }

    /// Reads a value; the recursion is at most [`MAX_NESTING`] levels deep.
    #[inline]
    fn value(&mut self, node: PathId, term: Option<TermId>, nesting: u32) -> Checked<()> {
        match self.peek().ok_or(Malformed)? {
            b'"' => {
                let quoted = self.string()?;
                if term.is_some() {
                    let slot = self.text_slot(quoted)?;
                    self.set(term, slot);
                    Ok(())
                } else {
                    self.check(quoted).map(|_| ())
                }
            }
            b'-' | b'0'..=b'9' => {
                let number = self.number()?;
                self.set(term, Slot::Number(number));
                Ok(())
            }
            b'{' => {
                self.set(term, Slot::Object);
                self.object(node, nesting)
            }
            b'[' => {
                self.set(term, Slot::Array);
                self.array(node, nesting)
            }
            b't' => self.literal(b"true", term, Slot::Boolean(true)),
            b'f' => self.literal(b"false", term, Slot::Boolean(false)),
            b'n' => self.literal(b"null", term, Slot::Null),
            _ => Err(Malformed),
        }
    }

    fn literal(&mut self, word: &[u8], term: Option<TermId>, slot: Slot) -> Checked<()> {
        let rest = self.text.get(self.at..).unwrap_or(&[]);
        if !rest.starts_with(word) {
            return Err(Malformed);
        }
        self.at = self.at.wrapping_add(word.len());
        self.set(term, slot);
        Ok(())
    }

    fn object(&mut self, node: PathId, nesting: u32) -> Checked<()> {
        let nesting = nesting + 1;
        if nesting > MAX_NESTING {
            return Err(Malformed);
        }
        self.step();
        self.white_space();
        if self.peek() == Some(b'}') {
            self.step();
            return Ok(());
        }
        let wanted = self.tree.has_members(node);
        loop {
            if self.peek() != Some(b'"') {
                return Err(Malformed);
            }
            let name = self.string()?;
            self.white_space();
            self.expect(b':')?;
            self.white_space();
            let child = if wanted { self.member(node, name)? } else { self.check(name)? };
            self.child(child, nesting)?;
            self.white_space();
            match self.peek() {
                Some(b',') => {
                    self.step();
                    self.white_space();
                }
                Some(b'}') => {
                    self.step();
                    return Ok(());
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn array(&mut self, node: PathId, nesting: u32) -> Checked<()> {
        let nesting = nesting + 1;
        if nesting > MAX_NESTING {
            return Err(Malformed);
        }
        self.step();
        self.white_space();
        if self.peek() == Some(b']') {
            self.step();
            return Ok(());
        }
        let tree = self.tree;
        let mut wanted = tree.elements(node).iter().peekable();
        let mut index = 0_u32;
        loop {
            let child = wanted.next_if(|(next, _)| *next == index).map_or(NOWHERE, |(_, child)| *child);
            self.child(child, nesting)?;
            // No condition can name an element beyond the largest index.
            index = index.saturating_add(1);
            self.white_space();
            match self.peek() {
                Some(b',') => {
                    self.step();
                    self.white_space();
                }
                Some(b']') => {
                    self.step();
                    return Ok(());
                }
                _ => return Err(Malformed),
            }
        }
    }

    /// Reads the value of a member or element. Where an earlier member had the same name, what that one set below its
    /// node is taken back first: only the last one counts. Each setting is taken back once, so this takes linear time.
    #[inline]
    fn child(&mut self, child: PathId, nesting: u32) -> Checked<()> {
        let goal = self.tree.goal(child);
        if !goal.is_inner {
            return self.value(NOWHERE, goal.term, nesting);
        }
        let place = child as usize;
        let (start, end) = self.marks.written.get(place).copied().unwrap_or_default();
        for &term in self.marks.set.get(start..end).unwrap_or(&[]) {
            if let Some(slot) = self.slots.get_mut(term as usize) {
                *slot = Slot::Undefined;
            }
        }
        let start = self.marks.set.len();
        self.value(child, goal.term, nesting)?;
        let end = self.marks.set.len();
        if let Some(written) = self.marks.written.get_mut(place) {
            *written = (start, end);
        }
        Ok(())
    }

    /// The node that a name leads to.
    #[inline]
    fn member(&mut self, node: PathId, name: Quoted) -> Checked<PathId> {
        if name.escaped {
            return Ok(self.tree.member(node, &unescape(self.text, name)?));
        }
        let raw = self.text.get(name.start..name.end).unwrap_or(&[]);
        if name.ascii {
            return Ok(self.tree.ascii_member(node, raw));
        }
        Ok(self.tree.member(node, std::str::from_utf8(raw).map_err(|_| Malformed)?))
    }

    /// A name that nobody wants still has to be well-formed.
    #[inline]
    fn check(&self, name: Quoted) -> Checked<PathId> {
        if name.escaped {
            unescape(self.text, name)?;
        }
        Ok(NOWHERE)
    }

    fn text_slot(&mut self, quoted: Quoted) -> Checked<Slot> {
        let place = |origin, start: usize, end: usize| {
            let (start, end) =
                (u32::try_from(start).map_err(|_| Malformed)?, u32::try_from(end).map_err(|_| Malformed)?);
            Ok(Slot::Text(TextPlace { origin, start, end }))
        };
        if !quoted.escaped {
            return place(self.origin, quoted.start, quoted.end);
        }
        let start = self.unescaped.len();
        self.unescaped.push_str(&unescape(self.text, quoted)?);
        place(Origin::Scratch, start, self.unescaped.len())
    }

    /// Finds the end of a string, whose opening quote is next.
    #[inline]
    fn string(&mut self) -> Checked<Quoted> {
        let text = self.text;
        let start = self.at.wrapping_add(1);
        let mut at = start;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            let (special, beyond_ascii) = match text.get(at..).and_then(<[u8]>::first_chunk::<16>) {
                Some(chunk) => classify(chunk),
                None => last_chunk(text, at),
            };
            ascii &= !beyond_ascii;
            if special == 0 {
                at = at.wrapping_add(16);
                if at >= text.len() {
                    return Err(Malformed);
                }
                continue;
            }
            at = at.wrapping_add(special.trailing_zeros() as usize);
            match text.get(at) {
                Some(b'"') => {
                    self.at = at.wrapping_add(1);
                    self.beyond_ascii |= !ascii;
                    return Ok(Quoted { start, end: at, escaped, ascii });
                }
                Some(b'\\') => {
                    escaped = true;
                    // The character after it is checked with the whole string.
                    at = at.wrapping_add(2);
                }
                // A control character, or the end of the text.
                _ => return Err(Malformed),
            }
        }
    }

    /// Reads a number. The common ones, of at most 19 digits and without exponent, are exact quotients of two doubles
    /// (Clinger's fast path).
    #[inline]
    fn number(&mut self) -> Checked<f64> {
        const POWERS: [f64; 20] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
            1e19,
        ];
        let (text, start) = (self.text, self.at);
        let negative = text.get(start) == Some(&b'-');
        let whole = start.wrapping_add(usize::from(negative));
        let (mut end, mut significand) = digits(text, whole, 0);
        let mut count = end.wrapping_sub(whole);
        if count == 0 || (count > 1 && text.get(whole) == Some(&b'0')) {
            return Err(Malformed);
        }
        let mut decimals = 0;
        if text.get(end) == Some(&b'.') {
            let fraction = end.wrapping_add(1);
            (end, significand) = digits(text, fraction, significand);
            decimals = end.wrapping_sub(fraction);
            if decimals == 0 {
                return Err(Malformed);
            }
            count = count.wrapping_add(decimals);
        }
        let exponent = matches!(text.get(end), Some(b'e' | b'E'));
        if exponent {
            let signed = matches!(text.get(end.wrapping_add(1)), Some(b'+' | b'-'));
            let power = end.wrapping_add(1 + usize::from(signed));
            (end, _) = digits(text, power, 0);
            if end == power {
                return Err(Malformed);
            }
        }
        self.at = end;
        if !exponent
            && count <= 19
            && significand <= 1 << 53
            && let Some(power) = POWERS.get(decimals)
        {
            #[allow(clippy::cast_precision_loss, reason = "at most 2^53, so it is exact")]
            let number = significand as f64 / power;
            return Ok(if negative { -number } else { number });
        }
        let text = text.get(start..end).and_then(|text| std::str::from_utf8(text).ok()).ok_or(Malformed)?;
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or(Malformed)
    }
}

/// The text of a string with escapes.
#[cold]
fn unescape(text: &[u8], quoted: Quoted) -> Checked<String> {
    let with_quotes = text.get(quoted.start.wrapping_sub(1)..quoted.end.wrapping_add(1)).ok_or(Malformed)?;
    serde_json::from_slice(with_quotes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::Json;
    use crate::program::Step;

    fn paths() -> Vec<Vec<Step>> {
        let member = |name: &str| Step::Member(name.into());
        vec![
            vec![member("a")],
            vec![member("b")],
            vec![member("a"), member("b")],
            vec![member("a"), member("b"), member("c")],
            vec![member("a"), Step::Element(0)],
            vec![member("a"), Step::Element(2), member("b")],
            vec![member("\u{e4}")],
            vec![member("a-name-of-more-than-fifteen-bytes")],
            vec![Step::Element(1)],
        ]
    }

    /// What the pass finds is what the document has at each path; both accept the same texts.
    fn check(text: &[u8]) -> Result<(), TestCaseError> {
        let (paths, mut tree) = (paths(), PathTree::default());
        for (term, path) in (0..).zip(&paths) {
            tree.insert(path, term);
        }
        let mut slots = vec![Slot::Undefined; paths.len()];
        let mut unescaped = String::new();
        let outcome = extract(text, &tree, Origin::Body, &mut slots, &mut unescaped, &mut Marks::default());
        let shown = String::from_utf8_lossy(text);
        let Some(document) = Json::parse(text) else {
            prop_assert_eq!(outcome, Err(Malformed), "{}", shown);
            return Ok(());
        };
        prop_assert_eq!(outcome, Ok(()), "{}", shown);
        for (slot, path) in slots.iter().zip(&paths) {
            let same = match (slot, document.at(path)) {
                (Slot::Undefined, None) | (Slot::Null, Some(Json::Null)) => true,
                (Slot::Array, Some(Json::Array(_))) | (Slot::Object, Some(Json::Object(_))) => true,
                (Slot::Boolean(found), Some(Json::Boolean(value))) => found == value,
                (Slot::Number(found), Some(Json::Number(value))) => {
                    value.as_f64().is_some_and(|value| value.to_bits() == found.to_bits())
                }
                (Slot::Text(place), Some(Json::Text(value))) => {
                    let whole = if place.origin == Origin::Scratch { unescaped.as_bytes() } else { text };
                    whole.get(place.start as usize..place.end as usize) == Some(value.as_bytes())
                }
                _ => false,
            };
            prop_assert!(same, "{slot:?} at {path:?} of {shown}");
        }
        Ok(())
    }

    /// JSON text with spaces, escapes, repeated names and names in different cases.
    fn json() -> impl Strategy<Value = String> {
        let text = prop_oneof![
            "[a-zA-Z0-9 ]{0,24}",
            "[\u{e4}\u{20ac}a]{0,9}",
            Just(r"\u0041\n\ud83d\ude00".to_owned()),
            Just(r#"\"\\"#.to_owned()),
            Just(r"\ud800".to_owned()),
            Just(r"\q".to_owned()),
        ];
        let number = prop_oneof![
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
            any::<i64>().prop_map(|n| n.to_string()),
            (any::<i32>(), 0..12_usize).prop_map(|(n, decimals)| format!("{:.*}", decimals, f64::from(n) / 1000.0)),
            prop::sample::select(vec![
                "-0",
                "1e400",
                "-",
                "01",
                "1.",
                "18446744073709551616",
                "1.7976931348623157e308",
                "123456789012345678901234567890",
                "9007199254740993",
                "0.1e-400",
                "1E+2",
                "2e"
            ])
            .prop_map(str::to_owned),
        ];
        let leaf = prop_oneof![
            number,
            text.prop_map(|text| format!("\"{text}\"")),
            prop::sample::select(vec!["true", "false", "null", "nul", "{}", "[]"]).prop_map(str::to_owned),
        ];
        let space = || prop::sample::select(vec!["", "", "", " ", "\n\t"]);
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let names = vec!["a", "A", "b", "B", "c", r"\u0061", "\u{c4}", "\u{e4}", "A-Name-of-more-than-fifteen-bytes", "zz"];
            let member = (prop::sample::select(names), space(), inner.clone())
                .prop_map(|(name, space, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}"));
            prop_oneof![
                3 => prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
                1 => prop::collection::vec((space(), inner), 0..4).prop_map(|elements| {
                    let elements: Vec<String> = elements.into_iter().map(|(space, value)| format!("{space}{value}{space}")).collect();
                    format!("[{}]", elements.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pass_finds_what_the_document_has(text in json()) {
            check(text.as_bytes())?;
        }

        #[test]
        fn damaged_texts_are_refused_alike(text in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len().max(1));
            if cut {
                bytes.truncate(at);
            } else if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            check(&bytes)?;
        }
    }

    #[test]
    fn nesting_is_bounded_as_in_the_library() {
        for depth in [1, 126, 127, 128, 5000] {
            check(format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes()).unwrap();
            check(format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth)).as_bytes()).unwrap();
        }
    }
}
