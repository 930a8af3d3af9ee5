//! The end, as the operating system announces it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Which signal asked the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: systemd, Docker, Kubernetes.
    Terminate,
}

/// Blocks the calling thread until the process is asked to stop. From the first call on, these signals no longer end the
/// process by themselves.
pub fn wait_for_stop() -> io::Result<StopSignal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(tokio::select! {
            _ = interrupt.recv() => StopSignal::Interrupt,
            _ = terminate.recv() => StopSignal::Terminate,
        })
    })
}
