//! Log lines go to standard error, as text for people or JSON for collectors.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nave_hub::audit::TARGET;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::traces;

/// The most detailed level that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// What stops something from working.
    Error,
    /// What somebody should look at.
    Warn,
    /// What an operator wants to have read.
    #[default]
    Info,
    /// What helps to find a mistake.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    pub(crate) const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

impl LogFormat {
    pub(crate) const ALL: [Self; 2] = [Self::Text, Self::Json];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A file of audit records that can be opened again under its name, after a tool for old logs has moved it away.
#[derive(Clone, Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl AuditFile {
    /// Opens the file to append to it; a new one can be read by its owner only.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(append(path)?)) })
    }

    /// Opens the file of that name again.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = append(&self.path)?;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for AuditFile {
    /// A record comes in one piece and is written in one, so that two never mix.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let written = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(record);
        match written {
            Ok(()) => Ok(record.len()),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "an audit record could not be written");
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for AuditFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Changes what is written to standard error.
static CHANGE: OnceLock<Change> = OnceLock::new();

type Change = Box<dyn Fn(LogLevel) -> Result<(), reload::Error> + Send + Sync>;

/// What libraries say below a warning helps nobody here. Audit records that have a file of their own are not said twice.
fn targets(level: LogLevel, is_audited: bool) -> Targets {
    let libraries = ["cranelift", "fjall", "hyper", "lsm_tree", "rustls", "wasmtime"];
    let targets = Targets::new()
        .with_default(level.filter())
        .with_targets(libraries.map(|library| (library, level.filter().min(LevelFilter::WARN))));
    // Spans of traces are no part of lines.
    let targets = targets.with_target(nave_trace::TARGET, LevelFilter::OFF);
    if is_audited { targets.with_target(TARGET, LevelFilter::OFF) } else { targets }
}

/// Begins to write log lines. Audit records go into their file, if there is one, whatever the level; else they are log lines
/// like others, of the level `info`.
pub(crate) fn start(level: LogLevel, format: LogFormat, audit: Option<AuditFile>) {
    let is_audited = audit.is_some();
    let (filter, handle) = reload::Layer::new(targets(level, is_audited));
    let records = audit.map(|file| {
        let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        let lines = lines.with_target(false).with_level(false).without_time().with_writer(file);
        lines.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    });
    let registry = tracing_subscriber::registry().with(traces::layer()).with(records);
    let lines = fmt::layer().with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal()).with_target(false);
            registry.with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            registry.with(lines.with_filter(filter)).try_init()
        }
    };
    // A second start in one process, as tests do it, keeps the first.
    if started.is_ok() {
        let _ = CHANGE.set(Box::new(move |level| handle.reload(targets(level, is_audited))));
    }
}

/// Writes up to another level from now on.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(Err(error)) = CHANGE.get().map(|change| change(level)) {
        tracing::error!(%error, "the log level cannot be changed");
    }
}
