//! `GET /events`: the telemetry log as a stream, for back ends and for people.
//!
//! ```text
//! GET /events?consumerGroup=…&partition=…&from=…&maxWait=…&maxCount=…
//! ```
//!
//! The right is `ServiceConnect`. All parameters are optional:
//!
//! * `partition`: a number; without it the partitions are merged (each keeps its order).
//! * `from`: `earliest`; `latest` (the default); a time (`2026-01-31T10:00:00Z`), from which on messages were enqueued; or the
//!   `offset` of a message of the named partition, **after** which the stream goes on, so that a reader resumes with the
//!   last one it handled.
//! * `maxWait`: seconds after which the stream ends if nothing came. Without it the stream never ends by itself.
//! * `maxCount`: the number of messages after which the stream ends.
//! * `consumerGroup`: a name. The hub keeps no position of a reader of this stream; the name is checked and has no effect.
//!
//! The answer is newline-delimited JSON, one object a message: `partition`, `offset`, `sequenceNumber`, `enqueuedTime`,
//! `deviceId`, `moduleId` (modules only), `properties`, `systemProperties` (names as Event Hubs clients see them), `body`
//! (base64). Only messages that were routed to the endpoint `events` are in it. A stream that breaks (rather than ends) is
//! cut without the end of the response.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::{Either, select, select_all};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use nave_env::{Moment, SharedEnv};
use nave_hub::{ErrorCode, Hub, HubError, system};
use nave_log::{Log, LogError, Offset, PartitionId, Record, Source};
use nave_model::Timestamp;
use serde_json::{Map, Value, json};

use crate::call::{Call, argument};
use crate::reply::Reply;
use crate::route::Target;
use crate::service::ResponseBody;

/// Most event streams at a time; one more is answered "busy". Each costs a connection and up to one chunk of memory.
pub const MAX_EVENT_STREAMS: usize = 256;

/// Longest `maxWait`: a day, in seconds.
pub const MAX_EVENT_WAIT_SECONDS: u64 = 86_400;

/// Longest name of a consumer group (Azure Event Hubs documentation, quotas).
const MAX_CONSUMER_GROUP: usize = 50;

/// The endpoint whose messages the stream shows.
const ENDPOINT: &str = "events";

/// Records that one look into a partition takes, and with [`MAX_READ_BYTES`] the bound of a chunk.
const MAX_READ_RECORDS: usize = 500;

/// Bytes of records that one look into a partition takes. The text of a chunk is at most about twice as long.
const MAX_READ_BYTES: usize = 256 << 10;

/// The streams that are open.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<AtomicUsize>);

/// One open stream; closed when dropped.
struct Open(Streams);

impl Streams {
    fn open(&self) -> Option<Open> {
        let open = Open(self.clone());
        (self.0.fetch_add(1, Ordering::Relaxed) < MAX_EVENT_STREAMS).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers a request.
pub(crate) async fn stream(hub: &Hub, call: &Call, streams: &Streams) -> Result<Reply, HubError> {
    let log = Arc::clone(hub.log());
    let request = Parameters::read(&call.target, log.partitions())?;
    let open = streams.open().ok_or_else(|| {
        HubError::new(
            ErrorCode::ThrottlingException,
            format!("{MAX_EVENT_STREAMS} event streams are open: close one, or try again later."),
        )
    })?;
    let mut cursors = Vec::with_capacity(request.partitions.len());
    for partition in &request.partitions {
        let next = start(&*log, *partition, request.from).await.map_err(HubError::internal)?;
        cursors.push(Cursor { partition: *partition, next });
    }
    let env = Arc::clone(call.platform.env());
    let reader = Reader {
        deadline: request.max_wait.map(|wait| env.monotonic().after(wait)),
        env,
        log,
        cursors,
        turn: 0,
        max_wait: request.max_wait,
        remaining: request.max_count,
        _open: open,
    };
    let chunks = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(reader))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "an event stream ended because the log cannot be read");
                Some((Err(io::Error::other(error)), None))
            }
        }
    });
    let mut reply = Response::new(ResponseBody::stream(chunks));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson; charset=utf-8"));
    Ok(reply)
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Earliest,
    Latest,
    After(Offset),
    At(Timestamp),
}

struct Parameters {
    partitions: Vec<PartitionId>,
    from: From,
    max_wait: Option<Duration>,
    max_count: Option<u64>,
}

