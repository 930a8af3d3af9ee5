//! Hash tables that are filled once and asked for every message: names without regard to case, texts with it.
//!
//! Keys of up to fifteen bytes, which nearly all are, become one number of 128 bits, so that to compare them is one
//! instruction or two. The keys come from conditions, so a sender cannot make them collide; what a sender writes is only
//! looked up. That is why the hash is plain and fast.

use crate::names::folded;

/// A table from names in lower case to numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct NameTable(Table);

impl NameTable {
    /// The number of a name that consists of ASCII characters, without regard to case.
    #[inline]
    pub(super) fn get_ascii(&self, name: &[u8]) -> Option<u32> {
        match short(name) {
            Some(key) => self.0.find_short(in_small_letters(key)),
            None => self.0.find_long(&name.to_ascii_lowercase()),
        }
    }

    /// The number of a name, without regard to case.
    pub(super) fn get(&self, name: &str) -> Option<u32> {
        if name.is_ascii() { self.get_ascii(name.as_bytes()) } else { self.0.find(folded(name).as_bytes()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// The number of a name, which is `new` if the table does not have it yet.
    pub(super) fn get_or_insert(&mut self, name: &str, new: u32) -> u32 {
        let name = folded(name);
        self.0.find(name.as_bytes()).unwrap_or_else(|| {
            self.0.insert(name.as_bytes(), new);
            new
        })
    }
}

/// A table from texts to numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct TextTable(Table);

impl TextTable {
    /// The number of a text.
    #[inline]
    pub(super) fn get(&self, text: &[u8]) -> Option<u32> {
        self.0.find(text)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// Adds a text that the table does not have.
    pub(super) fn insert(&mut self, text: &str, number: u32) {
        self.0.insert(text.as_bytes(), number);
    }
}

/// Open addressing with linear probing, at most half full, for short keys, and a map for the others.
#[derive(Clone, Debug, Default)]
struct Table {
    /// A power of two; [`FREE`] keys are no entries.
    short: Vec<(u128, u32)>,
    short_count: usize,
    long: std::collections::HashMap<Box<[u8]>, u32>,
    count: usize,
}

/// No short key: its length would be 255.
const FREE: u128 = u128::MAX;

impl Table {
    #[inline]
    fn find(&self, key: &[u8]) -> Option<u32> {
        match short(key) {
            Some(key) => self.find_short(key),
            None => self.find_long(key),
        }
    }

    #[inline]
    fn find_short(&self, key: u128) -> Option<u32> {
        let mask = self.short.len().wrapping_sub(1);
        let mut at = hash(key) & mask;
        loop {
            match *self.short.get(at)? {
                (known, number) if known == key => return Some(number),
                (FREE, _) => return None,
                _ => at = at.wrapping_add(1) & mask,
            }
        }
    }

    #[cold]
    fn find_long(&self, key: &[u8]) -> Option<u32> {
        self.long.get(key).copied()
    }

    fn insert(&mut self, key: &[u8], number: u32) {
        self.count += 1;
        let Some(key) = short(key) else {
            self.long.insert(key.into(), number);
            return;
        };
        self.short_count += 1;
        if self.short_count * 2 > self.short.len() {
            let larger = vec![(FREE, 0); (self.short_count * 2).next_power_of_two().max(4)];
            for (key, number) in std::mem::replace(&mut self.short, larger) {
                if key != FREE {
                    self.occupy(key, number);
                }
            }
        }
        self.occupy(key, number);
    }

    fn occupy(&mut self, key: u128, number: u32) {
        let mask = self.short.len().wrapping_sub(1);
        let mut at = hash(key) & mask;
        while let Some(slot) = self.short.get_mut(at) {
            if slot.0 == FREE {
                *slot = (key, number);
                return;
            }
            at = at.wrapping_add(1) & mask;
        }
    }
}

/// A key of at most fifteen bytes with its length, which tells keys apart that end with zero bytes.
#[inline]
fn short(key: &[u8]) -> Option<u128> {
    let length = key.len();
    let bytes = match (key.first_chunk::<8>(), key.first_chunk::<4>()) {
        _ if length > 15 => return None,
        // The last bytes are read as a word that may overlap the first one.
        (Some(first), _) => {
            let last = u64::from_le_bytes(*key.last_chunk::<8>()?);
            u128::from(u64::from_le_bytes(*first)) | u128::from(last) << (8 * (length - 8))
        }
        (None, Some(first)) => {
            let last = u32::from_le_bytes(*key.last_chunk::<4>()?);
            u128::from(u64::from(u32::from_le_bytes(*first)) | u64::from(last) << (8 * (length - 4)))
        }
        _ => key.iter().rev().fold(0, |bytes, &byte| bytes << 8 | u128::from(byte)),
    };
    Some(bytes | (length as u128) << 120)
}

/// A short key of ASCII characters with capital letters made small: all bytes at once.
#[inline]
fn in_small_letters(key: u128) -> u128 {
    const ONES: u128 = u128::MAX / 0xFF;
    // Adding carries into the high bit of each byte that is at least `A`, or beyond `Z`. No byte is above 0x7F, so nothing
    // carries further. The length is below `A`.
    let from_a = key.wrapping_add(ONES * (0x80 - b'A' as u128));
    let beyond_z = key.wrapping_add(ONES * (0x80 - (b'Z' as u128 + 1)));
    key | (from_a & !beyond_z & (ONES * 0x80)) >> 2
}

#[inline]
fn hash(key: u128) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "both halves are used, then a part of the product")]
    {
        let folded = (key as u64).rotate_left(25) ^ (key >> 64) as u64;
        let product = u128::from(folded) * 0x9e37_79b9_7f4a_7c15;
        ((product >> 64) as u64 ^ product as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_regard_to_case_and_texts_with_it() {
        let (mut names, mut texts) = (NameTable::default(), TextTable::default());
        assert_eq!((names.get("a"), texts.get(b"a")), (None, None));
        assert!(names.is_empty() && texts.is_empty());
        let name = |number: usize| format!("N{}@[`{{-{number}", "x".repeat(number % 20));
        for number in 0..1000_u32 {
            let name = name(number as usize);
            assert_eq!(names.get_or_insert(&name, number), number);
            texts.insert(&name, number);
        }
        for number in 0..1000_u32 {
            let name = name(number as usize);
            assert_eq!(names.get(&name.to_uppercase()), Some(number));
            assert_eq!(names.get_or_insert(&name.to_lowercase(), 5000), number);
            assert_eq!(texts.get(name.as_bytes()), Some(number));
            assert_eq!(texts.get(name.to_lowercase().as_bytes()), None);
        }
        assert_eq!(names.get_or_insert("HÖHE", 7), 7);
        assert_eq!(names.get("höhe"), Some(7));
        names.get_or_insert("k", 8);
        assert_eq!(names.get("\u{212A}"), Some(8));
    }

    #[test]
    fn keys_are_told_apart_by_every_byte_and_their_length() {
        let mut seen = std::collections::HashSet::new();
        for length in 0..=15_usize {
            assert!(seen.insert(short(&vec![0; length]).unwrap()));
            for changed in 0..length {
                let mut key = vec![0; length];
                key[changed] = 1;
                assert!(seen.insert(short(&key).unwrap()), "{length} {changed}");
            }
        }
        assert_eq!(short(&[0; 16]), None);
        for byte in 0..0x80_u8 {
            let text = [b'x', byte, b'Z'];
            assert_eq!(in_small_letters(short(&text).unwrap()), short(&text.to_ascii_lowercase()).unwrap());
        }
    }
}
