//! The query at the end of a topic: `/?$rid=1&$version=2`.

use super::hub::Since;
use super::{MAX_REQUEST_ID_LENGTH, TopicError};

/// Splits `/?query`, `?query`, `/` or nothing, as it follows an operation; gives the query.
pub(super) fn after_operation(rest: &str) -> Result<&str, TopicError> {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match rest.strip_prefix('?') {
        Some(query) => Ok(query),
        None if rest.is_empty() => Ok(""),
        None => Err(TopicError::SubResource),
    }
}

/// The request id: not empty, not too long, exactly once.
pub(super) fn request_id(query: &str) -> Result<&str, TopicError> {
    optional_request_id(query)?.ok_or(TopicError::NoRequestId)
}

/// The request id if there is one that is not empty.
pub(super) fn optional_request_id(query: &str) -> Result<Option<&str>, TopicError> {
    let mut values = pairs(query).filter(|(name, _)| is(name, "rid")).map(|(_, value)| value);
    let value = values.next().unwrap_or_default();
    match value.len() {
        _ if values.next().is_some() => Err(TopicError::SeveralRequestIds),
        0 => Ok(None),
        1..=MAX_REQUEST_ID_LENGTH => Ok(Some(value)),
        _ => Err(TopicError::RequestIdTooLong),
    }
}

/// `$version`, if there is one.
pub(super) fn version(query: &str) -> Result<Option<u64>, TopicError> {
    let Some((_, value)) = pairs(query).find(|(name, _)| is(name, "version")) else { return Ok(None) };
    number(value).map(Some).ok_or(TopicError::Version)
}

/// `$since` and `$lineage`. What is no number asks for nothing: then the device gets all of its twin.
pub(super) fn since(query: &str) -> Option<Since<'_>> {
    let of = |wanted| pairs(query).find(|(name, _)| is(name, wanted)).map(|(_, value)| value);
    Some(Since { version: number(of("since")?)?, lineage: of("lineage").unwrap_or_default() })
}

/// The first value of a name without `$`.
pub(super) fn value<'a>(query: &'a str, wanted: &str) -> Option<&'a str> {
    pairs(query).find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// Decimal digits only.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Whether `name` is `$wanted`, with the dollar sign encoded or not.
fn is(name: &str, wanted: &str) -> bool {
    name.strip_prefix('$').or_else(|| name.strip_prefix("%24")) == Some(wanted)
}
