//! Cloud-to-device messages of a connection: pulled out of the device's queue, as many as the device can take.
//!
//! The hub only says that messages wait; nothing is pushed, so no message ever waits in the inbox. What was sent with QoS 1 is
//! in flight until its PUBACK; then it is completed, in the same commit that hands out what follows.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use nave_env::BoxFuture;
use nave_hub::{Appetite, Delivery, DeviceBound, Exchange, Hub, HubError, Session, Subscriptions, system};
use nave_mqtt::bag::{self, Audience, SystemProperties, SystemProperty};
use nave_mqtt::encode;
use nave_mqtt::packet::{Delivery as Qos, PacketId};
use nave_mqtt::session::ServerSession;
use nave_mqtt::topic::ToClient;

use crate::message::BOTH_WAYS;
use crate::protocol::CloseReason;

/// Most messages of one connection that are sent and not acknowledged (protocol notes: MQTT §3).
pub const MAX_MESSAGES_IN_FLIGHT: usize = 16;

/// Most bytes of messages of one connection that are sent and not acknowledged; one message is always possible. A device that
/// does not read holds so much of the hub's memory, and nothing more is pulled for it.
pub const MAX_IN_FLIGHT_BYTES: usize = 256 << 10;

/// The messages of one connection. Without messages it owns no memory beyond itself.
#[derive(Default)]
pub(crate) struct DeviceBoundMessages {
    /// More may wait in the queue.
    hungry: bool,
    /// It would go on if there were room for output.
    stalled: bool,
    in_flight: Vec<InFlight>,
    /// Numbers of messages that the device took and that are not completed.
    acknowledged: Vec<u64>,
    working: Option<Box<Working>>,
    /// Whether what is under way is for QoS 0.
    at_most_once: bool,
}

/// What is under way.
struct Working {
    work: BoxFuture<Result<Exchange, HubError>>,
    /// What it completes, if somebody has to remember that.
    completes: Vec<u64>,
}

struct InFlight {
    packet_id: PacketId,
    sequence: u64,
    bytes: usize,
}

impl DeviceBoundMessages {
    /// Messages may wait.
    pub(crate) const fn wake(&mut self) {
        self.hungry = true;
    }

    /// Whether it would go on if there were room for output.
    pub(crate) const fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Nothing that the device acknowledged is under way.
    pub(crate) const fn is_idle(&self) -> bool {
        self.working.is_none() && self.acknowledged.is_empty()
    }

    /// The device took a message. An identifier that is not in flight is ignored.
    pub(crate) fn acknowledge(&mut self, packet_id: PacketId) {
        if let Some(at) = self.in_flight.iter().position(|sent| sent.packet_id == packet_id) {
            // Any order will do: the C SDK acknowledges when the application is done (protocol notes: MQTT §3).
            self.acknowledged.push(self.in_flight.remove(at).sequence);
        }
    }

