//! What the HTTP surfaces look like to the code that moves their bytes: one call per request.
//!
//! No type of a particular HTTP server appears here, so that a surface is tested by calling it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use nave_env::BoxFuture;

/// A set of HTTP resources.
pub trait HttpService: Send + Sync + 'static {
    /// Answers one request. It has no error: whatever fails is a response.
    ///
    /// The call is dropped when the client goes away; work that has to end all the same belongs into
    /// [`nave_env::Env::spawn`]. Requests of one connection come one after the other. URI and headers are bounded by the
    /// server, the body by [`Body::collect`].
    fn call(&self, peer: Peer, request: Request<Body>) -> BoxFuture<Response<ResponseBody>>;
}

/// What the transport knows for certain about the sender of a request. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The TLS facts; `None` on the plain loopback listener.
    pub tls: Option<Arc<PeerTls>>,
}

/// The TLS facts of a connection.
#[derive(PartialEq, Eq)]
pub struct PeerTls {
    /// The name that the client asked for (SNI), lower case. The hub comes from the `Host` header, not from here.
    pub server_name: Option<String>,
    /// The chain that the client presented, DER, leaf first; empty without a client certificate. That the client holds
    /// the leaf's private key is proved. That anybody vouches for the chain is **not**.
    pub certificates: Vec<Vec<u8>>,
}

impl Peer {
    /// The client's certificate chain, leaf first; empty without one.
    pub fn certificates(&self) -> &[Vec<u8>] {
        self.tls.as_ref().map_or(&[], |tls| &tls.certificates)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Peer")
            .field("address", &self.address)
            .field("server_name", &self.tls.as_ref().and_then(|tls| tls.server_name.as_deref()))
            .field("certificates", &self.certificates().len())
            .finish()
    }
}

/// A stream of the chunks of a request body.
type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// The body of a request, read while it arrives.
pub struct Body {
    declared: Option<u64>,
    chunks: Option<Chunks>,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self { declared: Some(0), chunks: None }
    }

    /// A body that is there already.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let declared = u64::try_from(bytes.len()).ok();
        Self::from_stream(futures_util::stream::iter([Ok(bytes)]), declared)
    }

    /// A body that arrives in chunks; `declared` is its length if the client stated it.
    pub fn from_stream(
        chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
        declared: Option<u64>,
    ) -> Self {
        Self { declared, chunks: Some(Box::pin(chunks)) }
    }

    /// The length that the client stated (`Content-Length`), which it may still fall short of.
    pub fn declared_length(&self) -> Option<u64> {
        self.declared
    }

    /// The next chunk; `None` at the end. After an error there is no more.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        let chunks = self.chunks.as_mut()?;
        let next = chunks.next().await;
        if !matches!(next, Some(Ok(_))) {
            self.chunks = None;
        }
        next
    }

    /// The whole body, refused as soon as it is known to be longer than `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let too_large = BodyError::TooLarge { limit };
        if self.declared.is_some_and(|declared| usize::try_from(declared).map_or(true, |declared| declared > limit)) {
            return Err(too_large);
        }
        let Some(first) = self.chunk().await.transpose()? else { return Ok(Bytes::new()) };
        if first.len() > limit {
            return Err(too_large);
        }
        let Some(second) = self.chunk().await.transpose()? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if chunk.len() > limit.saturating_sub(whole.len()) {
                return Err(too_large);
            }
            whole.extend_from_slice(&chunk);
            next = self.chunk().await.transpose()?;
        }
        Ok(whole.freeze())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Body").field("declared", &self.declared).finish_non_exhaustive()
    }
}

/// Why a request body could not be read. All of these are the client's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than the resource takes (status 413).
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The bound of the resource, in bytes.
        limit: usize,
    },
    /// The connection ended or broke the framing before the body was complete (status 400).
    #[error("the body is incomplete: {0}")]
    Incomplete(String),
    /// The client paused for too long within the body, or sent it too slowly (status 408).
    #[error("the body did not arrive in time")]
    Timeout,
}

/// The body of a response.
///
/// Later kinds (a protocol upgrade) may be added.
#[non_exhaustive]
pub enum ResponseBody {
    /// The whole body; its length is announced.
    Bytes(Bytes),
    /// Chunks as they come to be, each sent at once. Its end is the end of the response; an error cuts the connection,
    /// so that the client can tell a broken stream from a complete one. It is polled only while the client takes what it
    /// gives, and dropped when the client goes away.
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl ResponseBody {
    /// No body.
    pub fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }

    /// A body of chunks.
    pub fn stream(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(chunks))
    }
}

impl<T: Into<Bytes>> From<T> for ResponseBody {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(formatter, "Bytes({})", bytes.len()),
            Self::Stream(_) => formatter.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::stream;

    use super::*;

    fn collect(body: Body, limit: usize) -> Result<Bytes, BodyError> {
        body.collect(limit).now_or_never().expect("ready at once")
    }

    fn chunks(parts: &'static [&'static str], declared: Option<u64>) -> Body {
        Body::from_stream(stream::iter(parts.iter().map(|part| Ok(Bytes::from(*part)))), declared)
    }

    #[test]
    fn collects_up_to_the_limit_and_not_a_byte_more() {
        assert_eq!(collect(Body::empty(), 0), Ok(Bytes::new()));
        assert_eq!(collect(Body::from_bytes("abc"), 3), Ok(Bytes::from("abc")));
        assert_eq!(collect(Body::from_bytes("abcd"), 3), Err(BodyError::TooLarge { limit: 3 }));
        assert_eq!(collect(chunks(&["ab", "", "c", "d"], None), 4), Ok(Bytes::from("abcd")));
        assert_eq!(collect(chunks(&["ab", "c", "d"], None), 3), Err(BodyError::TooLarge { limit: 3 }));
        assert_eq!(collect(chunks(&["abcd"], None), 3), Err(BodyError::TooLarge { limit: 3 }));
    }

    #[test]
    fn refuses_a_declared_length_before_reading() {
        let untouchable = Body::from_stream(stream::poll_fn(|_| panic!("read a body that is refused")), Some(5));
        assert_eq!(collect(untouchable, 4), Err(BodyError::TooLarge { limit: 4 }));
        assert_eq!(collect(chunks(&["abcd"], Some(u64::MAX)), 4), Err(BodyError::TooLarge { limit: 4 }));
    }

    #[test]
    fn ends_at_an_error() {
        let mut body = Body::from_stream(
            stream::iter([Ok(Bytes::from("a")), Err(BodyError::Timeout), Ok(Bytes::from("b"))]),
            None,
        );
        assert_eq!(body.chunk().now_or_never().flatten(), Some(Ok(Bytes::from("a"))));
        assert_eq!(body.chunk().now_or_never().flatten(), Some(Err(BodyError::Timeout)));
        assert_eq!(body.chunk().now_or_never(), Some(None));
    }
}
