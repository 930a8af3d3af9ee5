//! The disk: room, and how long it takes until something is safe.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Finding, Patient};
use crate::inspect;

/// Below this much room beyond the store's reserve a warning is due: a busy hub fills it within hours.
const LITTLE_ROOM: u64 = 2 << 30;

/// Syncs that are measured. The median of them is not moved by one that had to wait.
const MEASUREMENTS: usize = 15;

/// Bytes before each sync: what a small commit writes.
const MEASURED_BYTES: usize = 4096;

/// A sync that takes longer than this makes every acknowledgement late: memory cards, some network disks.
const SLOW: Duration = Duration::from_millis(20);

/// No disk that keeps what it promises is quicker than this: it is memory, or a layer that ignores the request.
const IMPLAUSIBLE: Duration = Duration::from_micros(5);

/// What `statfs` calls a file system in memory (Linux, `statfs(2)`).
const TMPFS: u64 = 0x0102_1994;

/// The nearest directory that exists: the data directory may not have been made yet.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

/// Whether there is room for the store to work, and for telemetry to grow.
pub(super) fn space(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "disk space";
    let dir = &patient.config.data_dir;
    let reserve = nave_store::Options::default().reserve_bytes;
    let Some(free) = inspect::free_bytes(existing(dir)) else {
        return vec![Finding::warning(
            WHAT,
            format!("the file system of {} does not say how much is free", dir.display()),
            "look yourself: the store stops accepting changes when less than 256 MiB are free",
        )];
    };
    let kept: u64 = patient.config.hubs.iter().fold(0, |sum, hub| sum.saturating_add(hub.retention_bytes));
    let found = format!("{} MiB free; telemetry may take up to {} MiB", free >> 20, kept >> 20);
    vec![if free < reserve {
        Finding::failed(
            WHAT,
            found,
            format!(
                "free some space on the disk of {}: the store keeps {} MiB in reserve and refuses changes below",
                dir.display(),
                reserve >> 20
            ),
        )
    } else if free < reserve.saturating_add(LITTLE_ROOM) {
        Finding::warning(
            WHAT,
            found,
            "give it more room, or lower `retention_mib` and `retention_hours`: a hub whose disk is full acknowledges nothing",
        )
    } else {
        Finding::ok(WHAT, found)
    }]
}

/// How long the disk takes to make something durable: what every acknowledgement waits for.
pub(super) fn sync_speed(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "disk sync";
    let dir = existing(&patient.config.data_dir);
    let in_memory =
        rustix::fs::statfs(dir).is_ok_and(|about| u64::try_from(about.f_type).is_ok_and(|kind| kind == TMPFS));
    let median = match measure(dir) {
        Ok(median) => median,
        Err(error) => {
            return vec![Finding::failed(
                WHAT,
                format!("cannot write and sync a file in {}: {error}", dir.display()),
                "give the directory to this user (`chown`), or run the check as the user that the hub runs as",
            )];
        }
    };
    let found = format!("{:.2} ms for 4 KiB, the median of {MEASUREMENTS}", median.as_secs_f64() * 1e3);
    vec![if in_memory {
        Finding::warning(
            WHAT,
            format!("{} is a file system in memory", dir.display()),
            "choose a directory on a disk with --data-dir, unless everything may be lost with the next boot",
        )
    } else if median > SLOW {
        Finding::warning(
            WHAT,
            found,
            "use a quicker disk (an SSD with power-loss protection): every acknowledgement waits for a sync",
        )
    } else if median < IMPLAUSIBLE {
        Finding::warning(
            WHAT,
            found,
            "find out whether a layer below ignores syncs (a virtual disk in an unsafe cache mode): a power cut would then lose what was acknowledged",
        )
    } else {
        Finding::ok(WHAT, found)
    }]
}

fn measure(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".nave-doctor.{}", std::process::id()));
    let measured = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut times = Vec::with_capacity(MEASUREMENTS);
        for _ in 0..MEASUREMENTS {
            let begun = Instant::now();
            file.write_all(&[0x6e; MEASURED_BYTES])?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(MEASUREMENTS / 2).copied().unwrap_or_default())
    })();
    // What could not be made is not there to be removed.
    let _ = std::fs::remove_file(&path);
    measured
}
