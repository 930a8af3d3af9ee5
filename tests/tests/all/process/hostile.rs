//! Bad input on raw sockets, in numbers: no unbounded memory, no effect on other devices.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use nave_auth::{DEVICE_KEY_LENGTH, SharedKey};
use nave_mqtt::encode;
use nave_mqtt::packet::{Connect, Login};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::device::Device;
use super::server::{Nave, Ready, Site};
use super::service::{Service, dial};
use super::{in_time, run};

const DEVICE: &str = "control";

/// Connections of one wave.
const ATTACKERS: usize = 300;

/// Waves of mixed attackers, and of those that cost most.
const WAVES: [&[Attack]; 4] = [&ATTACKS, &[Attack::LongHello], &[Attack::LongHello], &ATTACKS];

/// Messages of the control device that have to be acknowledged while a wave is there.
const ACKNOWLEDGED_PER_WAVE: u64 = 50;

/// What one connection may cost while it stands in its handshake: the bound of incomplete records (72 KiB, `nave-net`), and
/// something for TLS and the socket.
const BYTES_PER_CONNECTION: u64 = (72 + 24) << 10;

/// What the process may gain besides: buffers of threads, and pages that the allocator keeps.
pub(super) const SLACK: u64 = 12 << 20;

/// What attackers do, one after the other.
#[derive(Clone, Copy)]
enum Attack {
    /// Bytes that are no TLS record.
    Noise,
    /// A TLS record that announces more than a record may hold.
    LongRecord,
    /// Another protocol.
    PlainHttp,
    /// Half of a real ClientHello, then silence.
    HalfHello,
    /// A ClientHello that announces 64 KiB and brings nearly all of it, then silence.
    LongHello,
    /// A whole ClientHello, then silence.
    Hello,
    /// A handshake, and the connection is reset in its middle.
    Reset,
    /// Nothing at all.
    Silence,
}

const ATTACKS: [Attack; 8] = [
    Attack::Noise,
    Attack::LongRecord,
    Attack::PlainHttp,
    Attack::HalfHello,
    Attack::LongHello,
    Attack::Hello,
    Attack::Reset,
    Attack::Silence,
];

/// A hub with a device that never stops sending.
pub(super) struct Control {
    acknowledged: Rc<Cell<u64>>,
    device: JoinHandle<()>,
    stop: Rc<Cell<bool>>,
}

