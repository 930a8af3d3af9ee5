//! Members that identities and enrollments have in common.

use serde::Deserialize;

/// A pair of keys, base64.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SymmetricKey {
    pub(crate) primary_key: Option<String>,
    pub(crate) secondary_key: Option<String>,
}

/// What a device can do.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Capabilities {
    pub(crate) iot_edge: Option<bool>,
}