impl Parameters {
    fn read(target: &Target, partitions: u32) -> Result<Self, HubError> {
        let parameter = |name| target.parameter(name).filter(|text: &&str| !text.is_empty());
        if let Some(group) = parameter("consumerGroup") {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"$-._".contains(&byte);
            if group.len() > MAX_CONSUMER_GROUP || !group.bytes().all(plain) {
                return Err(argument(format!(
                    "consumerGroup is up to {MAX_CONSUMER_GROUP} letters, digits, '-', '.', '_' and '$'."
                )));
            }
        }
        let named = parameter("partition").map(|text| partition(text, partitions)).transpose()?;
        let from = parameter("from").map_or(Ok(From::Latest), from)?;
        if matches!(from, From::After(_)) && named.is_none() {
            return Err(argument("from is an offset, which belongs to a partition: name the partition too."));
        }
        let all = || (0..partitions).filter_map(PartitionId::new).collect();
        let max_wait = parameter("maxWait").map(|text| number("maxWait", text, MAX_EVENT_WAIT_SECONDS)).transpose()?;
        Ok(Self {
            partitions: named.map_or_else(all, |partition| vec![partition]),
            from,
            max_wait: max_wait.map(Duration::from_secs),
            max_count: parameter("maxCount").map(|text| number("maxCount", text, u64::MAX)).transpose()?,
        })
    }
}

/// Whether the query of a target asks for events in a way that can be answered.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn reads(target: &Target, partitions: u32) -> bool {
    Parameters::read(target, partitions).is_ok()
}

fn partition(text: &str, partitions: u32) -> Result<PartitionId, HubError> {
    let number = text.parse().ok().filter(|number| *number < partitions);
    number.and_then(PartitionId::new).ok_or_else(|| {
        argument(format!("partition is none of the hub's, which are 0 to {}.", partitions.saturating_sub(1)))
    })
}

fn from(text: &str) -> Result<From, HubError> {
    match text {
        text if text.eq_ignore_ascii_case("earliest") => Ok(From::Earliest),
        text if text.eq_ignore_ascii_case("latest") => Ok(From::Latest),
        text => match (text.parse(), Timestamp::parse_iso(text)) {
            (Ok(offset), _) => Ok(From::After(offset)),
            (_, Some(time)) => Ok(From::At(time)),
            _ => Err(argument("from is none of: earliest, latest, an offset, a time such as 2026-01-31T10:00:00Z.")),
        },
    }
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, HubError> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| argument(format!("{name} is not a number from 1 to {most}.")))
}

async fn start(log: &dyn Log, partition: PartitionId, from: From) -> Result<u64, LogError> {
    let bounds = log.bounds(partition)?;
    Ok(match from {
        From::Earliest => bounds.first_sequence,
        From::Latest => bounds.next_sequence,
        // An offset beyond the end is one of an earlier life of the log.
        From::After(offset) => offset.sequence().saturating_add(1).min(bounds.next_sequence),
        From::At(time) => log.sequence_at(partition, time).await?,
    })
}

struct Cursor {
    partition: PartitionId,
    next: u64,
}

struct Reader {
    env: SharedEnv,
    log: Arc<dyn Log>,
    cursors: Vec<Cursor>,
    /// The cursor that is looked at first the next time, so that a busy partition does not hide another.
    turn: usize,
    max_wait: Option<Duration>,
    deadline: Option<Moment>,
    remaining: Option<u64>,
    _open: Open,
}

