//! What the hub writes at its most talkative holds no secret, whatever comes in.

use std::fs;

use nave_auth::{DEVICE_KEY_LENGTH, SharedKey, derive_device_key};
use nave_tests::leaks;

use super::device::{self, Device, HUB, Link};
use super::metrics::{SCRAPER, scrape};
use super::run;
use super::server::{Signal, Site};
use super::service::{Service, token};

const V: &str = "api-version=2021-04-12";
const DPS_V: &str = "api-version=2021-10-01";

#[test]
fn no_output_holds_a_secret() {
    run(async {
        let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n\n[log]\nlevel = \"trace\"\n");
        fs::write(site.root().join("scraper"), SCRAPER).unwrap();
        leaks::remember(SCRAPER);
        let (hub, ready) = site.start();
        let (service, enrollments) = (Service::hub(&ready), Service::provisioning(&ready));
        let [key, wrong, group] = [41, 42, 43].map(|byte| SharedKey::from_bytes(&[byte; DEVICE_KEY_LENGTH]).unwrap());
        [&key, &wrong, &group].iter().for_each(|key| leaks::remember(&key.expose_base64()));

        // As it should be.
        service.create_device("talks", &key).await;
        let mut device = Device::connect(&ready, "talks", &key).await.unwrap();
        device.telemetry(b"{}").await.unwrap();
        device.report(r#"{"on":true}"#).await.unwrap();
        let text = group.expose_base64();
        let body = format!(
            r#"{{"enrollmentGroupId":"g","attestation":{{"type":"symmetricKey","symmetricKey":{{"primaryKey":"{text}","secondaryKey":"{text}"}}}}}}"#
        );
        enrollments.json("PUT", &format!("/enrollmentGroups/g?{DPS_V}"), &body).await;
        let derived = derive_device_key(&group, "member");
        leaks::remember(&derived.expose_base64());
        device::register(&ready, "member", &derived).await;

        // Wrong keys, and secrets where they do not belong.
        assert!(Device::connect(&ready, "talks", &wrong).await.is_err());
        let stray = token(&format!("{HUB}/devices/talks"), &key, None);
        assert!(Link::connect(&ready, &stray, &format!("{HUB}/{stray}/?{V}"), &stray, true).await.is_err());
        assert!(Link::connect(&ready, "talks", &format!("{HUB}/talks/?{V}&password={stray}"), "", true).await.is_err());
        let secret = key.expose_base64();
        let doubled =
            format!(r#"{{"deviceId":"talks","authentication":{{"type":"sas","symmetricKey":{{"primaryKey":"{secret}"#);
        for body in [
            doubled.clone(),
            format!("{doubled}\"}}}}}}"),
            format!(
                r#"{{"deviceId":"other","authentication":{{"type":"sas","symmetricKey":{{"primaryKey":"{secret}","secondaryKey":7}}}}}}"#
            ),
            format!(r#"[{{"id":"talks","importMode":"create","authentication":"{secret}"}}]"#),
        ] {
            for target in [format!("/devices/talks?{V}"), format!("/twins/talks?{V}"), format!("/devices?{V}")] {
                for method in ["PUT", "POST", "PATCH"] {
                    service.request(method, &target, &body).await.unwrap();
                }
            }
            enrollments.request("PUT", &format!("/enrollments/e?{DPS_V}"), &body).await.unwrap();
        }
        service
            .request("GET", &format!("/devices/nobody?{V}&sig={}", secret.replace(['+', '/', '='], "x")), "")
            .await
            .unwrap();

        // What it says of itself.
        scrape(&ready, SCRAPER).await;
        for words in [["status", "-o", "json"], ["doctor", "-o", "json"]] {
            let output = site.tool(&words).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            leaks::collect(&format!("nave {}", words[0]), &String::from_utf8_lossy(&text));
        }
        let output = site.tool(&["config", "show", "--running", "-o", "json"]).output().unwrap();
        leaks::collect("nave config show", &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
        hub.signal(Signal::Reload);
        device.telemetry(b"{}").await.unwrap();
        hub.stop();
        assert!(site.log().contains("TRACE") || site.log().contains("DEBUG"), "it was talkative");
        assert!(!site.log().contains("SharedAccessSignature sr="), "a token");
    });
}
