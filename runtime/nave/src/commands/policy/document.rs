//! Requests of policies as JSON that people write: [`nave_hub::policy::request_json`] writes the same.

use nave_engine::allocation::{Assignment, Fact, Hub, Request};
use nave_model::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The time of a request that states none: a policy that works with it is tested with the same one every day.
const DEFAULT_TIME: &str = "2026-01-01T00:00:00Z";

/// The id of a device in a request that states none.
const DEFAULT_DEVICE: &str = "device-1";

/// The hubs of a request that states none.
const DEFAULT_HUBS: [&str; 2] = ["hub1.example.org", "hub2.example.org"];

/// A request; everything may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RequestDocument {
    registration_id: Option<String>,
    policy: Option<String>,
    enrollment: Option<Value>,
    payload: Option<Value>,
    config: Option<Value>,
    current: Option<CurrentDocument>,
    hubs: Option<Vec<HubDocument>>,
    time: Option<String>,
    seed: u64,
    facts: Option<Map<String, Value>>,
}

/// Where a device is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CurrentDocument {
    hub: String,
    device_id: Option<String>,
    payload: Option<Value>,
}

/// A hub.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HubDocument {
    pub(super) name: String,
    #[serde(default = "one")]
    pub(super) weight: u32,
    #[serde(default)]
    pub(super) facts: Map<String, Value>,
}

const fn one() -> u32 {
    1
}

impl RequestDocument {
    /// What a policy gets. What is left out is as it would be for a device that registers for the first time with a key of
    /// its own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn request(self) -> Result<Request, String> {
        let registration_id = self.registration_id.unwrap_or_else(|| DEFAULT_DEVICE.to_owned());
        let policy = self.policy.unwrap_or_else(|| "custom".to_owned());
        let time = self.time.as_deref().unwrap_or(DEFAULT_TIME);
        let time =
            Timestamp::parse_iso(time).ok_or_else(|| format!("`time` is no date like {DEFAULT_TIME}: {time:?}"))?;
        let hubs: Vec<Hub> = match self.hubs {
            Some(hubs) if hubs.is_empty() => return Err("`hubs` is empty: a host never asks without a hub".to_owned()),
            Some(hubs) => hubs.into_iter().map(HubDocument::hub).collect(),
            None => {
                DEFAULT_HUBS.iter().map(|&name| Hub { name: name.to_owned(), weight: 1, facts: Vec::new() }).collect()
            }
        };
        let enrollment = self.enrollment.unwrap_or_else(|| {
            json!({ "individualEnrollment": {
                "registrationId": registration_id,
                "attestation": { "type": "symmetricKey" },
                "provisioningStatus": "enabled",
                "allocationPolicy": "custom",
                "customAllocationDefinition": { "webhookUrl": format!("nave:policy/{policy}"), "apiVersion": "2021-10-01" },
            }})
        });
        let known: Vec<&str> = hubs.iter().map(|hub| hub.name.as_str()).collect();
        let proof = || Map::from_iter([("symmetric-key".to_owned(), json!({ "kind": "individual" }))]);
        let mut told = self.facts.unwrap_or_else(proof);
        let usual = [("linked-hubs", json!(known)), ("force", json!(false)), ("api-version", json!("2021-06-01"))];
        for (name, value) in usual {
            told.entry(name).or_insert(value);
        }
        // Said to be absent.
        told.retain(|_, value| !value.is_null());
        Ok(Request {
            current: self.current.map(|current| Assignment {
                hub: current.hub,
                device_id: Some(current.device_id.unwrap_or_else(|| registration_id.clone())),
                initial_twin_json: None,
                payload_json: current.payload.map(|payload| payload.to_string()),
            }),
            registration_id,
            policy,
            enrollment_json: enrollment.to_string(),
            payload_json: self.payload.filter(|payload| !payload.is_null()).map(|payload| payload.to_string()),
            config_json: self.config.map(|config| config.to_string()),
            hubs,
            unix_nanos: time.unix_nanos(),
            seed: self.seed,
            facts: facts(told),
        })
    }
}

