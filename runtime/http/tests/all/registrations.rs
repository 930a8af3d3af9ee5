//! `/registrations` of the service API.

use nave_auth::{SharedKey, derive_device_key};
use serde_json::{Value, json};

use crate::world::World;

fn registered() -> World {
    let world = World::new();
    let body = json!({ "enrollmentGroupId": "g", "attestation": { "type": "symmetricKey" } });
    world.dps_request("PUT", "/enrollmentGroups/g").json(&body).send().json();
    let secrets = world.dps_request("POST", "/enrollmentGroups/g/attestationmechanism").send().json();
    let group = SharedKey::from_base64(secrets["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap();
    for id in ["a", "b", "c"] {
        let token = world.registration_token(id, &derive_device_key(&group, id));
        let answer = world.device_request("PUT", &format!("{id}/register")).header("Authorization", &token).send();
        assert_eq!(answer.status, 202);
    }
    world
}

#[test]
fn a_state_is_read_and_deleted() {
    let world = registered();
    let answer = world.dps_request("GET", "/registrations/A").send();
    let state = answer.json();
    let names: Vec<&str> = state.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "registrationId",
            "createdDateTimeUtc",
            "assignedHub",
            "deviceId",
            "status",
            "substatus",
            "lastUpdatedDateTimeUtc",
            "etag",
        ]
    );
    let delete = |id: &str, tag: &str| {
        world.dps_request("DELETE", &format!("/registrations/{id}")).header("If-Match", tag).send()
    };
    delete("a", "\"61008d46-0000-0100-0000-5e8fe3d10000\"").dps_error(412_001, "PreconditionFailed");
    assert_eq!(delete("a", state["etag"].as_str().unwrap()).status, 204, "as the state shows it");
    let header = world.dps_request("GET", "/registrations/b").send().header("etag").unwrap().to_owned();
    assert_eq!(delete("b", &header).status, 204, "as the header shows it");
    assert_eq!(delete("c", "*").status, 204);
    world.dps_request("GET", "/registrations/a").send().dps_error(404_202, "DeviceRegistrationNotFound");
    // The device in the hub stays.
    let hub = state["assignedHub"].as_str().unwrap();
    assert!(["hub1.nave.test", "hub2.nave.test"].contains(&hub));
}

#[test]
fn a_groups_states_come_in_pages() {
    let world = registered();
    let page = |continuation: Option<&str>| {
        let ask = world.dps_request("POST", "/registrations/g/query").header("x-ms-max-item-count", "2");
        match continuation {
            Some(token) => ask.header("x-ms-continuation", token).send(),
            None => ask.text("{}").send(),
        }
    };
    let ids = |items: &Value| -> Vec<String> {
        items.as_array().unwrap().iter().map(|item| item["registrationId"].as_str().unwrap().to_owned()).collect()
    };
    let first = page(None);
    assert_eq!(
        (ids(&first.json()), first.header("x-ms-item-type")),
        (vec!["a".into(), "b".into()], Some("DeviceRegistration"))
    );
    let last = page(first.header("x-ms-continuation"));
    assert_eq!((ids(&last.json()), last.header("x-ms-continuation")), (vec!["c".to_owned()], None));
}

#[test]
fn an_individual_enrollment_shows_its_registration() {
    let world = World::new();
    let body = json!({ "registrationId": "i", "attestation": { "type": "symmetricKey" } });
    let before = world.dps_request("PUT", "/enrollments/i").json(&body).send().json();
    assert_eq!(before.get("registrationState"), None);
    let secrets = world.dps_request("POST", "/enrollments/i/attestationmechanism").send().json();
    let key = SharedKey::from_base64(secrets["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap();
    let token = world.registration_token("i", &key);
    assert_eq!(world.device_request("PUT", "i/register").header("Authorization", &token).send().status, 202);
    let after = world.dps_request("GET", "/enrollments/i").send().json();
    assert_eq!(after["registrationState"], world.dps_request("GET", "/registrations/i").send().json());
    assert_eq!(after["registrationState"]["status"], "assigned");
}
