//! Entity tags in the forms that each kind of object has, and the preconditions that quote them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::Timestamp;
use crate::id::serde_as_text;

/// A text that is not an entity tag of the kind that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entity tag of a {0}")]
pub struct InvalidEtag(&'static str);

/// The entity tag of a device or module identity: base64 of a decimal number, such as `ODAxMjMyNDI2`.
///
/// It changes with every write of the identity and with nothing else. Whoever creates an identity should start at a
/// number that an earlier identity of the same name did not have, or an old tag could match the new object.
///
/// Source: protocol notes, REST §1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityEtag(u64);

impl IdentityEtag {
    /// The tag that stands for `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number in the tag.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The tag after the next write.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Reads the text of a body (unquoted) or of a header (quoted, perhaps weak).
    ///
    /// # Errors
    /// [`InvalidEtag`] if it is not base64 of the canonical decimal form of a number.
    pub fn parse(text: &str) -> Result<Self, InvalidEtag> {
        let invalid = InvalidEtag("device or module identity");
        let bytes = STANDARD.decode(bare_etag(text)).map_err(|_| invalid)?;
        let digits = std::str::from_utf8(&bytes).map_err(|_| invalid)?;
        let number: u64 = digits.parse().map_err(|_| invalid)?;
        (number.to_string() == digits).then_some(Self(number)).ok_or(invalid)
    }

    /// The form of the `ETag` header: the text in quotes.
    pub fn header(self) -> String {
        format!("\"{self}\"")
    }
}

impl fmt::Display for IdentityEtag {
    /// The form of a JSON body: no quotes of its own.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0.to_string()))
    }
}

/// The entity tag of a device or module twin: base64 of an 8-byte big-endian counter, such as `AAAAAAAAAAE=`.
///
/// It moves with writes of tags and desired properties, not with reported properties.
///
/// Source: protocol notes, REST §1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TwinEtag(u64);

impl TwinEtag {
    /// The tag of a twin that nobody has written yet: `AAAAAAAAAAE=`.
    pub const FIRST: Self = Self(1);

    /// The tag that stands for `counter`.
    pub const fn new(counter: u64) -> Self {
        Self(counter)
    }

    /// The counter in the tag.
    pub const fn counter(self) -> u64 {
        self.0
    }

    /// The tag after the next write of tags or desired properties.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Reads the text of a body (unquoted) or of a header (quoted, perhaps weak).
    ///
    /// # Errors
    /// [`InvalidEtag`] if it is not base64 of eight bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidEtag> {
        let eight = |text: &str| STANDARD.decode(text).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        // `W/` may be the beginning of the base64 itself; without it, that is too short.
        let bytes = eight(bare_etag(text)).or_else(|| eight(text.trim())).ok_or(InvalidEtag("twin"))?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }

    /// The form of the `ETag` header: the text in quotes.
    pub fn header(self) -> String {
        format!("\"{self}\"")
    }
}

impl fmt::Display for TwinEtag {
    /// The form of a JSON body: no quotes of its own.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0.to_be_bytes()))
    }
}

/// The entity tag of an enrollment or registration: a GUID **in quotes that belong to the text**, such as
/// `"13003fea-0000-0300-0000-62d1d5e50000"`; in JSON the quotes are escaped once more.
///
/// Source: protocol notes, provisioning service §1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DpsEtag(u128);

impl DpsEtag {
    /// The tag whose GUID is `number`, the first digit being the most significant.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// The tag of write number `revision`, at `now`: the shape that the cloud's tags have, a counter in front and Unix
    /// seconds in the last group. Different revisions give different tags.
    pub const fn from_revision(revision: u64, now: Timestamp) -> Self {
        let (low, high) = (revision as u32 as u128, (revision >> 32) as u128);
        Self(low << 96 | high << 64 | (now.unix_seconds() as u32 as u128) << 16)
    }