impl HubDocument {
    pub(super) fn hub(self) -> Hub {
        Hub { name: self.name, weight: self.weight, facts: facts(self.facts) }
    }
}

fn facts(facts: Map<String, Value>) -> Vec<Fact> {
    facts.into_iter().map(|(name, value)| Fact { name, json: value.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(document: Value) -> Result<Request, String> {
        serde_json::from_value::<RequestDocument>(document).map_err(|error| error.to_string())?.request()
    }

    fn fact<'a>(facts: &'a [Fact], name: &str) -> &'a str {
        &facts.iter().find(|fact| fact.name == name).unwrap().json
    }

    #[test]
    fn what_is_left_out_is_a_first_registration_with_a_key() {
        let request = request(json!({})).unwrap();
        assert_eq!(request.registration_id, DEFAULT_DEVICE);
        assert_eq!(request.hubs.len(), 2);
        assert!(request.current.is_none() && request.payload_json.is_none() && request.config_json.is_none());
        assert_eq!(fact(&request.facts, "symmetric-key"), r#"{"kind":"individual"}"#);
        assert_eq!(fact(&request.facts, "linked-hubs"), r#"["hub1.example.org","hub2.example.org"]"#);
        let enrollment: Value = serde_json::from_str(&request.enrollment_json).unwrap();
        assert_eq!(enrollment["individualEnrollment"]["registrationId"], DEFAULT_DEVICE);
    }

    #[test]
    fn documents_become_text_and_facts_replace_the_proof() {
        let request = request(json!({
            "registrationId": "a", "payload": {"x": [1]}, "config": {"tag": "t"}, "seed": 7, "time": "1970-01-01T00:00:01Z",
            "current": {"hub": "h"}, "hubs": [{"name": "h", "facts": {"location": "here"}}, {"name": "i", "weight": 0}],
            "facts": {"x509": {"subjectName": "CN=a"}},
        }))
        .unwrap();
        assert_eq!(request.payload_json.as_deref(), Some(r#"{"x":[1]}"#));
        assert_eq!(request.config_json.as_deref(), Some(r#"{"tag":"t"}"#));
        assert_eq!((request.seed, request.unix_nanos), (7, 1_000_000_000));
        assert_eq!(request.current.unwrap().device_id.as_deref(), Some("a"));
        assert_eq!(request.hubs.iter().map(|hub| hub.weight).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(fact(&request.hubs[0].facts, "location"), r#""here""#);
        assert_eq!(fact(&request.facts, "x509"), r#"{"subjectName":"CN=a"}"#);
        assert!(request.facts.iter().all(|fact| fact.name != "symmetric-key"));
    }

    #[test]
    fn a_null_payload_is_none_as_on_the_wire() {
        assert_eq!(request(json!({ "payload": null })).unwrap().payload_json, None);
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        for (document, expected) in [
            (json!({ "registrationID": "a" }), "registrationID"),
            (json!({ "hubs": [] }), "hubs"),
            (json!({ "hubs": [{ "weight": 1 }] }), "name"),
            (json!({ "time": "yesterday" }), "time"),
            (json!({ "seed": -1 }), "-1"),
        ] {
            let error = request(document).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_recorded_request_is_read_as_it_was() {
        let document = json!({
            "registrationId": "d", "policy": "custom", "enrollment": {"enrollmentGroup": {}}, "payload": [1], "config": {"a": 1},
            "current": {"hub": "h", "deviceId": "d", "payload": 2}, "hubs": [{"name": "h", "weight": 3, "facts": {"location": "x"}}],
            "time": "2026-09-21T14:13:20.123456789Z", "seed": u64::MAX,
            "facts": {"symmetric-key": {"kind": "group"}, "linked-hubs": ["h"], "force": true, "api-version": "2019-03-31"},
        });
        let request = request(document.clone()).unwrap();
        assert_eq!(nave_hub::policy::request_json(&request), document);
    }

    #[test]
    fn a_fact_that_is_null_is_left_out() {
        let request = request(json!({ "facts": { "api-version": null } })).unwrap();
        assert!(request.facts.iter().all(|fact| fact.name != "api-version"), "{:?}", request.facts);
    }
}
