//! What the operating system asks of a running process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A signal that a server obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C. Stop.
    Interrupt,
    /// SIGTERM: systemd, Docker, Kubernetes. Stop.
    Terminate,
    /// SIGHUP: take up what changed.
    Reload,
}

/// Calls `obey` for each signal, in the calling thread, until it returns `false` or the process ends. From the call on,
/// these signals no longer end the process by themselves.
///
/// # Errors
///
/// The operating system refuses to deliver signals.
pub fn watch_signals(mut obey: impl FnMut(Signal) -> bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut reload = signal(SignalKind::hangup())?;
        loop {
            let seen = tokio::select! {
                Some(()) = interrupt.recv() => Signal::Interrupt,
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = reload.recv() => Signal::Reload,
                else => return Err(io::Error::other("signals are not delivered any more")),
            };
            if !obey(seen) {
                return Ok(());
            }
        }
    })
}
