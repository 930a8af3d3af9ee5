//! Custom allocation by a web hook, with the contract of the cloud service (protocol notes: provisioning service §5.1).

use std::sync::Arc;
use std::time::Duration;

use nave_engine::provisioning::{AllocationFailure, Choice, FailureCause, Outcome};
use nave_model::EnrollmentKind;
use serde_json::{Map, Value, json};

use super::Provisioning;
use crate::policy::{Bounds, NotDone, Pool};

/// Time for a web hook to answer, retries included. The cloud service's is not published; a function app that has gone cold
/// needs most of this (protocol notes: provisioning service §5.1).
pub const HOOK_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest answer of a web hook, in bytes: an initial twin and a payload.
pub const MAX_HOOK_ANSWER_BYTES: usize = 128 << 10;

/// How often a web hook is asked that cannot be reached or is temporarily unable (502, 503, 504), and the pause between.
const ATTEMPTS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(250);

/// Calls of web hooks on one host that are under way at once, and that wait: fewer than there are threads, so that a host
/// that hangs leaves some to others, and the last that waits does so for some 40 s.
const HOOK_BOUNDS: Bounds = Bounds { running: 4, waiting: 32 };

/// Seconds after which a registration comes back that found too many waiting.
const OVERFLOW_SECONDS: u32 = 3;

/// Longest part of an answer that the log quotes, in characters.
const MAX_QUOTED: usize = 200;

/// What is sent. The address holds the key of the web hook: it must not be logged.
#[derive(Clone)]
pub struct HookRequest {
    /// Where to.
    pub url: String,
    /// A JSON document.
    pub body: String,
    /// How long the answer may take.
    pub time_limit: Duration,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most [`MAX_HOOK_ANSWER_BYTES`].
    pub body: Vec<u8>,
}

/// Why nothing came back. None of the texts holds the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// It took too long.
    #[error("did not answer in time")]
    TimedOut,
    /// There is no connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The answer is longer than [`MAX_HOOK_ANSWER_BYTES`].
    #[error("answered with more than {MAX_HOOK_ANSWER_BYTES} bytes")]
    TooLarge,
}

/// Sends requests to web hooks. Called on threads of the pool for web hooks, so it may block.
pub trait HookClient: Send + Sync + 'static {
    /// Posts a document as `application/json`. Redirects are not followed.
    ///
    /// # Errors
    ///
    /// [`HookError`].
    fn post(&self, request: &HookRequest) -> Result<HookAnswer, HookError>;
}

/// How web hooks are called.
#[derive(Clone)]
pub struct Hooks {
    /// Sends requests.
    pub client: Arc<dyn HookClient>,
    /// On whose threads.
    pub pool: Arc<Pool>,
    /// Whether `http://` is allowed for hosts on the loopback device.
    pub allow_loopback_http: bool,
}

impl Hooks {
    /// Whether an enrollment may name this address.
    pub(crate) fn allows(&self, url: &str) -> Result<(), String> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() || authority.contains('@') || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "webhookUrl is nave:policy/NAME, nave:policy/NAME@VERSION, or a URL that begins with https://".into()
            );
        }
        if scheme.eq_ignore_ascii_case("https") {
            return Ok(());
        }
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let is_loopback = host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        match (scheme.eq_ignore_ascii_case("http"), is_loopback, self.allow_loopback_http) {
            (true, true, true) => Ok(()),
            (true, true, false) => {
                Err("webhookUrl begins with http://, which needs the setting provisioning.allow_loopback_webhooks"
                    .into())
            }
            _ => Err("webhookUrl does not begin with https://".into()),
        }
    }
}

/// The document that a web hook gets. `enrollment` is the object with the enrollment, `proof` the member that says how the
/// device proved itself.
pub(super) fn document(
    kind: EnrollmentKind,
    mut enrollment: Value,
    registration_id: &str,
    current: Option<(&str, &str)>,
    proof: (&str, Value),
    payload: Option<Value>,
    hubs: &[&str],
) -> Value {
    // Without its keys nothing is left of a symmetric key.
    if let Some(attestation) = enrollment.get_mut("attestation").and_then(Value::as_object_mut) {
        attestation.retain(|_, member| member.as_object().is_none_or(|members| !members.is_empty()));
    }
    let mut context = Map::new();
    context.insert("registrationId".to_owned(), json!(registration_id));
    if let Some((hub, device_id)) = current {
        context.insert("currentIotHubHostName".to_owned(), json!(hub));
        context.insert("currentDeviceId".to_owned(), json!(device_id));
    }
    context.insert(proof.0.to_owned(), proof.1);
    if let Some(payload) = payload {
        context.insert("payload".to_owned(), payload);
    }
    let member = match kind {
        EnrollmentKind::Individual => "individualEnrollment",
        EnrollmentKind::Group => "enrollmentGroup",
    };
    json!({ member: enrollment, "deviceRuntimeContext": context, "linkedHubs": hubs })
}

