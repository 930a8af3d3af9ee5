//! The bytes of one record. See `FORMAT.md`, "Record".

use bytes::Bytes;

use crate::{LogError, MAX_APPEND_BYTES, MAX_APPEND_RECORDS, MAX_RECORD_BYTES, MessageKey, NewRecord, Source};

/// Bit of the flags byte: a module id follows the device id.
const HAS_MODULE: u8 = 1;

/// Bytes of the length in front of a record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// What every record has, borrowed: see [`Encoded::push`].
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Identifies the message.
    pub key: MessageKey,
    /// Where it comes from.
    pub source: Source,
    /// The device it is about.
    pub device_id: &'a str,
    /// The module it is about, if it is about one.
    pub module_id: Option<&'a str>,
}

/// The records of one append as they are written. Whoever has a record in pieces encodes it from them without making a
/// [`NewRecord`], which owns each of its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    payload: Vec<u8>,
    /// Below [`MAX_APPEND_RECORDS`].
    count: u32,
}

impl Encoded {
    /// No records yet, and room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { payload: Vec::with_capacity(bytes.min(MAX_APPEND_BYTES)), count: 0 }
    }

    /// The records, encoded.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn of(records: &[NewRecord]) -> Result<Self, LogError> {
        let mut encoded = Self::with_capacity(records.iter().map(|record| record.body.len() + 200).sum());
        for record in records {
            let head = Head {
                key: record.key,
                source: record.source,
                device_id: &record.device_id,
                module_id: record.module_id.as_deref(),
            };
            encoded.push(
                head,
                record.endpoints.iter().map(String::as_str),
                record.system.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                record.properties.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                &record.body,
            )?;
        }
        Ok(encoded)
    }

    /// Adds one record: its head, the names of its endpoints, its system and application properties, and its body.
    ///
    /// # Errors
    ///
    /// [`LogError::TooLarge`]: the record, or all of them, have more bytes than [`MAX_RECORD_BYTES`], [`MAX_APPEND_BYTES`] or
    /// are more than [`MAX_APPEND_RECORDS`]. The record is not added then.
    pub fn push<'a>(
        &mut self,
        head: Head<'_>,
        endpoints: impl Iterator<Item = &'a str> + Clone,
        system: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        properties: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        body: &[u8],
    ) -> Result<(), LogError> {
        if self.count as usize >= MAX_APPEND_RECORDS {
            return Err(LogError::TooLarge("more than 4,096 records"));
        }
        let out = &mut self.payload;
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.extend_from_slice(&head.key.0);
        out.push(head.source as u8);
        out.push(if head.module_id.is_some() { HAS_MODULE } else { 0 });
        put_text(head.device_id, out);
        if let Some(module) = head.module_id {
            put_text(module, out);
        }
        put_number(endpoints.clone().count(), out);
        endpoints.for_each(|endpoint| put_text(endpoint, out));
        put_pairs(system, out);
        put_pairs(properties, out);
        out.extend_from_slice(body);
        let length = out.len() - start - LENGTH_BYTES;
        let too_large = if length > MAX_RECORD_BYTES {
            Some("a record has more than 1 MiB")
        } else {
            (out.len() > MAX_APPEND_BYTES).then_some("the records have more than 4 MiB")
        };
        if let Some(why) = too_large {
            out.truncate(start);
            return Err(LogError::TooLarge(why));
        }
        // Below 2^32 by the limit above.
        let length = (length as u32).to_le_bytes();
        if let Some(place) = out.get_mut(start..start + LENGTH_BYTES) {
            place.copy_from_slice(&length);
        }
        self.count += 1;
        Ok(())
    }

    /// How many records there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their bytes, as `FORMAT.md` describes records one after the other.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// The records again, as somebody who reads them gets them.
    pub(crate) fn decoded(&self) -> Vec<NewRecord> {
        decode_all(&self.payload)
    }
}

/// The records in bytes that [`Encoded::into_payload`] made; those before the damage, if there is some.
pub fn decode_all(mut payload: &[u8]) -> Vec<NewRecord> {
    std::iter::from_fn(|| decode(split(&mut payload)?)).collect()
}

/// Splits the first record, without its length, off `bytes`.
pub(crate) fn split<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(record)
}

