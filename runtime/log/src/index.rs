//! Where records are: the retained segments, and in each of them a sparse list of places.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use nave_model::Timestamp;

use crate::disk::DiskFile;
use crate::frame::{HEADER_BYTES, Header};
use crate::segment::{Head, file_name, seed};
use crate::{Batch, Bounds, LogError, PartitionId, Record, record};

/// Bytes of a segment between two marks of a partition. A look-up reads half of that on average; 64 MiB need at most 1,024
/// marks of 24 bytes per partition.
const MARK_EVERY: u64 = 64 * 1024;

/// Bytes that are read from a segment at once.
const CHUNK_BYTES: u64 = 128 * 1024;

/// A frame whose place is remembered.
#[derive(Clone, Copy, Debug)]
struct Mark {
    sequence: u64,
    position: u64,
    enqueued: Timestamp,
}

/// A retained segment. It grows only by what is durable.
pub(crate) struct Segment {
    pub(crate) head: Head,
    file: Arc<dyn DiskFile>,
    seed: u32,
    /// The durable and acknowledged length.
    pub(crate) end: u64,
    marks: Vec<Vec<Mark>>,
    /// For each partition the enqueued time of its last record in this or an earlier segment.
    last: Vec<Timestamp>,
}

impl Segment {
    pub(crate) fn new(head: Head, file: Arc<dyn DiskFile>, salt: u32, end: u64) -> Self {
        let marks = vec![Vec::new(); head.partitions.len()];
        let last = head.partitions.iter().map(|(_, last)| *last).collect();
        Self { seed: seed(salt, head.id), head, file, end, marks, last }
    }

    /// Takes note of a frame; called in the order of positions.
    pub(crate) fn note(&mut self, header: &Header, position: u64) {
        let partition = header.partition.index();
        if let (Some(marks), Some(last)) = (self.marks.get_mut(partition), self.last.get_mut(partition)) {
            *last = header.enqueued;
            if marks.last().is_none_or(|mark| position - mark.position >= MARK_EVERY) {
                marks.push(Mark { sequence: header.base_sequence, position, enqueued: header.enqueued });
            }
        }
    }

    /// When the youngest record in it, or before it, was enqueued.
    pub(crate) fn newest(&self) -> Timestamp {
        self.last.iter().copied().max().unwrap_or_default()
    }

    /// The first sequence number of a partition in it.
    pub(crate) fn base(&self, partition: usize) -> u64 {
        self.head.partitions.get(partition).map_or(0, |(next, _)| *next)
    }

    /// Its file and how much of it is durable, for a copy.
    pub(crate) fn file(&self) -> (Arc<dyn DiskFile>, u64) {
        (Arc::clone(&self.file), self.end)
    }

    fn reader(&self) -> FrameReader {
        FrameReader::new(Arc::clone(&self.file), self.seed, self.end)
    }
}

/// All retained segments, oldest first.
pub(crate) struct Index {
    pub(crate) segments: VecDeque<Segment>,
    /// For each partition the number of its next record.
    pub(crate) next: Vec<u64>,
}

/// Where to start reading: a reader of a segment, and a place in it at or before what is wanted.
pub(crate) struct Place {
    reader: FrameReader,
    position: u64,
    segment: u64,
}

impl Index {
    pub(crate) fn bounds(&self, partition: PartitionId) -> Option<Bounds> {
        let next_sequence = *self.next.get(partition.index())?;
        let first = self.segments.front().map_or(next_sequence, |segment| segment.base(partition.index()));
        Some(Bounds { first_sequence: first, next_sequence })
    }

    /// Where to look for a sequence number that is retained and durable.
    pub(crate) fn place_of(&self, partition: PartitionId, sequence: u64) -> Option<Place> {
        let partition = partition.index();
        let at = self.segments.partition_point(|segment| segment.base(partition) <= sequence).checked_sub(1)?;
        let segment = self.segments.get(at)?;
        let marks = segment.marks.get(partition)?;
        let mark = marks.get(marks.partition_point(|mark| mark.sequence <= sequence).checked_sub(1)?)?;
        Some(Place { reader: segment.reader(), position: mark.position, segment: segment.head.id })
    }

    /// Where to look for the first record of a partition enqueued at or after `time`, if there is one.
    pub(crate) fn place_at(&self, partition: PartitionId, time: Timestamp) -> Option<Place> {
        let partition = partition.index();
        let after = |segment: &Segment| segment.last.get(partition).is_some_and(|last| *last >= time);
        // A segment without records of the partition carries the time of an earlier one, which may be gone by now.
        let has_records = |segment: &&Segment| segment.marks.get(partition).is_some_and(|marks| !marks.is_empty());
        let at = self.segments.partition_point(|segment| !after(segment));
        let segment = self.segments.range(at..).find(has_records)?;
        let marks = segment.marks.get(partition)?;
        let mark = marks.get(marks.partition_point(|mark| mark.enqueued < time).saturating_sub(1))?;
        Some(Place { reader: segment.reader(), position: mark.position, segment: segment.head.id })
    }
}

