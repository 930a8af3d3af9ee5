//! The OpenAPI document and the router say the same.

use serde_json::Value;

use crate::contract::{contract, is_reached};
use crate::world::{Answer, DPS, HUB, World};

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "PATCH", "DELETE"];

/// The request without any proof of who sends it, where the document says that it is served.
fn ask(world: &World, item: &Value, method: &str, path: &str) -> Answer {
    if item.get("servers").is_some() {
        return world.admin_request(method, path).send();
    }
    let host = match METHODS.iter().find_map(|method| item[method.to_ascii_lowercase()]["tags"][0].as_str()) {
        Some("provisioning" | "registration") => DPS,
        _ => HUB,
    };
    world.request(host, method, &format!("{path}?api-version=2021-04-12")).send()
}

#[test]
fn every_operation_of_the_document_is_served_and_no_other() {
    let world = World::new();
    let paths = contract().document["paths"].as_object().unwrap();
    for (template, item) in paths {
        let pieces: Vec<&str> =
            template.split('/').map(|piece| if piece.starts_with('{') { "x" } else { piece }).collect();
        let path = pieces.join("/");
        for method in METHODS {
            let answer = ask(&world, item, method, &path);
            let promised = contract().operation(method, &path).is_some();
            // What is part of the protocol and not of this release says so.
            let reached = is_reached(&answer) && !answer.body.contains("not available in this release");
            if template.starts_with("/admin/configuration")
                || template.starts_with("/admin/reload")
                || template.starts_with("/admin/backup")
            {
                assert_eq!(is_reached(&answer), promised, "{method} {path}: {answer:?}");
            } else {
                assert_eq!(reached, promised, "{method} {path}: {answer:?}");
            }
        }
    }
}

#[test]
fn nobody_is_served_without_proof_but_where_the_document_says_so() {
    let world = World::new();
    for (template, item) in contract().document["paths"].as_object().unwrap() {
        let path = template.replace(['{', '}'], "");
        for (method, operation) in operations(item) {
            let open = operation["security"].as_array().unwrap().iter().any(|way| way == &serde_json::json!({}));
            let answer = match item.get("servers") {
                Some(_) => world.admin_request(&method, &path).without("Authorization").send(),
                None => ask(&world, item, &method, &path),
            };
            assert_eq!(answer.status != 401, open, "{method} {path}: {answer:?}");
        }
    }
}

fn operations(item: &Value) -> impl Iterator<Item = (String, &Value)> {
    let members = item.as_object().unwrap().iter().filter(|(key, _)| !matches!(key.as_str(), "parameters" | "servers"));
    members.map(|(method, operation)| (method.to_ascii_uppercase(), operation))
}

#[test]
fn the_document_is_there_for_everybody_at_every_name() {
    let world = World::new();
    for host in [HUB, DPS, "localhost"] {
        let answer = world.request(host, "GET", "/openapi.json").send();
        assert_eq!(answer.json(), contract().document);
    }
    assert_eq!(world.request(HUB, "PUT", "/openapi.json?api-version=2021-04-12").send().status, 404);
    assert_ne!(world.request("elsewhere", "GET", "/openapi.json").send().status, 200);
}
