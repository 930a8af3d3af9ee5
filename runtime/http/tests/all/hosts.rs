//! Which API answers, and who is let in.

use nave_auth::{SasToken, SharedKey};
use nave_model::Timestamp;

use crate::world::{DPS, HUB, ID_SCOPE, OTHER_HUB, World};

#[test]
fn the_host_chooses_the_api() {
    let world = World::new();
    world.create_device("d1");
    assert_eq!(world.hub_request("GET", "/devices/d1").send().status, 200);
    assert_eq!(world.hub_request("GET", "/devices/d1").header("Host", "LOCALHOST:8443").send().status, 200);
    let other = world.hub_request("GET", "/devices/d1").header("Host", OTHER_HUB).send();
    other.hub_error(401, "IotHubUnauthorized");
    let unknown = world.hub_request("GET", "/devices/d1").header("Host", "hub3.nave.test").send();
    unknown.hub_error(401, "IotHubNotFound");
    world.hub_request("GET", "/devices/d1").without("Host").send().hub_error(401, "IotHubNotFound");
}

#[test]
fn localhost_is_both_and_the_path_decides() {
    let world = World::new();
    let local = |method: &str, path: &str| world.dps_request(method, path).header("Host", "localhost").send();
    assert_eq!(local("POST", "/enrollments/query").json(), serde_json::json!([]));
    assert_eq!(local("POST", "/enrollmentGroups/query").json(), serde_json::json!([]));
    local("GET", "/registrations/r").dps_error(404_202, "DeviceRegistrationNotFound");
    let device = world.device_request("PUT", "r/register").header("Host", "localhost").send();
    device.dps_error(401_002, "IotHubUnauthorizedAccess");
    // On its own host name a hub has no such paths.
    world.hub_request("POST", "/enrollments/query").send().hub_error(404, "GenericNotFound");
    world.dps_request("GET", "/devices/d1").send().dps_error(404_000, "GenericNotFound");
}

#[test]
fn paths_have_no_case_and_may_end_with_a_slash() {
    let world = World::new();
    world.create_device("D1");
    assert_eq!(world.hub_request("GET", "/Devices/D1/").send().status, 200);
    assert_eq!(world.hub_request("GET", "/devices/?top=5").send().json().as_array().unwrap().len(), 1);
    assert_eq!(world.dps_request("POST", "/enrollmentgroups/query/").send().status, 200);
    world.hub_request("GET", "/devices/d1").send().hub_error(404, "DeviceNotFound");
}

#[test]
fn a_version_is_asked_for() {
    let world = World::new();
    let ask =
        |uri: &str| world.request(HUB, "GET", uri).header("Authorization", &world.hub_token("iothubowner")).send();
    ask("/devices/d1").hub_error(400, "InvalidProtocolVersion");
    ask("/devices/d1?api-version=banana").hub_error(400, "InvalidProtocolVersion");
    for version in ["2018-06-30", "2019-10-01", "2020-05-31-preview", "2021-04-12", "2024-03-31"] {
        ask(&format!("/devices/d1?api-version={version}")).hub_error(404, "DeviceNotFound");
    }
    world.request(DPS, "GET", "/enrollments/e").send().dps_error(400_001, "InvalidProtocolVersion");
}

#[test]
fn every_answer_has_a_request_id_of_its_own() {
    let world = World::new();
    let id = || world.hub_request("GET", "/devices/d1").send().header("x-ms-request-id").unwrap().to_owned();
    let (one, two) = (id(), id());
    assert_ne!(one, two);
    assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
}

/// The table of protocol notes, authorization §2, for the paths that exist.
#[test]
fn each_right_opens_its_endpoints() {
    let world = World::new();
    world.create_device("d1");
    let (read, write, service) = (
        ["iothubowner", "registryRead", "registryReadWrite"].as_slice(),
        ["iothubowner", "registryReadWrite"].as_slice(),
        ["iothubowner", "service"].as_slice(),
    );
    let table = [
        ("GET", "/devices", read),
        ("GET", "/devices/d1", read),
        ("PUT", "/devices/d1", write),
        ("DELETE", "/devices/d1", write),
        ("POST", "/devices", write),
        ("POST", "/devices/query", service),
        ("POST", "/devices/keys/regenerate", write),
        ("GET", "/devices/d1/modules", read),
        ("PUT", "/devices/d1/modules/m", write),
        ("DELETE", "/devices/d1/commands", service),
        ("GET", "/statistics/devices", read),
        ("GET", "/statistics/service", service),
        ("GET", "/twins/d1", service),
        ("PATCH", "/twins/d1", service),
        ("PUT", "/twins/d1", service),
        ("POST", "/twins/d1/methods", service),
        ("GET", "/events?maxWait=1&partition=0", service),
        ("GET", "/digitaltwins/d1", service),
        ("GET", "/jobs/v2/j", service),
    ];
    for (method, path, allowed) in table {
        for policy in ["iothubowner", "service", "device", "registryRead", "registryReadWrite"] {
            // A tag that nothing has keeps the table from changing what it asks about.
            let ask = world.hub_request(method, path).header("If-Match", "none-has-it").text("[]");
            let answer = ask.header("Authorization", &world.hub_token(policy)).send();
            let refused = answer.status == 401;
            assert_eq!(!refused, allowed.contains(&policy), "{method} {path} as {policy}: {answer:?}");
            if refused {
                assert_eq!(answer.header("iothub-errorcode"), Some("IotHubUnauthorizedAccess"));
            }
        }
    }
}

