//! `/enrollments` and `/enrollmentGroups` (protocol notes: provisioning service §1-3).

use http::StatusCode;
use nave_hub::provisioning::{MAX_ENROLLMENT_PAGE, Secrets, attestation_json, enrollment_json, id_member};
use nave_hub::{ErrorCode, HubError, Provisioning};
use nave_model::{EnrollmentKind, EnrollmentRecord, IfMatch, RegistrationId};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::call::{Call, argument, parse_object, read_bytes, read_document, read_text};
use crate::enrollment_document::Document;
use crate::registrations::state_json;
use crate::reply::{self, Reply};
use crate::service::Body;

/// Longest body of one enrollment, in bytes; a longer one is refused unread. It may hold two certificates of 64 KB and an
/// initial twin.
pub const MAX_ENROLLMENT_BODY_BYTES: usize = 256 << 10;

/// Most enrollments of one bulk operation (protocol notes: provisioning service §3.5).
pub const MAX_BULK_ITEMS: usize = 10;

/// Longest body of a bulk operation, in bytes; a longer one is refused unread.
pub const MAX_BULK_BODY_BYTES: usize = MAX_BULK_ITEMS * MAX_ENROLLMENT_BODY_BYTES;

/// Longest body of a query, in bytes. Its text is ignored: only "everything" can be asked for.
const MAX_QUERY_BODY_BYTES: usize = 64 << 10;

/// Items of a page if the client does not say.
pub const DEFAULT_PAGE_ITEMS: usize = 100;

/// `GET /E/{id}`.
pub(crate) async fn get(kind: EnrollmentKind, call: &Call) -> Result<Reply, HubError> {
    let service = call.platform.provisioning();
    let record = service.get_enrollment(kind, addressed(call)).await?;
    Ok(enrollment(&record, &shown(service, &record).await?))
}

/// `PUT /E/{id}`.
pub(crate) async fn put(kind: EnrollmentKind, call: &Call, body: Body) -> Result<Reply, HubError> {
    let document: Document = read_document(body, MAX_ENROLLMENT_BODY_BYTES).await?;
    let input = document.into_input(kind, Some(addressed(call)))?;
    let service = call.platform.provisioning();
    let record = service.put_enrollment(input, &call.if_match()).await?;
    Ok(enrollment(&record, &shown(service, &record).await?))
}

/// `DELETE /E/{id}`.
pub(crate) async fn delete(kind: EnrollmentKind, call: &Call) -> Result<Reply, HubError> {
    call.platform.provisioning().delete_enrollment(kind, addressed(call), &call.if_match()).await?;
    Ok(reply::no_content())
}

/// `POST /E/{id}/attestationmechanism`: the only answer with secrets.
pub(crate) async fn attestation(kind: EnrollmentKind, call: &Call) -> Result<Reply, HubError> {
    let record = call.platform.provisioning().get_enrollment(kind, addressed(call)).await?;
    Ok(reply::ok(&attestation_json(&record.attestation, Secrets::Shown)?))
}

/// `POST /E/query`.
pub(crate) async fn query(kind: EnrollmentKind, call: &Call, body: Body) -> Result<Reply, HubError> {
    skip_query(body).await?;
    let page = Page::of(call)?;
    let service = call.platform.provisioning();
    let found = service.list_enrollments(kind, page.limit, page.continuation.as_deref()).await?;
    let mut items = Vec::with_capacity(found.items.len());
    for record in &found.items {
        items.push(shown(service, record).await?);
    }
    let item_type = match kind {
        EnrollmentKind::Individual => "Enrollment",
        EnrollmentKind::Group => "EnrollmentGroup",
    };
    Ok(page.reply(items, item_type, found.continuation.as_deref()))
}

/// `POST /E`: up to [`MAX_BULK_ITEMS`] enrollments. Each succeeds or fails by itself, and the answer is 200.
pub(crate) async fn bulk(kind: EnrollmentKind, call: &Call, body: Body) -> Result<Reply, HubError> {
    let text = read_text(body, MAX_BULK_BODY_BYTES).await?;
    let operation: Bulk<'_> = parse_object(&text)?;
    let mode = Mode::parse(operation.mode.as_deref())?;
    let items = match kind {
        EnrollmentKind::Individual => operation.enrollments,
        EnrollmentKind::Group => operation.enrollment_groups,
    };
    let Some(items) = items else {
        return Err(HubError::new(ErrorCode::ArgumentNull, "The body names no enrollments."));
    };
    if items.len() > MAX_BULK_ITEMS {
        return Err(HubError::new(
            ErrorCode::TooManyEnrollments,
            format!("A bulk operation takes at most {MAX_BULK_ITEMS} enrollments."),
        ));
    }
    call.platform.provisioning().pass(items.len() as u64).await?;
    let documents: Vec<Document> = items.iter().map(|item| parse_object(item.get())).collect::<Result<_, _>>()?;
    let ids: Vec<String> = documents.iter().map(|document| document.id(kind).to_ascii_lowercase()).collect();
    if let Some(twice) = ids.iter().enumerate().find_map(|(at, id)| ids.iter().skip(at + 1).find(|other| *other == id))
    {
        return Err(HubError::new(
            ErrorCode::RegistrationIdDefinedMultipleTimes,
            format!("The enrollment '{twice}' is in the operation more than once."),
        ));
    }
    let service = call.platform.provisioning();
    let mut errors = Vec::new();
    for document in documents {
        let id = document.id(kind).to_owned();
        if let Err(error) = carry_out(service, kind, mode, document).await {
            if error.is_internal() {
                tracing::error!(enrollment = %id, %error, "an item of a bulk operation failed");
            }
            errors.push(json!({
                id_member(kind): id,
                "errorCode": error.code.number(),
                "errorStatus": error.message,
            }));
        }
    }
    Ok(reply::ok(&json!({ "isSuccessful": errors.is_empty(), "errors": errors })))
}

