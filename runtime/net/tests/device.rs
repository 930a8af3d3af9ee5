//! Device connections: TLS, bounds and order, over real sockets on the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nave_net::Limits;
use nave_session::protocol::{CloseReason, Disconnect, TlsVersion};
use support::{Client, Fixture, Made, PATIENCE, Script, VERSIONS, until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

async fn echoes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; bytes.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an echo").unwrap();
    assert!(answer == bytes, "the echo differs");
}

/// Bytes that show a lost, doubled or swapped piece.
fn pattern(length: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_be_bytes).take(length).collect()
}

/// Reads to the end; the flag says whether TLS ended in order.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end in time");
    (all, end.is_ok())
}

/// The error with which a connection ends that looked established to the client.
async fn refused(stream: &mut (impl AsyncRead + Unpin)) -> io::Error {
    tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("a refusal in time").expect_err("a refusal")
}

#[tokio::test]
async fn echoes_over_both_versions() {
    let mut fixture = Fixture::echo();
    for (version, expected) in VERSIONS.into_iter().zip([TlsVersion::Tls12, TlsVersion::Tls13]) {
        let mut stream = fixture.client().version(version).name("LocalHost").connect(fixture.address).await.unwrap();
        echoes(&mut stream, b"hello").await;
        echoes(&mut stream, b"again").await;
        let remote = fixture.opened().await;
        assert_eq!(remote.peer.tls, expected);
        assert_eq!(remote.peer.server_name.as_deref(), Some("localhost"));
        assert_eq!(remote.peer.certificates, Vec::<Vec<u8>>::new());
        assert_eq!(remote.peer.address, stream.get_ref().0.local_addr().unwrap());
        stream.shutdown().await.unwrap();
        assert_eq!(remote.disconnect().await, Disconnect::PeerClosed);
    }
}

#[tokio::test]
async fn a_certificate_of_any_issuer_is_accepted_and_seen() {
    let mut fixture = Fixture::echo();
    let (device, other) = (Made::new("device"), Made::new("other"));
    for version in VERSIONS {
        let chain = vec![device.der.clone(), other.der.clone()];
        let client = fixture.client().version(version).present(chain, &device.key);
        let mut stream = client.connect(fixture.address).await.unwrap();
        echoes(&mut stream, b"hello").await;
        assert_eq!(fixture.opened().await.peer.certificates, [device.der.to_vec(), other.der.to_vec()]);
        assert_eq!(*client.hints.lock(), Some(0), "JSSE sends a self-signed certificate only to an empty list");
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let mut fixture = Fixture::echo();
    let (device, thief) = (Made::new("device"), Made::new("thief"));
    for (version, failures) in VERSIONS.into_iter().zip([1, 2]) {
        let client = fixture.client().version(version).present(vec![device.der.clone()], &thief.key);
        let error = match client.connect(fixture.address).await {
            Err(error) => error,
            // In TLS 1.3 the client is done before the server has looked at its certificate.
            Ok(mut stream) => refused(&mut stream).await,
        };
        assert!(error.to_string().contains("alert"), "the client learns why: {error}");
        until("the failure to be counted", || fixture.server().statistics().handshake_failures == failures).await;
    }
    assert!(fixture.opened.try_recv().is_err(), "no session was made");
}

#[tokio::test]
async fn a_chain_beyond_the_bound_is_refused() {
    let fixture = Fixture::echo();
    let device = Made::new("device");
    let chain = vec![device.der.clone(); nave_net::limits::MAX_CLIENT_CHAIN + 1];
    let client = fixture.client().present(chain, &device.key);
    if let Ok(mut stream) = client.connect(fixture.address).await {
        refused(&mut stream).await;
    }
    until("the failure to be counted", || fixture.server().statistics().handshake_failures == 1).await;
}

#[tokio::test]
async fn the_name_selects_the_certificate_and_a_replacement_takes_effect() {
    let mut fixture = Fixture::echo();
    let (other, newer) = (Made::new("other.example"), Made::new("localhost"));
    fixture.certificates.replace(fixture.made.identity(), [("Other.Example".to_owned(), other.identity())]);
    let served = |client: Client| {
        let address = fixture.address;
        async move {
            let stream = client.connect(address).await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0].clone()
        }
    };
    assert_eq!(served(fixture.client()).await, fixture.made.der);
    assert_eq!(served(Client::new(other.der.clone()).name("OTHER.example")).await, other.der);
    assert_eq!(served(fixture.client().nameless()).await, fixture.made.der);
    fixture.certificates.replace(newer.identity(), []);
    assert_eq!(served(Client::new(newer.der.clone())).await, newer.der);
    let names = [fixture.opened().await, fixture.opened().await, fixture.opened().await].map(|r| r.peer.server_name);
    assert_eq!(names, [Some("localhost".to_owned()), Some("other.example".to_owned()), None]);
}

