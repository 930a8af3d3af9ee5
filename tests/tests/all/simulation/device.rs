//! A simulated device: provisions itself, connects, and keeps track of what it was promised.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::{Either, select};
use nave_auth::{KeyPair, SasToken};
use nave_env::Env;
use nave_mqtt::decode::{Decoded, decode};
use nave_mqtt::encode;
use nave_mqtt::packet::{ConnAck, Connect, Delivery, Login, Packet, PacketId, QoS, Subscription};
use nave_mqtt::topic::{Client, FromServer, Since, ToServer, parse_from_server};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::world::{Host, ID_SCOPE, World};

const PATIENCE: Duration = Duration::from_secs(30);

/// The connection is gone, or an answer did not come.
#[derive(Debug)]
pub(crate) struct Gone;

/// An open MQTT connection of a device.
pub(crate) struct Connection<'a> {
    world: &'a World,
    out: UnboundedSender<Vec<u8>>,
    input: UnboundedReceiver<Vec<u8>>,
    buffer: Vec<u8>,
    next_id: u16,
    /// `$version` of every desired notification, in the order of arrival.
    pub(crate) desired: Vec<u64>,
    /// Method calls that were answered.
    pub(crate) methods: u32,
    acked: VecDeque<PacketId>,
    answers: VecDeque<(u16, String, Option<u64>, Vec<u8>)>,
    messages: VecDeque<CloudMessage>,
}

/// A cloud-to-device message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloudMessage {
    /// With QoS 1, what acknowledges it; and whether it says that it is a repetition.
    pub(crate) delivery: Option<(PacketId, bool)>,
    /// The properties, as they stand in the topic.
    pub(crate) bag: String,
    /// The body.
    pub(crate) body: String,
}

impl<'a> Connection<'a> {
    /// Connects with a user name and a token; the flag says whether the server kept the session.
    async fn open(
        world: &'a World,
        host: &Host,
        client_id: &str,
        username: &str,
        password: &str,
        clean_session: bool,
    ) -> Result<(Self, bool), Gone> {
        let (out, input) = world.connect(host);
        let mut connection = Self {
            world,
            out,
            input,
            buffer: Vec::new(),
            next_id: 0,
            desired: Vec::new(),
            methods: 0,
            acked: VecDeque::new(),
            answers: VecDeque::new(),
            messages: VecDeque::new(),
        };
        let mut bytes = Vec::new();
        let login = Login { username, password: Some(password.as_bytes()) };
        let packet = Connect { client_id, clean_session, keep_alive: 60, will: None, login: Some(login) };
        encode::connect(&mut bytes, &packet).unwrap();
        connection.send(bytes)?;
        loop {
            if let Seen::ConnAck(answer) = connection.step().await? {
                return match answer {
                    ConnAck::Accepted { session_present } => Ok((connection, session_present)),
                    ConnAck::Refused(_) => Err(Gone),
                };
            }
        }
    }

