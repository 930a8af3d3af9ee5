//! The telemetry log: what devices sent, and what happened to them, in the order in which it was accepted.
//!
//! A log belongs to one hub. It is divided into partitions; a device's messages always go to the same one
//! ([`partition_of`]). In each partition records have contiguous sequence numbers from 0. A record carries the decision that
//! was taken when it was accepted (endpoints, enrichments), so a later change of routes does not rewrite the past.
//!
//! [`Log`] is what the rest of the hub sees. There are two implementations: [`FileLog`] on the local file system, and
//! [`sim::SimLog`] in memory, in virtual time. The files are described to the byte in `FORMAT.md` next to this crate.
//!
//! # What an implementation promises
//!
//! * An append is answered, and its records can be read, only after they have been forced to disk.
//! * The order of calls of [`Log::append`] is the order in the partition. The records of one append are adjacent.
//! * An append that failed with [`LogError::Failed`] or [`LogError::Stopped`] may turn up after a restart; every other
//!   failure means that nothing was written. Consumers tell duplicates by the [`MessageKey`].
//! * The enqueued time never goes back within a partition, even if the clock does.

#[cfg(not(target_arch = "wasm32"))]
mod disk;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod file_log;
#[cfg(not(target_arch = "wasm32"))]
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(not(target_arch = "wasm32"))]
mod index;
#[cfg(not(target_arch = "wasm32"))]
mod manifest;
#[cfg(not(target_arch = "wasm32"))]
mod metrics;
mod record;
#[cfg(not(target_arch = "wasm32"))]
mod recover;
#[cfg(not(target_arch = "wasm32"))]
mod segment;
pub mod sim;
#[cfg(not(target_arch = "wasm32"))]
mod snapshot;
#[cfg(not(target_arch = "wasm32"))]
mod writer;

#[cfg(test)]
mod durability_tests;
#[cfg(test)]
mod recording;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use bytes::Bytes;
use nave_model::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

pub use error::LogError;
#[cfg(not(target_arch = "wasm32"))]
pub use error::OpenError;
#[cfg(not(target_arch = "wasm32"))]
pub use file_log::{FileLog, MAX_SEGMENT_BYTES, Options};
pub use record::{Encoded, Head, decode_all};
#[cfg(not(target_arch = "wasm32"))]
pub use segment::FORMAT;
#[cfg(not(target_arch = "wasm32"))]
pub use snapshot::{LogSnapshot, SnapshotFile};

/// Most partitions of a log, as many as Azure IoT Hub's built-in endpoint has at most.
pub const MAX_PARTITIONS: u32 = 32;

/// Partitions of a log if nothing else is asked for, as in Azure IoT Hub.
pub const DEFAULT_PARTITIONS: u32 = 4;

/// Largest record on disk. A device message has at most 256 KB; enrichments may double that.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// Most records of one append.
pub const MAX_APPEND_RECORDS: usize = 4_096;

/// Most bytes of one append on disk, the payload of its frame.
pub const MAX_APPEND_BYTES: usize = 4 * 1024 * 1024;

/// Most bytes that one read returns, whatever the caller asks for: bounds the memory of one answer.
pub(crate) const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// A future that may borrow the log.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A partition of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u32);

impl PartitionId {
    /// The partition with this number, counted from 0; `None` from [`MAX_PARTITIONS`] on.
    pub const fn new(number: u32) -> Option<Self> {
        if number < MAX_PARTITIONS { Some(Self(number)) } else { None }
    }

    /// Its number, counted from 0.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The partition of a device: XXH3-64 of the id's bytes, modulo the number of partitions (at least 1, at most
/// [`MAX_PARTITIONS`]). It is part of the format: a device stays in its partition across versions of this program.
pub fn partition_of(device_id: &str, partitions: u32) -> PartitionId {
    let partitions = partitions.clamp(1, MAX_PARTITIONS);
    // The remainder is below 32.
    PartitionId((xxh3_64(device_id.as_bytes()) % u64::from(partitions)) as u32)
}

/// Identifies a message wherever it goes: two records with the same key are the same message delivered twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey(pub [u8; 16]);

/// Where a record comes from, by the names that routes use. The number is what is written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Source {
    /// Telemetry.
    DeviceMessages = 1,
    /// Changes of twins.
    TwinChangeEvents = 2,
    /// Creation and deletion of devices and modules.
    DeviceLifecycleEvents = 3,
    /// Connects and disconnects.
    DeviceConnectionStateEvents = 4,
    /// Jobs.
    DeviceJobLifecycleEvents = 5,
    /// Changes of digital twins.
    DigitalTwinChangeEvents = 6,
}

