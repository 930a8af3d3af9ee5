//! Registration of devices over HTTPS.

use nave_auth::{SharedKey, derive_device_key};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::world::{DPS, HUB, ID_SCOPE, World};

fn group_key(world: &World, group: &str) -> SharedKey {
    let body = json!({ "enrollmentGroupId": group, "attestation": { "type": "symmetricKey" }, "iotHubs": [HUB] });
    world.dps_request("PUT", &format!("/enrollmentGroups/{group}")).json(&body).send().json();
    let secrets = world.dps_request("POST", &format!("/enrollmentGroups/{group}/attestationmechanism")).send().json();
    SharedKey::from_base64(secrets["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap()
}

#[test]
fn a_device_registers_and_polls() {
    let world = World::new();
    let key = derive_device_key(&group_key(&world, "group"), "dev-1");
    let token = world.registration_token("dev-1", &key);
    let register = world.device_request("PUT", "dev-1/register").header("Authorization", &token);
    let accepted = register.json(&json!({ "registrationId": "dev-1" })).send();
    assert_eq!((accepted.status, accepted.header("retry-after")), (202, Some("3")));
    let operation = accepted.json();
    let id = operation["operationId"].as_str().unwrap();
    assert_eq!(
        operation,
        json!({ "operationId": id, "status": "assigning",
            "registrationState": { "registrationId": "dev-1", "status": "assigning" } })
    );
    let path = format!("/{ID_SCOPE}/registrations/dev-1/operations/{id}");
    assert_eq!(accepted.header("location"), Some(format!("https://{DPS}{path}?api-version=2019-03-31").as_str()));
    // The Node SDK sends a body with its GET.
    let poll = world.device_request("GET", &format!("dev-1/operations/{id}")).header("Authorization", &token);
    let done = poll.untouchable().send();
    assert_eq!((done.status, done.header("retry-after")), (200, None));
    let state = &done.json()["registrationState"];
    assert_eq!((&state["assignedHub"], &state["deviceId"]), (&json!(HUB), &json!("dev-1")));
    assert_eq!((&state["status"], &state["substatus"]), (&json!("assigned"), &json!("initialAssignment")));
    assert_eq!(state["symmetricKey"], json!({ "enrollmentGroupId": "group" }));
    let look_up = world.device_request("POST", "dev-1").header("Authorization", &token);
    assert_eq!(look_up.json(&json!({ "registrationId": "DEV-1" })).send().json(), *state);
    let device = world.hub_request("GET", "/devices/dev-1").send().json();
    assert_eq!(device["authentication"]["symmetricKey"]["primaryKey"], key.expose_base64());
    let unknown = world.device_request("GET", "dev-1/operations/5.0.x").header("Authorization", &token).send();
    unknown.dps_error(404_203, "AsyncOperationNotFound");
}

#[test]
fn who_may_not_register_is_told_so() {
    let world = World::new();
    let key = derive_device_key(&group_key(&world, "group"), "dev-1");
    let ask = |path: &str| world.device_request("PUT", path).text("{}");
    ask("dev-1/register").send().dps_error(401_002, "IotHubUnauthorizedAccess");
    let wrong = world.registration_token("dev-2", &key);
    ask("dev-2/register").header("Authorization", &wrong).send().dps_error(401_002, "IotHubUnauthorizedAccess");
    let token = world.registration_token("dev-1", &key);
    let other_scope = "/0ne000000ff/registrations/dev-1/register?api-version=2019-03-31";
    let answer = world.request(DPS, "PUT", other_scope).header("Authorization", &token).untouchable().send();
    answer.dps_error(401_002, "IotHubUnauthorizedAccess");
    let mismatch = ask("dev-1/register").header("Authorization", &token).text(r#"{"registrationId":"dev-2"}"#).send();
    mismatch.dps_error(400_004, "ArgumentInvalid");
    let large = ask("dev-1/register").header("Authorization", &token).text(&" ".repeat(100_000)).send();
    large.dps_error(413_001, "MessageTooLarge");
    ask("dev-1/register").header("Authorization", &token).text("{").send().dps_error(400_006, "IotHubFormatError");
    let poll = world.device_request("GET", "dev-1/operations/x").send();
    poll.dps_error(401_002, "IotHubUnauthorizedAccess");
}

/// A TPM's first request has no token; refused means 401 without `authenticationKey`.
#[test]
fn a_tpm_is_refused() {
    let world = World::new();
    let tpm = json!({ "registrationId": "t", "tpm": { "endorsementKey": "AA==", "storageRootKey": "AA==" } });
    let answer = world.device_request("PUT", "t/register").json(&tpm).send();
    assert!(answer.dps_error(401_002, "IotHubUnauthorizedAccess").contains("TPM"));
    assert_eq!(answer.document().get("authenticationKey"), None);
    let key = derive_device_key(&group_key(&world, "group"), "t");
    let token = world.registration_token("t", &key);
    let second = world.device_request("PUT", "t/register").header("Authorization", &token).json(&tpm).send();
    assert!(second.dps_error(400_004, "ArgumentInvalid").contains("TPM"));
}

#[test]
fn a_disabled_enrollment_ends_in_its_state() {
    let world = World::new();
    let body =
        json!({ "registrationId": "d", "attestation": { "type": "symmetricKey" }, "provisioningStatus": "disabled" });
    world.dps_request("PUT", "/enrollments/d").json(&body).send().json();
    let secrets = world.dps_request("POST", "/enrollments/d/attestationmechanism").send().json();
    let key = SharedKey::from_base64(secrets["symmetricKey"]["secondaryKey"].as_str().unwrap()).unwrap();
    let token = world.registration_token("d", &key);
    let accepted = world.device_request("PUT", "d/register").header("Authorization", &token).send().json();
    let path = format!("d/operations/{}", accepted["operationId"].as_str().unwrap());
    let done = world.device_request("GET", &path).header("Authorization", &token).send();
    assert_eq!((done.status, &done.json()["status"]), (200, &json!("disabled")));
}

#[test]
fn a_certificate_is_enough() {
    let world = World::new();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "Test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let body = json!({
        "enrollmentGroupId": "x509",
        "attestation": { "type": "x509", "x509": { "signingCertificates": { "primary": { "certificate": ca.pem() } } } },
    });
    world.dps_request("PUT", "/enrollmentGroups/x509").json(&body).send().json();
    let leaf = |name: &str| {
        let mut leaf = CertificateParams::new(Vec::<String>::new()).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap().der().to_vec()
    };
    let register = world.device_request("PUT", "dev-x/register").certificates(vec![leaf("dev-x")]);
    let accepted: Value = register.json(&json!({ "registrationId": "dev-x", "payload": null })).send().json();
    // A poll may come with a renewed certificate.
    let path = format!("dev-x/operations/{}", accepted["operationId"].as_str().unwrap());
    let done = world.device_request("GET", &path).certificates(vec![leaf("dev-x")]).send().json();
    let state = &done["registrationState"];
    assert_eq!((&state["status"], &state["x509"]["enrollmentGroupId"]), (&json!("assigned"), &json!("x509")));
    let other = world.device_request("PUT", "dev-y/register").certificates(vec![leaf("dev-x")]).text("{}").send();
    other.dps_error(401_002, "IotHubUnauthorizedAccess");
}
