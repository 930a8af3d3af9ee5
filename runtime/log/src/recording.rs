//! A disk in memory that remembers every operation, leaves chosen syncs out, fails on demand, and builds what a power cut
//! could have left at any moment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, SyncPoint};

/// What was done, in order. Files are numbered by creation; a name can belong to several of them one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        file: usize,
        name: String,
    },
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    SyncNames,
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    /// Not an operation of the disk: something was promised to somebody (see the tests).
    Promise(usize),
}

/// The files of a directory.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct State {
    names: BTreeMap<String, usize>,
    contents: Vec<Vec<u8>>,
    ops: Vec<Op>,
    initial: Image,
    /// The sync that does nothing.
    broken: Option<SyncPoint>,
    /// Bytes that can still be written.
    space: Option<u64>,
    fail_syncs: usize,
    gate: Arc<Mutex<()>>,
}

/// The disk. Clones share it, so it survives the log that is on it: that is what `kill -9` leaves.
#[derive(Clone, Default)]
pub(crate) struct RecordingDisk(Arc<Mutex<State>>);

impl RecordingDisk {
    /// A disk with these files, all of them durable.
    pub(crate) fn with(image: &Image) -> Self {
        let disk = Self::default();
        let mut state = disk.0.lock();
        for (name, content) in image {
            let file = state.contents.len();
            state.contents.push(content.clone());
            state.names.insert(name.clone(), file);
        }
        state.initial = image.clone();
        drop(state);
        disk
    }

    /// Pretends from now on that this sync does nothing.
    pub(crate) fn break_sync(&self, point: Option<SyncPoint>) {
        self.0.lock().broken = point;
    }

    /// Syncs wait until the guard is dropped.
    pub(crate) fn hold_syncs(&self) -> parking_lot::ArcMutexGuard<parking_lot::RawMutex, ()> {
        let gate = Arc::clone(&self.0.lock().gate);
        gate.lock_arc()
    }

    pub(crate) fn set_space(&self, bytes: Option<u64>) {
        self.0.lock().space = bytes;
    }

    pub(crate) fn fail_syncs(&self, count: usize) {
        self.0.lock().fail_syncs = count;
    }

    pub(crate) fn promise(&self, number: usize) {
        self.0.lock().ops.push(Op::Promise(number));
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        self.0.lock().ops.clone()
    }

    fn wait_for_gate(&self) {
        let gate = Arc::clone(&self.0.lock().gate);
        drop(gate.lock());
    }

    /// The disk as a process finds it that starts after another one was killed behind the first `cut` operations: nothing is
    /// lost, but what was not durable still is not.
    pub(crate) fn killed(&self, cut: usize) -> Self {
        let image = self.cut(cut, |_| Some((0, usize::MAX)));
        let state = self.0.lock();
        let mut names = BTreeMap::new();
        let mut numbers: BTreeMap<String, usize> =
            state.initial.keys().enumerate().map(|(file, name)| (name.clone(), file)).collect();
        for op in &state.ops[..cut] {
            match op {
                Op::Create { file, name } => {
                    numbers.insert(name.clone(), *file);
                }
                Op::Rename { from, to } => {
                    let file = numbers.remove(from).unwrap();
                    numbers.insert(to.clone(), file);
                }
                Op::Remove { name } => {
                    numbers.remove(name);
                }
                _ => {}
            }
        }
        let mut contents = vec![Vec::new(); state.contents.len()];
        for (name, content) in image {
            let file = numbers[&name];
            contents[file] = content;
            names.insert(name, file);
        }
        let ops = state.ops[..cut].to_vec();
        Self(Arc::new(Mutex::new(State { names, contents, ops, initial: state.initial.clone(), ..State::default() })))
    }

    pub(crate) fn image(&self) -> Image {
        let state = self.0.lock();
        state.names.iter().map(|(name, file)| (name.clone(), state.contents[*file].clone())).collect()
    }

