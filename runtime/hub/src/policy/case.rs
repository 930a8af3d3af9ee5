//! Requests and outcomes of policies as JSON that people write and read: the cases of `nave policy test`.
//!
//! The same as in `wit/allocation`, with camelCase names, with documents as JSON instead of text that holds JSON, and with
//! facts as one object.

use nave_engine::allocation::{Assignment, Fact, Outcome, Request};
use nave_model::Timestamp;
use serde_json::{Map, Value, json};

/// What stands in a case where a secret stood.
const MASK: &str = "***";

/// Parts of the names of members whose text is taken for a secret. Too many rather than too few: a case that lost something
/// is seen when it is run.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "connectionstring",
    "privatekey",
    "primarykey",
    "secondarykey",
    "accesskey",
    "apikey",
];

/// Parts of text that is taken for a secret wherever it stands.
const SECRET_TEXTS: [&str; 3] = ["SharedAccessSignature ", "SharedAccessKey=", "PRIVATE KEY-----"];

/// Facts that a case has unless it says that they are null.
const USUAL_FACTS: [&str; 3] = ["linked-hubs", "force", "api-version"];

/// A request as JSON.
pub fn request_json(request: &Request) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Option<Value>| members.extend(value.map(|value| (name.to_owned(), value)));
    put("registrationId", Some(json!(request.registration_id)));
    put("policy", Some(json!(request.policy)));
    put("enrollment", Some(parsed(&request.enrollment_json)));
    put("payload", request.payload_json.as_deref().map(parsed));
    put("config", request.config_json.as_deref().map(parsed));
    put("current", request.current.as_ref().map(current_json));
    let hubs = request.hubs.iter();
    let hubs: Vec<_> =
        hubs.map(|hub| json!({ "name": hub.name, "weight": hub.weight, "facts": facts_json(&hub.facts) })).collect();
    put("hubs", Some(json!(hubs)));
    put("time", Some(json!(time(request.unix_nanos))));
    put("seed", Some(json!(request.seed)));
    put("facts", Some(facts_json(&request.facts)));
    if let Some(facts) = members.get_mut("facts").and_then(Value::as_object_mut) {
        // What a case does not name has a usual value when it is read.
        for name in USUAL_FACTS {
            facts.entry(name).or_insert(Value::Null);
        }
    }
    Value::Object(members)
}

/// An outcome as JSON: an object with one member, named by the case.
pub fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Assign(assignment) => {
            let mut members = Map::from_iter([("hub".to_owned(), json!(assignment.hub))]);
            let mut put = |name: &str, value: Option<Value>| {
                members.extend(value.map(|value| (name.to_owned(), value)));
            };
            put("deviceId", assignment.device_id.as_deref().map(|id| json!(id)));
            put("initialTwin", assignment.initial_twin_json.as_deref().map(parsed));
            put("payload", assignment.payload_json.as_deref().map(parsed));
            json!({ "assign": members })
        }
        Outcome::UsePolicy(name) => json!({ "usePolicy": name }),
        Outcome::Refuse(reason) => json!({ "refuse": reason }),
        Outcome::RetryAfter(seconds) => json!({ "retryAfter": seconds }),
        Outcome::Other(fact) => json!({ "other": { "name": fact.name, "value": parsed(&fact.json) } }),
    }
}

/// Puts a mask in the place of everything that looks like a secret: hosts put none into a request, but devices and operators
/// may put some into payloads, twins and configurations.
pub(super) fn mask_secrets(value: &mut Value) {
    match value {
        Value::String(text) if SECRET_TEXTS.iter().any(|part| text.contains(part)) => *value = json!(MASK),
        Value::Array(elements) => elements.iter_mut().for_each(mask_secrets),
        Value::Object(members) => {
            for (name, member) in members {
                let name: String = name.chars().filter(|letter| letter.is_alphanumeric()).collect();
                let name = name.to_ascii_lowercase();
                let is_secret = SECRET_NAMES.iter().any(|part| name.contains(part));
                match member {
                    Value::String(_) | Value::Number(_) if is_secret => *member = json!(MASK),
                    Value::Array(elements) if is_secret => *elements = vec![json!(MASK)],
                    member => mask_secrets(member),
                }
            }
        }
        _ => {}
    }
}

