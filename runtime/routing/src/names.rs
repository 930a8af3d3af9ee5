//! Names of routes, endpoints and enriched properties, and the comparison of names in conditions.

use std::fmt;
use std::sync::Arc;

/// The longest name of a route or endpoint, in characters (protocol notes: routing §1). A longer one is refused.
pub const MAX_NAME_CHARACTERS: usize = 64;

/// The name of the built-in endpoint that back ends read telemetry from.
const EVENTS: &str = "events";

/// Endpoint names that mean something else in the protocol. Only `events` can be the target of a route.
const RESERVED: [&str; 4] = [EVENTS, "fileNotifications", "$default", "operationsMonitoringEvents"];

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The name is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The name has more than [`MAX_NAME_CHARACTERS`] characters.
    #[error("a name has at most {MAX_NAME_CHARACTERS} characters")]
    TooLong,
    /// The name holds a character that names do not have.
    #[error("a name consists of letters (a to z), digits, `-`, `.` and `_`; {0:?} is none of them")]
    Character(char),
    /// The name means something else in the protocol.
    #[error("the name `{0}` is reserved")]
    Reserved(&'static str),
}

/// The name of a route: 1 to 64 of letters, digits, `-`, `.` and `_`. Unique in a hub, without regard to case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

impl RouteName {
    /// Checks a name.
    ///
    /// # Errors
    /// The name breaks a rule of [`InvalidName`].
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        check(name).map(|()| Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an endpoint. Cloning is cheap, because every decision holds some.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// The built-in endpoint `events`.
    #[must_use]
    pub fn events() -> Self {
        Self(EVENTS.into())
    }

    /// Checks the name of an endpoint that a route or an enrichment refers to: a custom one or `events`.
    ///
    /// # Errors
    /// The name breaks a rule of [`InvalidName`] or is reserved for something that no message can be routed to.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        if name.eq_ignore_ascii_case(EVENTS) { Ok(Self::events()) } else { Self::parse_custom(name) }
    }

    /// Checks the name of an endpoint that is to be created.
    ///
    /// # Errors
    /// The name breaks a rule of [`InvalidName`] or is reserved, `events` included.
    pub fn parse_custom(name: &str) -> Result<Self, InvalidName> {
        if let Some(reserved) = RESERVED.into_iter().find(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(InvalidName::Reserved(reserved));
        }
        check(name).map(|()| Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the built-in endpoint.
    #[must_use]
    pub fn is_events(&self) -> bool {
        &*self.0 == EVENTS
    }
}

/// The name of an application property that an enrichment sets: letters, digits, `-`, `.` and `_`
/// (protocol notes: routing §4). The bound of 64 characters is our own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnrichmentKey(Arc<str>);

impl EnrichmentKey {
    /// Checks a key.
    ///
    /// # Errors
    /// The key breaks a rule of [`InvalidName`].
    pub fn parse(key: &str) -> Result<Self, InvalidName> {
        check(key).map(|()| Self(key.into()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether two names are the same in a condition: character by character, without regard to case
/// (protocol notes: routing §3.1).
#[must_use]
pub fn same_name(left: &str, right: &str) -> bool {
    if left.is_ascii() && right.is_ascii() {
        return left.eq_ignore_ascii_case(right);
    }
    left.chars().flat_map(char::to_lowercase).eq(right.chars().flat_map(char::to_lowercase))
}

/// A name in the form in which equal names are equal texts: each character in lower case.
pub(crate) fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).collect()
}

fn check(name: &str) -> Result<(), InvalidName> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match name.chars().find(|&c| !allowed(c)) {
        _ if name.is_empty() => Err(InvalidName::Empty),
        Some(c) => Err(InvalidName::Character(c)),
        None if name.len() > MAX_NAME_CHARACTERS => Err(InvalidName::TooLong),
        None => Ok(()),
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}
shown_as_text!(RouteName, EndpointName, EnrichmentKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_documented_pattern() {
        for good in ["a", "A-b.c_9", &"x".repeat(64)] {
            assert_eq!(RouteName::parse(good).unwrap().as_str(), good);
            assert_eq!(EnrichmentKey::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(RouteName::parse(""), Err(InvalidName::Empty));
        assert_eq!(RouteName::parse(&"x".repeat(65)), Err(InvalidName::TooLong));
        assert_eq!(RouteName::parse("$fallback"), Err(InvalidName::Character('$')));
        assert_eq!(RouteName::parse("wört"), Err(InvalidName::Character('ö')));
    }

    #[test]
    fn only_events_is_both_reserved_and_a_target() {
        assert_eq!(EndpointName::parse("Events").unwrap(), EndpointName::events());
        assert!(EndpointName::events().is_events());
        for reserved in RESERVED {
            assert_eq!(EndpointName::parse_custom(&reserved.to_uppercase()), Err(InvalidName::Reserved(reserved)));
        }
        assert_eq!(EndpointName::parse("$default"), Err(InvalidName::Reserved("$default")));
        assert!(!EndpointName::parse("events2").unwrap().is_events());
    }

    #[test]
    fn names_in_conditions_ignore_case_beyond_ascii() {
        assert!(same_name("Temp", "tEMP"));
        assert!(same_name("HÖHE", "höhe"));
        assert!(!same_name("temp", "temp2"));
        assert!(!same_name("höhe", "hohe"));
    }
}
