//! A received object that is to be merged into a part of a twin, checked against every rule that does not depend on what is
//! stored.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::Rule;
use crate::limits::{
    BOOLEAN_SIZE, MAX_DEPTH, MAX_INTEGER, MAX_NAME_BYTES, MAX_STRING_BYTES, MAX_VALUES, MIN_INTEGER, NUMBER_SIZE,
};
use crate::reader::{Number, Quoted, Reader, escape};
use crate::rejection::{Fault, echo};
use crate::stored::text_size;

/// Up to this many members an object is searched from end to end, beyond it by bisection: a patch of thousands of members
/// must not cost their square.
const SEARCHED_LINEARLY: usize = 8;

/// A value of a patch.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// Removes the member.
    Null,
    /// A string, number or boolean.
    Scalar {
        /// Its canonical text.
        text: Cow<'a, str>,
        /// What it counts.
        size: u32,
    },
    /// Replaces the member. Holds no nulls.
    Array(Vec<Node<'a>>),
    /// Is merged.
    Object(Object<'a>),
}

/// An object of a patch.
#[derive(Debug, Default)]
pub(crate) struct Object<'a> {
    members: Vec<Member<'a>>,
    /// The members in order of their names; empty when they are few.
    sorted: Vec<usize>,
}

/// A member of a patch.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// The content of the name's canonical string: escaped, without quotes.
    pub(crate) name: Cow<'a, str>,
    /// The value.
    pub(crate) value: Node<'a>,
}

/// Whether names with a `$` at the top of a section are the hub's own, sent back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemMembers {
    /// `$metadata` and `$version` are ignored: service SDKs return them when they replace a twin.
    Ignored,
    /// They break the rule of names: a device has no business with them.
    Refused,
}

/// Reads the object of one part of a twin; the reader stands before its `{`.
pub(crate) fn read_part<'a>(reader: &mut Reader<'a>, system: SystemMembers) -> Result<Object<'a>, Fault> {
    if reader.peek() != b'{' {
        // The text may not be JSON at all, which is the better message.
        reader.skip()?;
        return Err(Fault::new(Rule::NotAnObject, "an object is expected"));
    }
    PartReader { reader, values: 0, system }.object(0, Nulls::Remove)
}

impl<'a> Object<'a> {
    /// No members.
    pub(crate) const EMPTY: Self = Self { members: Vec::new(), sorted: Vec::new() };

    /// The members in the order in which they were given.
    pub(crate) fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// The place of the member with this canonical name.
    #[inline]
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        if self.sorted.is_empty() {
            return self.members.iter().position(|member| member.name == name);
        }
        let by_name = |place: &usize| self.members.get(*place).map_or("", |member| &member.name).cmp(name);
        self.sorted.binary_search_by(by_name).ok().and_then(|at| self.sorted.get(at)).copied()
    }

    /// Of several members with one name the last counts, at the place of the first: what JSON libraries do.
    fn new(members: Vec<Member<'a>>) -> Self {
        let object = Self::indexed(members);
        if !object.has_duplicates() {
            return object;
        }
        let mut places = BTreeMap::new();
        let mut unique: Vec<Member<'a>> = Vec::new();
        for member in object.members {
            if let Some(earlier) = places.get(&member.name).and_then(|place: &usize| unique.get_mut(*place)) {
                earlier.value = member.value;
            } else {
                places.insert(member.name.clone(), unique.len());
                unique.push(member);
            }
        }
        Self::indexed(unique)
    }

    fn indexed(members: Vec<Member<'a>>) -> Self {
        let mut sorted = Vec::new();
        if members.len() > SEARCHED_LINEARLY {
            let mut names: Vec<(&str, usize)> =
                members.iter().enumerate().map(|(place, member)| (&*member.name, place)).collect();
            names.sort_unstable();
            sorted = names.into_iter().map(|(_, place)| place).collect();
        }
        Self { members, sorted }
    }

    fn has_duplicates(&self) -> bool {
        let name = |place: &usize| self.members.get(*place).map(|member| &member.name);
        if self.sorted.is_empty() {
            let mut members = self.members.as_slice();
            while let Some((member, rest)) = members.split_first() {
                if rest.iter().any(|other| other.name == member.name) {
                    return true;
                }
                members = rest;
            }
            return false;
        }
        !self.sorted.is_sorted_by(|left, right| name(left) < name(right))
    }
}

/// What reading a part needs to remember.
struct PartReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// Values so far.
    values: u32,
    system: SystemMembers,
}

#[derive(Clone, Copy)]
enum Nulls {
    Remove,
    Refused,
}

