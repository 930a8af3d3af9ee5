//! Audit records: every change of the control plane, who made it, and nothing secret.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use serde_json::Value;

use super::device::Device;
use super::run;
use super::server::{Signal, Site};
use super::service::Service;

fn records(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The members that say what happened.
fn told(record: &Value) -> [&str; 6] {
    ["actor_kind", "actor", "owner", "action", "object", "outcome"].map(|name| record[name].as_str().unwrap())
}

#[test]
fn changes_are_recorded_with_who_made_them() {
    run(async {
        let site = Site::with("\n[audit]\nfile = \"audit.jsonl\"\n\n[log]\nlevel = \"error\"\n");
        let file = site.root().join("audit.jsonl");
        let (hub, ready) = site.start();
        let key = SharedKey::from_bytes(&[9; DEVICE_KEY_LENGTH]).unwrap();
        let service = Service::hub(&ready);
        service.create_device("watched", &key).await;
        service.twin("watched").await;
        let patch = r#"{"properties":{"desired":{"pass":"not-to-be-repeated"}}}"#;
        service.json("PATCH", "/twins/watched?api-version=2021-04-12", patch).await;
        let mut device = Device::connect(&ready, "watched", &key).await.unwrap();
        device.telemetry(b"unaudited").await.unwrap();
        let nobody = service.request("PATCH", "/twins/nobody?api-version=2021-04-12", patch).await.unwrap();
        assert_eq!(nobody.status, 404);
        let enrollments = Service::provisioning(&ready);
        let body = r#"{"registrationId":"r1","attestation":{"type":"symmetricKey"}}"#;
        enrollments.json("PUT", "/enrollments/r1?api-version=2021-10-01", body).await;
        let bulk = r#"[{"id":"watched","moduleId":"m","importMode":"create"},{"id":"absent","importMode":"delete"}]"#;
        let partly = service.request("POST", "/devices?api-version=2021-04-12", bulk).await.unwrap();
        assert_eq!(partly.status, 400, "{}", partly.text());
        hub.signal(Signal::Reload);
        while records(&file).len() < 8 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let all = records(&file);
        let owner = ["policy", "iothubowner", "hub1"];
        let expected = [
            [owner[0], owner[1], owner[2], "PUT", "/devices/watched", "200"],
            [owner[0], owner[1], owner[2], "PATCH", "/twins/watched", "200"],
            [owner[0], owner[1], owner[2], "PATCH", "/twins/nobody", "404001 DeviceNotFound"],
            ["policy", "provisioningserviceowner", "$dps", "PUT", "/enrollments/r1", "200"],
            [owner[0], owner[1], owner[2], "create", "/devices/watched/modules/m", "200"],
            [owner[0], owner[1], owner[2], "delete", "/devices/absent", "404001 DeviceNotFound"],
            [owner[0], owner[1], owner[2], "POST", "/devices", "in part"],
            ["operator", "operator", "", "reload", "configuration", "200"],
        ];
        assert_eq!(all.iter().map(told).collect::<Vec<_>>(), expected);
        assert!(all[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert!(all[0]["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!((&all[0]["succeeded"], &all[2]["succeeded"]), (&Value::Bool(true), &Value::Bool(false)));
        let text = fs::read_to_string(&file).unwrap();
        for secret in ["not-to-be-repeated", "SharedAccessSignature", "sig="] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        // Whoever keeps old logs moves the file away and says so.
        fs::rename(&file, site.root().join("old.jsonl")).unwrap();
        hub.signal(Signal::Reload);
        while !file.exists() || records(&file).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(told(&records(&file)[0])[3], "reload");
        hub.stop();
        assert!(!site.log().contains("/devices/watched"), "they are not in the log as well");
    });
}

#[test]
fn without_a_file_they_are_in_the_log() {
    run(async {
        let site = Site::new();
        let (hub, ready) = site.start();
        let key = SharedKey::from_bytes(&[9; DEVICE_KEY_LENGTH]).unwrap();
        Service::hub(&ready).create_device("watched", &key).await;
        hub.stop();
        let log = site.log();
        let line = log.lines().find(|line| line.contains("object=\"/devices/watched\"")).expect(&log);
        assert!(line.contains("actor=\"iothubowner\"") && line.contains("outcome=200"), "{line}");
    });
}
