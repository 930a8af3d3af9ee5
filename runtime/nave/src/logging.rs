//! Log lines go to standard error, as text for people or JSON for collectors.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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

/// Begins to write log lines. What libraries say below a warning helps nobody here.
pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let libraries = ["cranelift", "fjall", "hyper", "lsm_tree", "rustls", "wasmtime"];
    let filter = Targets::new()
        .with_default(level.filter())
        .with_targets(libraries.map(|library| (library, level.filter().min(LevelFilter::WARN))));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process, as tests do it, keeps the first.
    let _ = match format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init(),
    };
}
