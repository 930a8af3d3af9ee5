//! The data directory: where what is, and that one process at a time uses it.
//!
//! ```text
//! nave.lock         locked while a hub runs
//! connection.json   the ready file, while a hub runs
//! settings.json     keys of access policies, id scope
//! tls/              development CA, server certificate
//! store/            state
//! log/{hub id}/     telemetry
//! cache/            compiled functions; may be deleted
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::{backup, files, ready};

const LOCK: &str = "nave.lock";

/// A data directory that is ours until this is dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if necessary, locks it, and removes what a killed process left behind.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let data = Self::lock(path)?;
        if backup::was_interrupted(&data.path) {
            return Err(Failure::runtime(format_args!(
                "a restore into the data directory {} was interrupted, and what is there is not a whole hub: run `nave restore` \
                 again",
                data.path.display()
            )));
        }
        check_space(&data.path)?;
        Ok(data)
    }

    /// The same to look at what is there, which also goes on a full disk.
    pub(crate) fn lock(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path).map_err(|error| explain(path, &error))?;
        files::private_dir(&path).map_err(|error| explain(&path, &error))?;
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(files::OWNER_ONLY)
            .open(path.join(LOCK))
            .map_err(|error| explain(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = ready::Ready::read(&path)
                    .map_or_else(|_| String::new(), |ready| format!(" (process {})", ready.pid));
                return Err(Failure::runtime(format_args!(
                    "the data directory {} is in use by another nave{who}: stop that one, or give this one another \
                     directory with --data-dir",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(explain(&path, &error)),
        }
        ready::remove(&path).map_err(|error| explain(&path, &error))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Certificates.
    pub(crate) fn tls(&self) -> PathBuf {
        self.path.join("tls")
    }

    /// State.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Telemetry of a hub.
    pub(crate) fn log(&self, hub: &str) -> PathBuf {
        self.path.join("log").join(hub)
    }

    /// Compiled functions.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// What to do about an error in this directory.
    pub(crate) fn explain(&self, error: &io::Error) -> Failure {
        explain(&self.path, error)
    }

    /// The same for an error of one file in it, `error`, whose own words serve where no remedy is known.
    pub(crate) fn explain_file(&self, source: &io::Error, error: impl std::fmt::Display) -> Failure {
        match source.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded => explain(&self.path, source),
            _ => Failure::runtime(error),
        }
    }
}

/// A hub whose store refuses every change could not accept a single connection: it does not start.
fn check_space(path: &Path) -> Result<(), Failure> {
    let needed = nave_store::Options::default().reserve_bytes;
    let Ok(disk) = rustix::fs::statvfs(path) else {
        // The store looks again at every commit.
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    Err(Failure::runtime(format_args!(
        "the disk of the data directory {} is full: {} MiB are free, and the store keeps {} MiB in reserve. Free some \
         space, or choose another with --data-dir",
        path.display(),
        free >> 20,
        needed >> 20
    )))
}

fn explain(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::runtime(match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
            "the data directory {path} cannot be written ({error}): give it to this user (`chown`), or choose another \
             with --data-dir"
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("the disk of the data directory {path} is full: free some space, or choose another with --data-dir")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("the data directory {path} is not a directory: choose another with --data-dir")
        }
        _ => format!("the data directory {path} cannot be used: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hub_at_a_time_and_no_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open(&path).unwrap();
        ready::tests::example().write(&path).unwrap();
        let Err(error) = DataDir::open(&path) else { panic!("two hubs share a directory") };
        assert!(error.to_string().contains("in use by another nave (process 1)"), "{error}");
        assert!(ready::Ready::read(&path).is_ok(), "the running hub's file is left alone");
        drop(first);
        let _second = DataDir::open(&path).unwrap();
        assert!(ready::Ready::read(&path).is_err(), "what a killed hub left is gone");
    }

    #[test]
    fn a_file_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        for path in [path.clone(), path.join("below")] {
            let Err(error) = DataDir::open(&path) else { panic!("it is a file") };
            assert!(error.to_string().contains("--data-dir"), "{error}");
        }
    }
}
