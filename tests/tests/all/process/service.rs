//! A back end: requests over HTTPS, one connection each.

use std::io;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nave_auth::{ConnectionString, Credential, SasToken, SharedKey};
use nave_model::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use nave_tests::leaks;

use super::in_time;
use super::server::Ready;

/// Long enough for every test.
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// What a client of the hub's or the provisioning service's API has to know.
#[derive(Clone)]
pub(super) struct Service {
    ready: Ready,
    host: String,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A message as the event stream shows it.
pub(super) struct Event {
    pub(super) partition: u64,
    pub(super) sequence: u64,
    pub(super) enqueued: String,
    pub(super) device: String,
    pub(super) source: String,
    pub(super) properties: Value,
    pub(super) body: Vec<u8>,
}

impl Service {
    /// A client of the first hub, with its owner's key.
    pub(super) fn hub(ready: &Ready) -> Self {
        Self::of(ready, &ready.json["hubs"][0])
    }

    /// A client of the provisioning service, with its owner's key.
    pub(super) fn provisioning(ready: &Ready) -> Self {
        Self::of(ready, &ready.json["provisioning"])
    }

    fn of(ready: &Ready, who: &Value) -> Self {
        let text = who["serviceConnectionString"].as_str().unwrap();
        let parsed = ConnectionString::parse_service(text).unwrap();
        let Credential::Key(key) = parsed.credential else { panic!("a key") };
        let host = parsed.host_name.as_str().to_owned();
        let token = token(&host, &key, Some(parsed.policy.unwrap().as_str()));
        Self { ready: ready.clone(), host, token }
    }

    /// The owner's token, for requests that are written by hand.
    pub(super) fn authorization(&self) -> String {
        self.token.clone()
    }

    /// Sends a request and reads the whole answer. Whatever is not a whole answer is an error.
    pub(super) async fn request(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        in_time(target, self.exchange(method, target, body)).await
    }

    /// The answer to a request that must succeed.
    pub(super) async fn json(&self, method: &str, target: &str, body: &str) -> Value {
        let answer =
            self.request(method, target, body).await.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn exchange(&self, method: &str, target: &str, body: &str) -> io::Result<Answer> {
        let mut stream = dial(&self.ready, self.ready.https()).await?;
        // A `PUT` with a precondition would not create anything.
        let condition = if method == "PATCH" { "If-Match: *\r\n" } else { "" };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{condition}\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.host,
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        let answer = parse(&bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.status >= 400 {
            leaks::collect(&format!("the refusal of {method} {target}"), &answer.text());
        }
        Ok(answer)
    }

    /// A twin.
    pub(super) async fn twin(&self, device: &str) -> Value {
        self.json("GET", &format!("/twins/{device}?api-version=2021-04-12"), "").await
    }

    /// Creates a device with this key.
    pub(super) async fn create_device(&self, device: &str, key: &SharedKey) {
        let key = key.expose_base64();
        leaks::remember(&key);
        let body = serde_json::json!({
            "deviceId": device,
            "authentication": { "type": "sas", "symmetricKey": { "primaryKey": key, "secondaryKey": key } },
        });
        self.json("PUT", &format!("/devices/{device}?api-version=2021-04-12"), &body.to_string()).await;
    }

    /// Everything in the log of events, once nothing comes any more.
    pub(super) async fn events(&self) -> Vec<Event> {
        let answer = self.request("GET", "/events?from=earliest&maxWait=1", "").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Event::read(&serde_json::from_slice(line).unwrap())).collect()
    }
}

impl Answer {
    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Event {
    fn read(json: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {json}")).to_owned();
        Self {
            partition: json["partition"].as_u64().unwrap(),
            sequence: json["sequenceNumber"].as_u64().unwrap(),
            enqueued: text(&json["enqueuedTime"]),
            device: text(&json["deviceId"]),
            source: text(&json["systemProperties"]["iothub-message-source"]),
            properties: json["properties"].clone(),
            body: STANDARD.decode(json["body"].as_str().unwrap()).unwrap(),
        }
    }
}

/// A TLS connection to the hub on this machine.
pub(super) async fn dial(ready: &Ready, address: std::net::SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(ready.tls.clone()).connect("localhost".try_into().unwrap(), stream).await
}

/// A shared access signature.
pub(super) fn token(resource: &str, key: &SharedKey, policy: Option<&str>) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let token = SasToken::create(resource, key, Timestamp::from_unix_seconds((now + TOKEN_LIFE).as_secs()), policy);
    leaks::remember(&key.expose_base64());
    let signature = token.split('&').find_map(|part| part.strip_prefix("sig="));
    leaks::remember(signature.expect("a token has a signature"));
    token
}

/// Takes an answer apart; nothing if it is not whole.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a header is text").to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let rest = &bytes[end + 4..];
    let body = if field("transfer-encoding") == Some("chunked") {
        unchunk(rest)?
    } else {
        let length = field("content-length").map_or(Some(0), |length| length.parse().ok())?;
        rest.get(..length)?.to_vec()
    };
    Some(Answer { status, body })
}

/// Joins the chunks; nothing if the last one is missing.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        rest = &rest[end + 2..];
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}
