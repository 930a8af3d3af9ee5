//! Percent-encoding as the Azure SDKs use it (RFC 3986 §2.1), where `+` is a plus sign.

use std::borrow::Cow;

/// Decodes the escapes of `text`. A `%` without two hexadecimal digits stays: the C SDK does not encode. `None` if the
/// result is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.split_first_chunk().filter(|_| *first == b'%');
        match escaped.and_then(|([high, low], after)| Some((hex(*high)? << 4 | hex(*low)?, after))) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Decodes, or keeps the text as it is if that is not possible.
pub(crate) fn decode_or_keep(text: &str) -> Cow<'_, str> {
    decode(text).unwrap_or(Cow::Borrowed(text))
}

/// Appends `text` with everything encoded that is not unreserved (RFC 3986 §2.3).
pub(crate) fn encode(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or_default();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 0x0f));
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    // At most 15: no loss.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decoding_is_lenient() {
        for (text, expected) in [
            ("", ""),
            ("a+b", "a+b"),
            ("%24.mid", "$.mid"),
            ("%c3%A4", "ä"),
            ("100%", "100%"),
            ("%2", "%2"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("%+1", "%+1"),
            ("50% of ä", "50% of ä"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("%c3"), None);
        assert_eq!(decode_or_keep("a%ff"), "a%ff");
        assert!(matches!(decode("plain"), Some(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(text in any::<String>()) {
            let mut encoded = String::new();
            encode(&mut encoded, &text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            prop_assert_eq!(decode(&encoded).unwrap(), text);
        }

        #[test]
        fn decoding_never_panics(text in "[%0-9a-fg\u{e4}]{0,20}") {
            let _ = decode(&text);
        }
    }
}
