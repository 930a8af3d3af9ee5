//! A device: MQTT over TLS, as an SDK speaks it.

use std::io;
use std::time::Duration;

use nave_auth::SharedKey;
use nave_mqtt::decode::{Decoded, decode};
use nave_mqtt::encode;
use nave_mqtt::packet::{ConnAck, Connect, Delivery, Login, Packet, PacketId, QoS, Subscription, Will};
use nave_mqtt::topic::{Client, FromServer, ToServer, parse_from_server};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::in_time;
use super::server::Ready;
use super::service::{dial, token};

/// The name of the hub in tokens and user names.
pub(super) const HUB: &str = "hub1.nave.test";

/// Everything that a device of these tests listens to.
const FILTERS: [&str; 2] = ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"];

/// What the hub sends.
#[derive(Debug)]
pub(super) enum Incoming {
    Connected { session_present: bool },
    Refused(u8),
    Subscribed,
    Acknowledged(PacketId),
    TwinAnswer { status: u16, rid: String, version: Option<u64>, body: Vec<u8> },
    Desired { version: u64, body: Vec<u8> },
    Registration { status: u16, body: Vec<u8> },
}

/// An MQTT connection.
pub(super) struct Link {
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
}

impl Link {
    /// Connects to `ready`'s hub; the flag says whether it kept the session. A refusal is an error.
    pub(super) async fn connect(
        ready: &Ready,
        client_id: &str,
        username: &str,
        password: &str,
        clean_session: bool,
    ) -> io::Result<(Self, bool)> {
        Self::open(ready, client_id, username, password, clean_session, None).await
    }

    /// A device's connection to its hub, with a will.
    pub(super) async fn with_will(ready: &Ready, device: &str, key: &SharedKey, will: &[u8]) -> io::Result<Self> {
        let password = token(&format!("{HUB}/devices/{device}"), key, None);
        let username = format!("{HUB}/{device}/?api-version=2021-04-12");
        let topic = format!("devices/{device}/messages/events/");
        let will = Will { topic: &topic, payload: will, qos: QoS::AtLeastOnce, retain: false };
        Ok(Self::open(ready, device, &username, &password, true, Some(will)).await?.0)
    }

    async fn open(
        ready: &Ready,
        client_id: &str,
        username: &str,
        password: &str,
        clean_session: bool,
        will: Option<Will<'_>>,
    ) -> io::Result<(Self, bool)> {
        let stream = in_time("a TLS handshake", dial(ready, ready.mqtts())).await?;
        let mut link = Self { stream, input: Vec::new() };
        let login = Login { username, password: Some(password.as_bytes()) };
        let packet = Connect { client_id, clean_session, keep_alive: 0, will, login: Some(login) };
        let mut bytes = Vec::new();
        encode::connect(&mut bytes, &packet).unwrap();
        link.send(&bytes).await?;
        match link.next().await? {
            Incoming::Connected { session_present } => Ok((link, session_present)),
            Incoming::Refused(code) => Err(io::Error::other(format!("CONNECT was refused with code {code}"))),
            other => panic!("{other:?} before CONNACK"),
        }
    }

    /// A device's connection to its hub.
    pub(super) async fn to_hub(
        ready: &Ready,
        hub: &str,
        device: &str,
        key: &SharedKey,
        clean_session: bool,
    ) -> io::Result<(Self, bool)> {
        let password = token(&format!("{hub}/devices/{device}"), key, None);
        let username = format!("{hub}/{device}/?api-version=2021-04-12");
        Self::connect(ready, device, &username, &password, clean_session).await
    }

    /// The bare connection, of which nothing has been read ahead.
    pub(super) fn into_stream(self) -> TlsStream<TcpStream> {
        assert!(self.input.is_empty());
        self.stream
    }