/// Reads the body of a query away. Its text is never a reason to refuse it: the Azure CLI sends what is no query.
pub(crate) async fn skip_query(body: Body) -> Result<(), HubError> {
    read_bytes(body, MAX_QUERY_BODY_BYTES).await.map(drop)
}

/// Which part of a list the client wants.
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) continuation: Option<String>,
}

impl Page {
    /// Reads the request's headers. Numbers below 1 ask for the default.
    pub(crate) fn of(call: &Call) -> Result<Self, HubError> {
        let limit = match call.header("x-ms-max-item-count").map(str::trim) {
            None | Some("") => DEFAULT_PAGE_ITEMS,
            Some(text) => match text.parse::<i64>() {
                Ok(number) if number > 0 => usize::try_from(number).unwrap_or(usize::MAX).min(MAX_ENROLLMENT_PAGE),
                Ok(_) => DEFAULT_PAGE_ITEMS,
                Err(_) => return Err(argument("x-ms-max-item-count is not a number.")),
            },
        };
        let continuation = call.header("x-ms-continuation").filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self { limit, continuation })
    }

    /// The answer. `x-ms-continuation` is absent on the last page: the Node SDK stops at nothing else.
    pub(crate) fn reply(&self, items: Vec<Value>, item_type: &str, continuation: Option<&str>) -> Reply {
        let reply = reply::ok(&Value::Array(items));
        let reply = with(reply, "x-ms-item-type", item_type);
        let reply = with(reply, "x-ms-max-item-count", &self.limit.to_string());
        match continuation {
            Some(continuation) => with(reply, "x-ms-continuation", continuation),
            None => reply,
        }
    }
}

fn with(reply: Reply, name: &'static str, value: &str) -> Reply {
    reply::with_header(reply, http::HeaderName::from_static(name), value)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bulk<'a> {
    mode: Option<String>,
    #[serde(borrow)]
    enrollments: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    enrollment_groups: Option<Vec<&'a RawValue>>,
}

#[derive(Clone, Copy)]
enum Mode {
    Create,
    Update,
    UpdateIfMatch,
    Delete,
}

impl Mode {
    fn parse(text: Option<&str>) -> Result<Self, HubError> {
        match text.unwrap_or_default().to_ascii_lowercase().as_str() {
            "create" => Ok(Self::Create),
            "update" => Ok(Self::Update),
            "updateifmatchetag" => Ok(Self::UpdateIfMatch),
            "delete" => Ok(Self::Delete),
            _ => Err(argument("mode is none of create, update, updateIfMatchETag, delete.")),
        }
    }
}

async fn carry_out(
    service: &Provisioning,
    kind: EnrollmentKind,
    mode: Mode,
    document: Document,
) -> Result<(), HubError> {
    let condition = match mode {
        Mode::Create => IfMatch::None,
        Mode::Update => IfMatch::Any,
        Mode::UpdateIfMatch => match IfMatch::parse(document.etag.as_deref()) {
            IfMatch::None => return Err(HubError::new(ErrorCode::ArgumentNull, "The enrollment has no etag.")),
            condition => condition,
        },
        Mode::Delete => return service.delete_enrollment(kind, document.id(kind), &IfMatch::None).await,
    };
    service.put_enrollment(document.into_input(kind, None)?, &condition).await.map(drop)
}

/// The JSON form, with the registration of the device if it is one device that has registered.
async fn shown(service: &Provisioning, record: &EnrollmentRecord) -> Result<Value, HubError> {
    let id = match record.kind {
        EnrollmentKind::Individual => RegistrationId::parse(&record.id).ok(),
        EnrollmentKind::Group => None,
    };
    let registration = match id {
        Some(id) => match service.get_registration(&id).await {
            Ok(registration) => Some(state_json(&registration)),
            Err(error) if error.code == ErrorCode::DeviceRegistrationNotFound => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    enrollment_json(record, registration)
}

fn enrollment(record: &EnrollmentRecord, json: &Value) -> Reply {
    reply::with_etag(reply::json(StatusCode::OK, json.to_string()), &format!("\"{}\"", record.etag))
}

fn addressed(call: &Call) -> &str {
    call.target.segment(1)
}