/// Writes one byte at a time, so that every record arrives in as many pieces as possible.
struct Trickle(TcpStream);

impl AsyncRead for Trickle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn pieces_of_any_size_are_put_together() {
    let mut fixture = Fixture::echo();
    let device = Made::new("device");
    for version in VERSIONS {
        for fragment in [None, Some(32)] {
            let mut client = fixture.client().version(version).present(vec![device.der.clone(); 8], &device.key);
            if let Some(bytes) = fragment {
                client = client.max_fragment(bytes);
            }
            let stream = TcpStream::connect(fixture.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut stream = client.over(Trickle(stream)).await.unwrap();
            echoes(&mut stream, &pattern(3_000)).await;
            assert_eq!(fixture.opened().await.peer.certificates.len(), 8);
        }
    }
}

#[tokio::test]
async fn large_transfers_arrive_whole() {
    let mut fixture = Fixture::echo();
    let sent = pattern(8 * 1024 * 1024);
    for version in VERSIONS {
        let stream = fixture.client().version(version).connect(fixture.address).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let to_send = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&to_send).await.unwrap();
            writer.flush().await.unwrap();
            writer
        });
        let mut received = vec![0; sent.len()];
        tokio::time::timeout(PATIENCE, reader.read_exact(&mut received)).await.expect("all in time").unwrap();
        assert!(received == sent, "the echo differs");
        drop(writing.await.unwrap());
        let remote = fixture.opened().await;
        assert!(remote.state.lock().largest_receive <= nave_net::limits::READ_BUFFER, "one read at a time");
    }
}

/// In TLS 1.3 a client may send data together with the end of its handshake, and one read brings both.
#[tokio::test]
async fn what_comes_with_the_end_of_the_handshake_arrives() {
    let mut fixture = Fixture::echo();
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut client = fixture.client().version(&rustls::version::TLS13).session();
    while client.is_handshaking() {
        stream.write_all(&outgoing(&mut client)).await.unwrap();
        incoming(&mut client, &mut stream).await;
    }
    let sent = pattern(40_000);
    io::Write::write_all(&mut client.writer(), &sent).unwrap();
    stream.write_all(&outgoing(&mut client)).await.unwrap();
    let mut received = vec![0; sent.len()];
    let mut length = 0;
    while length < sent.len() {
        incoming(&mut client, &mut stream).await;
        while let Ok(more) = io::Read::read(&mut client.reader(), &mut received[length..]) {
            length += more;
            if more == 0 {
                break;
            }
        }
    }
    assert!(received == sent, "the echo differs");
    assert!(fixture.opened().await.state.lock().largest_receive <= nave_net::limits::READ_BUFFER);
}

fn outgoing(client: &mut rustls::ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

async fn incoming(client: &mut rustls::ClientConnection, stream: &mut TcpStream) {
    let mut bytes = [0; 4_096];
    let arrived = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer").unwrap();
    assert!(arrived > 0, "the server closed the connection");
    let mut rest = &bytes[..arrived];
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets().unwrap();
    }
}

