//! A custom allocation policy: its versions and which of them decides.

use serde::{Deserialize, Serialize};

use super::{FormatVersion, Json, Record};
use crate::{AllocationPolicyName, AllocationPolicyVersion, Timestamp};

/// A custom allocation policy. Key: `policy/{name}`. The components are beside it, by their content:
/// `component/{digest}.{number}`, each a piece of at most 1 MiB, numbered from `0000`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllocationPolicyRecord {
    /// Format version.
    pub v: FormatVersion,
    /// Its name.
    pub name: AllocationPolicyName,
    /// Its versions, the oldest first.
    pub versions: Vec<PolicyVersionRecord>,
    /// The version that decides; absent before the first activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<AllocationPolicyVersion>,
    /// The version that decided before it: where a roll-back goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<AllocationPolicyVersion>,
    /// A version that is being tried on a share of the devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRecord>,
    /// How the last trial ended by itself, until the next one begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<ReturnRecord>,
    /// What its calls may take; absent members are as in every policy.
    #[serde(default)]
    pub limits: PolicyLimitsRecord,
    /// Whether what it writes goes into the log.
    #[serde(default)]
    pub debug: bool,
    /// Entity tag, without quotes.
    pub etag: String,
    /// When its first version was stored.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl Record for AllocationPolicyRecord {}

/// One version of a policy. It never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVersionRecord {
    /// The version.
    pub version: AllocationPolicyVersion,
    /// SHA-256 of the component, lower case hexadecimal.
    pub digest: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// The version of `nave:allocation` that it was built against.
    pub contract: String,
    /// The JSON Schema of its configuration, if it can be configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Json>,
    /// The name of the key that signed it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// The signature that it came with, base64: it is verified again with the keys of the day whenever it is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Where whoever pushed it says that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was stored.
    pub created: Timestamp,
}

/// A version on trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryRecord {
    /// The version.
    pub version: AllocationPolicyVersion,
    /// Its share of the devices, 1 to 99 percent.
    pub percent: u8,
    /// Decides, with the registration id, which devices take part.
    pub rollout: String,
    /// Failed decisions, in percent of all, beyond which the trial ends by itself.
    pub max_error_percent: u8,
    /// When it began.
    pub started: Timestamp,
}

/// A trial that ended by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReturnRecord {
    /// The version that was tried.
    pub version: AllocationPolicyVersion,
    /// The last decisions that it took, on the host that ended it.
    pub decisions: u64,
    /// How many of them failed.
    pub errors: u64,
    /// When it ended.
    pub at: Timestamp,
}

/// Limits of a policy that differ from the usual ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PolicyLimitsRecord {
    /// Time for one call, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
    /// Linear memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u32>,
    /// Table elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_elements: Option<u32>,
    /// Native stack, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_bytes: Option<u32>,
    /// Bytes handed to the host at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u32>,
    /// Calls that may run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Calls that may wait for their turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
}
