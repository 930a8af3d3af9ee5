//! The sandbox of a hub, on this machine: the very engine and limits with which `nave serve` calls policies, and what a hub
//! demands of an outcome.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use nave_engine::allocation::{Assignment, Outcome, Request};
use nave_engine::plugin::{
    CallReport, PluginEngine, Policy, PolicyCallError, PolicyError, PolicyFailure, PolicyLabel, PolicyLimits,
};
use nave_engine::twin::Rejection;
use nave_engine::{Engine, Functions, Source};
use nave_hub::policy::MAX_COMPONENT_BYTES;
use nave_model::DeviceId;
use serde_json::Value;

use crate::failure::Failure;
use crate::ticker::Ticker;

/// A component of this size has an interpreter inside: people who wait for its compilation want to know what for.
const LARGE: usize = 1 << 20;

/// Compiled policies that are kept: an author builds again and again, and each build is another file.
const MAX_CACHED: usize = 16;

/// What is built in: the names that `use-policy` may give.
const BUILT_IN: [&str; 3] = ["hashed", "geoLatency", "static"];

/// Seconds that `retry-after` may ask for.
const RETRY_AFTER: std::ops::RangeInclusive<u32> = 1..=3600;

/// The file, and limits other than the usual ones.
#[derive(Args)]
pub(super) struct PolicyFile {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Limits other than the usual ones.
#[derive(Args)]
pub(super) struct LimitArgs {
    /// Milliseconds that a call may take [default: as a hub's].
    #[arg(long, value_name = "MS")]
    deadline: Option<u64>,
    /// MiB of memory that a call may take [default: as a hub's].
    #[arg(long, value_name = "MIB")]
    memory: Option<usize>,
}

/// The engines, with time that passes.
pub(super) struct Sandbox {
    plugins: Arc<PluginEngine>,
    functions: Functions,
    _ticker: Ticker,
}

/// A component that was read.
pub(super) struct Component {
    /// The policy's name, after the file.
    pub(super) label: PolicyLabel,
    pub(super) bytes: Vec<u8>,
    pub(super) limits: PolicyLimits,
}

impl PolicyFile {
    /// Reads the component.
    pub(super) fn read(&self) -> Result<Component, Failure> {
        self.limits.read(&self.file)
    }
}

impl LimitArgs {
    /// Reads a component that is to be run under these limits.
    pub(super) fn read(&self, file: &Path) -> Result<Component, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{}: {error}", file.display()));
        let size = fs::metadata(file).map_err(|error| failed(&error))?.len();
        if size > MAX_COMPONENT_BYTES as u64 {
            let text = format_args!("it has {size} bytes, more than the {MAX_COMPONENT_BYTES} that a hub takes");
            return Err(failed(&text));
        }
        let mut limits = PolicyLimits::default();
        if let Some(milliseconds) = self.deadline {
            limits.deadline = Duration::from_millis(milliseconds);
        }
        if let Some(mebibytes) = self.memory {
            limits.memory_bytes = mebibytes.saturating_mul(1 << 20);
        }
        limits.check().map_err(Failure::usage)?;
        let bytes = fs::read(file).map_err(|error| failed(&error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Component { label: PolicyLabel { name, version: "local".to_owned() }, bytes, limits })
    }
}

impl Sandbox {
    /// Starts the engines.
    pub(super) fn start() -> Result<Self, Failure> {
        let cache = cache();
        let start = Instant::now();
        let plugins = Arc::new(PluginEngine::new(cache.as_deref(), Arc::new(move || start.elapsed())));
        let engine = Engine::new(cache.as_deref()).map_err(Failure::runtime)?;
        let functions = Functions::load(&engine, &Source::Embedded).map_err(Failure::runtime)?;
        let ticking = Arc::clone(&plugins);
        let ticker = Ticker::start(move || {
            engine.tick();
            ticking.tick();
        })
        .map_err(Failure::runtime)?;
        Ok(Self { plugins, functions, _ticker: ticker })
    }

    /// Compiles a policy; an interpreter takes some seconds, the first time.
    pub(super) fn compile(&self, component: &Component) -> Result<Policy, PolicyError> {
        let says_so = component.bytes.len() > LARGE && std::io::stderr().is_terminal();
        if says_so {
            eprint!("compiling {}, unless it was lately ...", component.label.name);
        }
        let compiled = self.plugins.compile(&component.label, &component.bytes, &component.limits);
        if says_so {
            // Back to the beginning of the line, and clear it.
            eprint!("\r\u{1b}[2K");
        }
        compiled
    }

