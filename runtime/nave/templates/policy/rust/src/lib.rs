//! Chooses the hub by a tag of the device's enrollment.
//!
//! The tag `site` (another, if the configuration names one) is looked for among the hubs: their fact `location`, the values
//! of their fact `labels`, and the first part of their name. A device stays where it is while that hub still fits. Without
//! the tag, the built-in policy `hashed` decides.

use std::collections::BTreeMap;

mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "configurable-policy",
        additional_derives: [PartialEq],
    });
}

use bindings::exports::nave::allocation::{configuration, policy};
use policy::{Assignment, Hub, Outcome, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The tag that is read unless the configuration names another.
const DEFAULT_TAG: &str = "site";

/// What an enrollment may configure.
const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": { "tag": { "type": "string", "minLength": 1 } },
  "additionalProperties": false
}"#;

struct Policy;

impl policy::Guest for Policy {
    fn allocate(request: Request) -> Outcome {
        decide(&request)
    }
}

impl configuration::Guest for Policy {
    fn schema() -> String {
        SCHEMA.to_owned()
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Policy with_types_in bindings);

/// What an enrollment may configure: `SCHEMA` says the same.
#[derive(Default, Deserialize)]
struct Config {
    tag: Option<String>,
}

/// The enrollment that let the device in, as far as it matters here. What is not named is skipped, which is fast.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnrollmentDocument {
    individual_enrollment: Option<Enrollment>,
    enrollment_group: Option<Enrollment>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enrollment {
    initial_twin: Option<Twin>,
}

#[derive(Deserialize)]
struct Twin {
    #[serde(default)]
    tags: BTreeMap<String, Value>,
}

/// The decision. It depends on nothing but the request, so it is tested like any other function.
fn decide(request: &Request) -> Outcome {
    let config: Config = parse(request.config_json.as_deref().unwrap_or("{}"));
    let tag = config.tag.as_deref().unwrap_or(DEFAULT_TAG);
    let document: EnrollmentDocument = parse(&request.enrollment_json);
    let twin = document
        .individual_enrollment
        .or(document.enrollment_group)
        .and_then(|it| it.initial_twin);
    let Some(site) = twin
        .as_ref()
        .and_then(|twin| twin.tags.get(tag))
        .and_then(Value::as_str)
    else {
        return Outcome::UsePolicy("hashed".to_owned());
    };
    let fitting: Vec<&Hub> = request
        .hubs
        .iter()
        .filter(|hub| hub.weight > 0 && is_at(hub, site))
        .collect();
    let current = request.current.as_ref();
    let stay = fitting
        .iter()
        .find(|hub| current.is_some_and(|now| now.hub.eq_ignore_ascii_case(&hub.name)));
    match stay.or_else(|| fitting.first()) {
        Some(hub) => Outcome::Assign(Assignment {
            hub: hub.name.clone(),
            device_id: None,
            initial_twin_json: None,
            payload_json: None,
        }),
        None => Outcome::Refuse(format!("no hub is at the site {site:?}")),
    }
}

/// Whether the hub is at this site.
fn is_at(hub: &Hub, site: &str) -> bool {
    let fact = |name: &str| {
        hub.facts
            .iter()
            .find(|fact| fact.name == name)
            .map_or("null", |fact| &fact.json)
    };
    let labels = || parse::<BTreeMap<String, String>>(fact("labels"));
    parse::<String>(fact("location")) == site
        || hub
            .name
            .split('.')
            .next()
            .is_some_and(|first| first.eq_ignore_ascii_case(site))
        || labels().values().any(|label| label == site)
}

/// The host sends valid JSON. Were it otherwise, or null, it would be as if it had sent nothing.
fn parse<T: Default + DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Fact;

    fn hub(name: &str, facts: &[(&str, &str)]) -> Hub {
        let facts = facts.iter().map(|(name, json)| Fact {
            name: (*name).into(),
            json: (*json).into(),
        });
        Hub {
            name: name.into(),
            weight: 1,
            facts: facts.collect(),
        }
    }

    fn request(tags: &str) -> Request {
        Request {
            registration_id: "pump-1".into(),
            policy: "{{name}}".into(),
            enrollment_json: format!(
                r#"{{"enrollmentGroup":{{"initialTwin":{{"tags":{tags}}}}}}}"#
            ),
            payload_json: None,
            config_json: None,
            current: None,
            hubs: vec![
                hub("north.example.org", &[("location", r#""plant-7""#)]),
                hub("south.example.org", &[("labels", r#"{"site":"plant-8"}"#)]),
                hub("south2.example.org", &[("location", r#""plant-8""#)]),
            ],
            unix_nanos: 0,
            seed: 0,
            facts: Vec::new(),
        }
    }

    fn assigned(request: &Request) -> String {
        match decide(request) {
            Outcome::Assign(assignment) => assignment.hub,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tag_names_the_hub() {
        assert_eq!(
            assigned(&request(r#"{"site":"plant-7"}"#)),
            "north.example.org"
        );
        assert_eq!(
            assigned(&request(r#"{"site":"plant-8"}"#)),
            "south.example.org"
        );
        assert_eq!(
            assigned(&request(r#"{"site":"north"}"#)),
            "north.example.org"
        );
    }

    #[test]
    fn a_device_stays_while_its_hub_fits() {
        let mut request = request(r#"{"site":"plant-8"}"#);
        let at = |hub: &str| Assignment {
            hub: hub.into(),
            device_id: Some("pump-1".into()),
            initial_twin_json: None,
            payload_json: None,
        };
        request.current = Some(at("SOUTH2.example.org"));
        assert_eq!(assigned(&request), "south2.example.org");
        request.current = Some(at("north.example.org"));
        assert_eq!(assigned(&request), "south.example.org");
    }

    #[test]
    fn a_hub_that_is_being_emptied_takes_nothing() {
        let mut request = request(r#"{"site":"plant-8"}"#);
        request.hubs[1].weight = 0;
        assert_eq!(assigned(&request), "south2.example.org");
    }

    #[test]
    fn the_configuration_names_another_tag() {
        let mut request = request(r#"{"site":"plant-7","line":"plant-8"}"#);
        request.config_json = Some(r#"{"tag":"line"}"#.into());
        assert_eq!(assigned(&request), "south.example.org");
    }

    #[test]
    fn without_the_tag_a_built_in_policy_decides_and_an_unknown_site_is_refused() {
        assert_eq!(decide(&request("{}")), Outcome::UsePolicy("hashed".into()));
        assert_eq!(
            decide(&request(r#"{"site":"moon"}"#)),
            Outcome::Refuse(r#"no hub is at the site "moon""#.into())
        );
    }

    #[test]
    fn the_schema_is_json() {
        assert_eq!(parse::<Value>(SCHEMA)["type"], "object");
    }
}
