//! HTTP over TLS and without: framing, bounds and order, over real sockets on the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use nave_env::BoxFuture;
use nave_http::service::{Body, BodyError, HttpService, Peer, ResponseBody};
use nave_net::limits::{HTTP_HEAD_BYTES, HTTP_HEADERS};
use nave_net::tls::{Certificates, ServerTls};
use nave_net::{Limits, ListenError, RealEnv, Server};
use parking_lot::Mutex;
use support::{Client, Made, PATIENCE, until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Answers by path.
#[derive(Default)]
struct Service {
    peers: Mutex<Vec<Peer>>,
    chunks: Mutex<Option<mpsc::UnboundedReceiver<std::io::Result<Bytes>>>>,
    dropped: Arc<Mutex<usize>>,
}

struct CountDrop(Arc<Mutex<usize>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        *self.0.lock() += 1;
    }
}

impl HttpService for Service {
    fn call(&self, peer: Peer, request: Request<Body>) -> BoxFuture<Response<ResponseBody>> {
        self.peers.lock().push(peer);
        let chunks = self.chunks.lock().take();
        let guard = CountDrop(Arc::clone(&self.dropped));
        Box::pin(async move {
            let (status, body): (u16, ResponseBody) = match request.uri().path() {
                "/echo" => match request.into_body().collect(1_000).await {
                    Ok(bytes) => (200, bytes.into()),
                    Err(BodyError::TooLarge { .. }) => (413, "too large".into()),
                    Err(BodyError::Timeout) => (408, "too slow".into()),
                    Err(BodyError::Incomplete(_)) => (400, "incomplete".into()),
                },
                "/stream" => {
                    let chunks = futures_util::stream::unfold((chunks.unwrap(), guard), |(mut chunks, guard)| async {
                        chunks.recv().await.map(|chunk| (chunk, (chunks, guard)))
                    });
                    (200, ResponseBody::stream(chunks))
                }
                "/flood" => {
                    let endless = futures_util::stream::repeat_with(move || {
                        let _keep = &guard;
                        Ok(Bytes::from(vec![b'f'; 50_000]))
                    });
                    (200, ResponseBody::stream(endless))
                }
                "/never" => {
                    let _guard = guard;
                    std::future::pending().await
                }
                "/empty" => (204, ResponseBody::empty()),
                _ => (404, "nothing here".into()),
            };
            let mut response = Response::new(body);
            *response.status_mut() = status.try_into().unwrap();
            response
        })
    }
}

