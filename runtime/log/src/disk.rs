//! The file operations that the log needs, and nothing else: the seam at which tests drop and tear writes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why something is synced. Each place in the code has its own reason, and a test leaves out one after the other to show that
/// none is superfluous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncPoint {
    /// The manifest's content, before its name.
    Manifest,
    /// The manifest's name, before the first segment.
    ManifestName,
    /// A group in the active segment, before it is acknowledged.
    Group,
    /// A group in a new segment, before it is acknowledged.
    NewSegment,
    /// The name of a new segment, likewise.
    NewSegmentName,
    /// What an earlier process wrote, before it is shown to readers.
    Opened,
    /// The names that an earlier process gave, likewise.
    OpenedNames,
    /// The removal of a segment by retention, before the next one is removed.
    Removed,
    /// The truncation of a write that found no space, before that is said.
    Undone,
    /// The removal of a segment that found no space, likewise.
    UndoneName,
}

/// One directory. No operation is durable before the sync that covers it.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// A new empty file; one of the same name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file. Who has it open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file, replacing one that has the name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes names durable: creations, removals and renames so far.
    fn sync_names(&self, why: SyncPoint) -> io::Result<()>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self, why: SyncPoint) -> io::Result<()>;
}

/// A directory of the local file system.
pub(crate) struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    /// The directory `dir`, which is created durably if it does not exist.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            fs::create_dir_all(dir)?;
            let parent = match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Arc::new(RealFile(options.read(true).write(true).create(true).truncate(true).open(self.dir.join(name))?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_names(&self, _: SyncPoint) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self, _: SyncPoint) -> io::Result<()> {
        self.0.sync_data()
    }
}