#[tokio::test]
async fn key_updates_are_answered() {
    let mut fixture = Fixture::echo();
    let mut stream = fixture.client().version(&rustls::version::TLS13).connect(fixture.address).await.unwrap();
    for _ in 0..5 {
        stream.get_mut().1.refresh_traffic_keys().unwrap();
        echoes(&mut stream, b"under new keys").await;
    }
    assert_eq!(fixture.opened().await.state.lock().received.len(), 5 * 14);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_closed_when_it_stalls() {
    let limits = Limits { write_stall: Duration::from_millis(100), ..Limits::default() };
    let mut fixture = Fixture::new(limits, || Script { flood: 50_000, ..Script::default() });
    let (_silent, remote) = fixture.pair().await;
    assert_eq!(remote.disconnect().await, Disconnect::Stalled);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_closed_at_the_bound_of_output() {
    let limits = Limits { pending_output: 128 * 1024, ..Limits::default() };
    let mut fixture = Fixture::new(limits, || Script { flood: 32 * 1024 * 1024, ..Script::default() });
    let (_silent, remote) = fixture.pair().await;
    assert_eq!(remote.disconnect().await, Disconnect::OutputOverflow);
}

#[tokio::test]
async fn back_pressure_stops_reading_and_a_wake_resumes_it() {
    let mut fixture = Fixture::new(Limits::default(), || Script { echo: false, ..Script::default() });
    let (mut stream, remote) = fixture.pair().await;
    remote.state.lock().script.wants_input = false;
    let sent = pattern(32 * 1024 * 1024);
    let to_send = sent.clone();
    let writing = tokio::spawn(async move {
        stream.write_all(&to_send).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    // A read may have been waiting when the script changed; nothing follows it.
    let bound = nave_net::limits::READ_BUFFER * nave_net::limits::READS_PER_TURN;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopped_at = remote.state.lock().received.len();
    assert!(stopped_at <= bound, "{stopped_at} bytes were read against back-pressure");
    assert!(!writing.is_finished(), "the writer has to stall");
    remote.change(|state| state.script.wants_input = true);
    let _stream = tokio::time::timeout(PATIENCE, writing).await.expect("the rest flows").unwrap();
    remote.until("all bytes", |state| state.received.len() == sent.len()).await;
    assert!(remote.state.lock().received == sent, "bytes were lost or doubled");
}

#[tokio::test]
async fn a_closing_protocol_gets_its_last_words_out() {
    for version in VERSIONS {
        let mut fixture = Fixture::new(Limits::default(), || Script {
            close_on: Some((b'!', CloseReason::Refused("test".into()))),
            echo: false,
            ..Script::default()
        });
        let mut stream = fixture.client().version(version).connect(fixture.address).await.unwrap();
        let remote = fixture.opened().await;
        let last = pattern(700_000);
        remote.change(|state| {
            for piece in last.chunks(10_000) {
                state.output.push_back(piece.to_vec());
            }
            state.script.close_on = Some((b'!', CloseReason::Refused("test".into())));
        });
        stream.write_all(b"!").await.unwrap();
        // Sent after the decision to close, and never read: it must not turn the end into a reset.
        stream.write_all(&[0; 100_000]).await.unwrap();
        stream.flush().await.unwrap();
        let (received, in_order) = read_all(&mut stream).await;
        assert!(received == last, "{} of {} bytes arrived", received.len(), last.len());
        assert!(in_order, "close_notify came");
        assert_eq!(remote.disconnect().await, Disconnect::Closed(CloseReason::Refused("test".into())));
    }
}

#[tokio::test]
async fn work_in_flight_goes_on_after_the_peer_left() {
    let mut fixture = Fixture::new(Limits::default(), || Script { drained: false, ..Script::default() });
    let (stream, remote) = fixture.pair().await;
    drop(stream);
    assert!(matches!(remote.disconnect().await, Disconnect::PeerClosed | Disconnect::Io(_)));
    let before = remote.state.lock().polls_after_disconnect;
    remote.change(|_| {});
    remote.until("a poll after the end", |state| state.polls_after_disconnect > before).await;
    assert_eq!(fixture.server().statistics().connections, 1, "it keeps its place while it works");
    remote.change(|state| state.script.drained = true);
    until("the place", || fixture.server().statistics().connections == 0).await;
}

#[tokio::test]
async fn deadlines_are_kept_even_when_they_move_closer() {
    let mut fixture = Fixture::new(Limits::default(), || Script { deadline: Some(PATIENCE * 10), ..Script::default() });
    let (mut stream, remote) = fixture.pair().await;
    echoes(&mut stream, b"alive").await;
    remote.change(|state| state.script.deadline = Some(Duration::from_millis(50)));
    let (rest, in_order) = read_all(&mut stream).await;
    assert!(rest.is_empty() && in_order);
    assert_eq!(remote.disconnect().await, Disconnect::Closed(CloseReason::Timeout("script")));
}

#[tokio::test]
async fn a_shutdown_ends_connections_in_order() {
    let mut fixture = Fixture::echo();
    let (mut stream, remote) = fixture.pair().await;
    echoes(&mut stream, b"alive").await;
    let half_open = TcpStream::connect(fixture.address).await.unwrap();
    until("both connections", || fixture.server().statistics().connections == 2).await;
    let reading = tokio::spawn(async move { read_all(&mut stream).await });
    assert!(fixture.shutdown(PATIENCE).await, "all ended in time");
    assert_eq!(reading.await.unwrap(), (b"goodbye".to_vec(), true));
    assert_eq!(remote.disconnect().await, Disconnect::Closed(CloseReason::Shutdown));
    assert!(TcpStream::connect(fixture.address).await.is_err(), "nobody listens any more");
    drop(half_open);
}

#[tokio::test]
async fn a_shutdown_cuts_what_does_not_end() {
    let mut fixture =
        Fixture::new(Limits::default(), || Script { ignore_shutdown: true, drained: false, ..Script::default() });
    let (_stream, remote) = fixture.pair().await;
    assert!(!fixture.shutdown(Duration::from_millis(50)).await);
    assert_eq!(remote.disconnect().await, Disconnect::Shutdown);
}

#[tokio::test]
async fn a_thousand_connections_at_once() {
    let fixture = Fixture::echo();
    let (client, address) = (fixture.client(), fixture.address);
    let mut connecting = tokio::task::JoinSet::new();
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(64));
    for index in 0..1_000 {
        let (client, places) = (client.clone(), places.clone());
        connecting.spawn(async move {
            let _place = places.acquire().await.unwrap();
            (index, client.connect(address).await.unwrap())
        });
    }
    let mut streams = connecting.join_all().await;
    assert_eq!(fixture.server().statistics().connections, 1_000);
    for (index, stream) in &mut streams {
        echoes(stream, format!("connection {index}").as_bytes()).await;
    }
    drop(streams);
    until("all places", || fixture.server().statistics().connections == 0).await;
    assert_eq!(fixture.server().statistics().unauthenticated, 0);
}

#[tokio::test]
async fn garbage_is_answered_with_an_alert_and_harms_nobody() {
    let fixture = Fixture::echo();
    let mut healthy = fixture.connect().await;
    let garbage: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0x16, 3, 1, 0xff, 0xff], &[0x80; 70_000]];
    for (bytes, failures) in garbage.iter().zip(1..) {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
        const ALERT: u8 = 21;
        assert_eq!(answer.first(), Some(&ALERT), "{failures}: {answer:?}");
        until("the failure to be counted", || fixture.server().statistics().handshake_failures == failures).await;
    }
    echoes(&mut healthy, b"still here").await;
}

#[tokio::test]
async fn garbage_after_the_handshake_ends_the_connection() {
    let mut fixture = Fixture::echo();
    let (mut stream, remote) = fixture.pair().await;
    stream
        .get_mut()
        .0
        .write_all(&[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        .await
        .unwrap();
    assert!(matches!(remote.disconnect().await, Disconnect::Tls(_)));
}

#[tokio::test]
async fn an_unfinished_handshake_times_out() {
    let fixture = Fixture::new(Limits { handshake: Duration::from_millis(50), ..Limits::default() }, Script::default);
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(&[0x16, 3, 1]).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, stream.read(&mut [0; 9])).await.expect("an end").unwrap_or(0), 0);
    until("the failure to be counted", || fixture.server().statistics().handshake_failures == 1).await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once() {
    let mut fixture = Fixture::new(Limits { connections: 1, ..Limits::default() }, Script::default);
    let (mut stream, _remote) = fixture.pair().await;
    assert!(fixture.client().connect(fixture.address).await.is_err());
    until("the refusal to be counted", || fixture.server().statistics().refused == 1).await;
    echoes(&mut stream, b"still here").await;
    drop(stream);
    until("the place", || fixture.server().statistics().connections == 0).await;
    echoes(&mut fixture.connect().await, b"room again").await;
}

#[tokio::test]
async fn clients_wait_while_too_many_have_not_proved_who_they_are() {
    let mut fixture = Fixture::new(Limits { unauthenticated: 1, ..Limits::default() }, || Script {
        authenticated: false,
        ..Script::default()
    });
    let (_first, remote) = fixture.pair().await;
    let (client, address) = (fixture.client(), fixture.address);
    let second = tokio::spawn(async move { client.connect(address).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.server().statistics().accepted, 1);
    remote.change(|state| state.script.authenticated = true);
    let mut second = tokio::time::timeout(PATIENCE, second).await.expect("it gets its turn").unwrap().unwrap();
    echoes(&mut second, b"my turn").await;
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    let fixture = Fixture::new(Limits::default(), || Script { panic_on: Some(b'#'), ..Script::default() });
    let mut neighbours = Vec::new();
    for _ in 0..4 {
        neighbours.push(fixture.connect().await);
    }
    let mut victim = fixture.connect().await;
    victim.write_all(b"#").await.unwrap();
    victim.flush().await.unwrap();
    assert!(read_all(&mut victim).await.0.is_empty());
    for neighbour in &mut neighbours {
        echoes(neighbour, b"still here").await;
    }
    until("the place", || fixture.server().statistics().connections == 4).await;
}
