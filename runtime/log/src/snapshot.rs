//! A log as it was at one moment, for a copy.
//!
//! Segments only grow at their end, and only by what is durable counts; a segment that retention removes stays readable for
//! who has it open. So a list of open files with their lengths is a consistent state, and costs the writer nothing.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::index::Index;
use crate::manifest::{self, Manifest};
use crate::segment::file_name;

/// The files of a log at one moment. Written under their names into an empty directory, they are a log that
/// [`FileLog::open`](crate::FileLog::open) opens, with every record that could be read at that moment.
pub struct LogSnapshot {
    files: Vec<SnapshotFile>,
}

/// One file of a [`LogSnapshot`].
pub struct SnapshotFile {
    name: String,
    len: u64,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    File(Arc<dyn DiskFile>),
}

impl LogSnapshot {
    pub(crate) fn of(manifest: Manifest, index: &Index) -> Self {
        let bytes = manifest.encode();
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        let mut files = vec![SnapshotFile { name: manifest::NAME.to_owned(), len, content: Content::Bytes(bytes) }];
        files.extend(index.segments.iter().map(|segment| {
            let (file, len) = segment.file();
            SnapshotFile { name: file_name(segment.head.id), len, content: Content::File(file) }
        }));
        Self { files }
    }

    /// The files, in the order in which they should be written.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }
}

impl SnapshotFile {
    /// Its name in the directory of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes, which no file of a log is.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    ///
    /// The operating system's; a place beyond [`len`](Self::len).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = u64::try_from(buffer.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.content {
            Content::File(file) => file.read_at(buffer, offset),
            Content::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}