    /// The number in the tag.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// Reads the tag with or without its quotes.
    ///
    /// # Errors
    /// [`InvalidEtag`] if what is inside is not a GUID of 8-4-4-4-12 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidEtag> {
        let invalid = InvalidEtag("enrollment or registration");
        let bare = bare_etag(text);
        let groups = bare.split('-').map(str::len);
        if !groups.eq([8, 4, 4, 4, 12]) || !bare.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(invalid);
        }
        u128::from_str_radix(&bare.replace('-', ""), 16).map(Self).map_err(|_| invalid)
    }

    /// The form that the registration state carries in answers to devices: base64 of the text with its quotes
    /// (protocol notes: provisioning §2.2).
    pub fn base64(self) -> String {
        STANDARD.encode(self.to_string())
    }
}

impl fmt::Display for DpsEtag {
    /// The text with its quotes: the same in a JSON string and in a header.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let mut start = 0;
        formatter.write_str("\"")?;
        for length in [8, 4, 4, 4, 12] {
            if start > 0 {
                formatter.write_str("-")?;
            }
            formatter.write_str(hex.get(start..start + length).unwrap_or_default())?;
            start += length;
        }
        formatter.write_str("\"")
    }
}

macro_rules! from_str {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = InvalidEtag;

            fn from_str(text: &str) -> Result<Self, InvalidEtag> {
                Self::parse(text)
            }
        }
    )*};
}
from_str!(IdentityEtag, TwinEtag, DpsEtag);
serde_as_text!(IdentityEtag, "entity tag of an identity");
serde_as_text!(TwinEtag, "entity tag of a twin");
serde_as_text!(DpsEtag, "entity tag of an enrollment or registration");

/// What an `If-Match` header asks for. What its absence or `*` means differs per operation (create only, update only,
/// unconditional): protocol notes, REST §1.2 and provisioning service §1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IfMatch {
    /// No header, or an empty one.
    None,
    /// `*`, or `"*"` as the Node, .NET and Python SDKs write it.
    Any,
    /// A tag, without quotes and without `W/`.
    Tag(String),
}

impl IfMatch {
    /// Reads the value of the header as each SDK writes it: quoted, unquoted, weak, or `"*"` in quotes.
    ///
    /// A list of tags, which RFC 9110 allows and no SDK sends, is one tag that matches nothing.
    pub fn parse(header: Option<&str>) -> Self {
        match header.map(str::trim) {
            None | Some("") => Self::None,
            Some(text) => match bare_etag(text) {
                "*" => Self::Any,
                tag => Self::Tag(tag.to_owned()),
            },
        }
    }

    /// Whether an object with the entity tag `current` (in any form: body, header, with its own quotes) fulfils the
    /// precondition. `None` and `Any` hold for every object.
    pub fn holds_for(&self, current: impl fmt::Display) -> bool {
        match self {
            Self::None | Self::Any => true,
            Self::Tag(tag) => tag == bare_etag(&current.to_string()),
        }
    }