    /// A device's connection to its hub, with everything subscribed.
    pub(crate) async fn to_hub(
        world: &'a World,
        host: &Host,
        hub: &str,
        device: &str,
        keys: &KeyPair,
    ) -> Result<Connection<'a>, Gone> {
        let (mut connection, resumed) = Self::log_in(world, host, hub, device, keys, false).await?;
        if !resumed {
            // As the Java SDK does: a persistent session keeps its subscriptions, they are not repeated.
            for filter in ["$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"] {
                connection.subscribe(filter).await?;
            }
        }
        Ok(connection)
    }

    /// A device's connection to its hub, with nothing subscribed that was not kept; the flag says whether something was.
    pub(crate) async fn log_in(
        world: &'a World,
        host: &Host,
        hub: &str,
        device: &str,
        keys: &KeyPair,
        clean_session: bool,
    ) -> Result<(Connection<'a>, bool), Gone> {
        let expiry = world.env.now().after(Duration::from_secs(86_400));
        let token = SasToken::create(&format!("{hub}/devices/{device}"), &keys.primary, expiry, None);
        let username = format!("{hub}/{device}/?api-version=2021-04-12");
        Self::open(world, host, device, &username, &token, clean_session).await
    }

    /// Subscribes to cloud-to-device messages.
    pub(crate) async fn listen(&mut self, device: &str, qos: QoS) -> Result<(), Gone> {
        self.subscribe_with(&format!("devices/{device}/messages/devicebound/#"), qos).await
    }

    /// Ends that.
    pub(crate) async fn stop_listening(&mut self, device: &str) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        let packet_id = self.packet_id();
        let filter = format!("devices/{device}/messages/devicebound/#");
        encode::unsubscribe(&mut bytes, packet_id, &[filter.as_str()]).unwrap();
        self.send(bytes)?;
        while !matches!(self.step().await?, Seen::UnsubAck) {}
        Ok(())
    }

    /// The cloud-to-device messages that come within `time`, after those that came before.
    pub(crate) async fn messages(&mut self, time: Duration) -> Result<Vec<CloudMessage>, Gone> {
        self.idle(time).await?;
        Ok(self.messages.drain(..).collect())
    }

    /// Acknowledges a message.
    pub(crate) fn acknowledge(&self, packet_id: PacketId) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        encode::pub_ack(&mut bytes, packet_id);
        self.send(bytes)
    }

    /// Says goodbye.
    pub(crate) fn disconnect(self) {
        let mut bytes = Vec::new();
        encode::disconnect(&mut bytes);
        let _ = self.send(bytes);
    }

    /// Registers a device; the answer is the name of its hub.
    pub(crate) async fn register(world: &World, host: &Host, id: &str, keys: &KeyPair) -> Result<String, Gone> {
        let answer = Self::ask_to_register(world, host, id, keys).await?;
        Ok(answer.unwrap_or_else(|(status, document)| panic!("{status}: {document}")))
    }

    /// The same; if the provisioning service refuses, its status and what it says.
    pub(crate) async fn ask_to_register(
        world: &World,
        host: &Host,
        id: &str,
        keys: &KeyPair,
    ) -> Result<Result<String, (u16, Value)>, Gone> {
        let expiry = world.env.now().after(Duration::from_secs(3_600));
        let resource = format!("{ID_SCOPE}/registrations/{id}");
        let token = SasToken::create(&resource, &keys.primary, expiry, Some("registration"));
        let username = format!("{resource}/api-version=2019-03-31&ClientVersion=sim");
        let (mut connection, _) = Connection::open(world, host, id, &username, &token, true).await?;
        connection.subscribe("$dps/registrations/res/#").await?;
        let body = format!("{{\"registrationId\":\"{id}\"}}");
        let (mut status, mut answer) =
            connection.ask(&ToServer::DpsRegister { rid: "1" }, "1", body.as_bytes()).await?;
        while status == 202 {
            let document: Value = serde_json::from_slice(&answer).unwrap();
            let operation = document["operationId"].as_str().unwrap().to_owned();
            world.env.sleep(Duration::from_secs(3)).await;
            let topic = ToServer::DpsOperationStatus { rid: "2", operation_id: &operation };
            (status, answer) = connection.ask(&topic, "2", b"").await?;
        }
        let document: Value = serde_json::from_slice(&answer).unwrap();
        if status != 200 || document["status"] != "assigned" {
            return Ok(Err((status, document)));
        }
        Ok(Ok(document["registrationState"]["assignedHub"].as_str().unwrap().to_owned()))
    }

    /// Sends a message and waits until it is acknowledged.
    pub(crate) async fn telemetry(&mut self, device: &str, number: u64) -> Result<(), Gone> {
        self.send_message(device, number, "").await
    }

    /// The same, marked as JSON so that conditions can read the body.
    pub(crate) async fn telemetry_json(&mut self, device: &str, number: u64) -> Result<(), Gone> {
        self.send_message(device, number, "&%24.ct=application%2Fjson&%24.ce=utf-8").await
    }

    async fn send_message(&mut self, device: &str, number: u64, properties: &str) -> Result<(), Gone> {
        let bag = format!("%24.mid={device}-{number}{properties}");
        let topic = ToServer::Telemetry { client: Client::device(device), bag: &bag }.to_string();
        let packet_id = self.packet_id();
        let mut bytes = Vec::new();
        let delivery = Delivery::AtLeastOnce { packet_id, dup: false };
        encode::publish(&mut bytes, &topic, format!("{{\"n\":{number}}}").as_bytes(), delivery, false).unwrap();
        self.send(bytes)?;
        loop {
            if let Some(at) = self.acked.iter().position(|acked| *acked == packet_id) {
                self.acked.remove(at);
                return Ok(());
            }
            self.step().await?;
        }
    }

    /// Reports `n` and waits for the answer: the section's new version.
    pub(crate) async fn report(&mut self, rid: &str, number: u64) -> Result<u64, Gone> {
        let answer = self.ask_to_report(rid, number).await?;
        Ok(answer.unwrap_or_else(|status| panic!("a patch was refused with {status}")))
    }

    /// The same; if the hub refuses, its status.
    pub(crate) async fn ask_to_report(&mut self, rid: &str, number: u64) -> Result<Result<u64, u16>, Gone> {
        let topic = ToServer::TwinPatch { rid, version: None };
        let (status, version) = self.ask_versioned(&topic, rid, format!("{{\"n\":{number}}}").as_bytes()).await?;
        if status != 204 {
            return Ok(Err(status));
        }
        Ok(Ok(version.expect("an accepted patch has a version")))
    }

    /// Reads the twin.
    pub(crate) async fn twin(&mut self, rid: &str) -> Result<Value, Gone> {
        self.twin_since(rid, None).await
    }

    /// Reads the twin, or what changed of it.
    pub(crate) async fn twin_since(&mut self, rid: &str, since: Option<Since<'_>>) -> Result<Value, Gone> {
        let (status, body) = self.ask(&ToServer::TwinGet { rid, since }, rid, b"").await?;
        assert_eq!(status, 200);
        Ok(serde_json::from_slice(&body).unwrap())
    }

    /// Serves methods and notifications for a while.
    pub(crate) async fn idle(&mut self, time: Duration) -> Result<(), Gone> {
        let mut end = self.world.env.sleep(time);
        loop {
            let step = Box::pin(self.step());
            match select(step, end).await {
                Either::Left((seen, remaining)) => {
                    seen?;
                    end = remaining;
                }
                Either::Right(_) => return Ok(()),
            }
        }
    }

    async fn subscribe(&mut self, filter: &str) -> Result<(), Gone> {
        self.subscribe_with(filter, QoS::AtLeastOnce).await
    }

    async fn subscribe_with(&mut self, filter: &str, qos: QoS) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        let packet_id = self.packet_id();
        encode::subscribe(&mut bytes, packet_id, &[Subscription { filter, qos }]).unwrap();
        self.send(bytes)?;
        while !matches!(self.step().await?, Seen::SubAck) {}
        Ok(())
    }

    async fn ask(&mut self, topic: &ToServer<'_>, rid: &str, body: &[u8]) -> Result<(u16, Vec<u8>), Gone> {
        let (status, _, body) = self.request(topic, rid, body).await?;
        Ok((status, body))
    }

    async fn ask_versioned(
        &mut self,
        topic: &ToServer<'_>,
        rid: &str,
        body: &[u8],
    ) -> Result<(u16, Option<u64>), Gone> {
        let (status, version, _) = self.request(topic, rid, body).await?;
        Ok((status, version))
    }

    async fn request(
        &mut self,
        topic: &ToServer<'_>,
        rid: &str,
        body: &[u8],
    ) -> Result<(u16, Option<u64>, Vec<u8>), Gone> {
        let mut bytes = Vec::new();
        encode::publish(&mut bytes, topic, body, Delivery::AtMostOnce, false).unwrap();
        self.send(bytes)?;
        loop {
            if let Some(at) = self.answers.iter().position(|(_, answered, _, _)| answered == rid) {
                let (status, _, version, body) = self.answers.remove(at).unwrap();
                return Ok((status, version, body));
            }
            self.step().await?;
        }
    }

    /// Waits for one packet and takes note of it.
    async fn step(&mut self) -> Result<Seen, Gone> {
        loop {
            let mut answer_to = None;
            let seen = match decode(&self.buffer, usize::MAX).expect("the hub sends valid packets") {
                Decoded::Incomplete { .. } => None,
                Decoded::Packet { packet, consumed } => {
                    let seen = match packet {
                        Packet::ConnAck(answer) => Seen::ConnAck(answer),
                        Packet::SubAck(_) => Seen::SubAck,
                        Packet::UnsubAck(_) => Seen::UnsubAck,
                        Packet::PubAck(id) => {
                            self.acked.push_back(id);
                            Seen::Other
                        }
                        Packet::Publish(publish) => {
                            match parse_from_server(publish.topic).expect("a known topic") {
                                FromServer::Method { rid, .. } => answer_to = Some(rid.to_owned()),
                                FromServer::TwinDesired { version } => self.desired.push(version),
                                FromServer::TwinResponse { status, rid, version } => {
                                    self.answers.push_back((status, rid.to_owned(), version, publish.payload.to_vec()));
                                }
                                FromServer::DpsResponse { status, rid, .. } => {
                                    self.answers.push_back((status, rid.to_owned(), None, publish.payload.to_vec()));
                                }
                                FromServer::CloudToDevice { bag } => self.messages.push_back(CloudMessage {
                                    delivery: match publish.delivery {
                                        Delivery::AtLeastOnce { packet_id, dup } => Some((packet_id, dup)),
                                        _ => None,
                                    },
                                    bag: bag.to_owned(),
                                    body: String::from_utf8(publish.payload.to_vec()).unwrap(),
                                }),
                                other => panic!("unexpected {other:?}"),
                            }
                            Seen::Other
                        }
                        other => panic!("unexpected {other:?}"),
                    };
                    Some((seen, consumed))
                }
            };
            if let Some((seen, consumed)) = seen {
                self.buffer.drain(..consumed);
                if let Some(rid) = answer_to {
                    let mut bytes = Vec::new();
                    let topic = ToServer::MethodResponse { status: 200, rid: &rid };
                    encode::publish(&mut bytes, &topic, b"{\"done\":true}", Delivery::AtMostOnce, false).unwrap();
                    self.send(bytes)?;
                    self.methods += 1;
                }
                return Ok(seen);
            }
            let receive = Box::pin(self.input.recv());
            let Either::Left((Some(bytes), _)) = select(receive, self.world.env.sleep(PATIENCE)).await else {
                return Err(Gone);
            };
            self.buffer.extend_from_slice(&bytes);
        }
    }

    fn packet_id(&mut self) -> PacketId {
        self.next_id = if self.next_id == u16::MAX { 1 } else { self.next_id + 1 };
        PacketId::new(self.next_id).unwrap()
    }

    fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.out.send(bytes).map_err(|_| Gone)
    }
}

enum Seen {
    ConnAck(ConnAck),
    SubAck,
    UnsubAck,
    Other,
}
