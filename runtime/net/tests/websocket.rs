//! Device protocols over WebSocket: the opening, the frames and the end, over real sockets on the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use nave_net::Limits;
use nave_net::limits::WEBSOCKET_FRAGMENTS;
use nave_session::protocol::{CloseReason, Disconnect};
use support::{Client, Fixture, Made, PATIENCE, Script, VERSIONS, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const OPENING: &str = "GET /$iothub/websocket HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 200, 0, 31];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload)
}

/// A client that has been let in.
struct Socket(TlsStream<TcpStream>);

impl Socket {
    async fn open(client: &Client, fixture: &Fixture) -> Self {
        let mut stream = client.connect(fixture.address).await.unwrap();
        stream.write_all(OPENING.as_bytes()).await.unwrap();
        let mut socket = Self(stream);
        let head = socket.head().await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
        socket
    }

    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next frame.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let reading = async {
            let [first, second] = [self.0.read_u8().await?, self.0.read_u8().await?];
            assert_eq!(second & 0x80, 0, "a server sends no mask");
            assert_eq!(first & 0xF0, 0x80, "a server sends whole messages");
            let length = match second {
                126 => u64::from(self.0.read_u16().await?),
                127 => self.0.read_u64().await?,
                short => short.into(),
            };
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await?;
            Ok::<_, std::io::Error>((first & 0x0F, payload))
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a frame in time").unwrap()
    }

    /// So many bytes out of binary frames.
    async fn data(&mut self, length: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < length {
            let (opcode, payload) = self.frame().await;
            assert_eq!(opcode, BINARY);
            data.extend(payload);
        }
        data
    }