struct Fixture {
    server: Option<Server>,
    service: Arc<Service>,
    made: Made,
    secure: SocketAddr,
    plain: SocketAddr,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let made = Made::new("localhost");
        let tls = ServerTls::new(Certificates::new(made.identity(), [])).unwrap();
        let server = support::start(limits, &RealEnv::start().unwrap());
        let service = Arc::new(Service::default());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let secure = server.listen_https(any, &tls, service.clone(), Vec::new()).unwrap();
        let plain = server.listen_http(any, service.clone()).unwrap();
        Self { server: Some(server), service, made, secure, plain }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.plain).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    async fn shutdown(&mut self, grace: Duration) -> bool {
        let server = self.server.take().unwrap();
        tokio::task::spawn_blocking(move || server.shutdown(grace)).await.unwrap()
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads until `end` has arrived.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.ends_with(end) {
            text.push(char::from(stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"))));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {end:?} came"));
    text
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end in time");
    String::from_utf8(all).unwrap()
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn answers_several_requests_of_a_connection_over_tls() {
    let fixture = Fixture::new(Limits::default());
    let device = Made::new("device");
    for version in support::VERSIONS {
        let client =
            Client::new(fixture.made.der.clone()).version(version).present(vec![device.der.clone()], &device.key);
        let mut stream = client.connect(fixture.secure).await.unwrap();
        for body in ["one", "two", ""] {
            send(&mut stream, &post("/echo", body)).await;
            let answer = read_until(&mut stream, &format!("\r\n\r\n{body}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
        }
        let peer = fixture.service.peers.lock().pop().unwrap();
        assert_eq!(peer.certificates(), [device.der.to_vec()]);
        assert_eq!(peer.tls.unwrap().server_name.as_deref(), Some("localhost"));
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let fixture = Fixture::new(Limits::default());
    let (device, thief) = (Made::new("device"), Made::new("thief"));
    for (version, failures) in support::VERSIONS.into_iter().zip([1, 2]) {
        let client =
            Client::new(fixture.made.der.clone()).version(version).present(vec![device.der.clone()], &thief.key);
        if let Ok(mut stream) = client.connect(fixture.secure).await {
            let end = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("a refusal in time");
            end.expect_err("a refusal");
        }
        let server = fixture.server.as_ref().unwrap();
        until("the failure to be counted", || server.statistics().handshake_failures == failures).await;
    }
    assert!(fixture.service.peers.lock().is_empty());
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused() {
    let fixture = Fixture::new(Limits::default());
    let mut stream = fixture.connect().await;
    send(&mut stream, &post("/echo", &"x".repeat(1_001))).await;
    assert!(read_until(&mut stream, "too large").await.starts_with("HTTP/1.1 413"));

    let mut stream = fixture.connect().await;
    send(&mut stream, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        send(&mut stream, &format!("190\r\n{}\r\n", "x".repeat(400))).await;
    }
    assert!(read_until(&mut stream, "too large").await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn streams_each_chunk_at_once_and_shows_how_it_ended() {
    let fixture = Fixture::new(Limits::default());
    let get = "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n";
    let (sender, receiver) = mpsc::unbounded_channel();
    *fixture.service.chunks.lock() = Some(receiver);
    let mut stream = fixture.connect().await;
    send(&mut stream, get).await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.contains("transfer-encoding: chunked"));
    for line in ["{\"a\":1}\n", "{\"b\":2}\n"] {
        sender.send(Ok(line.into())).unwrap();
        assert_eq!(read_until(&mut stream, "\n\r\n").await, format!("8\r\n{line}\r\n"));
    }
    drop(sender);
    assert_eq!(read_until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");

    let (sender, receiver) = mpsc::unbounded_channel();
    *fixture.service.chunks.lock() = Some(receiver);
    send(&mut stream, get).await;
    sender.send(Ok("a".into())).unwrap();
    read_until(&mut stream, "a\r\n").await;
    sender.send(Err(std::io::Error::other("broken"))).unwrap();
    assert_eq!(read_all(&mut stream).await, "", "cut without the end mark");
}

#[tokio::test]
async fn work_for_a_client_that_left_is_dropped() {
    let fixture = Fixture::new(Limits::default());
    let mut stream = fixture.connect().await;
    send(&mut stream, "GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("the call", || !fixture.service.peers.lock().is_empty()).await;
    assert_eq!(*fixture.service.dropped.lock(), 0);
    drop(stream);
    until("the drop", || *fixture.service.dropped.lock() == 1).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    let fixture = Fixture::new(Limits { write_stall: Duration::from_millis(100), ..Limits::default() });
    let mut stream = fixture.connect().await;
    send(&mut stream, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("the end of the flood", || *fixture.service.dropped.lock() == 1).await;
}

#[tokio::test]
async fn slow_clients_are_cut() {
    let soon = Duration::from_millis(100);
    let fixture = Fixture::new(Limits { http_header: soon, http_body_pause: soon, ..Limits::default() });
    let mut head = fixture.connect().await;
    send(&mut head, "GET /echo HTTP/1.1\r\nHost:").await;
    let answer = read_all(&mut head).await;
    assert!(!answer.contains(" 200 "), "{answer}");

    let mut body = fixture.connect().await;
    send(&mut body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").await;
    assert!(read_until(&mut body, "too slow").await.starts_with("HTTP/1.1 408"));

    let fixture = Fixture::new(Limits { http_body: soon, ..Limits::default() });
    let mut trickle = fixture.connect().await;
    send(&mut trickle, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n").await;
    let (mut reader, mut writer) = trickle.split();
    let writing = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => unreachable!("pending at its end"),
        answer = read_until(&mut reader, "too slow") => assert!(answer.starts_with("HTTP/1.1 408"), "{answer}"),
    }
}

#[tokio::test]
async fn a_head_beyond_the_bounds_is_refused() {
    let fixture = Fixture::new(Limits::default());
    let many: String = (0..=HTTP_HEADERS).map(|index| format!("x-{index}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(HTTP_HEAD_BYTES));
    for headers in [many, long] {
        let mut stream = fixture.connect().await;
        let _cut_while_writing = stream.write_all(format!("GET /empty HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
        let answer = read_all(&mut stream).await;
        // Unread bytes can turn the end into a reset that overtakes the answer.
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    }
    assert!(fixture.service.peers.lock().is_empty());
    let mut stream = fixture.connect().await;
    send(&mut stream, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 204"));
}

#[tokio::test]
async fn a_shutdown_lets_the_answer_out_and_closes_idle_connections() {
    let mut fixture = Fixture::new(Limits::default());
    let (sender, receiver) = mpsc::unbounded_channel();
    let (mut busy, mut idle) = (fixture.connect().await, fixture.connect().await);
    send(&mut idle, "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut idle, "\r\n\r\n").await;
    *fixture.service.chunks.lock() = Some(receiver);
    send(&mut busy, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_until(&mut busy, "\r\n\r\n").await;
    let ending = tokio::spawn(async move {
        assert_eq!(read_all(&mut idle).await, "");
        sender.send(Ok("last".into())).unwrap();
        drop(sender);
        read_all(&mut busy).await
    });
    assert!(fixture.shutdown(PATIENCE).await, "all ended in time");
    assert_eq!(ending.await.unwrap(), "4\r\nlast\r\n0\r\n\r\n");
}

#[tokio::test]
async fn without_tls_only_loopback_is_served() {
    let fixture = Fixture::new(Limits::default());
    let address = "0.0.0.0:0".parse().unwrap();
    let refused = fixture.server.as_ref().unwrap().listen_http(address, fixture.service.clone());
    assert!(matches!(refused, Err(ListenError::NotLoopback { .. })));
    let mut stream = fixture.connect().await;
    send(&mut stream, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(read_until(&mut stream, "nothing here").await.starts_with("HTTP/1.1 404"));
    assert!(fixture.service.peers.lock().pop().unwrap().tls.is_none());
}
