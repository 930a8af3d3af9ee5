//! Clients that take more than their share: what they cost is bounded and counted, and other devices notice nothing.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use nave_mqtt::packet::PacketId;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::device::{Link, get_twin, telemetry};
use super::flood::bounded;
use super::hostile::{Control, SLACK, finish};
use super::metrics::{Exposition, SCRAPER, scrape};
use super::server::{Ready, Site};
use super::service::{Service, dial};
use super::{in_time, run};

/// Connections that never say who they are, and streams that a service opens.
const THOUSAND: usize = 1_000;

/// Connections that are opened at the same time.
const AT_ONCE: usize = 50;

/// What a connection may cost that has done its handshake and nothing else.
const BYTES_PER_STRANGER: u64 = 24 << 10;

/// What an event stream may cost: a chunk of events (`nave-http`), hyper's and the socket's buffers.
const BYTES_PER_STREAM: u64 = 256 << 10;

/// Most streams that are open at a time (`nave-http`).
const STREAMS: usize = 256;

/// Messages of a device that sends as fast as it can.
const MESSAGES: usize = 100_000;

/// Requests of a device that does not read the answers, at most.
const REQUESTS: usize = 200_000;

fn site() -> Site {
    let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n");
    fs::write(site.root().join("scraper"), SCRAPER).unwrap();
    site
}

async fn page(ready: &Ready) -> Exposition {
    scrape(ready, SCRAPER).await
}

async fn greedy(ready: &Ready) -> Link {
    let key = SharedKey::from_bytes(&[6; DEVICE_KEY_LENGTH]).unwrap();
    Service::hub(ready).create_device("greedy", &key).await;
    Link::to_hub(ready, "localhost", "greedy", &key, true).await.unwrap().0
}

#[test]
fn a_thousand_strangers_wait_and_disturb_nobody() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        control.goes_on().await;
        let (before, accepted) = (hub.resident(), page(&ready).await.value("nave_connections_accepted_total", &[]));
        let mut open = Vec::new();
        while open.len() < THOUSAND {
            let strangers = (0..AT_ONCE).map(|_| async { dial(&ready, ready.mqtts()).await.expect("a handshake") });
            open.extend(in_time("handshakes", join_all(strangers)).await);
        }
        control.goes_on().await;
        // Who has been there for long is sent away, however slow this machine is; nobody is refused.
        let page = page(&ready).await;
        assert!(page.value("nave_connections_accepted_total", &[]) >= accepted + THOUSAND as f64);
        assert_eq!(page.value("nave_connections_refused_total", &[]), 0.0);
        bounded(&hub, before, THOUSAND as u64 * BYTES_PER_STRANGER + SLACK);
        drop(open);
        control.goes_on().await;
        let lines = site.log().lines().count();
        assert!(lines < 100, "{lines} lines for a thousand strangers:\n{}", site.log());
        finish(control, hub, &site).await;
    });
}

#[test]
fn a_device_that_never_reads_is_not_read_either() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        let mut link = greedy(&ready).await;
        link.subscribe_twin().await.unwrap();
        // Each answer has 20 KB.
        let big = json!({ "properties": { "desired": { "text": vec!["x".repeat(4_000); 5] } } }).to_string();
        Service::hub(&ready).json("PATCH", "/twins/greedy?api-version=2021-04-12", &big).await;
        control.goes_on().await;
        let before = hub.resident();
        let mut requests = Vec::new();
        for number in 0..100 {
            get_twin(&mut requests, &number.to_string());
        }
        // Goes on until nothing is taken any more: the hub has stopped reading, and the buffers between are full.
        let mut sent = 0;
        while sent < REQUESTS {
            match tokio::time::timeout(Duration::from_secs(3), link.send(&requests)).await {
                Ok(result) => result.expect("it is not cut off at once"),
                Err(_) => break,
            }
            sent += 100;
        }
        assert!(sent < REQUESTS, "the hub reads {sent} requests of somebody who takes no answer");
        bounded(&hub, before, SLACK);
        let answered =
            page(&ready).await.value("nave_twin_operations_total", &[("operation", "device_read"), ("outcome", "ok")]);
        assert!((answered as usize) < sent, "{answered} answers");
        // Changes for it find no room, and nobody waits for that.
        for number in 0..200 {
            let change = json!({ "properties": { "desired": { "number": number } } }).to_string();
            Service::hub(&ready).json("PATCH", "/twins/greedy?api-version=2021-04-12", &change).await;
        }
        bounded(&hub, before, SLACK);
        control.goes_on().await;
        drop(link);
        finish(control, hub, &site).await;
    });
}

