//! Certificates, a scripted protocol and a TLS client.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use http::{Request, Response};
use nave_env::{BoxFuture, Moment};
use nave_http::service::{Body, HttpService, Peer, ResponseBody};
use nave_net::tls::{Certificates, Identity, ServerTls};
use nave_net::{Limits, RealEnv, Server, ServerOptions, WebSocketEndpoint};
use nave_session::protocol::{CloseReason, Disconnect, PeerFacts, Protocol, ProtocolFactory};
use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Long enough for a slow machine; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Made {
    pub der: CertificateDer<'static>,
    pub key: rcgen::KeyPair,
}

impl Made {
    pub fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), key }
    }

    pub fn identity(&self) -> Identity {
        Identity::from_der(vec![self.der.to_vec()], self.key.serialize_der()).unwrap()
    }
}

/// What the server's side of one connection does, changeable while it runs.
pub struct Script {
    pub echo: bool,
    pub authenticated: bool,
    pub wants_input: bool,
    pub close_on: Option<(u8, CloseReason)>,
    pub panic_on: Option<u8>,
    pub deadline: Option<Duration>,
    pub ignore_shutdown: bool,
    pub drained: bool,
    /// Given out endlessly, this many bytes per call.
    pub flood: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            echo: true,
            authenticated: true,
            wants_input: true,
            close_on: None,
            panic_on: None,
            deadline: None,
            ignore_shutdown: false,
            drained: true,
            flood: 0,
        }
    }
}

#[derive(Default)]
pub struct State {
    pub script: Script,
    pub received: Vec<u8>,
    pub largest_receive: usize,
    pub output: VecDeque<Vec<u8>>,
    pub closing: Option<CloseReason>,
    pub waker: Option<Waker>,
    pub polls_after_disconnect: usize,
    pub disconnected: Option<Disconnect>,
}

/// The test's view of a connection.
#[derive(Clone)]
pub struct Remote {
    pub peer: PeerFacts,
    pub state: Arc<Mutex<State>>,
}

impl Remote {
    /// Changes something and wakes the connection.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        until(what, || condition(&self.state.lock())).await;
    }

    pub async fn disconnect(&self) -> Disconnect {
        self.until("the end", |state| state.disconnected.is_some()).await;
        self.state.lock().disconnected.clone().unwrap()
    }
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

struct Scripted {
    env: Arc<RealEnv>,
    opened: Moment,
    state: Arc<Mutex<State>>,
}

impl Protocol for Scripted {
    fn receive(&mut self, bytes: &[u8]) {
        let mut state = self.state.lock();
        assert!(state.disconnected.is_none(), "nothing is received after the end");
        state.largest_receive = state.largest_receive.max(bytes.len());
        state.received.extend_from_slice(bytes);
        if state.script.echo {
            state.output.push_back(bytes.to_vec());
        }
        if state.script.panic_on.is_some_and(|byte| bytes.contains(&byte)) {
            drop(state);
            panic!("as the script says");
        }
        if let Some((byte, reason)) = state.script.close_on.clone()
            && bytes.contains(&byte)
        {
            state.closing = Some(reason);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        let mut state = self.state.lock();
        state.waker = Some(cx.waker().clone());
        if state.disconnected.is_some() {
            state.polls_after_disconnect += 1;
        } else if self.deadline_of(&state).is_some_and(|deadline| self.monotonic() >= deadline) {
            state.closing.get_or_insert(CloseReason::Timeout("script"));
        }
    }

    fn transmit(&mut self, out: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        if state.script.flood > 0 {
            out.resize(out.len() + state.script.flood, b'f');
            return true;
        }
        if let Some(next) = state.output.pop_front() {
            out.extend(next);
        }
        !state.output.is_empty()
    }

    fn wants_input(&self) -> bool {
        self.state.lock().script.wants_input
    }

    fn deadline(&self) -> Option<Moment> {
        self.deadline_of(&self.state.lock())
    }

    fn closing(&self) -> Option<CloseReason> {
        self.state.lock().closing.clone()
    }

    fn authenticated(&self) -> bool {
        self.state.lock().script.authenticated
    }

    fn shutdown(&mut self) {
        let mut state = self.state.lock();
        if !state.script.ignore_shutdown {
            state.output.push_back(b"goodbye".to_vec());
            state.closing = Some(CloseReason::Shutdown);
        }
    }

    fn disconnected(&mut self, reason: Disconnect) {
        let before = self.state.lock().disconnected.replace(reason);
        assert_eq!(before, None, "told twice");
    }

    fn drained(&self) -> bool {
        self.state.lock().script.drained
    }
}

impl Scripted {
    fn monotonic(&self) -> Moment {
        nave_env::Env::monotonic(&*self.env)
    }