    /// What a power cut after the first `cut` operations leaves. `keep` decides for each operation that no sync covers
    /// whether it reached the disk; for a write it says which of its bytes did, from and to.
    pub(crate) fn cut(&self, cut: usize, mut keep: impl FnMut(&Op) -> Option<(usize, usize)>) -> Image {
        let state = self.0.lock();
        let ops = &state.ops[..cut];
        let mut names: BTreeMap<String, usize> =
            state.initial.keys().enumerate().map(|(file, name)| (name.clone(), file)).collect();
        let mut contents: Vec<Vec<u8>> = state.initial.values().cloned().collect();
        contents.resize(state.contents.len(), Vec::new());
        let names_synced = ops.iter().rposition(|op| matches!(op, Op::SyncNames)).unwrap_or(0);
        let mut synced = vec![0; contents.len()];
        for (at, op) in ops.iter().enumerate() {
            if let Op::Sync { file } = op {
                synced[*file] = at;
            }
        }
        for (at, op) in ops.iter().enumerate() {
            let durable = match op {
                Op::Create { .. } | Op::Remove { .. } | Op::Rename { .. } => at < names_synced,
                Op::Write { file, .. } | Op::Truncate { file, .. } => at < synced[*file],
                Op::SyncNames | Op::Sync { .. } | Op::Promise(_) => continue,
            };
            let kept = if durable { Some((0, usize::MAX)) } else { keep(op) };
            let Some((from, to)) = kept else { continue };
            match op {
                Op::Create { file, name } => {
                    names.insert(name.clone(), *file);
                }
                Op::Remove { name } => {
                    names.remove(name);
                }
                Op::Rename { from, to } => {
                    // Without its creation the name may be missing; then the rename has nothing to do.
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
                Op::Write { file, offset, bytes } => {
                    let to = bytes.len().min(to);
                    let from = from.min(to);
                    write(&mut contents[*file], *offset + from as u64, &bytes[from..to]);
                }
                Op::Truncate { file, len } => contents[*file].truncate(usize::try_from(*len).unwrap()),
                Op::SyncNames | Op::Sync { .. } | Op::Promise(_) => {}
            }
        }
        names.into_iter().map(|(name, file)| (name, contents[file].clone())).collect()
    }
}

fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    if bytes.is_empty() {
        return;
    }
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl State {
    fn check_sync(&mut self) -> io::Result<()> {
        if self.fail_syncs > 0 {
            self.fail_syncs -= 1;
            return Err(io::Error::other("medium error"));
        }
        Ok(())
    }
}

impl Disk for RecordingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(RecordingFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let file = if let Some(&file) = state.names.get(name) {
            state.contents[file].clear();
            state.ops.push(Op::Truncate { file, len: 0 });
            file
        } else {
            let file = state.contents.len();
            state.contents.push(Vec::new());
            state.names.insert(name.to_owned(), file);
            state.ops.push(Op::Create { file, name: name.to_owned() });
            file
        };
        Ok(Arc::new(RecordingFile { disk: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.ops.push(Op::Remove { name: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.ops.push(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn sync_names(&self, why: SyncPoint) -> io::Result<()> {
        self.wait_for_gate();
        let mut state = self.0.lock();
        state.check_sync()?;
        if state.broken != Some(why) {
            state.ops.push(Op::SyncNames);
        }
        Ok(())
    }
}

struct RecordingFile {
    disk: RecordingDisk,
    file: usize,
}

impl DiskFile for RecordingFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().contents[self.file].len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        let content = &state.contents[self.file];
        let offset = usize::try_from(offset).unwrap();
        let bytes = content.get(offset..offset + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fits = state.space.map_or(bytes.len(), |space| bytes.len().min(usize::try_from(space).unwrap()));
        let file = self.file;
        write(&mut state.contents[file], offset, &bytes[..fits]);
        state.ops.push(Op::Write { file, offset, bytes: bytes[..fits].to_vec() });
        if let Some(space) = &mut state.space {
            *space -= fits as u64;
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let file = self.file;
        state.contents[file].truncate(usize::try_from(len).unwrap());
        state.ops.push(Op::Truncate { file, len });
        Ok(())
    }

    fn sync(&self, why: SyncPoint) -> io::Result<()> {
        self.disk.wait_for_gate();
        let mut state = self.disk.0.lock();
        state.check_sync()?;
        if state.broken != Some(why) {
            let file = self.file;
            state.ops.push(Op::Sync { file });
        }
        Ok(())
    }
}
