//! `/registrations` of the service API: what became of devices (protocol notes: provisioning service §2, §3.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_hub::HubError;
use nave_hub::provisioning::registration_json;
use nave_model::{IfMatch, RegistrationId, RegistrationRecord, bare_etag};
use serde_json::Value;

use crate::call::{Call, argument};
use crate::enrollments::{self, Page};
use crate::reply::{self, Reply};
use crate::service::Body;

/// `GET /registrations/{id}`.
pub(crate) async fn get(call: &Call) -> Result<Reply, HubError> {
    let record = call.platform.provisioning().get_registration(&addressed(call)?).await?;
    Ok(reply::with_etag(reply::ok(&state_json(&record)), &format!("\"{}\"", record.etag)))
}

/// `DELETE /registrations/{id}`.
pub(crate) async fn delete(call: &Call) -> Result<Reply, HubError> {
    let condition = condition(call.if_match());
    call.platform.provisioning().delete_registration(&addressed(call)?, &condition).await?;
    Ok(reply::no_content())
}

/// `POST /registrations/{group}/query`.
pub(crate) async fn query(call: &Call, body: Body) -> Result<Reply, HubError> {
    enrollments::skip_query(body).await?;
    let page = Page::of(call)?;
    let group = call.target.segment(1).to_owned();
    let service = call.platform.provisioning();
    let found = service.list_registrations(&group, page.limit, page.continuation.as_deref()).await?;
    let items = found.items.iter().map(state_json).collect();
    Ok(page.reply(items, "DeviceRegistration", found.continuation.as_deref()))
}

/// A registration's state as services see it: without the attestation that devices are shown.
pub(crate) fn state_json(record: &RegistrationRecord) -> Value {
    let mut state = registration_json(record);
    if let Some(members) = state.as_object_mut() {
        members.shift_remove(&record.attestation);
    }
    state
}

fn addressed(call: &Call) -> Result<RegistrationId, HubError> {
    RegistrationId::parse(call.target.segment(1)).map_err(|error| argument(error.to_string()))
}

/// A registration shows its tag in base64, so that form is accepted too.
fn condition(condition: IfMatch) -> IfMatch {
    let IfMatch::Tag(tag) = condition else { return condition };
    let decoded = STANDARD.decode(&tag).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let inner = decoded.filter(|text| text.starts_with('"')).map(|text| bare_etag(&text).to_owned());
    IfMatch::Tag(inner.unwrap_or(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_accepted_as_they_are_shown() {
        let tag = IfMatch::Tag("61008d46-0000-0100-0000-5e8fe3d10000".into());
        let shown = IfMatch::parse(Some("IjYxMDA4ZDQ2LTAwMDAtMDEwMC0wMDAwLTVlOGZlM2QxMDAwMCI="));
        assert_eq!(condition(shown), tag);
        assert_eq!(condition(tag.clone()), tag);
        assert_eq!(condition(IfMatch::Any), IfMatch::Any);
    }
}
