//! `GET /openapi.json`: what the surfaces serve, as an OpenAPI 3.1 document made from the tables that route requests.
//!
//! Only the schemas of bodies are written by hand (`components.json`); the tests of this crate hold every answer that they get
//! against them. The document is the same for every hub and has nothing that is not public, so anybody may read it.

use std::sync::LazyLock;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::reply::{self, Reply};
use crate::table::{Access, Answer, Content, Route};
use crate::{admin, dps, hub};

/// Where it is.
pub(crate) const PATH: &str = "/openapi.json";

/// Schemas, parameters and ways to prove who one is.
const COMPONENTS: &str = include_str!("components.json");

/// Made once: it is the same for every request.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The answer to a request for it.
pub(crate) fn answer() -> Reply {
    reply::json(StatusCode::OK, DOCUMENT.as_str())
}

fn document() -> Value {
    let mut paths = Map::new();
    add(&mut paths, "hub", hub::ROUTES);
    add(&mut paths, "provisioning", dps::ROUTES);
    add(&mut paths, "administration", admin::ROUTES);
    paths.insert(PATH.to_owned(), json!({ "get": own_operation() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Nave",
            "summary": "The REST interfaces of hubs, of the provisioning service, and of the operator",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{
            "url": "https://{host}",
            "description": "The Host header chooses: a hub's name its own interface, a name of the provisioning service that one's",
            "variables": { "host": { "default": "localhost" } },
        }],
        "tags": [
            { "name": "hub", "description": "For services" },
            { "name": "device", "description": "For devices, at their hub" },
            { "name": "provisioning", "description": "For services" },
            { "name": "registration", "description": "For devices, at the provisioning service" },
            { "name": "administration", "description": "For the operator: HTTP on the admin listener" },
        ],
        "paths": paths,
        // A member that cannot be read is missing, and a test finds out.
        "components": serde_json::from_str::<Value>(COMPONENTS).unwrap_or_default(),
    })
}

/// The operation that gives the document.
fn own_operation() -> Value {
    json!({
        "operationId": "openapi",
        "summary": "This document.",
        "tags": ["hub"],
        "security": [{}],
        "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": { "type": "object" } } } } },
    })
}

fn add<D>(paths: &mut Map<String, Value>, tag: &'static str, routes: &[Route<D>]) {
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| item(route));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.verb.name().to_owned(), operation(tag, route));
        }
    }
}

/// What all operations at a path have in common.
fn item<D>(route: &Route<D>) -> Value {
    let names = route.path.split('/').filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let mut item = Map::new();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(parameters));
    }
    if matches!(route.access, Access::Admin | Access::Metrics | Access::Anyone) {
        let url = "http://127.0.0.1:{port}";
        let variables = json!({ "port": { "default": "0", "description": "Named in connection.json" } });
        item.insert("servers".to_owned(), json!([{ "url": url, "variables": variables }]));
    }
    Value::Object(item)
}

fn operation<D>(tag: &'static str, route: &Route<D>) -> Value {
    let (tag, version, security, error) = match route.access {
        Access::Hub(_) if route.path.ends_with("/methods") => (tag, true, SIGNATURE, Some("MethodError")),
        Access::Hub(_) => (tag, route.path != "/events", SIGNATURE, Some("HubError")),
        Access::Device => ("device", true, DEVICE, Some("HubError")),
        Access::Dps(_) => (tag, true, SIGNATURE, Some("DpsError")),
        Access::Registration => ("registration", true, DEVICE, Some("DpsError")),
        Access::Admin | Access::Metrics => (tag, false, TOKEN, Some("DpsError")),
        Access::Anyone => (tag, false, NOBODY, None),
    };
    let version = version.then_some("apiVersion");
    let parameters: Vec<Value> = version.iter().chain(route.takes).map(|name| reference("parameters", name)).collect();
    let mut responses: Map<String, Value> = Map::new();
    for Answer(status, body) in route.answers {
        responses.insert(status.to_string(), response(*status, *body));
    }
    if let Some(error) = error {
        let content = content(Content("application/json", Some(error)));
        responses.insert("default".to_owned(), json!({ "description": "An error", "content": content }));
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "tags": [tag],
        "security": security.iter().map(|scheme| if scheme.is_empty() { json!({}) } else { json!({ *scheme: [] }) }).collect::<Value>(),
        "responses": responses,
    });
    if let Some(members) = operation.as_object_mut() {
        if !parameters.is_empty() {
            members.insert("parameters".to_owned(), Value::Array(parameters));
        }
        if let Some(body) = route.body {
            members.insert("requestBody".to_owned(), json!({ "content": content(body) }));
        }
        if let Some(rights) = rights(route.access) {
            members.insert("description".to_owned(), json!(format!("Needs the right {rights}.")));
        }
    }
    operation
}

const SIGNATURE: &[&str] = &["sharedAccessSignature"];
const DEVICE: &[&str] = &["sharedAccessSignature", "clientCertificate"];
const TOKEN: &[&str] = &["adminToken"];
const NOBODY: &[&str] = &[""];

fn rights(access: Access) -> Option<String> {
    match access {
        Access::Hub(rights) => Some(format!("{rights:?}")),
        Access::Dps(rights) => Some(format!("{rights:?}")),
        _ => None,
    }
}

fn response(status: u16, body: Option<Content>) -> Value {
    let description =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("An answer");
    match body {
        Some(body) => json!({ "description": description, "content": content(body) }),
        None => json!({ "description": description }),
    }
}

fn content(Content(media, schema): Content) -> Value {
    let schema = schema.map_or_else(|| json!({}), |name| json!({ "schema": reference("schemas", name) }));
    json!({ media: schema })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(text)) = members.get("$ref") {
                    found.push(text.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_reference_a_target() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for kind in ["schemas", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                assert!(found.contains(&format!("#/components/{kind}/{name}")), "nobody needs {kind}/{name}");
            }
        }
        let operations = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
        let mut names: Vec<_> = operations.filter_map(|(_, operation)| operation["operationId"].as_str()).collect();
        let all = names.len();
        assert_eq!(
            all,
            hub::ROUTES.len() + dps::ROUTES.len() + admin::ROUTES.len() + 1,
            "no two rows are one operation"
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
