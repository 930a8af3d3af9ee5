//! TLS as a byte stream for hyper, over the same channel as device connections have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use nave_session::protocol::Disconnect;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::channel::{Channel, ReadEnd};
use crate::limits::Limits;
use crate::tls::Step;

/// A [`Channel`] as a stream. It holds what was decrypted and not yet read: at most what one read brings.
pub(super) struct SecureStream {
    channel: Box<Channel>,
    limits: Limits,
    /// Decrypted; read up to `taken`.
    surplus: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl SecureStream {
    /// A stream that begins with `early`.
    pub(super) const fn new(channel: Box<Channel>, early: Vec<u8>, limits: Limits) -> Self {
        Self { channel, limits, surplus: early, taken: 0, ended: false }
    }

    /// The channel, and what was decrypted but not read.
    pub(super) fn into_parts(self) -> (Box<Channel>, Vec<u8>) {
        let mut surplus = self.surplus;
        surplus.drain(..self.taken.min(surplus.len()));
        (self.channel, surplus)
    }

    /// Moves what is there; true if that was something.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let rest = self.surplus.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let part = rest.get(..buffer.remaining()).unwrap_or(rest);
        buffer.put_slice(part);
        self.taken += part.len();
        if self.taken == self.surplus.len() {
            self.surplus = Vec::new();
            self.taken = 0;
        }
        true
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.give(buffer) || this.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let Self { channel, limits, surplus, ended, .. } = &mut *this;
            match channel.read(cx, limits, |bytes| surplus.extend_from_slice(bytes)) {
                Ok(Step::PeerClosed) => *ended = true,
                Ok(_) => {}
                Err(ReadEnd::Pending) => return Poll::Pending,
                // An end without an announcement: whoever reads sees from the framing of HTTP whether something is missing.
                Err(ReadEnd::Over(Disconnect::PeerClosed)) => *ended = true,
                Err(ReadEnd::Over(disconnect)) => {
                    // The alert tells the peer why.
                    let _unwritten_alert = channel.write_unsent(cx, limits);
                    return Poll::Ready(Err(error(disconnect)));
                }
            }
        }
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { channel, limits, .. } = self.get_mut();
        channel.write_plaintext(cx, limits, bytes).map_err(error)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { channel, limits, .. } = self.get_mut();
        match channel.write_unsent(cx, limits) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(disconnect) => Poll::Ready(Err(error(disconnect))),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_flush(cx))?;
        let channel = &mut self.get_mut().channel;
        channel.announce_end(cx);
        channel.close_writing(cx);
        Poll::Ready(Ok(()))
    }
}

fn error(disconnect: Disconnect) -> io::Error {
    match disconnect {
        Disconnect::Io(kind) => kind.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}
