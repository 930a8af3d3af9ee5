//! Opening a log: what a crash tore off is cut off, anything else that is wrong is an error.

use std::collections::VecDeque;
use std::sync::Arc;

use nave_env::Env;
use nave_model::Timestamp;

use crate::disk::{Disk, DiskFile, SyncPoint};
use crate::index::{FrameReader, Index, Segment};
use crate::manifest::{self, Manifest};
use crate::segment::{Head, HeadError, file_name, head_len, id_of, seed};
use crate::{FORMAT, MAX_PARTITIONS, OpenError};

/// An opened log.
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    pub(crate) index: Index,
    /// For each partition the enqueued time of its last record.
    pub(crate) last: Vec<Timestamp>,
    /// The file of the last segment.
    pub(crate) active: Option<Arc<dyn DiskFile>>,
}

/// Opens the log on `disk`, or creates it with so many partitions.
pub(crate) fn recover(disk: &dyn Disk, partitions: u32, env: &dyn Env) -> Result<Recovered, OpenError> {
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(OpenError::Partitions(partitions));
    }
    let names = disk.list()?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| id_of(name)).collect();
    ids.sort_unstable();
    let manifest = if names.iter().any(|name| name == manifest::NAME) {
        Manifest::read(disk)?
    } else if ids.is_empty() {
        let mut salt = [0; 4];
        env.fill_random(&mut salt);
        let manifest = Manifest { partitions, salt: u32::from_le_bytes(salt) };
        manifest.create(disk)?;
        manifest
    } else {
        return Err(OpenError::Corrupt { file: manifest::NAME.into(), position: 0, what: "the file is missing" });
    };
    if manifest.partitions != partitions {
        tracing::warn!(manifest.partitions, configured = partitions, "the partitions of a log cannot be changed");
    }
    let (segments, active) = open_segments(disk, &manifest, &ids)?;
    let count = manifest.partitions as usize;
    let mut scan = Scan { started: false, next: vec![0; count], last: vec![Timestamp::default(); count] };
    let mut index = Index { segments: VecDeque::with_capacity(segments.len()), next: Vec::new() };
    let mut opened = segments.into_iter().peekable();
    while let Some((head, file)) = opened.next() {
        let follower = opened.peek().map(|(next, _)| next.previous_end);
        let segment = scan.segment(head, &file, manifest.salt, follower)?;
        index.segments.push_back(segment);
    }
    if let Some(file) = &active {
        // What is read from now on must not be lost in a later power cut. It may be in the page cache only, left by a
        // process that was killed before its sync.
        file.sync(SyncPoint::Opened)?;
        disk.sync_names(SyncPoint::OpenedNames)?;
    }
    index.next.clone_from(&scan.next);
    Ok(Recovered { manifest, index, last: scan.last, active })
}

type Opened = Vec<(Head, Arc<dyn DiskFile>)>;

/// Opens all segments, without a last one whose creation was torn.
fn open_segments(
    disk: &dyn Disk,
    manifest: &Manifest,
    ids: &[u64],
) -> Result<(Opened, Option<Arc<dyn DiskFile>>), OpenError> {
    let partitions = manifest.partitions as usize;
    let mut opened: Opened = Vec::with_capacity(ids.len());
    for (at, &id) in ids.iter().enumerate() {
        let corrupt = |what| OpenError::Corrupt { file: file_name(id), position: 0, what };
        if opened.last().is_some_and(|(head, _)| head.id.checked_add(1) != Some(id)) {
            return Err(corrupt("the segment before it is missing"));
        }
        let name = file_name(id);
        let file = disk.open(&name)?;
        let len = file.len()?;
        let mut bytes = vec![0; head_len(partitions).min(usize::try_from(len).unwrap_or(usize::MAX))];
        file.read_at(&mut bytes, 0)?;
        match Head::decode(&bytes, id, partitions, manifest.salt) {
            Ok(head) => opened.push((head, file)),
            Err(HeadError::Newer(found)) => return Err(OpenError::NewerFormat { file: name, found, known: FORMAT }),
            Err(HeadError::Damaged) => {
                // The head and the first frames are forced to disk together, and before the segment in front of it can
                // be removed. So it can be torn only in the last segment, and only if there is another or it is the first.
                let may_be_torn = at + 1 == ids.len() && (at > 0 || id == 0);
                if !may_be_torn || proof_of_sync(&file, seed(manifest.salt, id), 0, len)? {
                    return Err(corrupt("the head of the segment is wrong"));
                }
                tracing::info!(file = name, "removing a segment whose creation was cut short");
                disk.remove(&name)?;
            }
        }
    }
    let active = opened.last().map(|(_, file)| Arc::clone(file));
    Ok((opened, active))
}