impl<'a> PartReader<'_, 'a> {
    /// Reads the object whose `{` comes next. `depth` is its own: 0 for the part itself.
    fn object(&mut self, depth: usize, nulls: Nulls) -> Result<Object<'a>, Fault> {
        self.reader.take(b'{');
        let mut members = Vec::new();
        let mut first = true;
        while let Some(quoted) = self.reader.name(first)? {
            first = false;
            let name = quoted.decode()?;
            if depth == 0 && self.system == SystemMembers::Ignored && matches!(&*name, "$metadata" | "$version") {
                self.reader.skip()?;
                continue;
            }
            check_name(&name)?;
            let value = self.value(depth + 1, nulls).map_err(|fault| fault.below(&name))?;
            let name = if quoted.plain { name } else { Cow::Owned(escaped(&name)) };
            members.push(Member { name, value });
        }
        Ok(Object::new(members))
    }

    /// Reads the value that follows. `depth` is its own.
    fn value(&mut self, depth: usize, nulls: Nulls) -> Result<Node<'a>, Fault> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Fault::TooMany(MAX_VALUES));
        }
        match self.reader.peek() {
            b'"' => string(&self.reader.string()?),
            b'-' | b'0'..=b'9' => number(&self.reader.number()?),
            b'{' | b'[' if depth > MAX_DEPTH => {
                Err(Fault::new(Rule::Depth, format!("objects and arrays may be nested at most {MAX_DEPTH} deep")))
            }
            b'{' => self.object(depth, nulls).map(Node::Object),
            b'[' => {
                self.reader.take(b'[');
                let mut items = Vec::new();
                while self.reader.element(items.is_empty())? {
                    items.push(self.value(depth + 1, Nulls::Refused)?);
                }
                Ok(Node::Array(items))
            }
            _ => match (self.reader.word()?, nulls) {
                ("null", Nulls::Remove) => Ok(Node::Null),
                ("null", Nulls::Refused) => Err(Fault::new(Rule::NullInArray, "an array must not hold null")),
                (word, _) => Ok(Node::Scalar { text: Cow::Borrowed(word), size: BOOLEAN_SIZE }),
            },
        }
    }
}

fn string<'a>(quoted: &Quoted<'a>) -> Result<Node<'a>, Fault> {
    let decoded = quoted.decode()?;
    if decoded.len() > MAX_STRING_BYTES {
        let reason = format!("a string has {} bytes, {MAX_STRING_BYTES} are allowed", decoded.len());
        return Err(Fault::new(Rule::Text, reason));
    }
    let text =
        if quoted.plain { Cow::Borrowed(quoted.quoted) } else { Cow::Owned(format!("\"{}\"", escaped(&decoded))) };
    Ok(Node::Scalar { text, size: text_size(&decoded) })
}

/// Integers stay as they are. A float is written anew in its shortest form: a number counts [`NUMBER_SIZE`], however many
/// digits a client writes.
fn number<'a>(number: &Number<'a>) -> Result<Node<'a>, Fault> {
    let text = match *number {
        Number::Integer(text) => {
            if !text.parse().is_ok_and(|value: i64| (MIN_INTEGER..=MAX_INTEGER).contains(&value)) {
                let reason = format!("an integer is not between {MIN_INTEGER} and {MAX_INTEGER}");
                return Err(Fault::new(Rule::Number, reason));
            }
            Cow::Borrowed(text)
        }
        Number::Float(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Cow::Owned(format!("{value:?}")),
            _ => return Err(Fault::new(Rule::Number, "a number is out of range")),
        },
    };
    Ok(Node::Scalar { text, size: NUMBER_SIZE })
}

fn escaped(decoded: &str) -> String {
    let mut text = String::with_capacity(decoded.len() + 8);
    escape(decoded, &mut text);
    text
}

