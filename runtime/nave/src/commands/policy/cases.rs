//! Files of cases for `nave policy test`.

use std::fs;
use std::path::{Path, PathBuf};

use nave_engine::allocation::Request;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::document::RequestDocument;
use crate::failure::Failure;

/// Largest file of cases.
const MAX_FILE: u64 = 64 << 20;

/// A request and what a policy must answer.
pub(super) struct Case {
    pub(super) file: PathBuf,
    pub(super) name: String,
    pub(super) request: Request,
    /// As [`nave_hub::policy::outcome_json`] writes it, or `{"error": KIND}`.
    pub(super) expected: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Members of every request that has not its own.
    #[serde(default)]
    defaults: Map<String, Value>,
    cases: Vec<CaseDocument>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseDocument {
    name: String,
    #[serde(default)]
    request: Map<String, Value>,
    expect: Value,
}

/// Reads a file, or all `.json` files of a folder in alphabetical order.
pub(super) fn read(path: &Path) -> Result<Vec<Case>, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format_args!("{}: {error}", path.display()));
    let mut files = vec![path.to_owned()];
    if fs::metadata(path).map_err(failed)?.is_dir() {
        files = fs::read_dir(path)
            .map_err(failed)?
            .map(|entry| Ok(entry.map_err(failed)?.path()))
            .collect::<Result<_, _>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
    }
    let mut cases = Vec::new();
    for file in &files {
        cases.extend(read_file(file).map_err(|error| Failure::usage(format_args!("{}: {error}", file.display())))?);
    }
    if cases.is_empty() {
        return Err(Failure::usage(format_args!("{}: there are no cases", path.display())));
    }
    Ok(cases)
}

fn read_file(file: &Path) -> Result<Vec<Case>, String> {
    let size = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("it has {size} bytes, more than the {MAX_FILE} that are read"));
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    parse(&text)?
        .into_iter()
        .map(|(name, request, expected)| Ok(Case { file: file.to_owned(), name, request, expected }))
        .collect()
}

fn parse(text: &str) -> Result<Vec<(String, Request, Value)>, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let defaults = document.defaults;
    let parse = |case: CaseDocument| {
        let at = |error: String| format!("case `{}`: {error}", case.name);
        let mut members = defaults.clone();
        members.extend(case.request);
        let request: RequestDocument =
            serde_json::from_value(Value::Object(members)).map_err(|error| at(error.to_string()))?;
        check_expectation(&case.expect).map_err(at)?;
        Ok((case.name.clone(), request.request().map_err(at)?, case.expect))
    };
    document.cases.into_iter().map(parse).collect()
}

/// A misspelled expectation would only ever fail, and nobody would see why.
fn check_expectation(expected: &Value) -> Result<(), String> {
    const KNOWN: [&str; 6] = ["assign", "usePolicy", "refuse", "retryAfter", "other", "error"];
    let fitting = expected
        .as_object()
        .is_some_and(|members| members.len() == 1 && members.keys().all(|member| KNOWN.contains(&member.as_str())));
    if fitting { Ok(()) } else { Err(format!("`expect` is an object with one of the members {}", KNOWN.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_defaults_that_it_does_not_replace() {
        let text = r#"{
            "defaults": { "registrationId": "a", "payload": {"x": 1, "y": 2} },
            "cases": [
                { "name": "plain", "expect": { "refuse": "no" } },
                { "name": "own", "request": { "payload": {"x": 3} }, "expect": { "assign": { "hub": "h" } } }
            ]
        }"#;
        let cases = parse(text).unwrap();
        assert_eq!(cases[0].1.payload_json.as_deref(), Some(r#"{"x":1,"y":2}"#));
        assert_eq!(cases[1].1.payload_json.as_deref(), Some(r#"{"x":3}"#));
        assert_eq!((cases[1].0.as_str(), cases[1].1.registration_id.as_str()), ("own", "a"));
    }

    #[test]
    fn mistakes_name_the_case() {
        let with = |case: &str| parse(&format!(r#"{{"cases":[{case}]}}"#)).err().unwrap();
        assert!(with(r#"{"name":"n","expect":{"asign":{}}}"#).contains("case `n`: `expect`"));
        assert!(with(r#"{"name":"n","expect":{}}"#).contains("case `n`"));
        assert!(
            with(r#"{"name":"n","request":{"hub":[]},"expect":{"refuse":""}}"#)
                .contains("case `n`: unknown field `hub`")
        );
        assert!(with(r#"{"expect":{"refuse":""}}"#).contains("name"));
    }

    #[test]
    fn a_folder_is_read_in_alphabetical_order_and_an_empty_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(Failure::Usage(_))));
        for name in ["b.json", "a.json", "README.md"] {
            let text = format!(r#"{{"cases":[{{"name":"{name}","expect":{{"refuse":""}}}}]}}"#);
            fs::write(dir.path().join(name), text).unwrap();
        }
        let names: Vec<_> = read(dir.path()).unwrap().into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["a.json", "b.json"]);
        assert_eq!(read(&dir.path().join("b.json")).unwrap().len(), 1);
        assert!(read(&dir.path().join("c.json")).is_err());
    }
}