    /// Sends bytes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next packet.
    pub(super) async fn next(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(incoming) = self.take() {
                return Ok(incoming);
            }
            if in_time("a packet", self.stream.read_buf(&mut self.input)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self) -> Option<Incoming> {
        let (incoming, consumed) = match decode(&self.input, usize::MAX).expect("the hub sends valid packets") {
            Decoded::Incomplete { .. } => return None,
            Decoded::Packet { packet, consumed } => (incoming(&packet), consumed),
        };
        self.input.drain(..consumed);
        Some(incoming)
    }

    /// Subscribes to everything.
    pub(super) async fn subscribe(&mut self, filters: &[&str]) -> io::Result<()> {
        let wanted: Vec<_> = filters.iter().map(|filter| Subscription { filter, qos: QoS::AtLeastOnce }).collect();
        let mut bytes = Vec::new();
        encode::subscribe(&mut bytes, PacketId::FIRST, &wanted).unwrap();
        self.send(&bytes).await?;
        while !matches!(self.next().await?, Incoming::Subscribed) {}
        Ok(())
    }

    /// Asks for the twin so many times at once; the statuses of the answers.
    pub(super) async fn twins(&mut self, count: usize) -> io::Result<Vec<u16>> {
        let mut bytes = Vec::new();
        (0..count).for_each(|number| get_twin(&mut bytes, &number.to_string()));
        self.send(&bytes).await?;
        let mut statuses = Vec::new();
        while statuses.len() < count {
            if let Incoming::TwinAnswer { status, body, .. } = self.next().await? {
                let code = serde_json::from_slice::<Value>(&body).unwrap()["errorCode"].clone();
                assert_eq!(code.as_u64(), (status == 429).then_some(429_001));
                statuses.push(status);
            }
        }
        Ok(statuses)
    }

    /// Subscribes to answers about the twin and to changes of desired properties.
    pub(super) async fn subscribe_twin(&mut self) -> io::Result<()> {
        self.subscribe(&FILTERS).await
    }
}

fn incoming(packet: &Packet<'_>) -> Incoming {
    match packet {
        Packet::ConnAck(ConnAck::Accepted { session_present }) => {
            Incoming::Connected { session_present: *session_present }
        }
        Packet::ConnAck(ConnAck::Refused(refusal)) => Incoming::Refused(refusal.code()),
        Packet::SubAck(_) => Incoming::Subscribed,
        Packet::PubAck(id) => Incoming::Acknowledged(*id),
        Packet::Publish(publish) => {
            let body = publish.payload.to_vec();
            match parse_from_server(publish.topic).expect("a known topic") {
                FromServer::TwinResponse { status, rid, version } => {
                    Incoming::TwinAnswer { status, rid: rid.to_owned(), version, body }
                }
                FromServer::TwinDesired { version } => Incoming::Desired { version, body },
                FromServer::DpsResponse { status, .. } => Incoming::Registration { status, body },
                other => panic!("unexpected {other:?}"),
            }
        }
        other => panic!("unexpected {other:?}"),
    }
}

/// Appends a message at QoS 1.
pub(super) fn telemetry(out: &mut Vec<u8>, device: &str, bag: &str, body: &[u8], packet_id: PacketId, dup: bool) {
    let topic = ToServer::Telemetry { client: Client::device(device), bag };
    encode::publish(out, &topic, body, Delivery::AtLeastOnce { packet_id, dup }, false).unwrap();
}

/// Appends a change of reported properties.
pub(super) fn report(out: &mut Vec<u8>, rid: &str, body: &str) {
    let topic = ToServer::TwinPatch { rid, version: None };
    encode::publish(out, &topic, body.as_bytes(), Delivery::AtMostOnce, false).unwrap();
}

/// Appends a request for the twin.
pub(super) fn get_twin(out: &mut Vec<u8>, rid: &str) {
    encode::publish(out, &ToServer::TwinGet { rid, since: None }, b"", Delivery::AtMostOnce, false).unwrap();
}

/// A device that does one thing at a time.
pub(super) struct Device {
    id: String,
    pub(super) link: Link,
    sent: u16,
}

impl Device {
    /// Connects with a session that ends with the connection.
    pub(super) async fn connect(ready: &Ready, id: &str, key: &SharedKey) -> io::Result<Self> {
        let (mut link, _) = Link::to_hub(ready, HUB, id, key, true).await?;
        link.subscribe_twin().await?;
        Ok(Self { id: id.to_owned(), link, sent: 0 })
    }