    /// Whether there is no precondition at all.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// The text of an entity tag without white space around it, without `W/` and without one pair of quotes.
pub fn bare_etag(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identity_tags_are_base64_of_a_decimal_number() {
        let tag = IdentityEtag::parse("ODAxMjMyNDI2").unwrap();
        assert_eq!(tag.number(), 801_232_426);
        assert_eq!((tag.to_string().as_str(), tag.header().as_str()), ("ODAxMjMyNDI2", "\"ODAxMjMyNDI2\""));
        assert_eq!(tag.next().number(), 801_232_427);
        assert_eq!(IdentityEtag::parse("\"ODAxMjMyNDI2\""), Ok(tag));
        // "+1", "01", "-1", "" and not base64.
        for bad in ["KzE=", "MDE=", "LTE=", "", "%%%", "AAAAAAAAAAE="] {
            assert!(IdentityEtag::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn twin_tags_are_base64_of_a_counter() {
        assert_eq!(TwinEtag::FIRST.to_string(), "AAAAAAAAAAE=");
        assert_eq!(TwinEtag::FIRST.header(), "\"AAAAAAAAAAE=\"");
        assert_eq!(TwinEtag::parse("W/\"AAAAAAAAAAI=\"").unwrap(), TwinEtag::FIRST.next());
        let like_a_weak_tag = TwinEtag::new(0x5BF0_0000_0000_0000);
        assert!(like_a_weak_tag.to_string().starts_with("W/"));
        for text in [like_a_weak_tag.to_string(), like_a_weak_tag.header(), format!("W/{}", like_a_weak_tag.header())] {
            assert_eq!(TwinEtag::parse(&text), Ok(like_a_weak_tag), "{text}");
        }
        assert!(TwinEtag::parse("AAAA").is_err());
    }

    #[test]
    fn provisioning_tags_carry_their_quotes() {
        let text = "\"13003fea-0000-0300-0000-62d1d5e50000\"";
        let tag = DpsEtag::parse(text).unwrap();
        assert_eq!(tag.to_string(), text);
        assert_eq!(DpsEtag::parse("13003FEA-0000-0300-0000-62D1D5E50000"), Ok(tag));
        assert_eq!(serde_json::to_string(&tag).unwrap(), r#""\"13003fea-0000-0300-0000-62d1d5e50000\"""#);
        let registration = DpsEtag::parse("61008d46-0000-0100-0000-5e8fe3d10000").unwrap();
        assert_eq!(registration.base64(), "IjYxMDA4ZDQ2LTAwMDAtMDEwMC0wMDAwLTVlOGZlM2QxMDAwMCI=");
        let now = Timestamp::from_unix_seconds(0x62d1_d5e5);
        assert_eq!(
            DpsEtag::from_revision(0x1234_5678_9abc, now).to_string(),
            "\"56789abc-0000-1234-0000-62d1d5e50000\""
        );
        for bad in ["", "1", "13003fea000003000000-62d1d5e50000", "13003fea-0000-0300-0000-62d1d5e5000g"] {
            assert!(DpsEtag::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn if_match_takes_every_clients_form() {
        let tag = |text: &str| IfMatch::Tag(text.to_owned());
        for (header, expected) in [
            (None, IfMatch::None),
            (Some(""), IfMatch::None),
            (Some("*"), IfMatch::Any),
            (Some("\"*\""), IfMatch::Any),
            (Some(" * "), IfMatch::Any),
            (Some("MQ=="), tag("MQ==")),
            (Some("\"MQ==\""), tag("MQ==")),
            (Some("W/\"MQ==\""), tag("MQ==")),
            (Some("W/MQ=="), tag("MQ==")),
            (Some("\"\""), tag("")),
            (Some("\""), tag("\"")),
            (Some("\"\"MQ==\"\""), tag("\"MQ==\"")),
        ] {
            assert_eq!(IfMatch::parse(header), expected, "{header:?}");
        }
    }

    #[test]
    fn preconditions_compare_without_quotes() {
        let current = IdentityEtag::new(7);
        assert!(IfMatch::None.holds_for(current) && IfMatch::Any.holds_for(current));
        for header in [current.to_string(), current.header(), format!("W/{}", current.header())] {
            assert!(IfMatch::parse(Some(&header)).holds_for(current), "{header}");
            assert!(IfMatch::parse(Some(&header)).holds_for(current.header()), "{header}");
            assert!(!IfMatch::parse(Some(&header)).holds_for(current.next()), "{header}");
        }
        let dps = DpsEtag::from_u128(5);
        assert!(IfMatch::parse(Some(&dps.to_string())).holds_for(dps));
        assert!(!IfMatch::parse(Some("\"\"")).holds_for(dps));
    }

    proptest! {
        #[test]
        fn tags_survive_the_round_trip(number: u64, wide: u128) {
            let (identity, twin, dps) = (IdentityEtag::new(number), TwinEtag::new(number), DpsEtag::from_u128(wide));
            prop_assert_eq!(IdentityEtag::parse(&identity.header()), Ok(identity));
            prop_assert_eq!(TwinEtag::parse(&twin.to_string()), Ok(twin));
            prop_assert_eq!(DpsEtag::parse(&dps.to_string()), Ok(dps));
            let json = serde_json::to_string(&(identity, twin, dps)).unwrap();
            prop_assert_eq!(serde_json::from_str::<(IdentityEtag, TwinEtag, DpsEtag)>(&json).unwrap(), (identity, twin, dps));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            let _ = (IdentityEtag::parse(&text), TwinEtag::parse(&text), DpsEtag::parse(&text));
            let _ = IfMatch::parse(Some(&text)).holds_for(&text);
        }
    }
}
