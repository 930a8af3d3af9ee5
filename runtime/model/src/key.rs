//! Parts of storage keys, escaped so that `/` only ever separates parts.

use std::borrow::Cow;

/// Escapes one part of a storage key (`v1/{tenant}/{hub-id}/{kind}/{id}`): `%` becomes `%25` and `/` becomes `%2F`.
///
/// So a `/` in a key always ends a part, and the keys under `…/{part}/` are exactly those that have that part. Two
/// parts without `/` compare as their escaped forms do (every other character keeps its first byte), so that listing
/// keys lists ids in their order; a `/` sorts as `%` does.
pub fn escape_key_part(part: &str) -> Cow<'_, str> {
    if !part.contains(['%', '/']) {
        return Cow::Borrowed(part);
    }
    let mut escaped = String::with_capacity(part.len() + 8);
    for character in part.chars() {
        match character {
            '%' => escaped.push_str("%25"),
            '/' => escaped.push_str("%2F"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// The inverse of [`escape_key_part`]; `None` for a text that it never makes.
pub fn unescape_key_part(escaped: &str) -> Option<Cow<'_, str>> {
    if escaped.contains('/') {
        return None;
    }
    let mut pieces = escaped.split('%');
    let first = pieces.next().unwrap_or_default();
    if first.len() == escaped.len() {
        return Some(Cow::Borrowed(escaped));
    }
    let mut part = String::with_capacity(escaped.len());
    part.push_str(first);
    for piece in pieces {
        if let Some(rest) = piece.strip_prefix("25") {
            part.push('%');
            part.push_str(rest);
        } else {
            part.push('/');
            part.push_str(piece.strip_prefix("2F")?);
        }
    }
    Some(Cow::Owned(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_only_what_would_be_ambiguous() {
        assert!(matches!(escape_key_part("dev-1:#"), Cow::Borrowed("dev-1:#")));
        assert_eq!(escape_key_part("a/b%2F"), "a%2Fb%252F");
        assert_eq!(unescape_key_part("a%2Fb%252F").as_deref(), Some("a/b%2F"));
        assert_eq!(unescape_key_part("").as_deref(), Some(""));
        for never_made in ["a/b", "%", "%2", "%2f", "%41", "a%"] {
            assert_eq!(unescape_key_part(never_made), None, "{never_made}");
        }
    }

    proptest! {
        #[test]
        fn unescaping_gives_the_part_back(part in "[a-c%/2F5é]{0,12}|.{0,40}") {
            let escaped = escape_key_part(&part).into_owned();
            prop_assert!(!escaped.contains('/'));
            let unescaped = unescape_key_part(&escaped);
            prop_assert_eq!(unescaped.as_deref(), Some(part.as_str()));
        }

        #[test]
        fn only_one_text_stands_for_a_part(text in "[a-c%/2F5]{0,12}") {
            if let Some(part) = unescape_key_part(&text) {
                prop_assert_eq!(escape_key_part(&part), text.as_str());
            }
        }

        #[test]
        fn order_survives(one in "[ -.0-~]{0,6}", two in "[ -.0-~]{0,6}") {
            prop_assert_eq!(escape_key_part(&one).cmp(&escape_key_part(&two)), one.cmp(&two));
        }
    }
}
