//! A socket under a TLS session: reading and writing without a buffer while nothing happens.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use nave_session::protocol::{Disconnect, PeerFacts, Protocol};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::limits::{Limits, OUTPUT_BATCH, READ_BUFFER};
use crate::scratch;
use crate::tls::{Session, Step};

/// The transport of one connection.
pub(crate) struct Channel {
    stream: TcpStream,
    session: Session,
    /// Encrypted output that the socket did not take.
    unsent: Vec<u8>,
    /// How much of `unsent` has been written since.
    sent: usize,
    /// When the peer must have taken something of `unsent`.
    stalled_at: Option<Instant>,
}

/// How far [`Channel::write`] came.
pub(crate) enum Written {
    /// Everything; the protocol has nothing more.
    All,
    /// A batch; the protocol has more.
    Some,
    /// The peer has to take something first; a waker is registered.
    Blocked,
}

/// Why [`Channel::read`] brought nothing.
pub(crate) enum ReadEnd {
    /// Nothing is there; a waker is registered.
    Pending,
    /// Nothing will come.
    Over(Disconnect),
}

impl Channel {
    pub(crate) fn new(stream: TcpStream, session: Session) -> Self {
        Self { stream, session, unsent: Vec::new(), sent: 0, stalled_at: None }
    }

    /// When the peer must have taken something; `None` while nothing waits for it.
    pub(crate) fn stalled_at(&self) -> Option<Instant> {
        self.stalled_at
    }

    /// What the handshake proved.
    pub(crate) fn peer(&self, address: SocketAddr) -> PeerFacts {
        PeerFacts {
            address,
            server_name: self.session.server_name(),
            certificates: self.session.certificates(),
            tls: self.session.version(),
        }
    }

    /// Reads once and gives what that decrypts to `plaintext`. What TLS itself has to answer is written, or queued.
    pub(crate) fn read(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        plaintext: impl FnMut(&[u8]),
    ) -> Result<Step, ReadEnd> {
        scratch::with(|scratch| {
            let kept = self.session.kept();
            let room = scratch.read.get_mut(kept..kept + READ_BUFFER).unwrap_or_default();
            let mut room = ReadBuf::new(room);
            let arrived = match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                Poll::Pending => return Err(ReadEnd::Pending),
                Poll::Ready(Err(error)) => return Err(ReadEnd::Over(Disconnect::Io(error.kind()))),
                Poll::Ready(Ok(())) => room.filled().len(),
            };
            if arrived == 0 {
                return Err(ReadEnd::Over(Disconnect::PeerClosed));
            }
            let step = self.session.process(&mut scratch.read, arrived, &mut scratch.sealed, plaintext);
            let sent = if scratch.sealed.is_empty() { Ok(()) } else { self.send(cx, limits, &scratch.sealed) };
            let step = step.map_err(|error| ReadEnd::Over(Disconnect::Tls(error.to_string())))?;
            // A peer that asks for key updates and never reads the answers ends here.
            sent.map_err(ReadEnd::Over)?;
            Ok(step)
        })
    }

    /// Writes what is unsent and then a batch of what the protocol gives, in one write.
    pub(crate) fn write(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        protocol: &mut dyn Protocol,
    ) -> Result<Written, Disconnect> {
        if !self.write_unsent(cx, limits)? {
            return Ok(Written::Blocked);
        }
        let more = scratch::with(|scratch| {
            let mut more = true;
            while more && scratch.plain.len() < OUTPUT_BATCH {
                let before = scratch.plain.len();
                // A protocol that announces output and gives none would spin; it has to wake.
                more = protocol.transmit(&mut scratch.plain) && scratch.plain.len() > before;
            }
            if !scratch.plain.is_empty() {
                let sealed = self.session.seal(&scratch.plain, &mut scratch.sealed);
                sealed.map_err(|error| Disconnect::Tls(error.to_string()))?;
                self.send(cx, limits, &scratch.sealed)?;
            }
            Ok(more)
        })?;
        if !self.write_unsent(cx, limits)? {
            return Ok(Written::Blocked);
        }
        Ok(if more { Written::Some } else { Written::All })
    }

    /// Encrypts and writes a batch of `plaintext`, unless earlier output waits for the peer; a waker is registered then. The
    /// result says how much was taken: all of that is on its way, or unsent here.
    pub(crate) fn write_plaintext(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        plaintext: &[u8],
    ) -> Poll<Result<usize, Disconnect>> {
        if !self.write_unsent(cx, limits)? {
            return Poll::Pending;
        }
        let batch = plaintext.get(..OUTPUT_BATCH).unwrap_or(plaintext);
        scratch::with(|scratch| {
            let sealed = self.session.seal(batch, &mut scratch.sealed);
            sealed.map_err(|error| Disconnect::Tls(error.to_string()))?;
            self.send(cx, limits, &scratch.sealed)
        })?;
        Poll::Ready(Ok(batch.len()))
    }

    /// Writes what is unsent. True once there is nothing; otherwise a waker is registered.
    pub(crate) fn write_unsent(&mut self, cx: &mut Context<'_>, limits: &Limits) -> Result<bool, Disconnect> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) => {
                    self.sent += written;
                    self.stalled_at = None;
                }
                Poll::Ready(Err(error)) => return Err(Disconnect::Io(error.kind())),
                Poll::Pending => {
                    self.stalled_at.get_or_insert_with(|| Instant::now() + limits.write_stall);
                    return Ok(false);
                }
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        self.stalled_at = None;
        Ok(true)
    }

    /// Tells the peer that we send no more. A courtesy: a peer whose window is full does without.
    pub(crate) fn announce_end(&mut self, cx: &mut Context<'_>) {
        scratch::with(|scratch| {
            if self.unsent.is_empty() && self.session.close(&mut scratch.sealed).is_ok() {
                let _ = Pin::new(&mut self.stream).poll_write(cx, &scratch.sealed);
            }
        });
    }

    /// Closes our direction of the connection.
    pub(crate) fn close_writing(&mut self, cx: &mut Context<'_>) {
        // Ready at once for TCP; an error means that the peer is gone, which reading shows next.
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.unsent = Vec::new();
        self.sent = 0;
        self.stalled_at = None;
    }

    /// Reads and forgets. Ready once the peer closed, or sent `budget` bytes.
    pub(crate) fn throw_away(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Poll<()> {
        scratch::with(|scratch| {
            while *budget > 0 {
                let mut room = ReadBuf::new(&mut scratch.read);
                let arrived = match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room)) {
                    Ok(()) => room.filled().len(),
                    Err(_) => 0,
                };
                *budget = if arrived == 0 { 0 } else { budget.saturating_sub(arrived) };
            }
            Poll::Ready(())
        })
    }

    /// Writes `sealed` at once as far as the socket takes it, behind what is unsent, and keeps the rest.
    fn send(&mut self, cx: &mut Context<'_>, limits: &Limits, sealed: &[u8]) -> Result<(), Disconnect> {
        let mut rest = sealed;
        if self.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, sealed) {
                Poll::Ready(Ok(written)) => rest = sealed.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(Disconnect::Io(error.kind())),
                Poll::Pending => {}
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        if self.unsent.len() - self.sent + rest.len() > limits.pending_output {
            return Err(Disconnect::OutputOverflow);
        }
        // Exactly as much as is needed: this is what a connection holds while its peer does not read.
        self.unsent.drain(..self.sent);
        self.sent = 0;
        self.unsent.reserve_exact(rest.len());
        self.unsent.extend_from_slice(rest);
        Ok(())
    }
}
