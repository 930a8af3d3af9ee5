//! Throttles and quotas: delayed first, refused then, in the way of each surface; and nothing of it unless configured.

use std::fs;

use futures_util::future::join_all;
use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::device::{Device, HUB, Link};
use super::metrics::{SCRAPER, scrape};
use super::server::{Nave, Ready, Site};
use super::service::{Service, dial, token};
use super::{in_time, run};

/// A hub with these limits, and a device of it.
async fn limited(limits: &str) -> (Site, Nave, Ready, SharedKey) {
    let site = Site::with("");
    let file = site.root().join("nave.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (hub, provisioning) = limits.split_once("---").unwrap_or((limits, ""));
    let text = text.replace("[provisioning]", &format!("[hub.throttle]\n{hub}\n[provisioning]"));
    let more = format!("\n[provisioning.throttle]\n{provisioning}\n[metrics]\ntoken_file = \"scraper\"\n");
    fs::write(&file, text + &more).unwrap();
    fs::write(site.root().join("scraper"), SCRAPER).unwrap();
    let (nave, ready) = site.start();
    let key = SharedKey::from_bytes(&[6; DEVICE_KEY_LENGTH]).unwrap();
    Service::hub(&ready).create_device("fast", &key).await;
    (site, nave, ready, key)
}

/// How often an operation was delayed and refused.
async fn throttled(ready: &Ready, operation: &str) -> (f64, f64) {
    let page = scrape(ready, SCRAPER).await;
    let count = |action| page.value("nave_throttled_total", &[("operation", operation), ("action", action)]);
    (count("delayed"), count("refused"))
}

/// Sends a request as it is and gives the whole answer.
async fn raw(ready: &Ready, request: &str) -> String {
    let mut stream = dial(ready, ready.https()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = in_time("the end of an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn requests_of_services_get_429_and_the_connection_ends() {
    run(async {
        let (_site, hub, ready, _) = limited("registry_per_second = 1").await;
        let authorization = Service::hub(&ready).authorization();
        let request = format!(
            "GET /devices/fast?api-version=2021-04-12 HTTP/1.1\r\nHost: {HUB}\r\nAuthorization: {authorization}\r\n\r\n"
        );
        // Kept alive by the client, so that only the hub ends it.
        let closing = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let answers = join_all((0..12).map(|_| raw(&ready, &closing))).await;
        let refused: Vec<_> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429 ")).collect();
        assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 200 ")), "{answers:?}");
        assert!(!refused.is_empty(), "{answers:?}");
        for answer in refused {
            assert!(answer.contains("iothub-errorcode: ThrottlingException\r\n"), "{answer}");
            assert!(answer.contains("connection: close\r\n") && !answer.contains("retry-after"), "{answer}");
            assert!(answer.contains("ErrorCode:ThrottlingException;"), "{answer}");
        }
        let (delayed, refused) = throttled(&ready, "registry").await;
        assert!(delayed >= 1.0 && refused >= 1.0);
        // Others are not concerned.
        Service::hub(&ready).twin("fast").await;
        hub.stop();
    });
}

#[test]
fn messages_are_late_and_not_lost() {
    run(async {
        let (_site, hub, ready, key) = limited("messages_per_second = 8").await;
        let mut device = Device::connect(&ready, "fast", &key).await.unwrap();
        // The burst is 40 messages; a batch that is larger is let through in parts.
        for number in 0..50 {
            device.telemetry(format!("{number}").as_bytes()).await.unwrap();
        }
        let (delayed, refused) = throttled(&ready, "messages").await;
        assert!(delayed >= 1.0 && refused == 0.0, "{delayed} {refused}");
        hub.stop();
    });
}

#[test]
fn connects_get_connack_3() {
    run(async {
        let (_site, hub, ready, key) = limited("connects_per_second = 0.2").await;
        let connects = (0..6).map(|_| Device::connect(&ready, "fast", &key));
        let errors: Vec<_> =
            join_all(connects).await.into_iter().filter_map(|outcome| outcome.err()).map(|e| e.to_string()).collect();
        assert!(errors.iter().any(|error| error.contains("code 3")), "{errors:?}");
        assert!(throttled(&ready, "connects").await.1 >= 1.0);
        hub.stop();
    });
}

#[test]
fn twin_requests_of_devices_get_429_and_the_connection_goes_on() {
    run(async {
        let (_site, hub, ready, key) = limited("twin_reads_per_second = 0.2").await;
        let (mut link, _) = Link::to_hub(&ready, HUB, "fast", &key, true).await.unwrap();
        link.subscribe_twin().await.unwrap();
        let statuses = link.twins(6).await.unwrap();
        assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
        assert!(throttled(&ready, "twin_reads").await.1 >= 1.0);
        hub.stop();
    });
}

#[test]
fn a_quota_ends_the_connection_of_whoever_exceeds_it() {
    run(async {
        let (_site, hub, ready, key) = limited("tier = \"F1\"\nmessages_per_day = 3").await;
        let mut device = Device::connect(&ready, "fast", &key).await.unwrap();
        device.telemetry(b"one").await.unwrap();
        // More than half a kilobyte, which is what the free tier meters in: it counts as two.
        device.telemetry(&[b'x'; 600]).await.unwrap();
        device.telemetry(b"one too many").await.unwrap_err();
        Service::hub(&ready).twin("fast").await;
        hub.stop();
    });
}

/// Requests to register `id` with `key`, each on a connection of its own.
async fn register(ready: &Ready, id: &str, key: &SharedKey, count: usize) -> Vec<String> {
    let scope = ready.json["provisioning"]["idScope"].as_str().unwrap();
    let authorization = token(&format!("{scope}/registrations/{id}"), key, Some("registration"));
    let request = format!(
        "PUT /{scope}/registrations/{id}/register?api-version=2019-03-31 HTTP/1.1\r\nHost: dps.nave.test\r\n\
         Authorization: {authorization}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    join_all((0..count).map(|_| raw(ready, &request))).await
}

/// Enrolls a device under the id `r1`.
async fn enroll(ready: &Ready) -> SharedKey {
    let key = SharedKey::from_bytes(&[2; DEVICE_KEY_LENGTH]).unwrap();
    let text = key.expose_base64();
    let body = format!(
        r#"{{"registrationId":"r1","attestation":{{"type":"symmetricKey","symmetricKey":{{"primaryKey":"{text}","secondaryKey":"{text}"}}}}}}"#
    );
    Service::provisioning(ready).json("PUT", "/enrollments/r1?api-version=2021-10-01", &body).await;
    key
}

fn with_status(answers: &[String], status: u16) -> usize {
    answers.iter().filter(|answer| answer.starts_with(&format!("HTTP/1.1 {status} "))).count()
}

#[test]
fn registrations_are_told_when_to_come_back() {
    run(async {
        let (_site, hub, ready, _) = limited("---registrations_per_minute = 6").await;
        let key = enroll(&ready).await;
        // Strangers, however many, use nothing of the allowance.
        let stranger = SharedKey::from_bytes(&[3; DEVICE_KEY_LENGTH]).unwrap();
        for id in ["r1", "unknown"] {
            let answers = register(&ready, id, &stranger, 20).await;
            assert_eq!(with_status(&answers, 401), 20, "{answers:?}");
        }
        assert_eq!(throttled(&ready, "registrations").await, (0.0, 0.0));
        let answers = register(&ready, "r1", &key, 8).await;
        let refused = answers.iter().find(|answer| answer.starts_with("HTTP/1.1 429 ")).expect("one too many");
        assert!(refused.contains("retry-after: ") && refused.contains("\"errorCode\":429001"), "{refused}");
        assert!(with_status(&answers, 202) >= 1, "{answers:?}");
        hub.stop();
    });
}

#[test]
fn who_fails_too_often_is_not_listened_to() {
    run(async {
        let (_site, hub, ready, _) = limited("---failed_registrations_per_minute = 1").await;
        let key = enroll(&ready).await;
        assert_eq!(with_status(&register(&ready, "r1", &key, 10).await, 202), 10, "what holds is not limited");
        let stranger = SharedKey::from_bytes(&[3; DEVICE_KEY_LENGTH]).unwrap();
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.extend(register(&ready, "r1", &stranger, 1).await);
        }
        assert!(with_status(&answers, 401) >= 1 && with_status(&answers, 429) >= 1, "{answers:?}");
        assert_eq!(with_status(&answers, 401) + with_status(&answers, 429), 5, "{answers:?}");
        assert!(throttled(&ready, "failed_registrations").await.1 >= 1.0);
        hub.stop();
    });
}

#[test]
fn a_request_for_many_counts_as_many() {
    run(async {
        let (_site, hub, ready, _) = limited("registry_per_second = 1\n---requests_per_minute = 6").await;
        let service = Service::hub(&ready);
        let item = |id: usize| format!(r#"{{"id":"b{id}","importMode":"create"}}"#);
        let body = format!("[{}]", (0..30).map(item).collect::<Vec<_>>().join(","));
        let made = service.request("POST", "/devices?api-version=2021-04-12", &body).await.unwrap();
        assert_eq!(made.status, 200, "what is more than a burst passes where nobody waits: {}", made.text());
        let refused = service.request("GET", "/devices/b1?api-version=2021-04-12", "").await.unwrap();
        assert_eq!(refused.status, 429, "{}", refused.text());
        let enrollments = Service::provisioning(&ready);
        let item = |id: usize| format!(r#"{{"registrationId":"b{id}","attestation":{{"type":"symmetricKey"}}}}"#);
        let body =
            format!(r#"{{"mode":"create","enrollments":[{}]}}"#, (0..10).map(item).collect::<Vec<_>>().join(","));
        let made = enrollments.request("POST", "/enrollments?api-version=2021-10-01", &body).await.unwrap();
        assert_eq!(made.status, 200, "{}", made.text());
        let refused = enrollments.request("GET", "/enrollments/b1?api-version=2021-10-01", "").await.unwrap();
        assert_eq!(refused.status, 429, "{}", refused.text());
        hub.stop();
    });
}

#[test]
fn sending_to_devices_has_a_rate() {
    run(async {
        let (_site, hub, ready, _) = limited("cloud_to_device_sends_per_second = 0.1").await;
        let service = Service::hub(&ready);
        let path = "/devices/fast/messages/deviceBound?api-version=2021-04-12";
        let answers = join_all((0..12).map(|_| service.request("POST", path, "x"))).await;
        let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status).collect();
        assert!(statuses.contains(&204) && statuses.contains(&429), "{statuses:?}");
        assert!(throttled(&ready, "cloud_to_device_sends").await.1 >= 1.0);
        hub.stop();
    });
}

#[test]
fn a_will_counts_as_a_message() {
    run(async {
        let (site, hub, ready, key) = limited("messages_per_day = 1").await;
        for _ in 0..2 {
            drop(Link::with_will(&ready, "fast", &key, b"gone").await.unwrap());
        }
        while !site.log().contains("a will message was refused") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        hub.stop();
    });
}
