//! What the OpenAPI document promises, held against every answer that the tests of this crate get.

use std::sync::OnceLock;

use boon::{Compiler, SchemaIndex, Schemas};
use futures_util::FutureExt as _;
use http::Request;
use nave_http::Surface;
use nave_http::service::{Body, HttpService as _, Peer, ResponseBody};
use serde_json::{Value, json};

use crate::world::{Answer, HUB, World};

const RESOURCE: &str = "http://nave.test/openapi.json";

/// The forms of errors: the surface is chosen by the host, and one that nobody has answers as a hub does.
const ERRORS: [&str; 3] = ["HubError", "MethodError", "DpsError"];

pub(crate) struct Contract {
    pub(crate) document: Value,
    schemas: Schemas,
    compiled: Vec<(String, SchemaIndex)>,
}

/// The contract of the surface under test.
pub(crate) fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| Contract::of(&World::bare_surface()))
}

impl Contract {
    fn of(surface: &Surface) -> Self {
        let request = Request::builder().uri("/openapi.json").header("Host", HUB).body(Body::empty()).unwrap();
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), tls: None };
        let answer = surface.call(peer, request).now_or_never().expect("nothing to wait for");
        assert_eq!(answer.status(), 200);
        let ResponseBody::Bytes(bytes) = answer.into_body() else { panic!("a stream") };
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.add_resource(RESOURCE, json!({ "components": document["components"] })).unwrap();
        let names = document["components"]["schemas"].as_object().unwrap().keys();
        let compiled = names
            .map(|name| {
                let place = format!("{RESOURCE}#/components/schemas/{name}");
                (
                    name.clone(),
                    compiler.compile(&place, &mut schemas).unwrap_or_else(|error| panic!("{name}: {error:#}")),
                )
            })
            .collect();
        Self { document, schemas, compiled }
    }

    fn validate(&self, name: &str, value: &Value) -> Result<(), String> {
        let (_, index) = self.compiled.iter().find(|(known, _)| known == name).expect("a known schema");
        self.schemas.validate(value, *index).map_err(|error| format!("{error:#}"))
    }

    /// The operation for a request.
    pub(crate) fn operation(&self, method: &str, uri: &str) -> Option<&Value> {
        let path = uri.split('?').next().unwrap().trim_end_matches('/');
        let mut paths = self.document["paths"].as_object().unwrap().iter();
        paths.find_map(|(template, item)| {
            let (mut pieces, mut words) = (template.split('/'), path.split('/'));
            loop {
                match (pieces.next(), words.next()) {
                    (None, None) => return item.get(method.to_ascii_lowercase()),
                    (Some(piece), Some(word)) if piece.starts_with('{') || piece.eq_ignore_ascii_case(word) => {}
                    _ => return None,
                }
            }
        })
    }

    #[track_caller]
    pub(crate) fn check(&self, method: &str, uri: &str, answer: &Answer) {
        let Some(operation) = self.operation(method, uri) else {
            assert!(answer.status >= 400 || method == "HEAD", "{method} {uri} is not in the document: {answer:?}");
            return;
        };
        let responses = &operation["responses"];
        let promised = responses.get(answer.status.to_string());
        let kept = promised.is_some_and(|promised| self.keeps(promised, answer).is_ok());
        if kept {
            return;
        }
        if answer.status >= 400 {
            let document: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            assert!(ERRORS.iter().any(|form| self.validate(form, &document).is_ok()), "{method} {uri}: {answer:?}");
            return;
        }
        let why =
            promised.map_or_else(|| "no such status".to_owned(), |promised| self.keeps(promised, answer).unwrap_err());
        panic!("{method} {uri} answers otherwise than the document says: {why}\n{answer:?}");
    }

    fn keeps(&self, promised: &Value, answer: &Answer) -> Result<(), String> {
        let Some(content) = promised.get("content").and_then(Value::as_object) else {
            return if answer.body.is_empty() { Ok(()) } else { Err("a body".to_owned()) };
        };
        let (media, content) = content.iter().next().expect("a media type");
        let sent = answer.header("content-type").unwrap_or_default();
        let sent = sent.split(';').next().unwrap();
        // What a device receives has the type that its sender said, if any.
        if sent != media && media != "application/octet-stream" {
            return Err(format!("{sent}, not {media}"));
        }
        let Some(name) = content["schema"]["$ref"].as_str().and_then(|text| text.rsplit('/').next()) else {
            return Ok(());
        };
        let documents =
            if media == "application/x-ndjson" { answer.body.lines().collect() } else { vec![&*answer.body] };
        documents.into_iter().try_for_each(|text| {
            let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
            self.validate(name, &value)
        })
    }
}

/// Tells whether a request reaches an operation: whatever else is wrong with it, the path and the method are not.
pub(crate) fn is_reached(answer: &Answer) -> bool {
    let unknown = ["There is nothing at this path.", "is not possible at this path."];
    !unknown.iter().any(|text| answer.body.contains(text))
}
