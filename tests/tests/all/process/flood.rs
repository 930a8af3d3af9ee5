//! Input that never ends, comes too slowly or is too much, at every layer: what it costs is bounded and counted, the log
//! stays readable, and other devices notice nothing.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use futures_util::future::join_all;
use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Login};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::hostile::{Control, SLACK, finish};
use super::metrics::{SCRAPER, scrape};
use super::server::{Nave, Ready, Site};
use super::service::{Service, dial, token};
use super::{in_time, run};

/// Connections that send slowly.
const SLOW: usize = 150;

/// What one of them may cost: TLS, hyper's buffers once the head has begun, the socket.
const BYTES_PER_SLOW: u64 = 48 << 10;

/// Requests with wrong tokens; `NAVE_WRONG_TOKENS` asks for another number.
const WRONG_TOKENS: usize = 100_000;

/// Connections that send them, and how many each sends before it reads the answers.
const WRONG_CLIENTS: usize = 10;
const WRONG_AT_ONCE: usize = 50;

/// Longer than they take on a machine that is many times slower.
const MUCH_PATIENCE: Duration = Duration::from_secs(600);

/// Bytes that somebody sends without an end in sight.
const MUCH: usize = 10 << 20;

const UPGRADE: &str = "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn site() -> Site {
    let site = Site::with("\n[metrics]\ntoken_file = \"scraper\"\n");
    fs::write(site.root().join("scraper"), SCRAPER).unwrap();
    site
}

/// A frame of a client, its mask all zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let head = [first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    [&head, payload].concat()
}

/// A CONNECT.
fn connect() -> Vec<u8> {
    let password = "x".repeat(100);
    let login = Login { username: "localhost/slow/", password: Some(password.as_bytes()) };
    let packet = Connect { client_id: "slow", clean_session: true, keep_alive: 0, will: None, login: Some(login) };
    let mut bytes = Vec::new();
    encode::connect(&mut bytes, &packet).unwrap();
    bytes
}

async fn websocket(ready: &Ready) -> TlsStream<TcpStream> {
    let mut stream = dial(ready, ready.https()).await.expect("a TLS handshake under attack");
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Sends as long as the other side takes it, up to [`MUCH`] bytes, and reads what it says.
async fn pour(stream: TlsStream<TcpStream>, beginning: &[u8], piece: &[u8]) -> (usize, String) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        let mut sent = 0;
        if writer.write_all(beginning).await.is_err() {
            return sent;
        }
        while sent < MUCH {
            if writer.write_all(piece).await.is_err() {
                break;
            }
            sent += piece.len();
        }
        let _ = writer.flush().await;
        sent
    };
    let reading = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    in_time("the hub to hang up", async { tokio::join!(sending, reading) }).await
}

pub(super) fn bounded(hub: &Nave, before: u64, allowed: u64) {
    let resident = hub.resident();
    eprintln!("resident: {before} before, {resident} now, {allowed} more allowed");
    assert!(resident <= before + allowed, "{resident} bytes, {before} before, {allowed} more allowed");
}

#[test]
fn slow_senders_cost_little_and_disturb_nobody() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        control.goes_on().await;
        let before = hub.resident();
        let hello = connect();
        let request =
            b"PUT /devices/slow?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nX-Pad: aaaaaaaaaaaaaaaaaaaaaa";
        let slow = (0..SLOW).map(|number| {
            let (ready, hello) = (&ready, hello.clone());
            async move {
                // Each kind is at another layer; none of them ever comes to an end.
                let (mut stream, bytes) = match number % 3 {
                    0 => (dial(ready, ready.https()).await.unwrap(), request.to_vec()),
                    1 => (dial(ready, ready.mqtts()).await.unwrap(), hello),
                    _ => (websocket(ready).await, frame(0x82, &hello[..80])),
                };
                for byte in bytes.iter().take(40) {
                    stream.write_all(&[*byte]).await.expect("a slow sender is not cut at once");
                    stream.flush().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                stream
            }
        });
        let (open, ()) = tokio::join!(join_all(slow), control.goes_on());
        control.goes_on().await;
        let page = scrape(&ready, SCRAPER).await;
        assert!(page.value("nave_connections", &[]) >= SLOW as f64);
        // HTTP has no notion of a caller who has not said who they are; MQTT has, whatever carries it.
        assert!(page.value("nave_connections_unauthenticated", &[]) >= (SLOW * 2 / 3) as f64);
        bounded(&hub, before, SLOW as u64 * BYTES_PER_SLOW + SLACK);
        drop(open);
        control.goes_on().await;
        finish(control, hub, &site).await;
    });
}

