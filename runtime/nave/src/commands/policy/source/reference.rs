//! `oci://REGISTRY/REPOSITORY:TAG` and `oci://REGISTRY/REPOSITORY@sha256:HEX`.

use std::fmt;

/// Longest tag, and longest repository name (OCI distribution specification, "Pulling manifests").
const MAX_TAG: usize = 128;
const MAX_REPOSITORY: usize = 255;

/// The prefix of digests; nothing else is in use.
const SHA256: &str = "sha256:";

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The one that a tag points to today.
    Tag(String),
    /// The one with this SHA-256, lower case hexadecimal.
    Digest(String),
}

/// A manifest in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Host, with the port if it names one.
    pub(super) host: String,
    /// Path within the registry.
    pub(super) repository: String,
    /// Which manifest there.
    pub(super) which: Which,
}

impl Reference {
    /// Reads a reference. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text}: {why}. Write oci://REGISTRY/REPOSITORY:TAG, or @sha256:HEX in place of the tag")
        };
        let rest = text.strip_prefix("oci://").ok_or_else(|| wrong("it does not begin with oci://"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong("it names no repository"))?;
        if !is_authority(host) {
            return Err(wrong("the registry is no host name with an optional port"));
        }
        let (repository, which) = match rest.split_once('@') {
            Some((before, digest)) => {
                let digits = digest.strip_prefix(SHA256).filter(|digits| is_sha256(digits));
                let digits = digits.ok_or_else(|| wrong("the digest is not sha256: and 64 hexadecimal digits"))?;
                // A tag beside a digest is for people.
                let repository = before.split(':').next().unwrap_or_default();
                (repository, Which::Digest(digits.to_owned()))
            }
            None => {
                let (repository, tag) = rest.split_once(':').ok_or_else(|| wrong("it has neither tag nor digest"))?;
                if !is_tag(tag) {
                    return Err(wrong("the tag has letters, digits, . _ - and at most 128 of them"));
                }
                (repository, Which::Tag(tag.to_owned()))
            }
        };
        if !is_repository(repository) {
            return Err(wrong("the repository has lower-case letters and digits, with . _ - and / between them"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), which })
    }

    /// The same repository, with a manifest's digest.
    pub(super) fn pinned(&self, digest: &str) -> Self {
        Self { which: Which::Digest(digest.to_owned()), ..self.clone() }
    }

    /// What names the manifest in paths.
    pub(super) fn name(&self) -> String {
        match &self.which {
            Which::Tag(tag) => tag.clone(),
            Which::Digest(digits) => format!("{SHA256}{digits}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(self.which, Which::Tag(_)) { ':' } else { '@' };
        write!(formatter, "oci://{}/{}{separator}{}", self.host, self.repository, self.name())
    }
}

pub(super) fn is_sha256(digits: &str) -> bool {
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_authority(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= 255 && !text.starts_with(':') && text.bytes().all(plain)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, several with slashes between them.
fn is_repository(text: &str) -> bool {
    text.len() <= MAX_REPOSITORY && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = text.split(|letter: char| u8::try_from(letter).is_ok_and(alphanumeric));
    text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().next_back().is_some_and(alphanumeric)
        && separators
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_name_a_tag_or_a_digest() {
        let tag = Reference::parse("oci://ghcr.io/example/policies/by-site:1.2").unwrap();
        assert_eq!((tag.host.as_str(), tag.repository.as_str()), ("ghcr.io", "example/policies/by-site"));
        assert_eq!(tag.which, Which::Tag("1.2".to_owned()));
        let digits = "0123456789abcdef".repeat(4);
        let pinned = Reference::parse(&format!("oci://localhost:5000/a:1@sha256:{digits}")).unwrap();
        assert_eq!((pinned.host.as_str(), pinned.repository.as_str()), ("localhost:5000", "a"));
        assert_eq!(pinned.to_string(), format!("oci://localhost:5000/a@sha256:{digits}"));
        assert_eq!(tag.pinned(&digits).name(), format!("sha256:{digits}"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in [
            "",
            "oci://",
            "oci://host",
            "oci://host/",
            "oci://host/a",
            "oci:///a:1",
            "oci://user@host/a:1",
            "oci://host/A:1",
            "oci://host/a//b:1",
            "oci://host/a-:1",
            "oci://host/a..b:1",
            "oci://host/../v2/x:1",
            "oci://host/a:",
            "oci://host/a:b/c",
            "oci://host/a:-1",
            "oci://host/a@sha256:abc",
            "oci://host/a@md5:abc",
            "https://host/a:1",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "oci://[a-z.:0-9]{1,12}/[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{1,10}|@sha256:[0-9a-f]{64})") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text.as_str());
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let _ = Reference::parse(&text);
            let _ = Reference::parse(&format!("oci://h/{text}"));
        }
    }
}
