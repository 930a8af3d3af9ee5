//! The TLS handshake of a new connection, the same for every listener.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use nave_session::protocol::Disconnect;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use crate::channel::{Channel, ReadEnd};
use crate::limits::{LINGER, LINGER_BYTES, Limits};
use crate::tls::{ServerTls, Session, Step};
use crate::worker::Shared;

/// A connection whose handshake succeeded.
pub(crate) struct Opened {
    pub(crate) channel: Box<Channel>,
    /// What the peer sent together with the end of its handshake, decrypted.
    pub(crate) early: Vec<u8>,
}

/// Does the handshake; `None` when it failed, took too long, or the server stops. A failure is counted, and the alert gets
/// time to reach a peer that waits for it.
pub(crate) async fn handshake(
    stream: std::net::TcpStream,
    address: SocketAddr,
    tls: &ServerTls,
    shared: &Shared,
) -> Option<Opened> {
    let stream =
        TcpStream::from_std(stream).inspect_err(|error| tracing::warn!(%error, "cannot watch a connection")).ok()?;
    let session = Session::new(tls).inspect_err(|error| tracing::error!(%error, "cannot begin a TLS session")).ok()?;
    let (mut channel, mut early) = (Box::new(Channel::new(stream, session)), Vec::new());
    let until = Instant::now() + shared.limits.handshake;
    let shaking = poll_fn(|cx| shake(&mut channel, cx, &shared.limits, &mut early));
    let outcome = tokio::select! {
        biased;
        () = shared.until_stop() => return None,
        outcome = timeout_at(until.into(), shaking) => outcome,
    };
    let why = match outcome {
        Ok(Ok(())) => return Some(Opened { channel, early }),
        Ok(Err(disconnect)) => Some(disconnect),
        Err(_elapsed) => None,
    };
    shared.handshake_failures.fetch_add(1, Ordering::Relaxed);
    let reason = why.as_ref().map_or_else(|| "timeout".to_owned(), ToString::to_string);
    tracing::debug!(%address, why = %reason, "TLS handshake failed");
    if matches!(why, Some(Disconnect::Tls(_))) {
        // The alert tells the peer why, if it waits for that.
        let mut budget = LINGER_BYTES;
        let lingering = poll_fn(|cx| channel.throw_away(cx, &mut budget));
        tokio::select! {
            biased;
            () = shared.until_stop() => {}
            _ = timeout(LINGER, lingering) => {}
        }
    }
    None
}

fn shake(
    channel: &mut Channel,
    cx: &mut Context<'_>,
    limits: &Limits,
    early: &mut Vec<u8>,
) -> Poll<Result<(), Disconnect>> {
    loop {
        channel.write_unsent(cx, limits)?;
        match channel.read(cx, limits, |bytes| early.extend_from_slice(bytes)) {
            Ok(Step::Handshaking) => {}
            Ok(Step::Open) => return Poll::Ready(Ok(())),
            Ok(Step::PeerClosed) => return Poll::Ready(Err(Disconnect::PeerClosed)),
            Err(ReadEnd::Pending) => return Poll::Pending,
            Err(ReadEnd::Over(disconnect)) => {
                if matches!(disconnect, Disconnect::Tls(_)) {
                    let _unwritten_alert = channel.write_unsent(cx, limits);
                    channel.close_writing(cx);
                }
                return Poll::Ready(Err(disconnect));
            }
        }
    }
}
