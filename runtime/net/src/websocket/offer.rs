//! The opening handshake of RFC 6455 §4.2, on a request that an HTTP server has read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use nave_session::protocol::ProtocolFactory;
use ring::digest;

/// What is appended to a client's key (RFC 6455 §1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a client's key, before base64 (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;

/// The only version there is (RFC 6455 §4.4).
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// A device protocol that a listener for HTTPS serves over WebSocket.
#[derive(Clone)]
pub struct WebSocketEndpoint {
    /// The paths of the requests that ask for it, as they stand in the request line. They are answered here and never
    /// reach the service.
    pub paths: &'static [&'static str],
    /// The sub-protocol that clients ask for. Its case does not matter; they get it back as they wrote it.
    pub sub_protocol: &'static str,
    /// Makes the protocol of a connection.
    pub factory: Arc<dyn ProtocolFactory>,
}

/// What a request means.
pub(crate) enum Verdict<'e> {
    /// It is not for an endpoint.
    NotAsked,
    /// It is for one and cannot be granted; the text tells the client why.
    Refused(Response<&'static str>),
    /// The connection becomes a WebSocket once this answer is sent.
    Accepted(Response<&'static str>, &'e Arc<dyn ProtocolFactory>),
}

/// Judges the head of a request. `has_body` says whether one follows it.
pub(crate) fn judge<'e, B>(request: &Request<B>, has_body: bool, endpoints: &'e [WebSocketEndpoint]) -> Verdict<'e> {
    let path = request.uri().path();
    let mut endpoints = endpoints.iter().filter(|endpoint| endpoint.paths.contains(&path)).peekable();
    if endpoints.peek().is_none() {
        return Verdict::NotAsked;
    }
    let headers = request.headers();
    if request.method() != Method::GET || request.version() != Version::HTTP_11 || has_body {
        return refuse(StatusCode::BAD_REQUEST, "WebSocket begins with GET over HTTP/1.1 and without a body.");
    }
    if !tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket")) {
        return upgrade_required("This path is for WebSocket: send `Upgrade: websocket`.");
    }
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return refuse(StatusCode::BAD_REQUEST, "`Connection: Upgrade` is missing.");
    }
    if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return upgrade_required("The version of WebSocket has to be 13.");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| is_key(key));
    let Some(key) = key else {
        return refuse(StatusCode::BAD_REQUEST, "`Sec-WebSocket-Key` is not 16 bytes in base64.");
    };
    // The first that both sides speak, in the client's order.
    let agreed = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|token| {
        let endpoint = endpoints.clone().find(|endpoint| endpoint.sub_protocol.eq_ignore_ascii_case(token))?;
        Some((HeaderValue::from_str(token).ok()?, endpoint))
    });
    let Some((sub_protocol, endpoint)) = agreed else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "No sub-protocol in `Sec-WebSocket-Protocol` is served here. Devices use `mqtt`.",
        );
    };
    let Ok(accept) = HeaderValue::from_str(&accept(key)) else {
        return refuse(StatusCode::BAD_REQUEST, "`Sec-WebSocket-Key` cannot be answered.");
    };
    let mut response = Response::new("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer.insert(SEC_WEBSOCKET_PROTOCOL, sub_protocol);
    Verdict::Accepted(response, &endpoint.factory)
}

/// The comma-separated tokens of all headers of a name; one that is not ASCII is none.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn is_key(text: &[u8]) -> bool {
    STANDARD.decode(text).is_ok_and(|key| key.len() == KEY_BYTES)
}

/// Proof that the request was understood (RFC 6455 §4.2.2). SHA-1 hides nothing here.
fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(ACCEPT_SUFFIX.as_bytes());
    STANDARD.encode(context.finish())
}

fn refuse(status: StatusCode, why: &'static str) -> Verdict<'static> {
    let mut response = Response::new(why);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Verdict::Refused(response)
}

fn upgrade_required(why: &'static str) -> Verdict<'static> {
    let mut verdict = refuse(StatusCode::UPGRADE_REQUIRED, why);
    if let Verdict::Refused(response) = &mut verdict {
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use nave_session::protocol::{PeerFacts, Protocol};

    use super::*;

    struct Nobody;

    impl ProtocolFactory for Nobody {
        fn accept(&self, _: PeerFacts) -> Box<dyn Protocol> {
            panic!("nothing is accepted in these tests")
        }
    }

    const PATH: &str = "/$iothub/websocket";

    /// The headers of RFC 6455 §1.2 with one replaced or, with an empty value, removed.
    fn ask(uri: &str, change: (&str, &str)) -> (StatusCode, Option<String>) {
        let mut headers = vec![
            ("host", "hub"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade,Keep-Alive"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, MQTT"),
        ];
        headers.retain(|(name, _)| *name != change.0);
        headers.push(change);
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let endpoints = [WebSocketEndpoint { paths: &[PATH], sub_protocol: "mqtt", factory: Arc::new(Nobody) }];
        match judge(&request.body(()).expect("a request"), false, &endpoints) {
            Verdict::NotAsked => (StatusCode::NOT_FOUND, None),
            Verdict::Refused(response) => (response.status(), None),
            Verdict::Accepted(response, _) => {
                let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("?");
                let both = format!("{} {}", text(SEC_WEBSOCKET_ACCEPT), text(SEC_WEBSOCKET_PROTOCOL));
                (response.status(), Some(both))
            }
        }
    }

    #[test]
    fn accepts_what_clients_send() {
        // The accepted key is the example of RFC 6455 §1.3; the C SDK writes the sub-protocol in capitals.
        let granted = (StatusCode::SWITCHING_PROTOCOLS, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo= MQTT".to_owned()));
        let same = ("x-any", "");
        assert_eq!(ask(PATH, same), granted);
        // The Java SDK: absolute form, a query.
        assert_eq!(ask("https://hub/$iothub/websocket?iothub-no-client-cert=true", same), granted);
        assert_eq!(ask(PATH, ("upgrade", "WebSocket")), granted);
        assert_eq!(ask(PATH, ("connection", "keep-alive, upgrade")), granted);
    }

    #[test]
    fn refuses_with_the_reason() {
        let status = |change| ask(PATH, change).0;
        assert_eq!(ask("/devices/d", ("x-any", "")).0, StatusCode::NOT_FOUND);
        assert_eq!(status(("upgrade", "")), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(status(("connection", "close")), StatusCode::BAD_REQUEST);
        assert_eq!(status(("sec-websocket-version", "8")), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(status(("sec-websocket-key", "")), StatusCode::BAD_REQUEST);
        assert_eq!(status(("sec-websocket-key", "c2hvcnQ=")), StatusCode::BAD_REQUEST);
        assert_eq!(status(("sec-websocket-protocol", "")), StatusCode::BAD_REQUEST);
        assert_eq!(status(("sec-websocket-protocol", "AMQPWSB10")), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn wants_a_plain_get() {
        let endpoints = [WebSocketEndpoint { paths: &[PATH], sub_protocol: "mqtt", factory: Arc::new(Nobody) }];
        let post = Request::post(PATH).body(()).expect("a request");
        assert!(matches!(judge(&post, false, &endpoints), Verdict::Refused(_)));
        let get = Request::get(PATH).body(()).expect("a request");
        assert!(matches!(judge(&get, true, &endpoints), Verdict::Refused(r) if r.status() == StatusCode::BAD_REQUEST));
    }
}
