//! The innermost loops of reading JSON: the end of a string, sixteen bytes at a time, and the digits of a number.

/// Reads digits and appends them to a number, which is meaningful up to 19 digits. Gives the place after them.
#[inline]
pub(super) fn digits(text: &[u8], mut at: usize, mut number: u64) -> (usize, u64) {
    while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
        at = at.wrapping_add(1);
    }
    (at, number)
}

/// The last bytes of the text, filled up with characters that end nothing.
#[cold]
pub(super) fn last_chunk(text: &[u8], at: usize) -> (u32, bool) {
    let mut chunk = [b' '; 16];
    for (to, from) in chunk.iter_mut().zip(text.get(at..).unwrap_or(&[])) {
        *to = *from;
    }
    classify(&chunk)
}

/// A bit for each byte that may end a string: quotes, backslashes and control characters; and whether any byte before the
/// first of them is beyond ASCII.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn classify(chunk: &[u8; 16]) -> (u32, bool) {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    #[allow(clippy::cast_sign_loss, reason = "masks of sixteen bits")]
    #[expect(unsafe_code, reason = "vector instructions")]
    // SAFETY: every x86-64 processor has SSE2, and the load reads the sixteen bytes of the chunk, wherever they are.
    let (special, high) = unsafe {
        let bytes = _mm_loadu_si128(chunk.as_ptr().cast());
        let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
        let special = _mm_or_si128(_mm_or_si128(quotes, backslashes), controls);
        (_mm_movemask_epi8(special) as u32, _mm_movemask_epi8(bytes) as u32)
    };
    (special, high & special.wrapping_sub(1) & !special != 0)
}

#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) fn classify(chunk: &[u8; 16]) -> (u32, bool) {
    use std::arch::aarch64::{
        vceqq_u8, vcltq_u8, vdupq_n_u8, vget_lane_u64, vld1q_u8, vorrq_u8, vreinterpret_u64_u8, vreinterpretq_u16_u8,
        vshrn_n_u16,
    };
    #[expect(unsafe_code, reason = "vector instructions")]
    // SAFETY: every aarch64 processor has NEON, and the load reads the sixteen bytes of the chunk, wherever they are.
    let nibbles = unsafe {
        let bytes = vld1q_u8(chunk.as_ptr());
        let special = vorrq_u8(
            vorrq_u8(vceqq_u8(bytes, vdupq_n_u8(b'"')), vceqq_u8(bytes, vdupq_n_u8(b'\\'))),
            vcltq_u8(bytes, vdupq_n_u8(0x20)),
        );
        // NEON has no movemask: narrowing leaves four bits for each byte.
        vget_lane_u64::<0>(vreinterpret_u64_u8(vshrn_n_u16::<4>(vreinterpretq_u16_u8(special))))
    };
    let first = nibbles.trailing_zeros() / 4;
    let high = u128::from_le_bytes(*chunk) & 0x8080_8080_8080_8080_8080_8080_8080_8080;
    // Only the first bit of the mask is ever used.
    match nibbles {
        0 => (0, high != 0),
        _ => (1 << first, high & ((1_u128 << (first * 8)) - 1) != 0),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
pub(super) fn classify(chunk: &[u8; 16]) -> (u32, bool) {
    scalar_classify(chunk)
}

/// The plain twin of [`classify`].
#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn scalar_classify(chunk: &[u8; 16]) -> (u32, bool) {
    match chunk.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        None => (0, !chunk.is_ascii()),
        Some(first) => (1 << first, !chunk.get(..first).is_none_or(<[u8]>::is_ascii)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_are_classified_alike(chunk in prop::array::uniform16(prop_oneof![4 => b' '..=b'~', 1 => any::<u8>()])) {
            let ((special, high), (first, plain_high)) = (classify(&chunk), scalar_classify(&chunk));
            prop_assert_eq!(special.trailing_zeros(), first.trailing_zeros());
            prop_assert_eq!(high, plain_high);
        }
    }
}