/// Reads a record that [`split`] returned. `None` if the bytes are not a record.
pub(crate) fn decode(bytes: &[u8]) -> Option<NewRecord> {
    let (key, mut rest) = bytes.split_first_chunk::<16>()?;
    let rest = &mut rest;
    let source = Source::from_byte(take_byte(rest)?)?;
    let flags = take_byte(rest)?;
    if flags & !HAS_MODULE != 0 {
        return None;
    }
    let device_id = take_text(rest)?;
    let module_id = if flags & HAS_MODULE == 0 { None } else { Some(take_text(rest)?) };
    let count = take_count(rest, 1)?;
    let endpoints = (0..count).map(|_| take_text(rest)).collect::<Option<_>>()?;
    let system = take_pairs(rest)?;
    let properties = take_pairs(rest)?;
    let body = Bytes::copy_from_slice(rest);
    Some(NewRecord { key: MessageKey(*key), source, device_id, module_id, endpoints, system, properties, body })
}

/// Unsigned LEB128: seven bits per byte, the lowest first.
fn put_number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        // Truncation is the point.
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_number(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn put_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone, out: &mut Vec<u8>) {
    put_number(pairs.clone().count(), out);
    for (name, value) in pairs {
        put_text(name, out);
        put_text(value, out);
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

fn take_number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    // Four groups of seven bits cover every length of a record.
    for shift in [0, 7, 14, 21] {
        let byte = take_byte(rest)?;
        number |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A number of items of at least `least` bytes each: one that cannot fit is refused before anything is allocated for it.
fn take_count(rest: &mut &[u8], least: usize) -> Option<usize> {
    let count = take_number(rest)?;
    (count.checked_mul(least)? <= rest.len()).then_some(count)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = take_number(rest)?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

fn take_pairs(rest: &mut &[u8]) -> Option<Vec<(String, String)>> {
    let count = take_count(rest, 2)?;
    (0..count).map(|_| Some((take_text(rest)?, take_text(rest)?))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_record() -> impl Strategy<Value = NewRecord> {
        let text = "[a-zü0-9]{0,20}";
        let pairs = || proptest::collection::vec((text, "\\PC{0,200}"), 0..4);
        (
            any::<[u8; 16]>(),
            1..=6_u8,
            text,
            proptest::option::of(text),
            proptest::collection::vec(text, 0..4),
            pairs(),
            pairs(),
            proptest::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(key, source, device_id, module_id, endpoints, system, properties, body)| NewRecord {
                key: MessageKey(key),
                source: Source::from_byte(source).unwrap(),
                device_id,
                module_id,
                endpoints,
                system,
                properties,
                body: body.into(),
            })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in proptest::collection::vec(any_record(), 0..5)) {
            let encoded = Encoded::of(&records).unwrap();
            prop_assert_eq!(encoded.count() as usize, records.len());
            prop_assert_eq!(&encoded.decoded(), &records);
            let bytes = encoded.into_payload();
            let mut rest = &bytes[..];
            for record in &records {
                let decoded = decode(split(&mut rest).unwrap());
                prop_assert_eq!(decoded.as_ref(), Some(record));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Some(record) = split(&mut rest) {
                decode(record);
            }
            decode(&bytes);
        }

        #[test]
        fn a_damaged_record_is_read_without_panic(record in any_record(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = Encoded::of(&[record]).unwrap().into_payload();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(record) = split(&mut &bytes[..]) {
                decode(record);
            }
            decode(&bytes[LENGTH_BYTES..at.max(LENGTH_BYTES)]);
        }
    }

    #[test]
    fn a_record_that_is_too_large_leaves_nothing_behind() {
        let head = Head { key: MessageKey([0; 16]), source: Source::DeviceMessages, device_id: "d", module_id: None };
        let mut encoded = Encoded::default();
        let mut push =
            |bytes| encoded.push(head, [].into_iter(), [].into_iter(), [("a", "b")].into_iter(), &vec![0; bytes]);
        push(1).unwrap();
        assert!(matches!(push(MAX_RECORD_BYTES), Err(LogError::TooLarge(_))));
        assert_eq!(encoded.decoded().len(), 1);
        assert_eq!(encoded.count(), 1);
    }
}