impl Provisioning {
    /// Asks a web hook.
    pub(super) async fn ask_hook(&self, hooks: &Hooks, url: &str, body: &Value) -> Outcome {
        let place = shown(url);
        let (key, body) = (authority(url), body.to_string());
        let started = self.env.monotonic();
        let mut attempt = 1;
        loop {
            let left = HOOK_TIME_LIMIT.saturating_sub(self.env.monotonic().since(started));
            if left.is_zero() {
                return failed(FailureCause::TimedOut, format!("the web hook {place} {}", HookError::TimedOut));
            }
            let request = HookRequest { url: url.to_owned(), body: body.clone(), time_limit: left };
            let client = Arc::clone(&hooks.client);
            let answer = match hooks.pool.run(&key, HOOK_BOUNDS, move || client.post(&request)).await {
                Ok(answer) => answer,
                Err(NotDone::Full) => return Outcome::RetryAfter(OVERFLOW_SECONDS),
                // The host stops: nothing final goes on record, and the device registers again.
                Err(NotDone::Ended) if hooks.pool.is_closed() => return Outcome::RetryAfter(OVERFLOW_SECONDS),
                Err(NotDone::Ended) => {
                    return failed(FailureCause::Unavailable, format!("the web hook {place}: the host ended the call"));
                }
            };
            let is_temporary = match &answer {
                Ok(answer) => matches!(answer.status, 502..=504),
                Err(error) => matches!(error, HookError::Unreachable(_)),
            };
            if !is_temporary || attempt >= ATTEMPTS {
                return outcome(&place, answer);
            }
            attempt += 1;
            self.env.sleep(PAUSE).await;
        }
    }
}

fn outcome(place: &str, answer: Result<HookAnswer, HookError>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let cause = match error {
                HookError::TimedOut => FailureCause::TimedOut,
                HookError::Unreachable(_) => FailureCause::Unavailable,
                HookError::TooLarge => FailureCause::BadAnswer,
            };
            return failed(cause, format!("the web hook {place} {error}"));
        }
    };
    if answer.status != 200 {
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(MAX_QUOTED).collect();
        return failed(
            FailureCause::Status(answer.status),
            format!("the web hook {place} answered with status {}: {said:?}", answer.status),
        );
    }
    match choice(&answer.body) {
        Ok(choice) => Outcome::Assigned(choice),
        Err(why) => {
            failed(FailureCause::BadAnswer, format!("the web hook {place} answered with what is no answer: {why}"))
        }
    }
}

/// Reads an answer. The names of its members have no case: samples of the cloud service write `iotHubHostname`.
fn choice(body: &[u8]) -> Result<Choice, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let members = answer.as_object().ok_or_else(|| "it is not a JSON object".to_owned())?;
    let member = |wanted: &str| {
        let found = members.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
        found.filter(|value| !value.is_null())
    };
    let hub = match member("iotHubHostName") {
        None => String::new(),
        Some(Value::String(hub)) => hub.clone(),
        Some(_) => return Err("iotHubHostName is not a string".to_owned()),
    };
    Ok(Choice {
        hub,
        device_id: None,
        initial_twin_json: member("initialTwin").map(Value::to_string),
        payload_json: member("payload").map(Value::to_string),
    })
}

fn failed(cause: FailureCause, log: String) -> Outcome {
    Outcome::Failed(AllocationFailure { cause, log })
}

/// The address without its query, which is where its key is.
pub(super) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

fn authority(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl HookClient for Nobody {
        fn post(&self, _: &HookRequest) -> Result<HookAnswer, HookError> {
            Err(HookError::TimedOut)
        }
    }

    #[test]
    fn an_address_is_https_or_the_loopback_device() {
        let hooks = |allow_loopback_http| Hooks {
            client: Arc::new(Nobody),
            pool: Arc::new(Pool::inline()),
            allow_loopback_http,
        };
        let (strict, lenient) = (hooks(false), hooks(true));
        assert!(strict.allows("https://fn.example.net/api/allocate?code=secret").is_ok());
        for local in ["http://localhost:7071/api", "http://127.0.0.1:80/", "http://[::1]:7071/x"] {
            assert!(strict.allows(local).is_err(), "{local}");
            assert!(lenient.allows(local).is_ok(), "{local}");
        }
        for wrong in [
            "",
            "https://",
            "http://fn.example.net/",
            "http://127.0.0.1.example.net/",
            "ftp://localhost/",
            "nonsense",
            "https://user:password@fn.example.net/",
            "https://fn.example.net/\r\nx",
            "http://localhost@evil.example/",
        ] {
            assert!(lenient.allows(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_answer_is_read_in_any_case_and_anything_else_fails() {
        let read = |body: &str| choice(body.as_bytes());
        let full = read(r#"{"iotHubHostname":"h1","initialTwin":{"tags":{"a":1}},"payload":[1],"other":0}"#).unwrap();
        assert_eq!((full.hub.as_str(), full.payload_json.as_deref()), ("h1", Some("[1]")));
        assert_eq!(full.initial_twin_json.as_deref(), Some(r#"{"tags":{"a":1}}"#));
        assert_eq!(read(r#"{"payload":null}"#).unwrap().hub, "");
        for wrong in ["", "[]", "{", r#"{"iotHubHostName":7}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let status = outcome("x", Ok(HookAnswer { status: 400, body: b"No suitable hub".to_vec() }));
        assert!(matches!(status, Outcome::Failed(AllocationFailure { cause: FailureCause::Status(400), .. })));
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(shown("https://fn.example.net/api/x?code=secret#y"), "https://fn.example.net/api/x");
        assert_eq!(authority("https://Fn.example.net:8443/api?code=1"), "fn.example.net:8443");
    }
}