    /// The close frame's code, after which the connection ends.
    async fn closed(mut self) -> u16 {
        loop {
            let (opcode, payload) = self.frame().await;
            if opcode == CLOSE {
                let mut rest = Vec::new();
                let reading = self.0.read_to_end(&mut rest);
                tokio::time::timeout(PATIENCE, reading).await.expect("the end in time").unwrap();
                assert!(rest.is_empty(), "{rest:?}");
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

fn fixture() -> Fixture {
    Fixture::over_websocket(Limits::default(), Script::default)
}

#[tokio::test]
async fn carries_the_stream_whatever_the_frames() {
    let mut fixture = fixture();
    for version in VERSIONS {
        let mut socket = Socket::open(&fixture.client().version(version), &fixture).await;
        let remote = fixture.opened().await;
        socket.send(&[whole(BINARY, b"one "), frame(BINARY, b"tw"), whole(PING, b"there?")].concat()).await;
        socket.send(&[frame(0, b"o "), frame(0, b""), whole(0, b"three")].concat()).await;
        let mut data = Vec::new();
        let mut pong = None;
        while data.len() < 13 || pong.is_none() {
            match socket.frame().await {
                (BINARY, payload) => data.extend(payload),
                (PONG, payload) => pong = Some(payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((data, pong), (b"one two three".to_vec(), Some(b"there?".to_vec())));
        assert_eq!(remote.state.lock().received, b"one two three");
    }
}

#[tokio::test]
async fn large_transfers_arrive_whole() {
    let mut fixture = fixture();
    let mut socket = Socket::open(&fixture.client(), &fixture).await;
    let _remote = fixture.opened().await;
    let payload: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..5 {
        socket.send(&whole(BINARY, &payload)).await;
        assert!(socket.data(payload.len()).await == payload);
    }
}

#[tokio::test]
async fn frames_may_follow_the_request_at_once_and_requests_may_come_before_it() {
    let mut fixture = fixture();
    let mut socket = Socket(fixture.connect().await);
    socket.send(b"GET /else HTTP/1.1\r\nHost: hub\r\n\r\n").await;
    assert!(socket.head().await.starts_with("HTTP/1.1 404 "));
    let mut body = [0; 12];
    socket.0.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"nothing here");
    socket.send(&[OPENING.as_bytes(), &whole(BINARY, b"early"), &frame(BINARY, b"half")[..7]].concat()).await;
    assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(socket.data(6).await, b"earlyh");
    let remote = fixture.opened().await;
    remote.until("the bytes", |state| state.received == b"earlyh").await;
}

#[tokio::test]
async fn a_client_certificate_is_seen() {
    let mut fixture = fixture();
    let device = Made::new("device-1");
    let client = fixture.client().present(vec![device.der.clone()], &device.key);
    let _socket = Socket::open(&client, &fixture).await;
    let remote = fixture.opened().await;
    assert_eq!(remote.peer.certificates, [device.der.to_vec()]);
    assert_eq!(remote.peer.server_name.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let mut fixture = fixture();
    let mut socket = Socket::open(&fixture.client(), &fixture).await;
    let remote = fixture.opened().await;
    socket.send(&[whole(BINARY, b"last"), whole(CLOSE, &1000_u16.to_be_bytes()), whole(BINARY, b"x")].concat()).await;
    assert_eq!(socket.data(4).await, b"last");
    assert_eq!(socket.closed().await, 1000);
    assert_eq!(remote.disconnect().await, Disconnect::PeerClosed);
    assert_eq!(remote.state.lock().received, b"last");
}

#[tokio::test]
async fn broken_framing_ends_the_connection_and_says_so() {
    let mut fixture = fixture();
    let endless = [frame(BINARY, b"a"), frame(0, b"").repeat(WEBSOCKET_FRAGMENTS as usize)].concat();
    let huge = [&[0x82, 0xFF][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    let cases: [(&[u8], u16); 7] = [
        (&[0x82, 1, b'a'], 1002),
        (&whole(1, b"text"), 1003),
        (&whole(0, b"continued"), 1002),
        (&whole(0x42, b"reserved"), 1002),
        (&frame(PING, b"in pieces"), 1002),
        (&endless, 1008),
        (&huge, 1009),
    ];
    for (bytes, code) in cases {
        let mut socket = Socket::open(&fixture.client(), &fixture).await;
        let remote = fixture.opened().await;
        socket.send(bytes).await;
        assert_eq!(socket.closed().await, code, "{:?}", &bytes[..bytes.len().min(16)]);
        let disconnect = remote.disconnect().await;
        assert!(matches!(disconnect, Disconnect::Closed(CloseReason::Violation(_))), "{disconnect:?}");
    }
    let violations = fixture.server().statistics().websocket_violations;
    assert_eq!(violations, cases.len() as u64);
}

#[tokio::test]
async fn pings_keep_nobody_alive() {
    let script = || Script { deadline: Some(Duration::from_millis(200)), ..Script::default() };
    let mut fixture = Fixture::over_websocket(Limits::default(), script);
    let mut socket = Socket::open(&fixture.client(), &fixture).await;
    let remote = fixture.opened().await;
    let disconnect = remote.disconnect();
    tokio::pin!(disconnect);
    let disconnect = loop {
        tokio::select! {
            disconnect = &mut disconnect => break disconnect,
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                let _ = socket.0.write_all(&whole(PING, b"")).await;
            }
        }
    };
    assert_eq!(disconnect, Disconnect::Closed(CloseReason::Timeout("script")));
}

#[tokio::test]
async fn the_last_words_come_before_the_close_frame() {
    let reasons = [
        (CloseReason::Finished, 1000),
        (CloseReason::Superseded, 1008),
        (CloseReason::Overload("of everything"), 1013),
    ];
    for (reason, code) in reasons {
        let given = reason.clone();
        let script = move || Script { close_on: Some((b'!', given.clone())), ..Script::default() };
        let mut fixture = Fixture::over_websocket(Limits::default(), script);
        let mut socket = Socket::open(&fixture.client(), &fixture).await;
        let remote = fixture.opened().await;
        socket.send(&whole(BINARY, b"bye!")).await;
        assert_eq!(socket.data(4).await, b"bye!");
        assert_eq!(socket.closed().await, code);
        assert_eq!(remote.disconnect().await, Disconnect::Closed(reason));
    }
}

#[tokio::test]
async fn a_shutdown_ends_it_in_order() {
    let mut fixture = fixture();
    let mut socket = Socket::open(&fixture.client(), &fixture).await;
    let remote = fixture.opened().await;
    let (in_time, code) = tokio::join!(fixture.shutdown(PATIENCE), async {
        assert_eq!(socket.data(7).await, b"goodbye");
        socket.closed().await
    });
    assert!(in_time);
    assert_eq!(code, 1001);
    assert_eq!(remote.disconnect().await, Disconnect::Closed(CloseReason::Shutdown));
}

#[tokio::test]
async fn a_peer_that_never_reads_is_closed_when_it_stalls() {
    let limits = Limits { write_stall: Duration::from_millis(100), ..Limits::default() };
    let mut fixture = Fixture::over_websocket(limits, || Script { flood: 10_000, ..Script::default() });
    let _socket = Socket::open(&fixture.client(), &fixture).await;
    let remote = fixture.opened().await;
    assert_eq!(remote.disconnect().await, Disconnect::Stalled);
}

#[tokio::test]
async fn whoever_has_not_proved_who_it_is_counts_as_that() {
    let script = || Script { authenticated: false, ..Script::default() };
    let mut fixture = Fixture::over_websocket(Limits::default(), script);
    let _socket = Socket::open(&fixture.client(), &fixture).await;
    let remote = fixture.opened().await;
    assert_eq!(fixture.server().statistics().unauthenticated, 1);
    remote.change(|state| state.script.authenticated = true);
    until("the proof to count", || fixture.server().statistics().unauthenticated == 0).await;
    assert_eq!(fixture.server().statistics().websockets, 1);
}

#[tokio::test]
async fn an_opening_that_is_wrong_gets_an_answer_and_the_connection_goes_on() {
    let fixture = fixture();
    let mut socket = Socket(fixture.connect().await);
    for (from, to, status) in [
        ("Upgrade: websocket\r\n", "", "426 "),
        ("Version: 13", "Version: 8", "426 "),
        ("Protocol: mqtt", "Protocol: AMQPWSB10", "400 "),
        ("Key: dGhl", "Key: x", "400 "),
    ] {
        socket.send(OPENING.replace(from, to).as_bytes()).await;
        let head = socket.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        socket.0.read_exact(&mut body).await.unwrap();
        assert!(!body.is_empty());
    }
    socket.send(OPENING.as_bytes()).await;
    assert!(socket.head().await.starts_with("HTTP/1.1 101 "));
}