impl Reader {
    /// The next messages, as soon as there are any; `None` when the stream is over.
    async fn chunk(&mut self) -> Result<Option<Bytes>, LogError> {
        loop {
            if self.remaining == Some(0) {
                return Ok(None);
            }
            match self.look().await? {
                Look::Messages(chunk) => {
                    self.deadline = self.max_wait.map(|wait| self.env.monotonic().after(wait));
                    return Ok(Some(chunk));
                }
                Look::OthersOnly => {}
                Look::Nothing => {
                    if !self.wait().await {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> Result<Look, LogError> {
        let mut look = Look::Nothing;
        for step in 0..self.cursors.len() {
            let index = (self.turn + step) % self.cursors.len();
            let Some(cursor) = self.cursors.get_mut(index) else { continue };
            let batch = self.log.read(cursor.partition, cursor.next, MAX_READ_RECORDS, MAX_READ_BYTES).await?;
            let Some(last) = batch.records.last() else { continue };
            cursor.next = last.sequence + 1;
            self.turn = index + 1;
            look = Look::OthersOnly;
            let chunk = self.lines(&batch.records);
            if !chunk.is_empty() {
                return Ok(Look::Messages(chunk));
            }
        }
        Ok(look)
    }

    fn lines(&mut self, records: &[Record]) -> Bytes {
        let mut chunk = BytesMut::new();
        for record in records.iter().filter(|record| record.content.endpoints.iter().any(|name| name == ENDPOINT)) {
            if let Some(remaining) = &mut self.remaining {
                match remaining.checked_sub(1) {
                    Some(left) => *remaining = left,
                    None => break,
                }
            }
            chunk.put_slice(message_json(record).to_string().as_bytes());
            chunk.put_u8(b'\n');
        }
        chunk.freeze()
    }

    /// Waits for a new record; false if none came in time.
    async fn wait(&self) -> bool {
        let changes = self.cursors.iter().map(|cursor| self.log.changed(cursor.partition, cursor.next));
        let changes = select_all(changes);
        let Some(deadline) = self.deadline else {
            changes.await;
            return true;
        };
        let left = deadline.since(self.env.monotonic());
        !left.is_zero() && matches!(select(changes, self.env.sleep(left)).await, Either::Left(_))
    }
}

enum Look {
    /// Lines to be sent.
    Messages(Bytes),
    /// There are new records, but none for this endpoint.
    OthersOnly,
    /// There is nothing new.
    Nothing,
}

/// A message of the stream.
fn message_json(record: &Record) -> Value {
    let content = &record.content;
    let mut message = Map::new();
    message.insert("partition".to_owned(), json!(record.partition.get()));
    message.insert("offset".to_owned(), json!(record.offset().to_string()));
    message.insert("sequenceNumber".to_owned(), json!(record.sequence));
    message.insert("enqueuedTime".to_owned(), json!(record.enqueued.iso()));
    message.insert("deviceId".to_owned(), json!(content.device_id));
    if let Some(module) = &content.module_id {
        message.insert("moduleId".to_owned(), json!(module));
    }
    let properties = content.properties.iter().map(|(name, value)| (name.clone(), json!(value)));
    message.insert("properties".to_owned(), Value::Object(properties.collect()));
    message.insert("systemProperties".to_owned(), Value::Object(system_properties(record)));
    message.insert("body".to_owned(), json!(STANDARD.encode(&content.body)));
    Value::Object(message)
}

fn system_properties(record: &Record) -> Map<String, Value> {
    let stored = record.content.system.iter();
    let mut properties: Map<_, _> =
        stored.map(|(name, value)| (event_hub_name(name).to_owned(), json!(value))).collect();
    properties.insert("iothub-enqueuedtime".to_owned(), json!(record.enqueued.iso()));
    properties.insert("iothub-message-source".to_owned(), json!(message_source(record.content.source)));
    properties
}

/// The name that an Event Hubs client sees for a stored one (protocol notes: routing §6, service AMQP §6). One that is
/// not known is shown as it is stored.
fn event_hub_name(name: &str) -> &str {
    match name {
        system::MESSAGE_ID => "message-id",
        system::CORRELATION_ID => "correlation-id",
        system::USER_ID => "user-id",
        system::CONTENT_TYPE => "content-type",
        system::CONTENT_ENCODING => "content-encoding",
        system::EXPIRY => "absolute-expiry-time",
        system::CREATION_TIME => "iothub-creation-time-utc",
        system::OUTPUT_NAME => "iothub-outputname",
        system::INTERFACE_ID => "iothub-interface-id",
        system::MESSAGE_SCHEMA => "iothub-message-schema",
        system::DIAGNOSTIC_ID => "Diagnostic-Id",
        system::DIAGNOSTIC_CONTEXT => "Correlation-Context",
        system::DEVICE_ID => "iothub-connection-device-id",
        system::MODULE_ID => "iothub-connection-module-id",
        system::GENERATION_ID => "iothub-connection-auth-generation-id",
        system::AUTH_METHOD => "iothub-connection-auth-method",
        // `to`, `dt-dataschema` and `dt-subject` are called the same on both sides.
        other => other,
    }
}

/// `iothub-message-source` (protocol notes: routing §7).
const fn message_source(source: Source) -> &'static str {
    match source {
        Source::DeviceMessages => "Telemetry",
        Source::TwinChangeEvents => "twinChangeEvents",
        Source::DeviceLifecycleEvents => "deviceLifecycleEvents",
        Source::DeviceConnectionStateEvents => "deviceConnectionStateEvents",
        Source::DeviceJobLifecycleEvents => "deviceJobLifecycleEvents",
        Source::DigitalTwinChangeEvents => "digitalTwinChangeEvents",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_streams_are_open_at_a_time() {
        let streams = Streams::default();
        let mut open: Vec<_> = (0..MAX_EVENT_STREAMS).map(|_| streams.open().unwrap()).collect();
        assert!(streams.open().is_none());
        open.pop();
        let again = streams.open();
        assert!(again.is_some() && streams.open().is_none());
    }

    #[test]
    fn a_stream_begins_at_words_offsets_and_times() {
        assert_eq!(from("Earliest").unwrap(), From::Earliest);
        assert_eq!(from("LATEST").unwrap(), From::Latest);
        assert_eq!(from("17").unwrap(), From::After(Offset::of(17)));
        assert_eq!(
            from("2026-01-31T10:00:00Z").unwrap(),
            From::At(Timestamp::parse_iso("2026-01-31T10:00:00").unwrap())
        );
        for wrong in ["-1", "+1", "x", "2026-01-31", "99999999999999999999"] {
            assert_eq!(from(wrong).unwrap_err().code, ErrorCode::ArgumentInvalid, "{wrong}");
        }
    }
}
