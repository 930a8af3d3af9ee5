//! What the process tells those that watch it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nave_http::Monitoring;
use nave_metrics::{Collect, Family, Page};

use super::now;
use super::platform::Parts;
use crate::config::Config;
use crate::failure::Failure;

/// A token shorter than this can be guessed.
const MIN_TOKEN: usize = 16;

/// A longer file is no token.
const MAX_TOKEN: usize = 4_096;

static BUILD: Family = Family::gauge("nave_build_info", "Always 1; the label tells the version.");
static START: Family = Family::gauge("process_start_time_seconds", "When the process started, in seconds since 1970.");
static RESIDENT: Family = Family::gauge("process_resident_memory_bytes", "Resident memory.");
static OPEN: Family = Family::gauge("process_open_fds", "Open file descriptors.");
static CPU: Family = Family::counter("process_cpu_seconds_total", "Processor time of all threads, in seconds.");

/// Set while the process stops.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that is told.
pub(super) fn monitoring(
    config: &Config,
    parts: &Parts,
    others: Vec<Arc<dyn Collect>>,
    stopping: &Stopping,
) -> Result<Monitoring, Failure> {
    let mut collectors = parts.collectors();
    collectors.extend(others);
    collectors.push(crate::traces::metrics());
    collectors.push(Arc::new(Process { started: now().unix_nanos() / 1_000_000_000 }));
    let (stopping, store) = (stopping.clone(), parts.store());
    let readiness = Box::new(move || {
        let mut reasons = Vec::new();
        if stopping.0.load(Ordering::Relaxed) {
            reasons.push("stopping".to_owned());
        }
        if !store.is_writable() {
            reasons.push("the store takes no changes: the disk is full or fails".to_owned());
        }
        reasons
    });
    Ok(Monitoring { collectors, metrics_token: metrics_token(config)?, readiness })
}

fn metrics_token(config: &Config) -> Result<Option<String>, Failure> {
    let Some(path) = &config.metrics_token_file else { return Ok(None) };
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format_args!("metrics.token_file: {}: {error}", path.display())))?;
    let token = text.trim();
    if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) || !token.chars().all(|character| character.is_ascii_graphic()) {
        return Err(Failure::usage(format_args!(
            "metrics.token_file: {} has to hold {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters",
            path.display()
        )));
    }
    Ok(Some(token.to_owned()))
}

/// What the operating system knows of the process, under the names that every exporter uses. Only Linux tells.
struct Process {
    started: u64,
}

/// Ticks per second of `/proc/self/stat`: a constant of the kernel's interface (proc(5), `_SC_CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;

impl Collect for Process {
    fn collect(&self, page: &mut Page) {
        page.value(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.value(&START, &[], self.started);
        let resident = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text));
        if let Some(bytes) = resident {
            page.value(&RESIDENT, &[], bytes);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            page.value(&OPEN, &[], open.count().saturating_sub(1));
        }
        let ticks = fs::read_to_string("/proc/self/stat").ok().and_then(|text| ticks(&text));
        if let Some(ticks) = ticks {
            page.value(&CPU, &[], ticks as f64 / TICKS_PER_SECOND);
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// User and system time: the 12th and 13th field behind the name, which may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(resident("Name:\tnave\nVmRSS:\t   51234 kB\nThreads:\t9\n"), Some(51_234 * 1024));
        assert_eq!(resident("Name:\tnave\n"), None);
        let stat = "42 (na ve) x) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (nave) S 1"), None);
    }
}
