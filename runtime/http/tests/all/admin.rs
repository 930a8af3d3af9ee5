//! The administration surface.

use nave_hub::Subscriptions;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

use crate::world::{DPS, HUB, ID_SCOPE, World};

#[test]
fn nothing_is_shown_without_the_token() {
    let world = World::new();
    for wrong in ["", "Bearer ", "Bearer wrong", "open-sesame", "Basic open-sesame", "Bearer open-sesame2"] {
        let answer = world.admin_request("GET", "/admin/status").header("Authorization", wrong).untouchable().send();
        answer.dps_error(401_002, "IotHubUnauthorizedAccess");
    }
    let nothing = world.admin_request("GET", "/admin/status").without("Authorization").send();
    nothing.dps_error(401_002, "IotHubUnauthorizedAccess");
    assert_eq!(
        world.admin_request("GET", "/admin/status").header("Authorization", "bearer open-sesame").send().status,
        200
    );
}

#[test]
fn probes_tell_why_the_process_is_not_ready() {
    let world = World::new();
    let probe = |path: &str| world.admin_request("GET", path).without("Authorization").send();
    assert_eq!(probe("/readyz").status, 200);
    world.unready.lock().unwrap().push("the disk is full".to_owned());
    let answer = probe("/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "the disk is full\n"));
    assert_eq!(probe("/healthz").status, 200);
    world.admin_request("POST", "/readyz").send().dps_error(405_000, "GenericMethodNotAllowed");
    world
        .admin_request("GET", "/metrics")
        .without("Authorization")
        .send()
        .dps_error(401_002, "IotHubUnauthorizedAccess");
}

#[test]
fn the_status_counts_connections() {
    let world = World::new();
    world.create_device("d1");
    let (_session, _) = world.connect("d1", Subscriptions::NONE);
    let status = world.admin_request("GET", "/admin/status").send().json();
    assert_eq!(
        status["hubs"][0],
        json!({ "id": "hub1", "hostName": HUB, "aliases": ["localhost"], "connectedDevices": 1, "damagedRecords": 0 })
    );
    assert_eq!(status["hubs"][1]["connectedDevices"], 0);
    assert_eq!(status["provisioning"], json!({ "idScope": ID_SCOPE, "hostNames": [DPS, "localhost"] }));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    world.admin_request("POST", "/admin/status").send().dps_error(405_000, "GenericMethodNotAllowed");
    world.admin_request("GET", "/admin").send().dps_error(404_000, "GenericNotFound");
}

#[test]
fn authorities_are_added_verified_and_deleted() {
    let world = World::new();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "Test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    for owner in ["hubs/hub1", "hubs/hub2.nave.test", "provisioning"] {
        let path = format!("/admin/{owner}/authorities");
        let add = |name: &str, verified: bool| {
            let body = json!({ "name": name, "certificate": ca.pem(), "verified": verified });
            world.admin_request("POST", &path).json(&body).send()
        };
        let added = add("unproved", false).json();
        assert_eq!((&added["verified"], &added["info"]["subjectName"]), (&json!(false), &json!("CN=Test CA")));
        add("unproved", false).dps_error(409_000, "GenericConflict");
        assert_eq!(add("vouched", true).json().get("verificationCode"), None);
        let prove = |code: &str| {
            let mut proof = CertificateParams::new(Vec::<String>::new()).unwrap();
            proof.distinguished_name.push(DnType::CommonName, code);
            let proof = proof.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap().pem();
            let body = json!({ "certificate": proof });
            world.admin_request("POST", &format!("{path}/unproved/verify")).json(&body).send()
        };
        prove("wrong code").dps_error(400_004, "ArgumentInvalid");
        assert_eq!(prove(added["verificationCode"].as_str().unwrap()).json()["verified"], true);
        let list = world.admin_request("GET", &path).send().json();
        let names: Vec<_> = list.as_array().unwrap().iter().map(|authority| authority["name"].clone()).collect();
        assert_eq!(names, ["unproved", "vouched"]);
        assert_eq!(world.admin_request("DELETE", &format!("{path}/vouched")).send().status, 204);
        world.admin_request("DELETE", &format!("{path}/vouched")).send().dps_error(404_000, "GenericNotFound");
        let wrong = world.admin_request("POST", &path).json(&json!({ "name": "x", "certificate": "nonsense" })).send();
        wrong.dps_error(400_004, "ArgumentInvalid");
        world.admin_request("PUT", &path).send().dps_error(405_000, "GenericMethodNotAllowed");
    }
    world.admin_request("GET", "/admin/hubs/hub9/authorities").send().dps_error(404_000, "GenericNotFound");
}