    /// Completes and pulls. A reason means that the session is over.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        hub: &Arc<Hub>,
        session: &Arc<Session>,
        mqtt: &mut ServerSession,
        out: &mut Vec<u8>,
    ) -> Option<CloseReason> {
        loop {
            if let Some(working) = &mut self.working {
                let Poll::Ready(result) = working.work.as_mut().poll(context) else { return None };
                let completes = mem::take(&mut working.completes);
                self.working = None;
                match result {
                    Ok(exchange) => {
                        self.hungry |= exchange.more;
                        if mqtt.is_open() {
                            exchange.deliveries.iter().for_each(|delivery| self.send(delivery, session, mqtt, out));
                        }
                    }
                    Err(error) => {
                        // The device has them all the same, and the session says so when it leaves.
                        self.acknowledged.extend(completes);
                        return Some(failed(&error));
                    }
                }
            }
            let room = self.room(session, mqtt, out);
            if room == 0 && self.acknowledged.is_empty() {
                return None;
            }
            self.begin(room, hub, session);
        }
    }

    /// How many messages may be pulled now.
    fn room(&mut self, session: &Session, mqtt: &ServerSession, out: &[u8]) -> usize {
        self.stalled = false;
        let listens = session.subscriptions().contains(Subscriptions::CLOUD_TO_DEVICE);
        // Modules have no queue (protocol notes: MQTT §9).
        if !self.hungry || !listens || session.identity().is_module() || !session.is_open() || !mqtt.is_open() {
            return 0;
        }
        if self.in_flight_bytes() >= MAX_IN_FLIGHT_BYTES {
            return 0;
        }
        self.stalled = out.len() >= crate::MAX_UNWRITTEN_BYTES;
        if self.stalled {
            return 0;
        }
        MAX_MESSAGES_IN_FLIGHT.saturating_sub(self.in_flight.len())
    }

    fn in_flight_bytes(&self) -> usize {
        self.in_flight.iter().map(|sent| sent.bytes).sum()
    }

    fn begin(&mut self, room: usize, hub: &Arc<Hub>, session: &Arc<Session>) {
        let completes = mem::take(&mut self.acknowledged);
        self.at_most_once = session.subscriptions().contains(Subscriptions::AT_MOST_ONCE);
        let appetite = Appetite {
            count: room,
            bytes: MAX_IN_FLIGHT_BYTES.saturating_sub(self.in_flight_bytes()),
            at_most_once: self.at_most_once,
        };
        if room > 0 {
            self.hungry = false;
        }
        let (hub, session, completed) = (Arc::clone(hub), Arc::clone(session), completes.clone());
        let work = Box::pin(async move { hub.exchange(&session, &completed, appetite).await });
        self.working = Some(Box::new(Working { work, completes }));
    }

    fn send(&mut self, delivery: &Delivery, session: &Session, mqtt: &mut ServerSession, out: &mut Vec<u8>) {
        let device = session.identity().device_id().as_str();
        let qos = if self.at_most_once {
            Qos::AtMostOnce
        } else {
            let packet_id = self.next_packet_id(mqtt);
            let bytes = delivery.message.body.len();
            self.in_flight.push(InFlight { packet_id, sequence: delivery.sequence, bytes });
            Qos::AtLeastOnce { packet_id, dup: delivery.deliveries > 0 }
        };
        let written = property_bag(device, &delivery.message).map_err(|error| error.to_string()).and_then(|bag| {
            let topic = ToClient::CloudToDevice { device, bag: &bag };
            encode::publish(out, &topic, &delivery.message.body, qos, false).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            // It stays locked, comes back with the end of the connection, and is dead-lettered in the end.
            tracing::error!(%device, %error, "a cloud-to-device message cannot be written as MQTT");
        }
    }

    fn next_packet_id(&self, mqtt: &mut ServerSession) -> PacketId {
        loop {
            // There are far more identifiers than messages in flight.
            let packet_id = mqtt.next_packet_id();
            if self.in_flight.iter().all(|sent| sent.packet_id != packet_id) {
                return packet_id;
            }
        }
    }

    /// The connection is gone: what is in flight goes back, after what was acknowledged has been completed. To be called
    /// before the hub is told.
    ///
    /// What is under way is given up and done again: it may be waiting for space on a full disk. Whether its commit is still
    /// made does not matter. Completing is idempotent, and what it hands out is given back, because the store takes commits
    /// in order and refuses those that others overtook.
    pub(crate) fn disconnected(&mut self, hub: &Arc<Hub>, session: &Arc<Session>) {
        self.hungry = false;
        let mut completed = mem::take(&mut self.acknowledged);
        let in_flight = mem::take(&mut self.in_flight);
        let earlier = self.working.take();
        if earlier.is_none() && completed.is_empty() && in_flight.is_empty() {
            return;
        }
        completed.extend(earlier.into_iter().flat_map(|earlier| earlier.completes));
        let leaving = hub.leaving(session);
        let work = Box::pin(async move {
            leaving.finish(&completed).await?;
            Ok(Exchange::default())
        });
        self.working = Some(Box::new(Working { work, completes: Vec::new() }));
    }
}

fn property_bag(device: &str, message: &DeviceBound) -> Result<String, bag::BagEncodeError> {
    let mut properties = SystemProperties::default();
    for (property, name) in BOTH_WAYS.iter().chain(TO_DEVICE) {
        if let Some((_, value)) = message.system.iter().find(|(stored, _)| stored == name) {
            properties.set(*property, Some(value.as_str().into()));
        }
    }
    let to = format!("/devices/{}/messages/deviceBound", nave_auth::percent_encode(device));
    let application = message.properties.iter().map(|(name, value)| (name.as_str(), Some(value.as_str())));
    bag::encode(Audience::Device, &to, &properties, application)
}

/// The system properties that only a message to a device has, after those of both directions.
const TO_DEVICE: &[(SystemProperty, &str)] = &[(SystemProperty::Ack, system::ACK)];

fn failed(error: &HubError) -> CloseReason {
    match error.code.status() {
        401 => CloseReason::Superseded,
        _ => CloseReason::Internal(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_says_what_the_sender_said() {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let message = DeviceBound {
            system: vec![
                text(system::ACK, "full"),
                text(system::EXPIRY, "2026-09-21T14:13:20.1234567Z"),
                text(system::MESSAGE_ID, "m 1"),
                text(system::TO, "/devices/d/messages/deviceBound"),
                text(system::CONTENT_TYPE, "text/plain"),
            ],
            properties: vec![text("colour", "blue & red"), text("empty", ""), text("$.mid", "forged")],
            body: bytes::Bytes::new(),
        };
        assert_eq!(
            property_bag("d", &message).unwrap(),
            "%24.mid=m%201&%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound&%24.ct=text%2Fplain\
             &%24.exp=2026-09-21T14%3A13%3A20.1234567Z&iothub-ack=full&colour=blue%20%26%20red"
        );
        assert_eq!(
            property_bag("a#b", &DeviceBound::default()).unwrap(),
            "%24.to=%2Fdevices%2Fa%2523b%2Fmessages%2FdeviceBound"
        );
    }
}
