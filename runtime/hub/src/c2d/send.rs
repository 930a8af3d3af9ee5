//! Sending to devices, and emptying their queues, on behalf of services.

use bytes::Bytes;
use nave_model::{
    Ack, ContentRecord, DeviceId, DeviceRecord, FormatVersion, Identity, QueueRecord, QueuedMessage, Timestamp,
};
use nave_store::{Expect, Guard, Put};

use super::change::{Party, Plan};
use super::queue::{MAX_QUEUE_DEPTH, NewMessage};
use super::{MAX_TIME_TO_LIVE, due, guid};
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, decode, put};
use crate::telemetry::system;
use crate::throttle::Operation;

/// Largest message to a device: body, values of system properties, names and values of application properties (Azure IoT Hub
/// documentation, quotas).
pub const MAX_DEVICE_BOUND_BYTES: usize = 65_536;

/// Most bytes of properties of a message to a device, names and values, system properties included. They have to fit into
/// the topic of an MQTT packet (65,535 bytes) with every byte percent-encoded, and into the head of an HTTP response.
pub const MAX_PROPERTY_BYTES: usize = 16 << 10;

/// Longest message id (Azure IoT Hub documentation, messages).
pub const MAX_MESSAGE_ID: usize = 128;

/// A message for a device as its sender made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudToDevice {
    /// Its name, which feedback repeats; the hub makes one if there is none.
    pub message_id: Option<String>,
    /// The feedback that is wanted.
    pub ack: Ack,
    /// When it is no longer worth delivering; after the hub's default time to live if nothing is said.
    pub expires: Option<Timestamp>,
    /// Other system properties, by the names of [`system`].
    pub system: Vec<(&'static str, String)>,
    /// Application properties.
    pub properties: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Hub {
    /// Puts a message into a device's queue. It is durable when this resolves; the answer is its id.
    ///
    /// # Errors
    ///
    /// 404 for an unknown device, 403004 if its queue is full, 403009 for an impossible expiry time, 413 if the message is
    /// too large, 400 for an id or property that no message can have, 429 when services send too fast.
    pub async fn send_to_device(&self, device: &DeviceId, message: CloudToDevice) -> Result<String, HubError> {
        let now = self.env.now();
        let settings = self.queues.settings();
        let expires = message.expires.unwrap_or_else(|| now.after(settings.time_to_live));
        check_expiry(expires, now)?;
        let message_id = match &message.message_id {
            Some(id) => check_message_id(id)?,
            None => self.new_message_id(),
        };
        let content = contents(device, &message, &message_id);
        let size = check_size(&content)?;
        self.pass(Operation::CloudToDeviceSends, 1).await?;
        let _lane = self.queues.lanes.enter(device).await;
        let (record, _) = self.require(&Identity::device(device.clone())).await?;
        let sent = self.change_queue(device, &record.generation_id, Party::Anyone, |queue, now| {
            let new = NewMessage { message_id: message_id.clone(), expires, ack: message.ack, size };
            let Some(sequence) = queue.push(new, now) else { return Err(queue_full()) };
            let content = put(self.keys.queued(device.as_str(), sequence), &content)?;
            Ok(Plan { contents: vec![content], ..Plan::of(()) })
        });
        sent.await?;
        self.announce_messages(device).await;
        Ok(message_id)
    }

    /// Removes every message from a device's queue, also those that are out for delivery; how many that were.
    ///
    /// # Errors
    ///
    /// 404 for an unknown device.
    pub async fn purge_queue(&self, device: &DeviceId) -> Result<usize, HubError> {
        let _lane = self.queues.lanes.enter(device).await;
        let (record, _) = self.require(&Identity::device(device.clone())).await?;
        let purged =
            self.change_queue(device, &record.generation_id, Party::Anyone, |queue, _| Ok(Plan::of(queue.purge())));
        Ok(purged.await?.result)
    }

    /// How many messages a device has in its queue (`cloudToDeviceMessageCount`); modules have none.
    pub(crate) async fn queue_length(&self, device: &DeviceRecord) -> Result<usize, HubError> {
        if device.module_id.is_some() {
            return Ok(0);
        }
        let Some(entry) = self.store.get(&self.keys.queue(&device.device_id)).await? else { return Ok(0) };
        let (record, _) = decode::<QueueRecord>(&entry)?;
        if record.generation_id != device.generation_id {
            return Ok(0);
        }
        let now = self.env.now();
        let alive = |message: &&QueuedMessage| message.lock.is_some() || message.expires > now;
        Ok(record.messages.iter().filter(alive).count())
    }

    /// The keys of a device's queue and of what is in it, with the guard that makes sure that they are all, for the commit
    /// that deletes the device. To be called within the queue's lane.
    pub(crate) async fn queue_deletion(&self, device: &DeviceId) -> Result<(Guard, Vec<Put>), HubError> {
        let key = self.keys.queue(device.as_str());
        let Some(entry) = self.store.get(&key).await? else {
            return Ok((Guard { key, expect: Expect::Absent }, Vec::new()));
        };
        let (record, revision) = decode::<QueueRecord>(&entry)?;
        Ok((Guard { key: key.clone(), expect: Expect::At(revision) }, due::deletions(&self.keys, device, key, &record)))
    }

    fn new_message_id(&self) -> String {
        let mut bytes = [0; 16];
        self.env.fill_random(&mut bytes);
        guid(u128::from_be_bytes(bytes))
    }
}

fn contents(device: &DeviceId, message: &CloudToDevice, message_id: &str) -> ContentRecord {
    let of_sender = message.system.iter().filter(|(_, value)| !value.is_empty());
    let mut system: Vec<(String, String)> = vec![(system::MESSAGE_ID.to_owned(), message_id.to_owned())];
    system.extend(of_sender.map(|(name, value)| ((*name).to_owned(), value.clone())));
    if !system.iter().any(|(name, _)| name == system::TO) {
        let to = format!("/devices/{}/messages/deviceBound", nave_auth::percent_encode(device.as_str()));
        system.push((system::TO.to_owned(), to));
    }
    if let Some(expires) = message.expires {
        system.push((system::EXPIRY.to_owned(), expires.iso()));
    }
    if !message.ack.is_none() {
        system.push((system::ACK.to_owned(), message.ack.as_str().to_owned()));
    }
    ContentRecord { v: FormatVersion, system, properties: message.properties.clone(), body: message.body.to_vec() }
}

fn check_expiry(expires: Timestamp, now: Timestamp) -> Result<(), HubError> {
    let refused = |why: String| Err(HubError::new(ErrorCode::InvalidMessageExpiryTime, why));
    if expires <= now {
        return refused(format!("The expiry time {expires} is over: it is {now}."));
    }
    if expires.since(now) > MAX_TIME_TO_LIVE {
        let hours = MAX_TIME_TO_LIVE.as_secs() / 3_600;
        return refused(format!("The expiry time {expires} is more than {hours} hours away."));
    }
    Ok(())
}

/// The characters of a message id (Azure IoT Hub documentation, messages).
fn check_message_id(id: &str) -> Result<String, HubError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'/".contains(&byte);
    if id.is_empty() || id.len() > MAX_MESSAGE_ID || !id.bytes().all(allowed) {
        return Err(HubError::new(
            ErrorCode::ArgumentInvalid,
            format!(
                "A message id has 1 to {MAX_MESSAGE_ID} ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ ' /"
            ),
        ));
    }
    Ok(id.to_owned())
}

