//! Cloud-to-device messages: a device's queue, what its messages contain, and the feedback on what became of them.
//!
//! The queue is one aggregate and small: whatever happens to a message is one compare-and-swap of it. The contents of the
//! messages, which may be large and never change, lie beside it under a key each; they are written and deleted in the same
//! commit as the queue's entry. A back end that knows only single keys would write contents first and delete them last.

use serde::{Deserialize, Serialize};

use super::{FormatVersion, Record};
use crate::Timestamp;

/// The messages that wait for a device, in order, without their contents. Key: `queue/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueRecord {
    /// Format version.
    pub v: FormatVersion,
    /// The device that the messages are for: not a later one of the same id.
    pub generation_id: String,
    /// The sequence number of the newest message that there ever was. It outlives the messages, so that no number comes
    /// twice.
    #[serde(default)]
    pub last_sequence: u64,
    /// What waits, oldest first.
    #[serde(default)]
    pub messages: Vec<QueuedMessage>,
}

impl Record for QueueRecord {}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedMessage {
    /// Its place in the queue, and the name of its contents.
    pub sequence: u64,
    /// The sender's name for it, or the hub's if the sender gave none; feedback names it.
    pub message_id: String,
    /// When it was accepted.
    pub enqueued: Timestamp,
    /// When it is no longer worth delivering.
    pub expires: Timestamp,
    /// What feedback the sender wants.
    #[serde(default, skip_serializing_if = "Ack::is_none")]
    pub ack: Ack,
    /// How often it was handed out and came back.
    #[serde(default)]
    pub deliveries: u32,
    /// Bytes of its contents.
    pub size: u32,
    /// Who has it now; nobody if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<MessageLock>,
}

/// Who was handed a message and has not settled it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MessageLock {
    /// A session of the device, as long as it lasts.
    Session {
        /// The session's epoch.
        epoch: u64,
    },
    /// Whoever has the token, until a time.
    Token {
        /// The lock token.
        token: String,
        /// When the message comes back by itself.
        until: Timestamp,
    },
}

/// What feedback a sender wants (`iothub-ack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ack {
    /// None.
    #[default]
    None,
    /// When the device has taken it.
    Positive,
    /// When it came to nothing.
    Negative,
    /// Either way.
    Full,
}

impl Ack {
    /// Reads a word of the protocol, whatever its case.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Positive, Self::Negative, Self::Full]
            .into_iter()
            .find(|ack| ack.as_str().eq_ignore_ascii_case(word))
    }

    /// The word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Whether no feedback is wanted.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether feedback on `outcome` is wanted.
    pub const fn wants(self, outcome: Outcome) -> bool {
        match self {
            Self::None => false,
            Self::Positive => matches!(outcome, Outcome::Success),
            Self::Negative => !matches!(outcome, Outcome::Success),
            Self::Full => true,
        }
    }
}

/// What became of a message (protocol notes: service AMQP §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The device took it.
    Success,
    /// Its time was over.
    Expired,
    /// It was handed out as often as allowed and came back each time.
    DeliveryCountExceeded,
    /// The device refused it.
    Rejected,
    /// The service emptied the queue.
    Purged,
}

impl Outcome {
    /// The word of the protocol, which is also how it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Expired => "Expired",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
            Self::Rejected => "Rejected",
            Self::Purged => "Purged",
        }
    }
}

/// What a message in a queue contains. Key: `queued/{id}/{sequence}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRecord {
    /// Format version.
    pub v: FormatVersion,
    /// System properties by their stored names.
    #[serde(default)]
    pub system: Vec<(String, String)>,
    /// Application properties in the order sent.
    #[serde(default)]
    pub properties: Vec<(String, String)>,
    /// The body, base64.
    #[serde(with = "base64_text", default)]
    pub body: Vec<u8>,
}

impl Record for ContentRecord {}

/// What became of one message. Key: `feedback/{time}/{id}/{sequence}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackRecord {
    /// Format version.
    pub v: FormatVersion,
    /// The message's id.
    pub message_id: String,
    /// The device that it was for.
    pub device_id: String,
    /// Which device of that id.
    pub generation_id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
}

impl Record for FeedbackRecord {}

/// Feedback that was handed to a service together. Key: `feedbackBatch/{number}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedbackBatchRecord {
    /// Format version.
    pub v: FormatVersion,
    /// What it consists of, oldest first.
    pub records: Vec<FeedbackRecord>,
    /// When it was put together.
    pub created: Timestamp,
    /// How often it was handed out and given back.
    #[serde(default)]
    pub deliveries: u32,
    /// The token of whoever has it now; none if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When it comes back by itself.
    #[serde(default)]
    pub until: Timestamp,
}

impl Record for FeedbackBatchRecord {}

/// Bytes as base64 text.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What release 0.1.0 wrote opens today: change these texts only together with a new format version and an adapter.
    #[test]
    fn yesterdays_queue_opens() {
        let stored = r#"{"v":1,"generationId":"637","lastSequence":9,"messages":[
            {"sequence":7,"messageId":"m-7","enqueued":1790000000000000000,"expires":1790003600000000000,"ack":"full",
             "deliveries":2,"size":5,"lock":{"session":{"epoch":3}}},
            {"sequence":9,"messageId":"m-9","enqueued":1790000000000000000,"expires":1790003600000000000,"deliveries":0,"size":0,
             "lock":{"token":{"token":"t","until":1790000060000000000}}}]}"#;
        let record = QueueRecord::decode(stored.as_bytes()).unwrap();
        let [first, second] = record.messages.as_slice() else { panic!("{record:?}") };
        assert_eq!((first.ack, first.lock.clone()), (Ack::Full, Some(MessageLock::Session { epoch: 3 })));
        let until = Timestamp::from_unix_seconds(1_790_000_060);
        assert_eq!((second.ack, &second.lock), (Ack::None, &Some(MessageLock::Token { token: "t".into(), until })));
        assert_eq!(QueueRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn yesterdays_contents_and_feedback_open() {
        let stored = r#"{"v":1,"system":[["messageId","m"]],"properties":[["a","1"]],"body":"AP8="}"#;
        let content = ContentRecord::decode(stored.as_bytes()).unwrap();
        assert_eq!(content.body, [0, 255]);
        assert_eq!(content.encode().unwrap(), stored.as_bytes());
        assert!(ContentRecord::decode(br#"{"v":1,"body":"!"}"#).is_err());

        let stored = r#"{"v":1,"records":[{"v":1,"messageId":"m","deviceId":"d","generationId":"1","outcome":"DeliveryCountExceeded",
            "at":1790000000000000000}],"created":1790000001000000000,"deliveries":1,"token":"t","until":1790000061000000000}"#;
        let batch = FeedbackBatchRecord::decode(stored.as_bytes()).unwrap();
        assert_eq!(batch.records[0].outcome, Outcome::DeliveryCountExceeded);
        assert_eq!(FeedbackBatchRecord::decode(&batch.encode().unwrap()).unwrap(), batch);
    }

    #[test]
    fn who_wants_feedback_gets_it() {
        for (word, success, failure) in
            [("None", false, false), ("positive", true, false), ("NEGATIVE", false, true), ("full", true, true)]
        {
            let ack = Ack::parse(word).unwrap();
            assert_eq!((ack.wants(Outcome::Success), ack.wants(Outcome::Purged)), (success, failure), "{word}");
        }
        assert_eq!(Ack::parse("maybe"), None);
    }
}
