//! The parent of a trace, as clients name it (W3C Trace Context, version 00: `traceparent`).

use std::sync::OnceLock;

use tracing::Span;

/// The sampled bit of the flags.
const SAMPLED: u8 = 1;

/// A span of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace; not zero.
    pub trace_id: u128,
    /// The span; not zero.
    pub span_id: u64,
    /// The flags.
    pub flags: u8,
}

/// Makes a span the child of a client's: what exports traces knows how.
type Adopt = fn(&Span, &Parent);

static ADOPT: OnceLock<Adopt> = OnceLock::new();

/// Says how a span becomes the child of a client's. As the subscriber, it is set once for the process.
pub fn on_parent(adopt: Adopt) {
    // A second start in one process keeps the first, as the subscriber does.
    let _ = ADOPT.set(adopt);
}

impl Parent {
    /// Reads `version-trace-span-flags`. Of a later version the fields are read that this one has; what is malformed is as if
    /// it were not there, as the standard demands.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.trim().split('-');
        let version = hex(fields.next()?, 2)?;
        let (trace_id, span_id, flags) = (hex(fields.next()?, 32)?, hex(fields.next()?, 16)?, hex(fields.next()?, 2)?);
        let surplus = fields.next().is_some();
        if version == 0xff || (version == 0 && surplus) || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, flags: u8::try_from(flags).ok()? })
    }

    /// Whether the client records its trace.
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(crate) fn adopt(&self, span: &Span) {
        if !span.is_disabled()
            && let Some(adopt) = ADOPT.get()
        {
            adopt(span, self);
        }
    }
}

/// Exactly so many hexadecimal digits in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_standard_shows() {
        let parent = Parent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.is_sampled()), (0x00f0_67aa_0ba9_02b7, true));
        let other = |text: &str| Parent::parse(text).map(|parent| parent.is_sampled());
        assert_eq!(other("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), Some(false));
        assert_eq!(other("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"), Some(true));
        for malformed in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(malformed), None, "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f-]{0,60}|\\PC{0,20}") {
            let _ = Parent::parse(&text);
        }
    }
}