    /// The hub that a built-in policy chooses in the place of one that answered `use-policy`.
    pub(super) fn built_in(&self, name: &str, request: &Request) -> Result<Outcome, Failure> {
        let request = Request { policy: name.to_owned(), ..request.clone() };
        self.functions.allocate(&request).map_err(Failure::runtime)
    }

    /// Why a hub would fail the registration although the policy answered; nothing if it would not.
    pub(super) fn objection(&self, request: &Request, outcome: &Outcome) -> Option<String> {
        match outcome {
            Outcome::Assign(assignment) => self.objection_to_assignment(request, assignment),
            Outcome::UsePolicy(name) => {
                let known = BUILT_IN.iter().any(|known| known.eq_ignore_ascii_case(name));
                (!known).then(|| format!("there is no built-in policy `{name}`; there are {}", BUILT_IN.join(", ")))
            }
            Outcome::RetryAfter(seconds) => (!RETRY_AFTER.contains(seconds)).then(|| {
                format!("retry-after is {} to {} seconds, not {seconds}", RETRY_AFTER.start(), RETRY_AFTER.end())
            }),
            Outcome::Refuse(_) => None,
            Outcome::Other(fact) => Some(format!("this release does not know the outcome `{}`", fact.name)),
        }
    }

    fn objection_to_assignment(&self, request: &Request, assignment: &Assignment) -> Option<String> {
        if !request.hubs.iter().any(|hub| hub.name.eq_ignore_ascii_case(&assignment.hub)) {
            return Some(format!("the hub `{}` is not among those of the request", assignment.hub));
        }
        if let Some(id) = &assignment.device_id
            && let Err(error) = DeviceId::parse(id)
        {
            return Some(format!("the device id `{id}`: {error}"));
        }
        if let Some(payload) = &assignment.payload_json
            && let Err(error) = serde_json::from_str::<Value>(payload)
        {
            return Some(format!("the payload is not JSON: {error}"));
        }
        let twin = assignment.initial_twin_json.as_deref()?;
        match self.functions.create_twin(Some(twin), request.unix_nanos) {
            Ok(Ok(_)) => None,
            Ok(Err(rejection)) => Some(format!("the initial twin: {}", reason(&rejection))),
            Err(error) => Some(format!("the initial twin: {error}")),
        }
    }
}

/// Calls the policy as a hub does. A deadline is a matter of the clock, and this machine may be busy with something else: a
/// call that missed it gets a second try.
pub(super) fn call(policy: &Policy, request: &Request) -> (Result<Outcome, PolicyCallError>, CallReport) {
    match policy.allocate(request) {
        (Err(PolicyCallError { failure: PolicyFailure::Deadline { .. }, .. }), _) => policy.allocate(request),
        answer => answer,
    }
}

/// Whether two answers to one request show that the policy depends on something else. Failures are compared by nobody:
/// which of two limits is hit first depends on the machine.
pub(super) fn contradict(one: &Result<Outcome, PolicyCallError>, other: &Result<Outcome, PolicyCallError>) -> bool {
    matches!((one, other), (Ok(one), Ok(other)) if one != other)
}

fn reason(rejection: &Rejection) -> &str {
    match rejection {
        Rejection::Invalid(violation) => &violation.message,
        Rejection::TooLarge(excess) => &excess.message,
        Rejection::PreconditionFailed(text) | Rejection::DamagedState(text) => text,
    }
}

/// Where compiled code is kept from one command to the next; nowhere if the user has no folder for such things.
fn cache() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))?
        .join("nave/policies");
    forget_oldest(&folder);
    Some(folder)
}

/// Removes what has not been made lately. Failing to only leaves more on the disk.
fn forget_oldest(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(_, path)| path.extension().is_some_and(|extension| extension == "cwasm"))
        .collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(MAX_CACHED) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_compiled_policies_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = |number: usize| dir.path().join(format!("policy-{number:02}.cwasm"));
        for number in 0..MAX_CACHED + 3 {
            fs::write(file(number), "").unwrap();
            let age = Duration::from_secs(1_000 - u64::try_from(number).unwrap());
            let handle = fs::File::options().write(true).open(file(number)).unwrap();
            handle.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(10_000) - age).unwrap();
        }
        fs::write(dir.path().join("other"), "").unwrap();
        forget_oldest(dir.path());
        assert!(!file(0).exists() && !file(2).exists() && file(3).exists() && dir.path().join("other").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_CACHED + 1);
    }
}
