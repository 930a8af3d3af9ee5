//! Reading a backup: nothing of it is believed before its checksums are.

use std::io::Read;

use bytes::Bytes;
use nave_model::Timestamp;
use nave_store::{Entry, Revision};
use ring::digest::{Context, SHA256};

use super::format::{
    BLOCK_HEAD_BYTES, ENTRY_HEAD_BYTES, HEAD_BYTES, Kind, MAGIC, MAX_PATH_BYTES, MAX_PAYLOAD, VERSION, block_head,
    take_u32, take_u64,
};
use super::{BackupError, Summary};

/// One piece of a backup.
pub(super) enum Piece {
    /// A file begins.
    File { path: String, mode: u32 },
    /// Bytes of it.
    Data(Vec<u8>),
    /// Entries of the store.
    Entries(Vec<(String, Entry)>),
    /// The end; everything before it was right.
    End(Summary),
}

/// Reads piece by piece; memory is bounded by one piece.
pub(super) struct Reader<R> {
    input: R,
    digest: Context,
    position: u64,
    blocks: u64,
    summary: Summary,
    in_file: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read.
    pub(super) fn begin(mut input: R) -> Result<Self, BackupError> {
        let mut head = [0; HEAD_BYTES];
        let damaged = |what| BackupError::Damaged { position: 0, what };
        input.read_exact(&mut head).map_err(|_| damaged("it is shorter than any backup"))?;
        let (content, mut rest) = head.split_at(HEAD_BYTES - 4);
        let (magic, mut fields) = content.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it does not begin like a backup"));
        }
        let version = take_u32(&mut fields).unwrap_or_default();
        if version > VERSION {
            return Err(BackupError::Newer(version));
        }
        let reserved = take_u32(&mut fields);
        let created = take_u64(&mut fields).unwrap_or_default();
        if take_u32(&mut rest) != Some(crc32c::crc32c(content)) || version != VERSION || reserved != Some(0) {
            return Err(damaged("its head is wrong"));
        }
        let mut digest = Context::new(&SHA256);
        digest.update(&head);
        let summary = Summary { created: Timestamp::from_unix_nanos(created), ..Summary::default() };
        Ok(Self {
            input,
            digest,
            position: u64::try_from(HEAD_BYTES).unwrap_or_default(),
            blocks: 0,
            summary,
            in_file: false,
        })
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { position: self.position, what }
    }

    /// How much has been read.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// The next piece. After [`Piece::End`] there is none.
    pub(super) fn next(&mut self) -> Result<Piece, BackupError> {
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.fill(&mut head)?;
        let mut fields = &head[4..];
        let length = take_u32(&mut fields).and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        let checksum = take_u32(&mut fields);
        let kind = Kind::of(head[0]).ok_or_else(|| self.damaged("a block of a kind that does not exist"))?;
        if length > MAX_PAYLOAD {
            return Err(self.damaged("a block is longer than any"));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        if Some(crc32c::crc32c_append(crc32c::crc32c(&head[..8]), &payload)) != checksum {
            return Err(self.damaged("a checksum is wrong"));
        }
        let hash = (kind == Kind::End).then(|| self.digest.clone().finish());
        self.digest.update(&head);
        self.digest.update(&payload);
        let place = self.position;
        self.position += u64::try_from(BLOCK_HEAD_BYTES + length).unwrap_or_default();
        let damaged = |what| BackupError::Damaged { position: place, what };
        let piece = match kind {
            Kind::File => {
                self.summary.files += 1;
                self.in_file = true;
                file(&payload).ok_or_else(|| damaged("the name of a file is not possible"))?
            }
            Kind::Data if self.in_file => Piece::Data(payload),
            Kind::Data => return Err(damaged("bytes that belong to no file")),
            Kind::Entries => {
                let entries = entries(&payload).ok_or_else(|| damaged("entries that cannot be read"))?;
                self.summary.entries += u64::try_from(entries.len()).unwrap_or_default();
                Piece::Entries(entries)
            }
            Kind::End => {
                let mut fields = &*payload;
                let counts = [(); 3].map(|()| take_u64(&mut fields));
                let expected = [self.blocks, self.summary.files, self.summary.entries].map(Some);
                if counts != expected || hash.is_none_or(|hash| hash.as_ref() != fields) {
                    return Err(damaged("it is not the whole that was written"));
                }
                if self.input.read(&mut [0]).map_err(BackupError::io("the backup cannot be read"))? != 0 {
                    return Err(self.damaged("something follows its end"));
                }
                self.summary.bytes = self.position;
                Piece::End(self.summary.clone())
            }
        };
        self.blocks += 1;
        Ok(piece)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it ends too early: it is not a whole backup"),
            _ => BackupError::io("the backup cannot be read")(error),
        })
    }
}

/// Looks on while a backup passes by, and says at the end whether it was a whole one: whoever sends it may break off without
/// an error. Only the end is looked at; [`check`] reads everything.
pub(crate) struct Whole {
    digest: Context,
    tail: Vec<u8>,
}

impl Whole {
    /// Length of the last block: counts and hash.
    const END_BYTES: usize = BLOCK_HEAD_BYTES + 56;

    pub(crate) fn new() -> Self {
        Self { digest: Context::new(&SHA256), tail: Vec::new() }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let settled = self.tail.len().saturating_sub(Self::END_BYTES);
        self.digest.update(self.tail.get(..settled).unwrap_or_default());
        self.tail.drain(..settled);
    }

    /// Whether the end has come.
    pub(crate) fn is_whole(&self) -> bool {
        let Some((head, payload)) = self.tail.split_at_checked(BLOCK_HEAD_BYTES) else { return false };
        let hash = self.digest.clone().finish();
        head == block_head(Kind::End, payload) && payload.ends_with(hash.as_ref())
    }
}

/// A path that stays below the directory that it is restored into.
fn file(payload: &[u8]) -> Option<Piece> {
    let mut rest = payload;
    let mode = take_u32(&mut rest)?;
    let path = std::str::from_utf8(rest).ok()?;
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    (path.len() <= MAX_PATH_BYTES && path.split('/').all(plain))
        .then(|| Piece::File { path: path.to_owned(), mode: mode & 0o777 })
}

pub(super) fn entries(payload: &[u8]) -> Option<Vec<(String, Entry)>> {
    let mut entries = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        if rest.len() < ENTRY_HEAD_BYTES {
            return None;
        }
        let key_length = usize::try_from(take_u32(&mut rest)?).ok()?;
        let value_length = usize::try_from(take_u32(&mut rest)?).ok()?;
        let revision = Revision::new(take_u64(&mut rest)?)?;
        let (key, after) = rest.split_at_checked(key_length)?;
        let (value, after) = after.split_at_checked(value_length)?;
        rest = after;
        let key = std::str::from_utf8(key).ok()?.to_owned();
        entries.push((key, Entry { revision, value: Bytes::copy_from_slice(value) }));
    }
    Some(entries)
}

/// Reads a whole backup and checks everything in it; `progress` is told how many bytes have been read.
///
/// # Errors
///
/// [`BackupError`].
pub(crate) fn check(input: impl Read, mut progress: impl FnMut(u64)) -> Result<Summary, BackupError> {
    let mut reader = Reader::begin(input)?;
    loop {
        if let Piece::End(summary) = reader.next()? {
            return Ok(summary);
        }
        progress(reader.position());
    }
}
