//! Percent-encoding as signatures need it: `+` is never a blank.

use std::borrow::Cow;

/// Encodes every byte but ASCII letters, digits and `- . _ ~` with upper-case digits, as the Python SDK's
/// `quote(text, safe="")` does.
pub fn percent_encode(text: &str) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded
                .extend([usize::from(byte >> 4), usize::from(byte & 15)].iter().filter_map(|digit| DIGITS.get(*digit)));
        }
    }
    encoded
}

/// Decodes `%XX` in any case. A `%` that two hexadecimal digits do not follow stands for itself, because the C SDK signs
/// ids without encoding them. `None` if the result is not UTF-8.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        match (byte, ahead.next().and_then(hex_digit), ahead.next().and_then(hex_digit)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                bytes = ahead;
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encodes_as_python_does() {
        assert_eq!(percent_encode("h.x/devices/a b+é~'("), "h.x%2Fdevices%2Fa%20b%2B%C3%A9~%27%28");
    }

    #[test]
    fn decodes_what_clients_write() {
        for (text, decoded) in [
            ("a%2fb%2Fc", "a/b/c"),
            ("%2523", "%23"),
            ("a+b", "a+b"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
        ] {
            assert_eq!(percent_decode(text).as_deref(), Some(decoded), "{text}");
        }
        assert_eq!(percent_decode("%ff"), None);
    }

    proptest! {
        #[test]
        fn round_trip(text in ".{0,60}") {
            let encoded = percent_encode(&text);
            prop_assert!(encoded.is_ascii());
            let decoded = percent_decode(&encoded);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
            let _ = percent_decode(&text);
        }
    }
}
