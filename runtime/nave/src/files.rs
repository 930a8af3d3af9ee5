//! Files that only their owner may read, and that appear whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::Path;

const OWNER_ONLY_DIR: u32 = 0o700;
/// Keys, tokens, connection strings.
pub(crate) const OWNER_ONLY: u32 = 0o600;
/// Certificates.
pub(crate) const EVERYONE_READS: u32 = 0o644;

/// Creates `path` with its parents if it is not there. A new directory is the owner's alone; one that is there already
/// loses what others may do in it.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIR).create(path)?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY_DIR))?;
    }
    Ok(())
}

/// Puts `content` at `path`: written beside it, forced to disk, renamed. Readers see the old file or the new one.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = write_synced(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        // What is left of a failed attempt is of no use; that it cannot be removed changes nothing.
        let _ = std::fs::remove_file(&temporary);
        return result;
    }
    // The rename itself has to reach the disk too. A bare name has an empty parent: it is in the current folder.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Gives what is at `path`, and below, to the owner of `dir`, as far as it is ours and `dir` is not. Else what root did in the
/// data directory of a service could not be used by the service.
pub(crate) fn give_to_owner_of(dir: &Path, path: &Path) -> io::Result<()> {
    let about = std::fs::metadata(dir)?;
    // The owner of a process is its effective user.
    let Ok(me) = std::fs::metadata("/proc/self").map(|process| process.uid()) else { return Ok(()) };
    if about.uid() == me {
        return Ok(());
    }
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = std::fs::symlink_metadata(&path)?;
        if found.uid() == me {
            lchown(&path, Some(about.uid()), Some(about.gid()))?;
        }
        if found.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(())
}

fn write_synced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // The mode of `open` is cut by the umask and does not change a file that is there.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directories_are_private_even_if_they_were_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_dir(&path).unwrap();
        assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        private_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_replaced_file_has_its_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "old and readable").unwrap();
        replace(&path, b"new", OWNER_ONLY).unwrap();
        assert_eq!((mode(&path), std::fs::read(&path).unwrap()), (0o600, b"new".to_vec()));
        assert!(replace(&dir.path().join("missing/x"), b"", OWNER_ONLY).is_err());
        // A directory cannot be replaced by a file.
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(replace(&dir.path().join("taken"), b"", OWNER_ONLY).is_err());
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["secret", "taken"]);
    }
}