    fn deadline_of(&self, state: &State) -> Option<Moment> {
        state.script.deadline.map(|delay| self.opened.after(delay))
    }
}

struct Factory {
    env: Arc<RealEnv>,
    script: Box<dyn Fn() -> Script + Send + Sync>,
    opened: mpsc::UnboundedSender<Remote>,
}

impl ProtocolFactory for Factory {
    fn accept(&self, peer: PeerFacts) -> Box<dyn Protocol> {
        let state = Arc::new(Mutex::new(State { script: (self.script)(), ..State::default() }));
        let _ = self.opened.send(Remote { peer, state: Arc::clone(&state) });
        let opened = nave_env::Env::monotonic(&*self.env);
        Box::new(Scripted { env: Arc::clone(&self.env), opened, state })
    }
}

/// Answers 404.
struct Nothing;

impl HttpService for Nothing {
    fn call(&self, _: Peer, _: Request<Body>) -> BoxFuture<Response<ResponseBody>> {
        let mut response = Response::new(ResponseBody::from("nothing here"));
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        Box::pin(std::future::ready(response))
    }
}

/// A server with a scripted protocol.
pub struct Fixture {
    pub server: Option<Server>,
    pub address: SocketAddr,
    pub made: Made,
    pub certificates: Arc<Certificates>,
    pub opened: mpsc::UnboundedReceiver<Remote>,
    tls: ServerTls,
    env: Arc<RealEnv>,
}

impl Fixture {
    pub fn new(limits: Limits, script: impl Fn() -> Script + Send + Sync + 'static) -> Self {
        let mut fixture = Self::idle(limits);
        let (sender, opened) = mpsc::unbounded_channel();
        let factory = Factory { env: fixture.env.clone(), script: Box::new(script), opened: sender };
        let any = "127.0.0.1:0".parse().unwrap();
        fixture.address = fixture.server().listen_mqtts(any, &fixture.tls, Arc::new(factory)).unwrap();
        fixture.opened = opened;
        fixture
    }

    /// A server without a listener.
    fn idle(limits: Limits) -> Self {
        let made = Made::new("localhost");
        let certificates = Certificates::new(made.identity(), []);
        let tls = ServerTls::new(Arc::clone(&certificates)).unwrap();
        let env = RealEnv::start().unwrap();
        let (address, opened) = ("127.0.0.1:1".parse().unwrap(), mpsc::unbounded_channel().1);
        Self { server: Some(start(limits, &env)), address, made, certificates, opened, tls, env }
    }

    /// The same over WebSocket, beside a service that answers 404 to everything.
    pub fn over_websocket(limits: Limits, script: impl Fn() -> Script + Send + Sync + 'static) -> Self {
        let mut fixture = Self::idle(limits);
        let (sender, opened) = mpsc::unbounded_channel();
        let factory = Factory { env: fixture.env.clone(), script: Box::new(script), opened: sender };
        let endpoint =
            WebSocketEndpoint { paths: &["/$iothub/websocket"], sub_protocol: "mqtt", factory: Arc::new(factory) };
        let (any, tls) = ("127.0.0.1:0".parse().unwrap(), &fixture.tls);
        fixture.address = fixture.server().listen_https(any, tls, Arc::new(Nothing), vec![endpoint]).unwrap();
        fixture.opened = opened;
        fixture
    }

    pub fn echo() -> Self {
        Self::new(Limits::default(), Script::default)
    }

    pub async fn opened(&mut self) -> Remote {
        tokio::time::timeout(PATIENCE, self.opened.recv()).await.expect("a connection in time").unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(self.made.der.clone())
    }

    pub async fn connect(&self) -> TlsStream<TcpStream> {
        self.client().connect(self.address).await.unwrap()
    }

    pub async fn pair(&mut self) -> (TlsStream<TcpStream>, Remote) {
        let stream = self.connect().await;
        (stream, self.opened().await)
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Shuts down on a thread that may block.
    pub async fn shutdown(&mut self, grace: Duration) -> bool {
        let server = self.server.take().unwrap();
        tokio::task::spawn_blocking(move || server.shutdown(grace)).await.unwrap()
    }
}

pub fn start(limits: Limits, env: &Arc<RealEnv>) -> Server {
    let options = ServerOptions { workers: NonZeroUsize::new(2), limits };
    Server::start(&options, Arc::clone(env)).unwrap()
}

/// How a client connects.
#[derive(Clone)]
pub struct Client {
    trusted: CertificateDer<'static>,
    versions: Vec<&'static SupportedProtocolVersion>,
    identity: Option<Arc<CertifiedKey>>,
    pub hints: Arc<Mutex<Option<usize>>>,
    max_fragment: Option<usize>,
    name: ServerName<'static>,
    send_name: bool,
}

impl Client {
    pub fn new(trusted: CertificateDer<'static>) -> Self {
        Self {
            trusted,
            versions: VERSIONS.to_vec(),
            identity: None,
            hints: Arc::default(),
            max_fragment: None,
            name: "localhost".try_into().unwrap(),
            send_name: true,
        }
    }

    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Presents a chain, signing with `key`, whether or not it belongs to it.
    pub fn present(mut self, chain: Vec<CertificateDer<'static>>, key: &rcgen::KeyPair) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        self.identity = Some(Arc::new(CertifiedKey::new(chain, key)));
        self
    }

    pub fn max_fragment(mut self, bytes: usize) -> Self {
        self.max_fragment = Some(bytes);
        self
    }

    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned().try_into().unwrap();
        self
    }

    pub fn nameless(mut self) -> Self {
        self.send_name = false;
        self
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(Presenter(self.identity.clone(), Arc::clone(&self.hints))));
        config.max_fragment_size = self.max_fragment;
        config.enable_sni = self.send_name;
        Arc::new(config)
    }

    /// The TLS session alone, for a test that moves the bytes itself.
    pub fn session(&self) -> rustls::ClientConnection {
        rustls::ClientConnection::new(self.config(), self.name.clone()).unwrap()
    }

    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream).await
    }

    pub async fn over<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        let connect = TlsConnector::from(self.config()).connect(self.name.clone(), stream);
        tokio::time::timeout(PATIENCE, connect).await.expect("a handshake in time")
    }
}

/// Presents what it is given and notes how many issuers the server named.
#[derive(Debug)]
struct Presenter(Option<Arc<CertifiedKey>>, Arc<Mutex<Option<usize>>>);

impl ResolvesClientCert for Presenter {
    fn resolve(&self, hints: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.1.lock() = Some(hints.len());
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
