//! Configuration documents where policies cannot be pushed: in a component. There is no policy that could have a schema.

use nave_model::Json;

/// Longest configuration document, in bytes.
pub const MAX_POLICY_CONFIGURATION_BYTES: usize = 16 << 10;

const ABSENT: &str = "this host has no policies with a configuration";

pub(crate) fn schema_of(_: &str) -> Result<Json, String> {
    Err(ABSENT.to_owned())
}

pub(crate) fn check(_: &Json, _: &Json) -> Result<(), String> {
    Err(ABSENT.to_owned())
}