impl Source {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::DeviceMessages,
            2 => Self::TwinChangeEvents,
            3 => Self::DeviceLifecycleEvents,
            4 => Self::DeviceConnectionStateEvents,
            5 => Self::DeviceJobLifecycleEvents,
            6 => Self::DigitalTwinChangeEvents,
            _ => return None,
        })
    }
}

/// A record as it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Identifies the message.
    pub key: MessageKey,
    /// Where it comes from.
    pub source: Source,
    /// The device it is about.
    pub device_id: String,
    /// The module it is about, if it is about one.
    pub module_id: Option<String>,
    /// The names of the endpoints that it goes to, decided when it was accepted.
    pub endpoints: Vec<String>,
    /// System properties.
    pub system: Vec<(String, String)>,
    /// Application properties, enrichments included.
    pub properties: Vec<(String, String)>,
    /// The payload.
    pub body: Bytes,
}

/// The place of a record in its partition, as an opaque text for consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The offset of the record with this sequence number.
    pub const fn of(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The sequence number of the record at this offset.
    pub const fn sequence(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not an offset of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an offset of this log")]
pub struct InvalidOffset;

impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The number parser alone would take a sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidOffset);
        }
        text.parse().map(Self).map_err(|_| InvalidOffset)
    }
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: PartitionId,
    /// Its number in the partition, contiguous from 0.
    pub sequence: u64,
    /// When the log accepted it; never less than that of the record before.
    pub enqueued: Timestamp,
    /// What was appended.
    pub content: NewRecord,
}

impl Record {
    /// Its place for consumers.
    pub const fn offset(&self) -> Offset {
        Offset::of(self.sequence)
    }
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The sequence number of the first record; the others follow without a gap.
    pub first_sequence: u64,
    /// The enqueued time of all of them.
    pub enqueued: Timestamp,
}

/// The answer to a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records, contiguous.
    pub records: Vec<Record>,
    /// How many sequence numbers between the requested one and the first retained one are gone. If it is not zero, the
    /// records start at the first retained one.
    pub skipped: u64,
}

/// The durable and retained range of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first retained sequence number; equal to `next_sequence` if nothing is retained.
    pub first_sequence: u64,
    /// The sequence number that the next record will have.
    pub next_sequence: u64,
}

/// A partitioned, durable log. See the [crate documentation](crate) for what an implementation promises.
pub trait Log: Send + Sync + 'static {
    /// How many partitions there are. Fixed when the log was created.
    fn partitions(&self) -> u32;

    /// Appends `records`; resolves once they are durable.
    ///
    /// They are queued during the call, not at the first poll. Dropping the future does not take them back.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    fn append_encoded(
        &self,
        partition: PartitionId,
        records: Encoded,
    ) -> BoxFuture<'static, Result<Appended, LogError>>;

    /// [`append_encoded`](Self::append_encoded) for records that exist as such.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    fn append(
        &self,
        partition: PartitionId,
        records: Vec<NewRecord>,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        match Encoded::of(&records) {
            Ok(encoded) => self.append_encoded(partition, encoded),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// What to wait for before the next append, if so much waits for the disk already that [`LogError::Busy`] is near; `None`
    /// while there is room. Who can wait, because the sender can be made to, asks first; then only a log that is overwhelmed by
    /// those who cannot answers that it is busy. It also resolves when the log is closed.
    fn room(&self) -> Option<BoxFuture<'static, ()>>;

    /// Up to `max_records` durable records from `from_sequence` on, whose bytes on disk are together at most `max_bytes`;
    /// at least one record if there is one. Empty at and beyond the end.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    fn read(
        &self,
        partition: PartitionId,
        from_sequence: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Batch, LogError>>;

    /// The durable and retained range.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownPartition`].
    fn bounds(&self, partition: PartitionId) -> Result<Bounds, LogError>;

    /// The first retained sequence number enqueued at or after `time`; the next one if there is none.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    fn sequence_at(&self, partition: PartitionId, time: Timestamp) -> BoxFuture<'_, Result<u64, LogError>>;

    /// Resolves once the partition's next sequence number is greater than `sequence`, that is: once the record `sequence`
    /// can be read. Also resolves if the log stops or the partition does not exist; the read that follows says so.
    fn changed(&self, partition: PartitionId, sequence: u64) -> BoxFuture<'static, ()>;

    /// Asks retention to keep the records from `sequence` on, because an endpoint still needs them. The largest call counts.
    /// Initially nothing is held. A hold defers retention by age; the bound on the total size wins over it.
    fn retain_from(&self, partition: PartitionId, sequence: u64);
}