impl Place {
    /// Appends records from `sequence` on to `batch`, to the end of the segment or of the budget of bytes, and returns the
    /// sequence number after the last one.
    pub(crate) fn read(
        mut self,
        partition: PartitionId,
        mut sequence: u64,
        max_records: usize,
        budget: &mut usize,
        batch: &mut Batch,
    ) -> Result<u64, LogError> {
        while let Some((header, position)) = self.next_frame(partition)? {
            if header.next_sequence() <= sequence {
                continue;
            }
            if header.base_sequence > sequence {
                return Err(self.corrupt(position, "records are missing before this frame"));
            }
            let Some(mut payload) = self.reader.payload(position, &header).map_err(unreadable)? else {
                return Err(self.corrupt(position, "the checksum of a frame's records is wrong"));
            };
            for number in header.base_sequence..header.next_sequence() {
                let Some(bytes) = record::split(&mut payload) else {
                    return Err(self.corrupt(position, "a frame has fewer records than it says"));
                };
                if number < sequence {
                    continue;
                }
                if batch.records.len() >= max_records || (bytes.len() > *budget && !batch.records.is_empty()) {
                    *budget = 0;
                    return Ok(sequence);
                }
                *budget = budget.saturating_sub(bytes.len());
                let Some(content) = record::decode(bytes) else {
                    return Err(self.corrupt(position, "a record cannot be decoded"));
                };
                batch.records.push(Record { partition, sequence, enqueued: header.enqueued, content });
                sequence += 1;
            }
        }
        Ok(sequence)
    }

    /// The number of the first record enqueued at or after `time`, if it is in this segment.
    pub(crate) fn find(mut self, partition: PartitionId, time: Timestamp) -> Result<Option<u64>, LogError> {
        while let Some((header, _)) = self.next_frame(partition)? {
            if header.enqueued >= time {
                return Ok(Some(header.base_sequence));
            }
        }
        Ok(None)
    }

    /// The next frame of the partition and its position.
    fn next_frame(&mut self, partition: PartitionId) -> Result<Option<(Header, u64)>, LogError> {
        while self.position < self.reader.end {
            let position = self.position;
            let Some(header) = self.reader.header(position).map_err(unreadable)? else {
                return Err(self.corrupt(position, "the header of a frame is wrong"));
            };
            self.position += header.frame_len();
            if header.partition == partition {
                return Ok(Some((header, position)));
            }
        }
        Ok(None)
    }

    fn corrupt(&self, position: u64, what: &'static str) -> LogError {
        LogError::Corrupt { file: file_name(self.segment), position, what }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unreadable(error: io::Error) -> LogError {
    LogError::Unreadable(error.to_string())
}

/// Reads frames of one segment through a buffer.
pub(crate) struct FrameReader {
    file: Arc<dyn DiskFile>,
    seed: u32,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl FrameReader {
    /// A reader of the first `end` bytes of `file`.
    pub(crate) fn new(file: Arc<dyn DiskFile>, seed: u32, end: u64) -> Self {
        Self { file, seed, end, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The header at `position`; `None` if there is none, or if the frame would not end before `end`.
    pub(crate) fn header(&mut self, position: u64) -> io::Result<Option<Header>> {
        let (seed, end) = (self.seed, self.end);
        let Some(bytes) = self.bytes(position, HEADER_BYTES as u64)? else { return Ok(None) };
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        Ok(Header::decode(bytes, seed).filter(|header| header.frame_len() <= end - position))
    }

    /// The records of the frame at `position`; `None` if their checksum is wrong.
    pub(crate) fn payload(&mut self, position: u64, header: &Header) -> io::Result<Option<&[u8]>> {
        let bytes = self.bytes(position + HEADER_BYTES as u64, u64::from(header.payload_len))?;
        Ok(bytes.filter(|bytes| crc32c::crc32c(bytes) == header.payload_crc))
    }

    fn bytes(&mut self, position: u64, len: u64) -> io::Result<Option<&[u8]>> {
        let Some(left) = self.end.checked_sub(position).filter(|left| *left >= len) else { return Ok(None) };
        let buffered = self.buffer_at..=self.buffer_at + self.buffer.len() as u64;
        if !(buffered.contains(&position) && buffered.contains(&(position + len))) {
            let wanted = len.max(CHUNK_BYTES.min(left));
            let wanted = usize::try_from(wanted).map_err(io::Error::other)?;
            self.buffer.clear();
            self.buffer.resize(wanted, 0);
            self.buffer_at = position;
            if let Err(error) = self.file.read_at(&mut self.buffer, position) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let from = usize::try_from(position - self.buffer_at).map_err(io::Error::other)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Ok(self.buffer.get(from..from + len))
    }
}
