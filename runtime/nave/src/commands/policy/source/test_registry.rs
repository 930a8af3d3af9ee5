//! A registry for tests, after the distribution specification: content, uploads in one piece, manifests by tag and digest,
//! and both kinds of authorisation. It also has plain files.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use nave_tests::http::Request;

use super::sha256;

/// Who may do anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    Nothing,
    Basic,
    Bearer,
}

#[derive(Default)]
struct Content {
    /// By path without its query.
    stored: HashMap<String, Vec<u8>>,
    uploads: usize,
}

/// A registry that serves until the process ends.
pub(super) struct TestRegistry {
    host: String,
    content: Arc<Mutex<Content>>,
}

impl TestRegistry {
    pub(super) fn start() -> Self {
        Self::demanding(Demand::Nothing)
    }

    pub(super) fn demanding(demand: Demand) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let content = Arc::new(Mutex::new(Content::default()));
        let (shared, named) = (Arc::clone(&content), host.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (content, host) = (Arc::clone(&shared), named.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &content, demand, &host));
            }
        });
        Self { host, content }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn put_file(&self, path: &str, bytes: &[u8]) {
        self.content.lock().unwrap().stored.insert(path.to_owned(), bytes.to_vec());
    }

    /// Pieces of content that were uploaded.
    pub(super) fn uploads(&self) -> usize {
        self.content.lock().unwrap().uploads
    }

    pub(super) fn damage_blobs(&self) {
        self.damage("/blobs/");
    }

    pub(super) fn damage_manifests(&self) {
        self.damage("/manifests/");
    }

    fn damage(&self, part: &str) {
        for (path, bytes) in &mut self.content.lock().unwrap().stored {
            if path.contains(part) {
                bytes.push(b' ');
            }
        }
    }
}

fn serve(stream: &TcpStream, content: &Mutex<Content>, demand: Demand, host: &str) {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = Request::read(&mut reader) {
        let (status, headers, body) = answer(&asked, &mut content.lock().unwrap(), demand, host);
        let body = if asked.method == "HEAD" { Vec::new() } else { body };
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        let mut writer = stream;
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&body)).is_err() {
            return;
        }
    }
}

fn answer(asked: &Request, content: &mut Content, demand: Demand, host: &str) -> (u16, String, Vec<u8>) {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let authorization = asked.field("authorization").unwrap_or_default();
    let basic = format!("Basic {}", STANDARD.encode("user:pass"));
    let scope = if asked.method == "GET" || asked.method == "HEAD" { "pull" } else { "pull,push" };
    if path == "/token" {
        return if authorization == basic {
            let kind = if query.contains("push") { "push" } else { "pull" };
            (200, String::new(), format!("{{\"token\":\"{kind}\"}}").into_bytes())
        } else {
            (401, String::new(), Vec::new())
        };
    }
    let may = match demand {
        Demand::Nothing => true,
        Demand::Basic => authorization == basic,
        Demand::Bearer => authorization == "Bearer push" || (scope == "pull" && authorization == "Bearer pull"),
    };
    if !may {
        let challenge = match demand {
            Demand::Bearer => {
                format!("Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:x:{scope}\"")
            }
            _ => "Basic realm=\"test\"".to_owned(),
        };
        return (401, format!("WWW-Authenticate: {challenge}\r\n"), Vec::new());
    }
    match asked.method.as_str() {
        "GET" | "HEAD" => match content.stored.get(path) {
            // Without the header that states the digest where a manifest was damaged, it would only be noticed here.
            Some(bytes) if path.contains("/manifests/") => {
                let digest = sha256(bytes.trim_ascii_end());
                (200, format!("Docker-Content-Digest: sha256:{digest}\r\n"), bytes.clone())
            }
            Some(bytes) => (200, String::new(), bytes.clone()),
            None => (404, String::new(), b"{\"errors\":[]}".to_vec()),
        },
        // With a query, as some registries have one.
        "POST" => (202, format!("Location: {}?state=1\r\n", path.replace("/uploads/", "/upload-1")), Vec::new()),
        "PUT" if path.ends_with("/upload-1") => {
            let digest = query.split('&').find_map(|part| part.strip_prefix("digest=")).unwrap();
            if digest != format!("sha256:{}", sha256(&asked.body)) || !query.contains("state=1") {
                return (400, String::new(), Vec::new());
            }
            content.uploads += 1;
            content.stored.insert(path.replace("upload-1", digest), asked.body.clone());
            (201, String::new(), Vec::new())
        }
        "PUT" => {
            let digest = format!("sha256:{}", sha256(&asked.body));
            let (repository, _) = path.rsplit_once('/').unwrap();
            content.stored.insert(format!("{repository}/{digest}"), asked.body.clone());
            content.stored.insert(path.to_owned(), asked.body.clone());
            (201, format!("Docker-Content-Digest: {digest}\r\n"), Vec::new())
        }
        _ => (405, String::new(), Vec::new()),
    }
}
