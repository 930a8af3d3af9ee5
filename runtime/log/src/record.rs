//! The bytes of one record. See `FORMAT.md`, "Record".

use bytes::Bytes;

use crate::{LogError, MAX_RECORD_BYTES, MessageKey, NewRecord, Source};

/// Bit of the flags byte: a module id follows the device id.
const HAS_MODULE: u8 = 1;

/// Bytes of the length in front of a record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Appends a record with its length to `out`.
pub(crate) fn encode(record: &NewRecord, out: &mut Vec<u8>) -> Result<(), LogError> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(&record.key.0);
    out.push(record.source as u8);
    out.push(if record.module_id.is_some() { HAS_MODULE } else { 0 });
    put_text(&record.device_id, out);
    if let Some(module) = &record.module_id {
        put_text(module, out);
    }
    put_number(record.endpoints.len(), out);
    for endpoint in &record.endpoints {
        put_text(endpoint, out);
    }
    for pairs in [&record.system, &record.properties] {
        put_number(pairs.len(), out);
        for (name, value) in pairs {
            put_text(name, out);
            put_text(value, out);
        }
    }
    out.extend_from_slice(&record.body);
    let length = out.len() - start - LENGTH_BYTES;
    if length > MAX_RECORD_BYTES {
        out.truncate(start);
        return Err(LogError::TooLarge("a record has more than 1 MiB"));
    }
    // Below 2^32 by the limit above.
    let length = (length as u32).to_le_bytes();
    if let Some(place) = out.get_mut(start..start + LENGTH_BYTES) {
        place.copy_from_slice(&length);
    }
    Ok(())
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
            let mut bytes = Vec::new();
            for record in &records {
                encode(record, &mut bytes).unwrap();
            }
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
            let mut bytes = Vec::new();
            encode(&record, &mut bytes).unwrap();
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
        let record = NewRecord {
            key: MessageKey([0; 16]),
            source: Source::DeviceMessages,
            device_id: "d".into(),
            module_id: None,
            endpoints: vec![],
            system: vec![],
            properties: vec![],
            body: vec![0; MAX_RECORD_BYTES].into(),
        };
        let mut bytes = vec![1, 2];
        assert!(matches!(encode(&record, &mut bytes), Err(LogError::TooLarge(_))));
        assert_eq!(bytes, [1, 2]);
    }
}
