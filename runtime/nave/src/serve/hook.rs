//! Sends requests to web hooks, over HTTP connections that are kept.

use std::io::Read as _;
use std::path::Path;

use nave_hub::provisioning::{HookAnswer, HookClient, HookError, HookRequest, MAX_HOOK_ANSWER_BYTES};

use crate::failure::Failure;
use crate::https;

/// An HTTP client that trusts the authorities of the system, or one that the operator named.
pub(super) struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// A client that trusts the certificates in the PEM file `ca`, or those of the system.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self { agent: https::agent("provisioning.webhook_ca", ca)? })
    }
}

impl HookClient for Client {
    fn post(&self, request: &HookRequest) -> Result<HookAnswer, HookError> {
        let sent = self
            .agent
            .post(&request.url)
            .config()
            .timeout_global(Some(request.time_limit))
            .build()
            .content_type("application/json")
            .send(&request.body);
        let mut response = sent.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        let limit = u64::try_from(MAX_HOOK_ANSWER_BYTES).unwrap_or(u64::MAX);
        let mut body = Vec::new();
        let reader = response.body_mut().with_config().limit(limit.saturating_add(1)).reader();
        reader
            .take(limit.saturating_add(1))
            .read_to_end(&mut body)
            .map_err(|error| failure(&ureq::Error::from(error)))?;
        if body.len() > MAX_HOOK_ANSWER_BYTES {
            return Err(HookError::TooLarge);
        }
        Ok(HookAnswer { status, body })
    }
}

/// None of the texts may hold the address.
fn failure(error: &ureq::Error) -> HookError {
    match error {
        ureq::Error::Timeout(_) => HookError::TimedOut,
        ureq::Error::BadUri(_) => HookError::Unreachable("its address is not valid".to_owned()),
        ureq::Error::HostNotFound => HookError::Unreachable("no such host".to_owned()),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => HookError::TimedOut,
        error => HookError::Unreachable(match certificate_error(error) {
            Some(why) => format!("its certificate is not trusted: {why} (see provisioning.webhook_ca)"),
            None => error.to_string(),
        }),
    }
}

/// What is wrong with the server's certificate, if that is the reason. During a handshake it comes as an error of input.
fn certificate_error(error: &ureq::Error) -> Option<&rustls::CertificateError> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    match error {
        rustls::Error::InvalidCertificate(why) => Some(why),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Duration;

    use nave_tests::http::Request;

    use super::*;

    /// Answers one request with `answer`, and returns what was asked.
    fn serve_once(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/allocate?code=c2VjcmV0", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let request = Request::read(&mut reader).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            // The connection stays open: a client without a time limit would wait.
            if answer.is_empty() {
                let _ = reader.read(&mut [0]);
            }
            request.head() + std::str::from_utf8(&request.body).unwrap()
        });
        (url, served)
    }

    fn post(url: &str) -> Result<HookAnswer, HookError> {
        let request =
            HookRequest { url: url.to_owned(), body: "{\"a\":1}".to_owned(), time_limit: Duration::from_millis(500) };
        Client::new(None).unwrap().post(&request)
    }

    #[test]
    fn a_document_is_posted_and_the_answer_read_whatever_its_status() {
        let (url, served) = serve_once("HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nno room");
        assert_eq!(post(&url).unwrap(), HookAnswer { status: 400, body: b"no room".to_vec() });
        let asked = served.join().unwrap();
        assert!(asked.starts_with("POST /allocate?code=c2VjcmV0\n"), "{asked}");
        assert!(asked.contains("content-type: application/json"), "{asked}");
        assert!(asked.ends_with("{\"a\":1}"), "{asked}");
    }

    #[test]
    fn a_redirect_is_not_followed_and_a_long_answer_not_read() {
        let (url, _served) =
            serve_once("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(post(&url).unwrap().status, 302);
        let (url, _served) = serve_once("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n");
        assert!(post(&url).is_err());
    }

    #[test]
    fn who_does_not_answer_is_told_apart_from_who_is_not_there() {
        let (url, _served) = serve_once("");
        assert_eq!(post(&url), Err(HookError::TimedOut));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = post(&format!("http://{closed}/?code=c2VjcmV0")).unwrap_err();
        assert!(matches!(&error, HookError::Unreachable(text) if !text.contains("c2VjcmV0")), "{error}");
    }
}