/// What has been read so far.
struct Scan {
    started: bool,
    next: Vec<u64>,
    last: Vec<Timestamp>,
}

impl Scan {
    /// Reads all frames of a segment. `follower` is the place where it ends according to the next segment; without one it
    /// is the last segment, whose tail may be torn.
    fn segment(
        &mut self,
        head: Head,
        file: &Arc<dyn DiskFile>,
        salt: u32,
        follower: Option<u64>,
    ) -> Result<Segment, OpenError> {
        let name = file_name(head.id);
        let corrupt = |position, what| OpenError::Corrupt { file: name.clone(), position, what };
        let seed = seed(salt, head.id);
        let start = head_len(head.partitions.len()) as u64;
        let len = file.len()?;
        let end = follower.unwrap_or(len);
        if end > len {
            return Err(corrupt(len, "the file is shorter than the next segment says"));
        }
        if !std::mem::replace(&mut self.started, true) {
            // The first retained segment says where the partitions stand.
            self.next = head.partitions.iter().map(|(next, _)| *next).collect();
            self.last = head.partitions.iter().map(|(_, last)| *last).collect();
        } else if head.partitions.iter().map(|(next, _)| next).ne(self.next.iter()) {
            return Err(corrupt(0, "its sequence numbers do not follow the segment before"));
        }
        let mut reader = FrameReader::new(Arc::clone(file), seed, end);
        let mut segment = Segment::new(head, Arc::clone(file), salt, end);
        let mut position = start;
        while position < end {
            let header = match reader.header(position)? {
                Some(header) if reader.payload(position, &header)?.is_some() => Some(header),
                _ => None,
            };
            let expected = header.and_then(|header| {
                let next = self.next.get_mut(header.partition.index())?;
                let last = self.last.get_mut(header.partition.index())?;
                (*next == header.base_sequence && *last <= header.enqueued).then_some((header, next, last))
            });
            let Some((header, next, last)) = expected else {
                if follower.is_some() || proof_of_sync(file, seed, position, len)? {
                    return Err(corrupt(position, "a frame that had been forced to disk is wrong"));
                }
                tracing::info!(file = name, position, bytes = end - position, "cutting off an unfinished write");
                file.truncate(position)?;
                segment.end = position;
                break;
            };
            *next = header.next_sequence();
            *last = header.enqueued;
            segment.note(&header, position);
            position += header.frame_len();
        }
        Ok(segment)
    }
}

/// Whether a frame behind `broken` proves that the byte at `broken` had been forced to disk: each frame carries how much of
/// the segment was durable when it was written. Without such a frame a crash may have torn that place, and nobody was told
/// that it is safe, except if it is the very last write, which cannot be told from a torn one.
fn proof_of_sync(file: &Arc<dyn DiskFile>, seed: u32, broken: u64, len: u64) -> Result<bool, OpenError> {
    let mut reader = FrameReader::new(Arc::clone(file), seed, len);
    for position in broken.saturating_add(1)..len {
        if let Some(header) = reader.header(position)?
            && u64::from(header.durable_before) > broken
            && reader.payload(position, &header)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}
