//! Bodies between hyper and the service.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use nave_http::service::{Body, BodyError, ResponseBody};
use tokio::time::Instant;

use crate::limits::Limits;

/// The request body as the service reads it: with a bound on every pause and on the whole. Trailers are dropped.
pub(super) fn from_peer(incoming: Incoming, limits: &Limits) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    let declared = incoming.size_hint().exact();
    let (pause, whole) = (limits.http_body_pause, limits.http_body);
    Body::from_stream(chunks(incoming, pause, whole), declared)
}

fn chunks(incoming: Incoming, pause: Duration, whole: Duration) -> impl Stream<Item = Result<Bytes, BodyError>> {
    // The clock of the whole starts with the first look at the body: until then the service keeps the client waiting.
    stream::unfold(Some((incoming, None::<Instant>)), move |state| async move {
        let (mut incoming, end) = state?;
        let end = end.unwrap_or_else(|| Instant::now() + whole);
        let next = end.min(Instant::now() + pause);
        loop {
            return match tokio::time::timeout_at(next, incoming.frame()).await {
                Err(_elapsed) => Some((Err(BodyError::Timeout), None)),
                Ok(None) => None,
                Ok(Some(Err(error))) => Some((Err(BodyError::Incomplete(error.to_string())), None)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some((Ok(data), Some((incoming, Some(end))))),
                    Err(_trailers) => continue,
                },
            };
        }
    })
}

/// The response body as hyper sends it.
pub(super) fn to_peer(body: ResponseBody) -> Outgoing {
    match body {
        ResponseBody::Bytes(bytes) => Outgoing::Bytes(Some(bytes).filter(|bytes| !bytes.is_empty())),
        ResponseBody::Stream(chunks) => Outgoing::Stream(chunks),
        // The kinds that the enum may gain need their own handling here; none exists yet.
        _ => Outgoing::Bytes(None),
    }
}

pub(super) enum Outgoing {
    Bytes(Option<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(chunks) => chunks.as_mut().poll_next(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Bytes(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
