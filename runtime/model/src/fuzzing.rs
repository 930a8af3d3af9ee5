//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

#![expect(clippy::unwrap_used, reason = "a panic is how a fuzz target reports")]

use crate::{
    AllocationPolicyRecord, CaRecord, ContentRecord, DeviceId, DeviceRecord, DpsEtag, EnrollmentGroupId,
    EnrollmentRecord, FeedbackBatchRecord, FeedbackRecord, HostName, HubId, HubName, IdScope, Identity, IdentityEtag,
    IfMatch, ModuleId, PolicyName, QueueRecord, Record, RegistrationId, RegistrationRecord, SessionRecord, Timestamp,
    TwinEtag, escape_key_part, unescape_key_part,
};

/// An id that is read is written as one that is read as the same.
pub fn fuzz_ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    macro_rules! stable {
        ($($name:ident),* $(,)?) => {
            $(if let Ok(id) = $name::parse(text) {
                assert_eq!($name::parse(id.as_str()).unwrap(), id);
            })*
        };
    }
    stable!(DeviceId, EnrollmentGroupId, HostName, HubId, HubName, IdScope, ModuleId, PolicyName, RegistrationId);
    if let Ok(identity) = Identity::parse(text) {
        assert_eq!(Identity::parse(&identity.to_string()).unwrap(), identity);
    }
    let _ = HostName::parse_authority(text).is_ok();
    macro_rules! etag {
        ($($name:ident),*) => {
            $(if let Ok(etag) = $name::parse(text) {
                assert_eq!($name::parse(&etag.to_string()).unwrap(), etag);
            })*
        };
    }
    etag!(DpsEtag, IdentityEtag, TwinEtag);
    let _ = IfMatch::parse(Some(text)).holds_for(text);
    if let Some(time) = Timestamp::parse_iso(text) {
        assert_eq!(Timestamp::parse_iso(&time.iso()).unwrap().iso(), time.iso());
    }
    assert_eq!(unescape_key_part(&escape_key_part(text)).as_deref(), Some(text));
    if let Some(part) = unescape_key_part(text) {
        assert_eq!(escape_key_part(&part), text);
    }
}

/// A record that is read is written as one that is read as the same.
pub fn fuzz_records(data: &[u8]) {
    fn stable<R: Record>(data: &[u8]) {
        if let Ok(record) = R::decode(data) {
            let written = record.encode().unwrap();
            let again = R::decode(&written).unwrap();
            assert_eq!(again.encode().unwrap(), written);
        }
    }
    stable::<DeviceRecord>(data);
    stable::<SessionRecord>(data);
    stable::<EnrollmentRecord>(data);
    stable::<RegistrationRecord>(data);
    stable::<CaRecord>(data);
    stable::<QueueRecord>(data);
    stable::<ContentRecord>(data);
    stable::<FeedbackRecord>(data);
    stable::<FeedbackBatchRecord>(data);
    stable::<AllocationPolicyRecord>(data);
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("ids", super::fuzz_ids);
        exercise("records", super::fuzz_records);
    }
}
