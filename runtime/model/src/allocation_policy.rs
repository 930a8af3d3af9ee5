//! How custom allocation policies are named: by a name, a version, and the reference that an enrollment holds.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name and longest version of a policy, in characters. They are parts of keys and of paths.
pub const MAX_POLICY_LABEL_LENGTH: usize = 64;

/// What a reference begins with, in the place of a web hook's `https:`.
const SCHEME: &str = "nave:policy/";

/// Why a text does not name a policy. It may be shown to who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicyReference {
    /// The name breaks a rule.
    #[error(
        "a policy's name has 1 to {MAX_POLICY_LABEL_LENGTH} characters of a-z, 0-9, `-`, `_` and `.`, and begins with one of \
         the first two"
    )]
    Name,
    /// The version breaks a rule.
    #[error(
        "a policy's version has 1 to {MAX_POLICY_LABEL_LENGTH} characters of letters, digits, `-`, `_`, `.` and `+`, and \
         begins with one of the first two"
    )]
    Version,
    /// The scheme is another.
    #[error("a reference to a policy is nave:policy/NAME or nave:policy/NAME@VERSION")]
    Scheme,
}

/// The name of a custom allocation policy, in lower case: names that differ in case only would be mistaken for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllocationPolicyName(Arc<str>);

/// One version of a custom allocation policy. Any text of its form: nothing is deduced from its numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllocationPolicyVersion(Arc<str>);

impl AllocationPolicyName {
    /// Checks `text` and brings it into lower case.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicyReference::Name`].
    pub fn parse(text: &str) -> Result<Self, InvalidPolicyReference> {
        let lower = text.to_ascii_lowercase();
        if is_label(&lower, b"-_.") { Ok(Self(lower.into())) } else { Err(InvalidPolicyReference::Name) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AllocationPolicyVersion {
    /// Checks `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicyReference::Version`].
    pub fn parse(text: &str) -> Result<Self, InvalidPolicyReference> {
        if is_label(text, b"-_.+") { Ok(Self(text.into())) } else { Err(InvalidPolicyReference::Version) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidPolicyReference;

            fn try_from(text: String) -> Result<Self, InvalidPolicyReference> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    )*};
}

text!(AllocationPolicyName, AllocationPolicyVersion);

/// What an enrollment's `webhookUrl` holds in the place of a URL: `nave:policy/NAME` for the version that is active, or
/// `nave:policy/NAME@VERSION` for one version for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationPolicyReference {
    /// The policy.
    pub name: AllocationPolicyName,
    /// Its version; absent for the active one.
    pub version: Option<AllocationPolicyVersion>,
}

impl AllocationPolicyReference {
    /// Whether `url` means to be a reference, well formed or not.
    pub fn is_meant(url: &str) -> bool {
        url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("nave:"))
    }

    /// Reads a reference.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicyReference`].
    pub fn parse(url: &str) -> Result<Self, InvalidPolicyReference> {
        let (scheme, label) = url.split_at_checked(SCHEME.len()).ok_or(InvalidPolicyReference::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(InvalidPolicyReference::Scheme);
        }
        let (name, version) = match label.split_once('@') {
            Some((name, version)) => (name, Some(AllocationPolicyVersion::parse(version)?)),
            None => (label, None),
        };
        Ok(Self { name: AllocationPolicyName::parse(name)?, version })
    }
}

impl fmt::Display for AllocationPolicyReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(formatter, "{SCHEME}{}@{version}", self.name),
            None => write!(formatter, "{SCHEME}{}", self.name),
        }
    }
}

fn is_label(text: &str, marks: &[u8]) -> bool {
    (1..=MAX_POLICY_LABEL_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reference_names_a_policy_and_perhaps_a_version() {
        let reference = AllocationPolicyReference::parse("nave:policy/By-Region").unwrap();
        assert_eq!((reference.name.as_str(), reference.version.as_ref()), ("by-region", None));
        let reference = AllocationPolicyReference::parse("NAVE:Policy/by-region@1.2.0-rc.1+7").unwrap();
        assert_eq!(reference.to_string(), "nave:policy/by-region@1.2.0-rc.1+7");
        for (wrong, error) in [
            ("", InvalidPolicyReference::Scheme),
            ("https://example.net/", InvalidPolicyReference::Scheme),
            ("nave:function/x", InvalidPolicyReference::Scheme),
            ("nave:policy/", InvalidPolicyReference::Name),
            ("nave:policy/a/b", InvalidPolicyReference::Name),
            ("nave:policy/.hidden", InvalidPolicyReference::Name),
            ("nave:policy/ä", InvalidPolicyReference::Name),
            ("nave:policy/a@", InvalidPolicyReference::Version),
            ("nave:policy/a@1@2", InvalidPolicyReference::Version),
        ] {
            assert_eq!(AllocationPolicyReference::parse(wrong), Err(error), "{wrong}");
        }
        assert!(AllocationPolicyReference::is_meant("nave:whatever"));
        assert!(!AllocationPolicyReference::is_meant("https://nave:1@x"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "(nave:policy/)?[a-zA-Z0-9@._+/-]{0,20}") {
            if let Ok(reference) = AllocationPolicyReference::parse(&text) {
                prop_assert_eq!(AllocationPolicyReference::parse(&reference.to_string()), Ok(reference));
            }
        }
    }
}