impl Control {
    pub(super) async fn start(ready: &Ready) -> Self {
        let key = SharedKey::from_bytes(&[5; DEVICE_KEY_LENGTH]).unwrap();
        Service::hub(ready).create_device(DEVICE, &key).await;
        let mut device = Device::connect(ready, DEVICE, &key).await.unwrap();
        let (acknowledged, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let (count, end) = (Rc::clone(&acknowledged), Rc::clone(&stop));
        let device = tokio::task::spawn_local(async move {
            while !end.get() {
                device.telemetry(b"{\"still\":\"here\"}").await.expect("the control device is served");
                count.set(count.get() + 1);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (status, _) = device.twin().await.expect("the control device is served");
            assert_eq!(status, 200);
        });
        Self { acknowledged, device, stop }
    }

    /// Waits until the device got more acknowledgements.
    pub(super) async fn goes_on(&self) {
        let wanted = self.acknowledged.get() + ACKNOWLEDGED_PER_WAVE;
        in_time("acknowledgements for the control device", async {
            while self.acknowledged.get() < wanted {
                assert!(!self.device.is_finished(), "the control device is served");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    async fn finish(self) {
        self.stop.set(true);
        self.device.await.unwrap();
    }
}

#[test]
fn three_hundred_strangers_do_not_disturb_a_device() {
    run(async {
        let site = Site::new();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        let hello = client_hello(&ready);
        control.goes_on().await;
        let before = hub.resident();
        let mut largest = Vec::new();
        for (wave, attacks) in WAVES.into_iter().enumerate() {
            let attackers = (0..ATTACKERS).map(|number| {
                let address = if number / attacks.len() % 2 == 0 { ready.mqtts() } else { ready.https() };
                attack(attacks[number % attacks.len()], address, &hello)
            });
            let open: Vec<TcpStream> = in_time("a wave", join_all(attackers)).await.into_iter().flatten().collect();
            assert!(open.len() >= ATTACKERS / 3, "only {} are still there", open.len());
            control.goes_on().await;
            Service::hub(&ready).twin(DEVICE).await;
            let bound = before + ATTACKERS as u64 * BYTES_PER_CONNECTION + SLACK;
            let resident = hub.resident();
            assert!(resident <= bound, "wave {wave}: {resident} bytes, {before} before, bound {bound}");
            largest.push(resident);
            drop(open);
            control.goes_on().await;
        }
        let after = hub.resident();
        eprintln!("resident: {before} before, {largest:?} during the waves, {after} after");
        // What a wave took serves the next: nothing is left behind by connections that are gone.
        assert!(largest[2] <= largest[1] + SLACK / 2, "{largest:?}");
        finish(control, hub, &site).await;
    });
}

pub(super) async fn finish(control: Control, hub: Nave, site: &Site) {
    control.finish().await;
    assert!(!site.log().contains("panicked"), "{}", site.log());
    hub.stop();
}

/// Begins an attack; the connection stays open if the hub lets it.
async fn attack(attack: Attack, address: SocketAddr, hello: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.expect("a hub under attack accepts connections");
    let bytes = match attack {
        Attack::Noise => (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        Attack::LongRecord => [&[0x16, 3, 3, 0xff, 0xff][..], &[0; 20_000]].concat(),
        Attack::PlainHttp => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100),
        Attack::HalfHello => hello[..hello.len() / 2].to_vec(),
        Attack::LongHello => long_hello(),
        Attack::Hello | Attack::Reset => hello.to_vec(),
        Attack::Silence => Vec::new(),
    };
    // The hub may have seen enough before everything is sent.
    let sent = stream.write_all(&bytes).await;
    match attack {
        Attack::Noise | Attack::LongRecord | Attack::PlainHttp => {
            // These are beyond repair, and the hub says so by ending the connection.
            let mut rest = Vec::new();
            let _ = in_time("the hub to hang up", stream.read_to_end(&mut rest)).await;
            None
        }
        Attack::Reset => {
            sent.unwrap();
            stream.set_zero_linger().unwrap();
            None
        }
        Attack::HalfHello | Attack::LongHello | Attack::Hello | Attack::Silence => {
            sent.unwrap();
            Some(stream)
        }
    }
}

/// What a client says first.
fn client_hello(ready: &Ready) -> Vec<u8> {
    let mut client = rustls::ClientConnection::new(ready.tls.clone(), "localhost".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Records of a ClientHello of 64 KiB whose last piece never comes.
fn long_hello() -> Vec<u8> {
    const PIECE: usize = 16_000;
    let mut bytes = Vec::new();
    for piece in 0..4 {
        let mut payload = vec![0_u8; PIECE];
        if piece == 0 {
            payload[..4].copy_from_slice(&[1, 0, 0xff, 0xf0]);
        }
        bytes.extend_from_slice(&[0x16, 3, 1]);
        bytes.extend_from_slice(&(PIECE as u16).to_be_bytes());
        bytes.extend_from_slice(&payload);
    }
    bytes
}

#[test]
fn nonsense_inside_tls_ends_its_own_connection_only() {
    run(async {
        let site = Site::new();
        let (hub, ready) = site.start();
        let control = Control::start(&ready).await;
        control.goes_on().await;
        let before = hub.resident();
        for _ in 0..4 {
            let attackers = nonsense().into_iter().map(|(mqtt, bytes)| {
                let ready = &ready;
                async move {
                    let address = if mqtt { ready.mqtts() } else { ready.https() };
                    let mut stream = dial(ready, address).await.expect("a TLS handshake under attack");
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.flush().await;
                    let mut answer = Vec::new();
                    let _ = in_time("the hub to hang up", stream.read_to_end(&mut answer)).await;
                    assert!(answer.len() < 4096, "{}", String::from_utf8_lossy(&answer));
                    if mqtt {
                        // The only thing that a stranger may hear is a refusal.
                        let refused = answer.is_empty() || answer.starts_with(&[0x20, 2, 0]) && answer[3] != 0;
                        assert!(refused, "{answer:?}");
                    } else {
                        let text = String::from_utf8_lossy(&answer);
                        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
                    }
                }
            });
            tokio::join!(join_all(attackers), control.goes_on());
        }
        let after = hub.resident();
        eprintln!("resident: {before} before, {after} after");
        assert!(after <= before + SLACK, "{after} bytes, {before} before");
        finish(control, hub, &site).await;
    });
}

/// A CONNECT, well-formed.
fn connect(client_id: &str, username: &str, password: &[u8]) -> Vec<u8> {
    let login = Login { username, password: Some(password) };
    let packet = Connect { client_id, clean_session: true, keep_alive: 0, will: None, login: Some(login) };
    let mut bytes = Vec::new();
    encode::connect(&mut bytes, &packet).unwrap();
    bytes
}

/// Input that no client sends; whether it is for MQTT, and the bytes.
fn nonsense() -> Vec<(bool, Vec<u8>)> {
    let mqtt = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100_000],
        // CONNECT of 256 MB.
        [&[0x10, 0xff, 0xff, 0xff, 0x7f][..], &[0; 1000]].concat(),
        // A length of five bytes.
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 1],
        // PUBLISH before CONNECT, of the largest size.
        [&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &[b'x'; 200_000]].concat(),
        connect(&"a".repeat(60_000), "hub1.nave.test/control/?api-version=2021-04-12", b"p"),
        connect(DEVICE, &"hub1.nave.test/".repeat(4_000), b"p"),
        // For a device that exists, with a token that is none.
        connect(DEVICE, "hub1.nave.test/control/?api-version=2021-04-12", &[b'p'; 60_000]),
    ];
    let https = vec![
        vec![0; 100_000],
        b"\x16\x03\x01nonsense\r\n\r\n".to_vec(),
        // A header without an end.
        [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 200_000]].concat(),
        // A thousand fields.
        [&b"GET / HTTP/1.1\r\n"[..], &b"X: y\r\n".repeat(1000), b"\r\n"].concat(),
        b"PATCH /twins/control?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"PATCH /twins/control?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n{".to_vec(),
        b"GET /devices?api-version=2021-04-12 HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /devices?api-version=2021-04-12 HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(),
    ];
    mqtt.into_iter().map(|bytes| (true, bytes)).chain(https.into_iter().map(|bytes| (false, bytes))).collect()
}