fn check_size(content: &ContentRecord) -> Result<u32, HubError> {
    if content.properties.iter().any(|(name, _)| name.is_empty()) {
        return Err(HubError::new(ErrorCode::ArgumentInvalid, "A property has no name."));
    }
    let system: usize = content.system.iter().map(|(_, value)| value.len()).sum();
    let application: usize = content.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (properties, size) = (system + application, system + application + content.body.len());
    let too_large = |what: &str, is: usize, limit: usize| {
        HubError::new(ErrorCode::MessageTooLarge, format!("{what} {is} bytes; the limit is {limit}."))
    };
    if properties > MAX_PROPERTY_BYTES {
        return Err(too_large("The properties have", properties, MAX_PROPERTY_BYTES));
    }
    if size > MAX_DEVICE_BOUND_BYTES {
        return Err(too_large("The message has", size, MAX_DEVICE_BOUND_BYTES));
    }
    u32::try_from(size).map_err(HubError::internal)
}

fn queue_full() -> HubError {
    HubError::new(
        ErrorCode::DeviceMaximumQueueDepthExceeded,
        format!(
            "The device's queue has {MAX_QUEUE_DEPTH} messages, the most it may have: wait until the device takes some, or \
             empty the queue."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_documentation() {
        for good in ["a", "A-1:.+%_#*?!(),=@;$'", &"x".repeat(MAX_MESSAGE_ID)] {
            assert!(check_message_id(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ü", "a\n", "{}", &"x".repeat(MAX_MESSAGE_ID + 1)] {
            assert_eq!(check_message_id(bad).unwrap_err().code, ErrorCode::ArgumentInvalid, "{bad}");
        }
    }

    #[test]
    fn a_message_expires_within_two_days() {
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        let last = now.after(MAX_TIME_TO_LIVE);
        assert!(check_expiry(Timestamp::from_unix_nanos(now.unix_nanos() + 1), now).is_ok());
        assert!(check_expiry(last, now).is_ok());
        for bad in [now, Timestamp::default(), last.after(std::time::Duration::from_secs(1))] {
            assert_eq!(check_expiry(bad, now).unwrap_err().code, ErrorCode::InvalidMessageExpiryTime);
        }
    }

    #[test]
    fn body_and_properties_count_together() {
        let device = DeviceId::parse("d#1").unwrap();
        let made = |body: usize, properties: Vec<(String, String)>| {
            let message = CloudToDevice { body: vec![0; body].into(), properties, ..CloudToDevice::default() };
            contents(&device, &message, "m")
        };
        let overhead = check_size(&made(0, Vec::new())).unwrap() as usize;
        assert_eq!(overhead, "m".len() + "/devices/d%231/messages/deviceBound".len());
        let room = MAX_DEVICE_BOUND_BYTES - overhead;
        let property = |length: usize| vec![("n".to_owned(), "v".repeat(length))];
        assert_eq!(check_size(&made(room - 3, property(2))).unwrap() as usize, MAX_DEVICE_BOUND_BYTES);
        assert_eq!(check_size(&made(room - 2, property(2))).unwrap_err().code, ErrorCode::MessageTooLarge);
        assert_eq!(check_size(&made(0, property(MAX_PROPERTY_BYTES))).unwrap_err().code, ErrorCode::MessageTooLarge);
        let unnamed = made(0, vec![(String::new(), "v".to_owned())]);
        assert_eq!(check_size(&unnamed).unwrap_err().code, ErrorCode::ArgumentInvalid);
    }
}