fn current_json(current: &Assignment) -> Value {
    let mut members = Map::from_iter([("hub".to_owned(), json!(current.hub))]);
    members.extend(current.device_id.as_ref().map(|id| ("deviceId".to_owned(), json!(id))));
    members.extend(current.payload_json.as_deref().map(|payload| ("payload".to_owned(), parsed(payload))));
    Value::Object(members)
}

fn facts_json(facts: &[Fact]) -> Value {
    Value::Object(facts.iter().map(|fact| (fact.name.clone(), parsed(&fact.json))).collect())
}

/// To the nanosecond: a policy sees it, so a repetition must.
fn time(unix_nanos: u64) -> String {
    let ticks = Timestamp::from_unix_nanos(unix_nanos).iso();
    format!("{}{:02}Z", ticks.trim_end_matches('Z'), unix_nanos % 100)
}

/// Text that should be JSON; if it is not, the text itself.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

#[cfg(test)]
mod tests {
    use nave_engine::allocation::Hub;

    use super::*;

    #[test]
    fn outcomes_are_objects_with_one_member() {
        let assign = Outcome::Assign(Assignment {
            hub: "h".into(),
            device_id: None,
            initial_twin_json: Some("{\"tags\":{}}".into()),
            payload_json: Some("not JSON".into()),
        });
        assert_eq!(
            outcome_json(&assign),
            json!({ "assign": { "hub": "h", "initialTwin": { "tags": {} }, "payload": "not JSON" } })
        );
        assert_eq!(outcome_json(&Outcome::UsePolicy("hashed".into())), json!({ "usePolicy": "hashed" }));
        assert_eq!(outcome_json(&Outcome::Refuse("no".into())), json!({ "refuse": "no" }));
        assert_eq!(outcome_json(&Outcome::RetryAfter(5)), json!({ "retryAfter": 5 }));
        let other = Outcome::Other(Fact { name: "n".into(), json: "1".into() });
        assert_eq!(outcome_json(&other), json!({ "other": { "name": "n", "value": 1 } }));
    }

    #[test]
    fn a_request_is_written_with_everything_that_a_policy_sees() {
        let fact = |name: &str, json: &str| Fact { name: name.to_owned(), json: json.to_owned() };
        let request = Request {
            registration_id: "d".into(),
            policy: "custom".into(),
            enrollment_json: "{\"enrollmentGroup\":{}}".into(),
            payload_json: None,
            config_json: Some("[1]".into()),
            current: Some(Assignment {
                hub: "h".into(),
                device_id: Some("d".into()),
                initial_twin_json: None,
                payload_json: Some("2".into()),
            }),
            hubs: vec![Hub { name: "h".into(), weight: 3, facts: vec![fact("location", "\"here\"")] }],
            unix_nanos: 1_790_000_000_123_456_789,
            seed: u64::MAX,
            facts: vec![fact("force", "false")],
        };
        assert_eq!(
            request_json(&request),
            json!({
                "registrationId": "d",
                "policy": "custom",
                "enrollment": { "enrollmentGroup": {} },
                "config": [1],
                "current": { "hub": "h", "deviceId": "d", "payload": 2 },
                "hubs": [{ "name": "h", "weight": 3, "facts": { "location": "here" } }],
                "time": "2026-09-21T14:13:20.123456789Z",
                "seed": u64::MAX,
                "facts": { "force": false, "linked-hubs": null, "api-version": null },
            })
        );
    }

    #[test]
    fn what_looks_like_a_secret_is_masked_at_any_depth() {
        let mut value = json!({
            "payload": { "wifi": [{ "ssid": "home", "pass-word": "x" }], "Api_Key": 7, "tokens": { "a": "b", "apiKeys": ["c"] } },
            "text": "HostName=h;SharedAccessKey=abc", "symmetric-key": { "kind": "group" }, "primaryThumbprint": "AB",
        });
        mask_secrets(&mut value);
        assert_eq!(
            value,
            json!({
                "payload": { "wifi": [{ "ssid": "home", "pass-word": "***" }], "Api_Key": "***", "tokens": { "a": "b", "apiKeys": ["***"] } },
                "text": "***", "symmetric-key": { "kind": "group" }, "primaryThumbprint": "AB",
            })
        );
    }
}