    /// Sends a message and waits until it is acknowledged.
    pub(super) async fn telemetry(&mut self, body: &[u8]) -> io::Result<()> {
        self.sent = self.sent % u16::MAX + 1;
        let packet_id = PacketId::new(self.sent).unwrap();
        let mut bytes = Vec::new();
        telemetry(&mut bytes, &self.id, "", body, packet_id, false);
        self.link.send(&bytes).await?;
        loop {
            if let Incoming::Acknowledged(id) = self.link.next().await? {
                assert_eq!(id, packet_id);
                return Ok(());
            }
        }
    }

    /// Changes reported properties; the answer's status and version.
    pub(super) async fn report(&mut self, body: &str) -> io::Result<(u16, Option<u64>)> {
        let mut bytes = Vec::new();
        report(&mut bytes, "report", body);
        let (status, version, _) = self.ask(&bytes, "report").await?;
        Ok((status, version))
    }

    /// Reads the twin.
    pub(super) async fn twin(&mut self) -> io::Result<(u16, Value)> {
        let mut bytes = Vec::new();
        get_twin(&mut bytes, "get");
        let (status, _, body) = self.ask(&bytes, "get").await?;
        Ok((status, serde_json::from_slice(&body).unwrap()))
    }

    async fn ask(&mut self, bytes: &[u8], wanted: &str) -> io::Result<(u16, Option<u64>, Vec<u8>)> {
        self.link.send(bytes).await?;
        loop {
            if let Incoming::TwinAnswer { status, rid, version, body } = self.link.next().await? {
                assert_eq!(rid, wanted);
                return Ok((status, version, body));
            }
        }
    }
}

/// Registers a device with the provisioning service over MQTT; the name of the hub that it is assigned to.
pub(super) async fn register(ready: &Ready, id: &str, key: &SharedKey) -> String {
    let state = registration(ready, id, key, "null").await;
    assert_eq!(state["status"], "assigned", "{state}");
    state["assignedHub"].as_str().unwrap().to_owned()
}

/// Registers a device that sends this payload, and returns the state that its registration ends with.
pub(super) async fn registration(ready: &Ready, id: &str, key: &SharedKey, payload: &str) -> Value {
    let resource = format!("{}/registrations/{id}", ready.json["provisioning"]["idScope"].as_str().unwrap());
    let username = format!("{resource}/api-version=2019-03-31&ClientVersion=process-test");
    let password = token(&resource, key, Some("registration"));
    let (mut link, _) = Link::connect(ready, id, &username, &password, true).await.unwrap();
    link.subscribe(&["$dps/registrations/res/#"]).await.unwrap();
    let mut bytes = Vec::new();
    let body = format!("{{\"registrationId\":\"{id}\",\"payload\":{payload}}}");
    encode::publish(&mut bytes, &ToServer::DpsRegister { rid: "1" }, body.as_bytes(), Delivery::AtMostOnce, false)
        .unwrap();
    let mut wait = Duration::ZERO;
    loop {
        link.send(&bytes).await.unwrap();
        let Incoming::Registration { status, body } = link.next().await.unwrap() else { panic!("no registration") };
        let answer: Value = serde_json::from_slice(&body).unwrap();
        match status {
            200 => return answer["registrationState"].clone(),
            202 => {
                let operation = answer["operationId"].as_str().unwrap();
                let topic = ToServer::DpsOperationStatus { rid: "2", operation_id: operation };
                bytes.clear();
                encode::publish(&mut bytes, &topic, b"", Delivery::AtMostOnce, false).unwrap();
                // The first answer is always this one; whoever still gets it then has to wait.
                tokio::time::sleep(wait).await;
                wait = Duration::from_millis(250);
            }
            _ => panic!("{id}: {status} {answer}"),
        }
    }
}
