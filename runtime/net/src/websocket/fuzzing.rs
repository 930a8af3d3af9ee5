//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a fuzz target reports")]

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL};
use hyper::{Method, Request, StatusCode, Uri};
use nave_session::protocol::{PeerFacts, Protocol, ProtocolFactory};

use super::frame::{Decoder, Event, Violation};
use super::{Verdict, WebSocketEndpoint, judge};

/// What a decoder made of its input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    data: Vec<u8>,
    /// Pings, each with how much data came before it.
    pings: Vec<(usize, Vec<u8>)>,
    closed: bool,
    violation: Option<Violation>,
}

/// Frames mean the same however the bytes are cut, hold no more data than there were bytes, and nothing is seen after a
/// close or a broken rule. The first byte chooses where to cut.
pub fn fuzz_frames(data: &[u8]) {
    let Some((seed, bytes)) = data.split_first() else { return };
    let whole = see([bytes]);
    assert!(whole.data.len() + whole.pings.iter().map(|(_, ping)| ping.len()).sum::<usize>() <= bytes.len());
    assert_eq!(see(bytes.chunks(usize::from(seed % 16) + 1)), whole);
    assert_eq!(see(bytes.chunks(1)), whole);
}

fn see<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let (mut decoder, mut seen, mut room) = (Decoder::default(), Seen::default(), Vec::new());
    for piece in pieces {
        let over = seen.closed || seen.violation.is_some();
        let result = decoder.decode(piece, &mut room, |event| {
            assert!(!over && !seen.closed, "nothing is read after the end");
            match event {
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    seen.data.extend_from_slice(bytes);
                }
                Event::Ping(payload) => seen.pings.push((seen.data.len(), payload.to_vec())),
                Event::Close => seen.closed = true,
            }
        });
        seen.violation = seen.violation.or(result.err());
    }
    seen
}

struct Nobody;

impl ProtocolFactory for Nobody {
    fn accept(&self, _: PeerFacts) -> Box<dyn Protocol> {
        panic!("a request is judged without beginning a connection")
    }
}

/// The head of a request, one header a line after the method and the target: it is refused, or agreed with an answer that
/// repeats a sub-protocol of the client.
pub fn fuzz_offer(data: &[u8]) {
    let endpoints =
        [WebSocketEndpoint { paths: &["/$iothub/websocket"], sub_protocol: "mqtt", factory: Arc::new(Nobody) }];
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut first = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let (Some(Ok(method)), Some(Ok(uri))) = (first.next().map(Method::from_bytes), first.next().map(Uri::try_from))
    else {
        return;
    };
    let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
    let mut offered = Vec::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else { continue };
        if name == SEC_WEBSOCKET_PROTOCOL {
            offered.push(value.clone());
        }
        request.headers_mut().append(name, value);
    }
    match judge(&request, false, &endpoints) {
        Verdict::NotAsked => assert_ne!(request.uri().path(), "/$iothub/websocket"),
        Verdict::Refused(response) => assert!(response.status().is_client_error() && !response.body().is_empty()),
        Verdict::Accepted(response, _) => {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(response.headers().get(SEC_WEBSOCKET_ACCEPT).unwrap().len(), 28, "base64 of 20 bytes");
            let agreed = response.headers().get(SEC_WEBSOCKET_PROTOCOL).unwrap().to_str().unwrap();
            assert!(agreed.eq_ignore_ascii_case("mqtt"));
            assert!(offered.iter().any(|value| value.to_str().is_ok_and(|text| text.contains(agreed))));
        }
    }
    assert!(!matches!(judge(&request, true, &endpoints), Verdict::Accepted(..)), "a body follows");
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("websocket_frames", super::fuzz_frames);
        exercise("websocket_offer", super::fuzz_offer);
    }
}
