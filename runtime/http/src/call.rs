//! The head of a request, and readers of its body.
//!
//! The body travels beside the head and is given away to be read: so it is read once, and whoever does not get it cannot
//! read it before the caller is known.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, IF_MATCH};
use http::{HeaderMap, Method};
use nave_hub::audit::{self, Actor, Change, Outcome};
use nave_hub::{ErrorCode, HubError, Platform};
use nave_model::{DeviceId, IfMatch};
use serde::de::{Deserialize, DeserializeOwned};

use crate::reply::Reply;
use crate::route::Target;
use crate::service::{Body, BodyError, Peer};

/// The head of a request.
pub(crate) struct Call {
    pub(crate) platform: Arc<Platform>,
    /// The method that is meant.
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Peer,
    /// Who asks for a change, once they are known; nothing for requests that change nothing.
    pub(crate) changes_as: OnceLock<Actor>,
}

impl Call {
    /// Notes that a caller who is known asks for a change: its outcome is recorded.
    pub(crate) fn changes_as(&self, actor: Actor) {
        // A request has one caller.
        let _ = self.changes_as.set(actor);
    }

    /// Carries out the request, and records how the change ended that it asked for, if it asked for any. So does a request
    /// that is broken off, whose outcome nobody knows.
    pub(crate) async fn recorded(
        &self,
        owner: &str,
        answer: impl Future<Output = Result<Reply, HubError>>,
    ) -> Result<Reply, HubError> {
        let mut guard = Unrecorded { call: self, owner, ended: false };
        let result = answer.await;
        guard.ended = true;
        self.record(owner, &result);
        result
    }

    fn record(&self, owner: &str, result: &Result<Reply, HubError>) {
        let outcome = match result {
            Ok(reply) if reply.status().is_success() => Outcome::Done(reply.status().as_u16()),
            // Only a request for several changes ends like that.
            Ok(_) => Outcome::Unsuccessful("in part"),
            Err(error) => error.into(),
        };
        self.record_whole(owner, outcome);
    }

    fn record_whole(&self, owner: &str, outcome: Outcome) {
        let object = self.target.segments().iter().fold(String::new(), |path, segment| path + "/" + segment);
        self.record_part(owner, self.method.as_str(), &object, outcome);
    }

    /// Records how a part of the change ended: of a request whose body names what is changed.
    pub(crate) fn record_part(&self, owner: &str, action: &str, object: &str, outcome: Outcome) {
        let Some(actor) = self.changes_as.get() else { return };
        let change = Change { actor, peer: Some(self.peer.address), owner, action, object, outcome };
        audit::record(&**self.platform.env(), &change);
    }

    /// A header's text; `None` also for one that is not visible ASCII.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The credential in the `Authorization` header.
    pub(crate) fn token(&self) -> Option<&str> {
        self.header(AUTHORIZATION).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The precondition. One that is not ASCII is a tag that matches nothing.
    pub(crate) fn if_match(&self) -> IfMatch {
        let text = self.headers.get(IF_MATCH).map(|value| String::from_utf8_lossy(value.as_bytes()));
        IfMatch::parse(text.as_deref())
    }
}

/// A request that is being carried out. Dropped, it was broken off: the client of a method call went away, or the hub stops.
struct Unrecorded<'a> {
    call: &'a Call,
    owner: &'a str,
    ended: bool,
}

impl Drop for Unrecorded<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.call.record_whole(self.owner, Outcome::Unsuccessful("broken off"));
        }
    }
}

/// A body.
pub(crate) async fn read_bytes(body: Body, limit: usize) -> Result<Bytes, HubError> {
    body.collect(limit).await.map_err(unreadable)
}

/// A body as text.
pub(crate) async fn read_text(body: Body, limit: usize) -> Result<String, HubError> {
    let bytes = read_bytes(body, limit).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| not_text())?;
    // Some .NET writers begin with a byte order mark.
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text).to_owned())
}

/// A body as a JSON object of a known shape.
pub(crate) async fn read_document<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, HubError> {
    parse_object(&read_text(body, limit).await?)
}

/// Reads a JSON object. The shapes alone would also take an array of their members' values.
pub(crate) fn parse_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, HubError> {
    if text.trim_start().starts_with('{') {
        return parse_json(text);
    }
    Err(HubError::new(ErrorCode::IotHubFormatError, "The body is not a JSON object."))
}

/// Reads JSON. What is wrong is said without repeating the document: there may be keys in it.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, HubError> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => HubError::new(
                ErrorCode::ArgumentInvalid,
                format!("A member of the body has a value of the wrong type (before line {line}, column {column})."),
            ),
            _ => HubError::new(
                ErrorCode::IotHubFormatError,
                format!("The body is not JSON (line {line}, column {column})."),
            ),
        }
    })
}

/// A device id out of a path.
pub(crate) fn device_id(text: &str) -> Result<DeviceId, HubError> {
    DeviceId::parse(text).map_err(|error| argument(error.to_string()))
}

/// A wrong argument.
pub(crate) fn argument(message: impl Into<String>) -> HubError {
    HubError::new(ErrorCode::ArgumentInvalid, message)
}

fn not_text() -> HubError {
    HubError::new(ErrorCode::IotHubFormatError, "The body is not text in UTF-8.")
}

fn unreadable(error: BodyError) -> HubError {
    match error {
        BodyError::TooLarge { limit } => {
            HubError::new(ErrorCode::MessageTooLarge, format!("The body has more than {limit} bytes."))
        }
        BodyError::Incomplete(_) => {
            HubError::new(ErrorCode::GenericBadRequest, "The body is incomplete.").with_detail(error)
        }
        BodyError::Timeout => HubError::new(ErrorCode::RequestTimedOut, "The body did not arrive in time."),
    }
}
