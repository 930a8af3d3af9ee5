//! The words of the domain: identifiers, entity tags, timestamps, and the records that the store keeps.
//!
//! This crate is pure data: it compiles to WebAssembly, so that every host of the functions reads and writes the same
//! state.

mod allocation_policy;
mod etag;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod id;
mod identity;
mod key;
mod record;
mod time;

pub use allocation_policy::{
    AllocationPolicyName, AllocationPolicyReference, AllocationPolicyVersion, InvalidPolicyReference,
    MAX_POLICY_LABEL_LENGTH,
};
pub use etag::{DpsEtag, IdentityEtag, IfMatch, InvalidEtag, TwinEtag, bare_etag};
pub use id::{
    DeviceId, EnrollmentGroupId, HostName, HubId, HubName, IdKind, IdScope, InvalidId, InvalidIdReason,
    MAX_HOST_LABEL_LENGTH, MAX_HOST_NAME_LENGTH, MAX_HUB_NAME_LENGTH, MAX_ID_LENGTH, MAX_ID_SCOPE_LENGTH,
    MAX_POLICY_NAME_LENGTH, ModuleId, PolicyName, RegistrationId,
};
pub use identity::Identity;
pub use key::{escape_key_part, unescape_key_part};
pub use record::*;
pub use time::Timestamp;