#[test]
fn what_never_ends_is_ended() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        control.goes_on().await;
        let before = hub.resident();
        let https = || async { dial(&ready, ready.https()).await.expect("a TLS handshake under attack") };

        // A head of ten megabytes, in one field and in many.
        let begin = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ";
        let (sent, answer) = pour(https().await, begin, &[b'a'; 16_384]).await;
        assert!(sent < MUCH && (answer.is_empty() || answer.starts_with("HTTP/1.1 431 ")), "{sent} {answer}");
        let (sent, answer) = pour(https().await, b"GET / HTTP/1.1\r\n", &b"X-Some: thing\r\n".repeat(1_000)).await;
        assert!(sent < MUCH && (answer.is_empty() || answer.starts_with("HTTP/1.1 431 ")), "{sent} {answer}");

        // A body without an end, from somebody unknown and from somebody who may.
        let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
        for (authorization, status) in [("nonsense".to_owned(), "401"), (Service::hub(&ready).authorization(), "413")] {
            let begin = format!(
                "PUT /devices/endless?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
                 Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let (sent, answer) = pour(https().await, begin.as_bytes(), &chunk).await;
            assert!(sent < MUCH, "{sent}");
            assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }

        // A message in fragments that never end, with something in them and without.
        let connects = scrape(&ready, SCRAPER).await.value("nave_websocket_violations_total", &[]);
        for payload in [&[0x10_u8, 0xff, 0xff, 0x7f][..], &[]] {
            let fragments = frame(0x00, payload).repeat(1_000);
            let (sent, _) = pour(websocket(&ready).await, &frame(0x02, payload), &fragments).await;
            assert!(sent < MUCH, "{sent}");
        }
        let page = scrape(&ready, SCRAPER).await;
        assert!(page.value("nave_websocket_violations_total", &[]) > connects);
        bounded(&hub, before, SLACK);
        let complaints = site.log().lines().filter(|line| line.contains("broke the framing")).count();
        assert!(complaints <= 2, "{complaints} lines");
        control.goes_on().await;
        finish(control, hub, &site).await;
    });
}

#[test]
fn wrong_tokens_are_counted_and_not_written_down_one_by_one() {
    run(async {
        let site = site();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        control.goes_on().await;
        let before = hub.resident();
        let wanted = std::env::var("NAVE_WRONG_TOKENS").ok().and_then(|text| text.parse().ok()).unwrap_or(WRONG_TOKENS);
        let wrong = SharedKey::from_bytes(&[3; DEVICE_KEY_LENGTH]).unwrap();
        let good = token("localhost", &wrong, Some("iothubowner"));
        let (begin, rest) = good.split_once("sig=").unwrap();
        let rest = rest.split_once('&').unwrap().1;
        // No two are the same.
        let request = |number: usize| {
            let signature = STANDARD.encode([number.to_be_bytes(); 4].concat()).replace('=', "%3D").replace('+', "%2B");
            let signature = signature.replace('/', "%2F");
            format!(
                "GET /devices/control?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\n\
                 Authorization: {begin}sig={signature}&{rest}\r\n\r\n"
            )
        };
        let began = Instant::now();
        let clients = (0..WRONG_CLIENTS).map(|client| {
            let (ready, request) = (&ready, &request);
            async move {
                let mut stream = dial(ready, ready.https()).await.unwrap();
                let mut number = client;
                while number < wanted {
                    let part: Vec<usize> = (number..wanted).step_by(WRONG_CLIENTS).take(WRONG_AT_ONCE).collect();
                    number += part.len() * WRONG_CLIENTS;
                    let requests: String = part.iter().map(|number| request(*number)).collect();
                    stream.write_all(requests.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                    let (mut answers, mut seen) = (Vec::new(), 0);
                    // The body of a refusal ends with its object.
                    while seen < part.len() || !answers.ends_with(b"\"}") {
                        assert!(stream.read_buf(&mut answers).await.unwrap() > 0, "an answer to every request");
                        seen = answers.windows(13).filter(|window| *window == b"HTTP/1.1 401 ").count();
                    }
                }
            }
        });
        let answered = AtomicBool::new(false);
        let clients = async {
            join_all(clients).await;
            answered.store(true, Ordering::Relaxed);
        };
        let control_goes_on = async {
            while !answered.load(Ordering::Relaxed) {
                control.goes_on().await;
            }
        };
        let both = async { tokio::join!(clients, control_goes_on) };
        tokio::time::timeout(MUCH_PATIENCE, both).await.expect("an answer to every wrong token");
        let seconds = began.elapsed().as_secs() as usize;
        eprintln!("{wanted} wrong tokens in {seconds} s");
        for _ in 0..100 {
            assert!(super::device::Device::connect(&ready, "control", &wrong).await.is_err());
        }
        let page = scrape(&ready, SCRAPER).await;
        let failures = |protocol: &str| page.value("nave_authentication_failures_total", &[("protocol", protocol)]);
        assert_eq!((failures("https"), failures("mqtt")), (wanted as f64, 100.0));
        bounded(&hub, before, SLACK);
        let log = site.log();
        let lines = log.lines().filter(|line| line.contains("refused") || line.contains("without a session")).count();
        // One in ten seconds of each kind, and the first.
        assert!((1..=8 + seconds / 5).contains(&lines), "{lines} lines in {seconds} s:\n{log}");
        assert!(log.contains("suppressed="));
        control.goes_on().await;
        finish(control, hub, &site).await;
    });
}
