//! The records that the store keeps, one per aggregate, and their keys.
//!
//! A value is one JSON object in UTF-8 whose member `v` is the format version ([`RECORD_VERSION`]). Readers refuse a newer
//! version and fill in members that an older writer did not know; writers never drop a member they understood. Documents
//! of users (twin sections, payloads) are embedded as JSON values, not as strings, so that reading a record does not
//! unescape them.
//!
//! Every host of the functions uses these definitions, so they read and write each other's state.

mod allocation_policy;
mod device;
mod enrollment;
mod key;
mod queue;
mod registration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroize as _;

pub use allocation_policy::{
    AllocationPolicyRecord, CanaryRecord, PolicyLimitsRecord, PolicyVersionRecord, ReturnRecord,
};
pub use device::{
    Authentication, DeviceRecord, DeviceStatus, KeyPairText, OutboxEntry, SectionRecord, SessionRecord, ThumbprintPair,
    TwinRecord,
};
pub use enrollment::{
    AttestationRecord, CaRecord, CertificateText, EnrollmentKind, EnrollmentRecord, Reprovision, Webhook,
};
pub use key::{Keys, MAX_TENANT_LENGTH, Tenant};
pub use queue::{
    Ack, ContentRecord, FeedbackBatchRecord, FeedbackRecord, MessageLock, Outcome, QueueRecord, QueuedMessage,
};
pub use registration::{CopiedTwin, DeviceAddress, RegistrationRecord, RegistrationStatus, Removal, Substatus};

/// The version that this code writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// Why a stored value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer release.
    #[error("record format {found} is newer than {RECORD_VERSION}, the newest that this release reads: upgrade it")]
    Newer {
        /// The version in the record.
        found: u32,
    },
    /// Not a record at all: the store is damaged or something else wrote to it.
    #[error("the record is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// A value that the store keeps.
pub trait Record: Serialize + DeserializeOwned {
    /// Reads a stored value.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the bytes are not a record of a known version.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match serde_json::from_slice(bytes) {
            Ok(record) => Ok(record),
            // The version decides which of the two failures it is, so it is looked for only now.
            Err(error) => match serde_json::from_slice(bytes) {
                Ok(Version { v: found }) if found > RECORD_VERSION => Err(RecordError::Newer { found }),
                _ => Err(error.into()),
            },
        }
    }

    /// The bytes to store.
    ///
    /// # Errors
    ///
    /// [`RecordError::Damaged`] if a member cannot be written, which no record defined here does.
    fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The member `v`: writes [`RECORD_VERSION`], refuses to read anything newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormatVersion;

impl Serialize for FormatVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(RECORD_VERSION)
    }
}

impl<'de> Deserialize<'de> for FormatVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = u32::deserialize(deserializer)?;
        if found > RECORD_VERSION { Err(serde::de::Error::custom("newer record format")) } else { Ok(Self) }
    }
}

/// A JSON document of a user, kept as the text it was written in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Checks that `text` is one JSON value.
    ///
    /// # Errors
    ///
    /// The position and kind of the first syntax error.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// The document, read.
    ///
    /// # Errors
    ///
    /// A number that no JSON value type of this program holds.
    pub fn value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_str(self.text())
    }
}

impl Default for Json {
    /// The empty object.
    fn default() -> Self {
        Self(serde_json::value::to_raw_value(&serde_json::Map::new()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// Text that must not be shown: a key in base64, a token. Its `Debug` output is fixed, and it is wiped when it is dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps `text`.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, to be used and not to be shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretText(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Timestamp};

    fn device() -> DeviceRecord {
        DeviceRecord::new(
            &Identity::parse("dev-1").unwrap(),
            "637000000000000001".into(),
            Authentication::Sas(KeyPairText {
                primary: SecretText::new("cHJpbWFyeS1rZXktMTIzNA==".into()),
                secondary: SecretText::new("c2Vjb25kYXJ5LWtleS0xMg==".into()),
            }),
            TwinRecord::default(),
            Timestamp::from_unix_seconds(1_790_000_000),
        )
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        let record = device();
        let bytes = record.encode().unwrap();
        assert_eq!(DeviceRecord::decode(&bytes).unwrap(), record);
    }

    #[test]
    fn a_module_has_a_record_of_the_same_kind() {
        let identity = Identity::parse("dev-1/$edgeHub").unwrap();
        let (twin, now) = (TwinRecord::default(), Timestamp::from_unix_seconds(1));
        let mut record = DeviceRecord::new(&identity, "7".into(), Authentication::None, twin, now);
        record.managed_by = Some("iotEdge".into());
        let read = DeviceRecord::decode(&record.encode().unwrap()).unwrap();
        assert_eq!((read.identity().unwrap(), read), (identity, record));
    }

    /// What release 0.1.0 wrote opens today: change this text only together with a new format version and an adapter.
    #[test]
    fn yesterdays_record_opens() {
        let stored = r#"{"v":1,"deviceId":"dev-1","generationId":"637000000000000001","etag":3,"status":"disabled","statusReason":"stolen",
            "statusUpdated":1790000000000000000,"authentication":{"selfSigned":{"primary":"AB","secondary":null}},"iotEdge":false,
            "twin":{"tags":{"a":1},"desired":{"json":{"x":[1,2]},"metadata":{"$lastUpdated":"2026-01-01T00:00:00.0000000Z"},"version":4},
            "reported":{"json":{},"metadata":{},"version":1},"version":7,"etag":5},"created":1790000000000000000}"#;
        let record = DeviceRecord::decode(stored.as_bytes()).unwrap();
        assert_eq!(record.status, DeviceStatus::Disabled);
        assert_eq!(record.twin.desired.json.text(), r#"{"x":[1,2]}"#);
        assert!(record.outbox.is_empty());
        assert_eq!(record.identity().unwrap(), Identity::parse("dev-1").unwrap());
    }

    #[test]
    fn a_newer_record_is_refused_by_name() {
        assert!(matches!(DeviceRecord::decode(br#"{"v":2,"x":1}"#), Err(RecordError::Newer { found: 2 })));
        assert!(matches!(DeviceRecord::decode(b"junk"), Err(RecordError::Damaged(_))));
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", device()).contains("cHJpbWFyeS"));
    }
}