#[test]
fn who_is_not_known_is_refused_before_the_body_is_read() {
    let world = World::new();
    let service = world.hub().policy("service").unwrap();
    let wrong_key = SharedKey::from_bytes(&[1; 32]).unwrap();
    let later = world.in_an_hour();
    let tokens = [
        SasToken::create(HUB, &wrong_key, later, Some("service")),
        SasToken::create(HUB, &service.keys.primary, Timestamp::from_unix_seconds(1_789_000_000), Some("service")),
        SasToken::create(HUB, &service.keys.primary, later, Some("nobody")),
        SasToken::create(OTHER_HUB, &service.keys.primary, later, Some("service")),
        SasToken::create(&format!("{HUB}/twins/d2"), &service.keys.primary, later, Some("service")),
        "SharedAccessSignature rubbish".to_owned(),
        "Bearer eyJ0eXAi".to_owned(),
    ];
    for token in tokens {
        for (method, path) in [("PUT", "/twins/d1"), ("PUT", "/devices/d1"), ("POST", "/twins/d1/methods")] {
            let answer = world.hub_request(method, path).header("Authorization", &token).untouchable().send();
            assert_eq!(
                (answer.status, answer.header("iothub-errorcode")),
                (401, Some("IotHubUnauthorized")),
                "{token}"
            );
        }
    }
    let nothing = world.hub_request("PUT", "/devices/d1").without("Authorization").untouchable().send();
    assert_eq!(nothing.hub_error(401, "IotHubUnauthorized"), "Authorization header missing");
    for (method, path) in [("PUT", "/enrollments/e"), ("POST", "/enrollments"), ("POST", "/enrollmentGroups/query")] {
        let answer = world.dps_request(method, path).without("Authorization").untouchable().send();
        answer.dps_error(401_002, "IotHubUnauthorizedAccess");
        let answer = world.dps_request(method, path).header("Authorization", "x").untouchable().send();
        answer.dps_error(401_002, "IotHubUnauthorizedAccess");
    }
    let device = world.request(DPS, "PUT", &format!("/{ID_SCOPE}/registrations/r/register?api-version=2019-03-31"));
    device.untouchable().send().dps_error(401_002, "IotHubUnauthorizedAccess");
    // A narrower token is good for what it names.
    let narrow = SasToken::create(&format!("{HUB}/twins/d2"), &service.keys.secondary, later, Some("service"));
    world.hub_request("GET", "/twins/d2").header("Authorization", &narrow).send().hub_error(404, "DeviceNotFound");
}

#[test]
fn what_is_not_there_is_said() {
    let world = World::new();
    world.hub_request("GET", "/nothing").send().hub_error(404, "GenericNotFound");
    world.hub_request("GET", "/devices/d1/nothing").send().hub_error(404, "GenericNotFound");
    world.hub_request("PATCH", "/devices/d1").send().hub_error(405, "GenericMethodNotAllowed");
    world.hub_request("GET", "/twins/d1/methods").send();
    world.dps_request("PATCH", "/enrollments/e").send().dps_error(405_000, "GenericMethodNotAllowed");
    world.device_request("POST", "r/register").send().dps_error(405_000, "GenericMethodNotAllowed");
    let missing = world.hub_request("POST", "/devices/query").text("{}").send().hub_error(404, "FeatureNotSupported");
    assert_eq!(missing, "Queries: not available in this release of the hub.");
    let upload = world.hub_request("POST", "/devices/d1/files").without("Authorization").send();
    upload.hub_error(404, "FeatureNotSupported");
}

#[test]
fn a_path_that_is_not_text_is_refused() {
    let world = World::new();
    world.hub_request("GET", "/devices/%FF").send().hub_error(400, "IotHubFormatError");
    world.hub_request("GET", "/devices/a%2Fb").send().hub_error(400, "ArgumentInvalid");
}