/// Refuses white space beyond the blank as well: as unreadable in queries as the blank is.
fn check_name(name: &str) -> Result<(), Fault> {
    if name.len() > MAX_NAME_BYTES {
        let reason = format!("the name '{}' has {} bytes, {MAX_NAME_BYTES} are allowed", echo(name), name.len());
        return Err(Fault::new(Rule::Name, reason));
    }
    let forbidden =
        |character: char| matches!(character, '.' | '$' | '#') || character.is_control() || character.is_whitespace();
    match name.chars().find(|character| forbidden(*character)) {
        None => Ok(()),
        Some(character) => Err(Fault::new(
            Rule::Name,
            format!(
                "the name '{}' has the character U+{:04X}; '.', '$', '#', white space and control characters are not allowed",
                echo(name).escape_debug(),
                u32::from(character)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rejection;

    fn read(text: &str) -> Result<Object<'_>, Fault> {
        let mut reader = Reader::new(text);
        let object = read_part(&mut reader, SystemMembers::Refused)?;
        reader.finish()?;
        Ok(object)
    }

    fn rule(text: &str) -> Option<(Rule, String)> {
        match read(text).err()?.reject(None) {
            Rejection::Invalid(violation) => Some((violation.rule, violation.path)),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_rule_is_enforced_at_its_limit() {
        let name = |length: usize| format!("{{\"{}\":1}}", "é".repeat(length / 2));
        let text = |length: usize| format!("{{\"a\":\"{}\"}}", "é".repeat(length / 2));
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth + 1), "}".repeat(depth + 1));
        let arrays = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        for valid in [
            &name(1024),
            &text(4096),
            &nested(10),
            &arrays(10),
            r#"{"":"empty","ключ":1,"a-b_c":true}"#,
            r#"{"a":-4503599627370496,"b":4503599627370495,"c":1e300,"d":4503599627370496.0}"#,
            r#"{"a":{"b":null},"c":[{"d":[]}]}"#,
        ] {
            assert!(rule(valid).is_none(), "{valid}: {:?}", rule(valid));
        }
        for (invalid, expected, path) in [
            (&*name(1026), Rule::Name, ""),
            (&text(4098), Rule::Text, "a"),
            (&nested(11), Rule::Depth, "a.a.a.a.a.a.a.a.a.a.a"),
            (&arrays(11), Rule::Depth, "a"),
            (r#"{"x":{"a.b":1}}"#, Rule::Name, "x"),
            (r#"{"$version":1}"#, Rule::Name, ""),
            (r#"{"a b":1}"#, Rule::Name, ""),
            (r#"{"a#":1}"#, Rule::Name, ""),
            (r#"{"\u0007":1}"#, Rule::Name, ""),
            (r#"{"a\u0085":1}"#, Rule::Name, ""),
            (r#"{"a":[{"b.c":1}]}"#, Rule::Name, "a"),
            (r#"{"a":-4503599627370497}"#, Rule::Number, "a"),
            (r#"{"a":4503599627370496}"#, Rule::Number, "a"),
            (r#"{"a":99999999999999999999999}"#, Rule::Number, "a"),
            (r#"{"a":1e999}"#, Rule::Number, "a"),
            (r#"{"a":{"b":[null]}}"#, Rule::NullInArray, "a.b"),
            (r#"{"a":[{"b":null}]}"#, Rule::NullInArray, "a.b"),
            ("[]", Rule::NotAnObject, ""),
            ("null", Rule::NotAnObject, ""),
            ("", Rule::Syntax, ""),
            ("nul", Rule::Syntax, ""),
            ("{\"a\":1,}", Rule::Syntax, ""),
            ("{\"a\":1}x", Rule::Syntax, ""),
            ("{\"a\":tru}", Rule::Syntax, "a"),
        ] {
            assert_eq!(rule(invalid), Some((expected, path.to_owned())), "{invalid}");
        }
    }

    #[test]
    fn the_last_of_equal_names_counts_at_the_place_of_the_first() {
        let many: String = (0..40).map(|number| format!("\"n{number}\":0,")).collect();
        for text in [r#"{"a":1,"b":2,"\u0061":3}"#.to_owned(), format!(r#"{{"a":1,"b":2,{many}"a":3}}"#)] {
            let object = read(&text).unwrap();
            assert_eq!(object.find("a"), Some(0));
            assert!(matches!(&object.members()[0].value, Node::Scalar { text, .. } if text == "3"), "{object:?}");
            assert_eq!(object.members().iter().filter(|member| member.name == "a").count(), 1);
            assert!(
                object.members().iter().enumerate().all(|(place, member)| object.find(&member.name) == Some(place))
            );
        }
    }

    #[test]
    fn a_body_of_brackets_is_refused() {
        let text = format!("{{\"a\":[{}[]]}}", "[],".repeat(70_000));
        assert!(matches!(read(&text), Err(Fault::TooMany(MAX_VALUES))));
    }

    #[test]
    fn system_members_are_ignored_at_the_top_only() {
        let text = r#"{"$metadata":{"$lastUpdated":"x"},"a":1,"$version":[1]}"#;
        let object = read_part(&mut Reader::new(text), SystemMembers::Ignored).unwrap();
        assert_eq!(object.members().len(), 1);
        let text = r#"{"a":{"$version":1}}"#;
        assert!(read_part(&mut Reader::new(text), SystemMembers::Ignored).is_err());
    }
}
