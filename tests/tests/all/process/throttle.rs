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

#[test]
fn registrations_are_told_when_to_come_back() {
    run(async {
        let (_site, hub, ready, _) = limited("---registrations_per_minute = 6").await;
        let scope = ready.json["provisioning"]["idScope"].as_str().unwrap();
        let key = SharedKey::from_bytes(&[2; DEVICE_KEY_LENGTH]).unwrap();
        let authorization = token(&format!("{scope}/registrations/r1"), &key, Some("registration"));
        let request = format!(
            "PUT /{scope}/registrations/r1/register?api-version=2019-03-31 HTTP/1.1\r\nHost: dps.nave.test\r\n\
             Authorization: {authorization}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        let answers = join_all((0..6).map(|_| raw(&ready, &request))).await;
        let refused = answers.iter().find(|answer| answer.starts_with("HTTP/1.1 429 ")).expect("one too many");
        assert!(refused.contains("retry-after: ") && refused.contains("\"errorCode\":429001"), "{refused}");
        assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 401 ")), "the others are judged: {answers:?}");
        hub.stop();
    });
}