#[test]
fn a_device_that_sends_as_fast_as_it_can_is_slowed_down() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        let link = greedy(&ready).await;
        control.goes_on().await;
        let before = hub.resident();
        let mut block = Vec::new();
        for number in 1..=1_000 {
            telemetry(&mut block, "greedy", "", &[b'x'; 200], PacketId::new(number).unwrap(), false);
        }
        let (mut reader, mut writer) = tokio::io::split(link.into_stream());
        let sending = async {
            for _ in 0..MESSAGES / 1_000 {
                writer.write_all(&block).await.expect("it is slowed down, not cut off");
            }
            writer.flush().await.unwrap();
        };
        let mut most = 0;
        let reading = async {
            // A PUBACK has four bytes.
            let (mut acknowledged, mut buffer) = (0, vec![0; 1 << 16]);
            while acknowledged < 4 * MESSAGES {
                let read = reader.read(&mut buffer).await.unwrap();
                assert!(read > 0, "closed after {} acknowledgements", acknowledged / 4);
                acknowledged += read;
                most = most.max(hub.resident());
            }
        };
        in_time("acknowledgements", async { tokio::join!(sending, reading, control.goes_on()) }).await;
        // What waits for the log is bounded, for all devices together (16 MiB, `nave-log`).
        eprintln!("resident: {before} before, {most} at most");
        assert!(most <= before + 2 * (16 << 20) + SLACK, "{most} bytes, {before} before");
        let page = page(&ready).await;
        let messages = page.value("nave_messages_total", &[("hub", "hub1"), ("outcome", "ok")]);
        assert!(messages >= MESSAGES as f64, "{messages} counted");
        control.goes_on().await;
        finish(control, hub, &site).await;
    });
}

#[test]
fn a_service_that_opens_a_thousand_streams_gets_its_share() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        control.goes_on().await;
        let before = hub.resident();
        let authorization = Service::hub(&ready).authorization();
        let request =
            format!("GET /events?from=earliest HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n");
        let mut open = Vec::new();
        while open.len() < THOUSAND {
            let streams = (0..AT_ONCE).map(|_| async {
                let mut stream = dial(&ready, ready.https()).await.expect("a handshake");
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                // The status line, and then it is not read any more.
                let mut head = [0; 12];
                stream.read_exact(&mut head).await.unwrap();
                (String::from_utf8_lossy(&head).into_owned(), stream)
            });
            open.extend(in_time("streams", join_all(streams)).await);
            control.goes_on().await;
        }
        let answered = |status: &str| open.iter().filter(|(head, _)| head == &format!("HTTP/1.1 {status}")).count();
        assert_eq!((answered("200"), answered("429")), (STREAMS, THOUSAND - STREAMS));
        let refused = page(&ready).await.value("nave_http_requests_total", &[("surface", "hub"), ("status", "429")]);
        assert_eq!(refused, (THOUSAND - STREAMS) as f64);
        bounded(&hub, before, STREAMS as u64 * BYTES_PER_STREAM + THOUSAND as u64 * BYTES_PER_STRANGER + SLACK);
        let lines = site.log().lines().count();
        assert!(lines < 100, "{lines} lines for a thousand streams:\n{}", site.log());
        // Its places are free again when it goes.
        drop(open);
        in_time("a free stream", async {
            loop {
                let mut stream = dial(&ready, ready.https()).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let mut head = [0; 12];
                stream.read_exact(&mut head).await.unwrap();
                if head == *b"HTTP/1.1 200" {
                    break;
                }
            }
        })
        .await;
        control.goes_on().await;
        finish(control, hub, &site).await;
    });
}
