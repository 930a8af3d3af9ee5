//! One MQTT connection from the device's side.

use std::time::Duration;

use nave_mqtt::decode::{Decoded, decode};
use nave_mqtt::encode;
use nave_mqtt::packet::{ConnAck, Connect, Delivery, Login, Packet, PacketId, QoS, SubAckCode, Subscription};
use nave_mqtt::topic::ToServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Largest packet that a hub sends: a message of 256 KB with its properties.
const MAX_PACKET: usize = 512 << 10;

/// Time for an answer to CONNECT, SUBSCRIBE and to the requests of provisioning.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Seconds of silence after which the hub may give a device up.
const KEEP_ALIVE_SECONDS: u16 = 120;

/// How often a quiet device pings.
pub(super) const PING_EVERY: Duration = Duration::from_secs(50);

/// Why a connection ended or could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The network, or TLS.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The hub ended the connection.
    #[error("the hub closed the connection")]
    Closed,
    /// CONNECT was refused.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer.
    #[error("no answer to {0} in time")]
    Timeout(&'static str),
    /// An answer that makes no sense.
    #[error("{0}")]
    Protocol(String),
}

/// A packet from the hub.
pub(super) enum Incoming {
    /// To CONNECT.
    ConnAck(ConnAck),
    /// To SUBSCRIBE; whether every filter was granted.
    SubAck(bool),
    /// To a message.
    PubAck(PacketId),
    /// A message.
    Publish {
        /// Its topic.
        topic: String,
        /// Its body.
        payload: Vec<u8>,
    },
    /// Anything else.
    Other,
}

/// An MQTT connection.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
    to_send: Vec<u8>,
    next_id: u16,
}

impl Connection {
    /// Sends CONNECT and waits for the hub's yes.
    pub(super) async fn open(
        stream: TlsStream<TcpStream>,
        client_id: &str,
        username: &str,
        password: &str,
    ) -> Result<Self, Trouble> {
        let mut connection = Self { stream, received: Vec::new(), to_send: Vec::new(), next_id: 0 };
        let login = Login { username, password: Some(password.as_bytes()) };
        let packet =
            Connect { client_id, clean_session: true, keep_alive: KEEP_ALIVE_SECONDS, will: None, login: Some(login) };
        encode::connect(&mut connection.to_send, &packet).map_err(protocol)?;
        connection.flush().await?;
        match connection.answer("CONNECT").await? {
            Incoming::ConnAck(ConnAck::Accepted { .. }) => Ok(connection),
            Incoming::ConnAck(ConnAck::Refused(refusal)) => Err(Trouble::Refused(format!("{refusal:?}"))),
            _ => Err(Trouble::Protocol("something else than CONNACK".to_owned())),
        }
    }

    /// Subscribes and waits until that is granted.
    pub(super) async fn subscribe(&mut self, filters: &[&str]) -> Result<(), Trouble> {
        let filters: Vec<Subscription<'_>> =
            filters.iter().map(|filter| Subscription { filter, qos: QoS::AtLeastOnce }).collect();
        let id = self.packet_id();
        encode::subscribe(&mut self.to_send, id, &filters).map_err(protocol)?;
        self.flush().await?;
        loop {
            match self.answer("SUBSCRIBE").await? {
                Incoming::SubAck(true) => return Ok(()),
                Incoming::SubAck(false) => return Err(Trouble::Refused("a subscription".to_owned())),
                _ => {}
            }
        }
    }

    /// Sends a message with QoS 1; its acknowledgement will carry the result.
    pub(super) async fn publish(&mut self, topic: &ToServer<'_>, payload: &[u8]) -> Result<PacketId, Trouble> {
        let packet_id = self.packet_id();
        let delivery = Delivery::AtLeastOnce { packet_id, dup: false };
        encode::publish(&mut self.to_send, topic, payload, delivery, false).map_err(protocol)?;
        self.flush().await?;
        Ok(packet_id)
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(&mut self) -> Result<(), Trouble> {
        encode::ping_req(&mut self.to_send);
        self.flush().await
    }

    /// Says goodbye. The hub may have gone first.
    pub(super) async fn close(mut self) {
        encode::disconnect(&mut self.to_send);
        if self.flush().await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// The next packet, within [`ANSWER_TIMEOUT`].
    pub(super) async fn answer(&mut self, to: &'static str) -> Result<Incoming, Trouble> {
        let incoming = tokio::time::timeout(ANSWER_TIMEOUT, self.next()).await.map_err(|_| Trouble::Timeout(to))??;
        self.flush().await?;
        Ok(incoming)
    }

    /// The next packet. Dropping the future loses nothing. Acknowledgements of messages are prepared, for
    /// [`Connection::flush`] to send.
    pub(super) async fn next(&mut self) -> Result<Incoming, Trouble> {
        loop {
            if let Some((incoming, consumed, acknowledge)) = self.decode()? {
                self.received.drain(..consumed);
                if let Some(packet_id) = acknowledge {
                    encode::pub_ack(&mut self.to_send, packet_id);
                }
                return Ok(incoming);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(Trouble::Closed);
            }
        }
    }

    fn decode(&self) -> Result<Option<(Incoming, usize, Option<PacketId>)>, Trouble> {
        let Decoded::Packet { packet, consumed } = decode(&self.received, MAX_PACKET).map_err(protocol)? else {
            return Ok(None);
        };
        let mut acknowledge = None;
        let incoming = match packet {
            Packet::ConnAck(answer) => Incoming::ConnAck(answer),
            Packet::SubAck(answer) => {
                Incoming::SubAck(answer.codes().all(|code| matches!(code, SubAckCode::Granted(_))))
            }
            Packet::PubAck(id) => Incoming::PubAck(id),
            Packet::Publish(message) => {
                if let Delivery::AtLeastOnce { packet_id, .. } = message.delivery {
                    acknowledge = Some(packet_id);
                }
                Incoming::Publish { topic: message.topic.to_owned(), payload: message.payload.to_vec() }
            }
            _ => Incoming::Other,
        };
        Ok(Some((incoming, consumed, acknowledge)))
    }

    /// Sends what is prepared.
    pub(super) async fn flush(&mut self) -> Result<(), Trouble> {
        if !self.to_send.is_empty() {
            self.stream.write_all(&self.to_send).await?;
            self.stream.flush().await?;
            self.to_send.clear();
        }
        Ok(())
    }

    fn packet_id(&mut self) -> PacketId {
        self.next_id = self.next_id.wrapping_add(1);
        PacketId::new(self.next_id).unwrap_or_else(|| {
            self.next_id = PacketId::FIRST.get();
            PacketId::FIRST
        })
    }
}

fn protocol(error: impl std::fmt::Display) -> Trouble {
    Trouble::Protocol(error.to_string())
}
