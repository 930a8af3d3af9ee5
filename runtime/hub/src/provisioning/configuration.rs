//! The configuration document of an enrollment for its policy, and the schema that the policy demands of it.

use boon::{CompileError, Compiler, Draft, SchemaIndex, Schemas, UrlLoader, ValidationError};
use nave_model::Json;
use serde_json::Value;

/// Longest configuration document, in bytes: it is part of every request to the policy.
pub const MAX_POLICY_CONFIGURATION_BYTES: usize = 16 << 10;

/// Longest schema, in bytes.
const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// Most members and elements of a schema with every reference written out. Validation has no deadline and runs where
/// connections are served; a schema is a stranger's, and references can double with each level.
const MAX_SCHEMA_NODES: usize = 10_000;

/// Longest chain of references; what refers to itself ends here.
const MAX_REFERENCES: usize = 32;

/// Most patterns of a schema, and longest one in bytes: each is compiled whenever the schema is used.
const MAX_PATTERNS: usize = 32;
const MAX_PATTERN_BYTES: usize = 256;

/// Where the schema is, for itself: a place that nothing can be loaded from.
const PLACE: &str = "nave:schema";

/// Reads the text that a policy gave as its schema, and checks that it can be used. References to other documents are not
/// followed, so a schema that has them cannot.
pub(crate) fn schema_of(text: &str) -> Result<Json, String> {
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(format!("it is longer than {MAX_SCHEMA_BYTES} bytes"));
    }
    let schema = Json::parse(text.to_owned()).map_err(|error| error.to_string())?;
    compile(&schema)?;
    Ok(schema)
}

/// Checks a configuration document. The error says where it breaks which rule.
pub(crate) fn check(schema: &Json, document: &Json) -> Result<(), String> {
    if document.text().len() > MAX_POLICY_CONFIGURATION_BYTES {
        return Err(format!("it is longer than {MAX_POLICY_CONFIGURATION_BYTES} bytes"));
    }
    let document = value(document)?;
    let (schemas, index) = compile(schema)?;
    schemas.validate(&document, index).map_err(|error| {
        let cause = innermost(&error);
        format!("{}, at '{}'", cause.kind, cause.instance_location)
    })
}

/// Patterns run in linear time, whatever the schema's author writes.
fn compile(schema: &Json) -> Result<(Schemas, SchemaIndex), String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V2020_12);
    compiler.use_loader(Box::new(Nothing));
    let document = value(schema)?;
    Cost::default().add(&document, &document, 0)?;
    compiler.add_resource(PLACE, document).map_err(|error| unusable(&error))?;
    let index = compiler.compile(PLACE, &mut schemas).map_err(|error| unusable(&error))?;
    Ok((schemas, index))
}

/// What using a schema can cost at most.
#[derive(Default)]
struct Cost {
    nodes: usize,
    patterns: usize,
}

impl Cost {
    /// Adds `node` of the schema `root`, found behind `references` references.
    fn add(&mut self, root: &Value, node: &Value, references: usize) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_SCHEMA_NODES {
            return Err(format!("with its references it has more than {MAX_SCHEMA_NODES} members"));
        }
        match node {
            Value::Array(elements) => elements.iter().try_for_each(|element| self.add(root, element, references)),
            Value::Object(members) => {
                members.iter().try_for_each(|(name, member)| self.add_member(root, name, member, references))
            }
            _ => Ok(()),
        }
    }

    fn add_member(&mut self, root: &Value, name: &str, member: &Value, references: usize) -> Result<(), String> {
        match (name, member) {
            ("$ref", Value::String(to)) => {
                if references >= MAX_REFERENCES {
                    return Err(format!("its references are recursive, or more than {MAX_REFERENCES} deep"));
                }
                let target = to.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                let target = target.ok_or_else(|| format!("the $ref '{to}' is not # and a JSON pointer into it"))?;
                self.add(root, target, references + 1)
            }
            ("$dynamicRef" | "$recursiveRef" | "$id" | "id" | "$anchor" | "$dynamicAnchor", Value::String(_)) => {
                Err(format!("it uses {name}; only $ref is known here"))
            }
            ("pattern", Value::String(pattern)) => self.add_pattern(pattern),
            ("patternProperties", Value::Object(by_pattern)) => {
                by_pattern.keys().try_for_each(|pattern| self.add_pattern(pattern))?;
                self.add(root, member, references)
            }
            _ => self.add(root, member, references),
        }
    }

    fn add_pattern(&mut self, pattern: &str) -> Result<(), String> {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS || pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "it has more than {MAX_PATTERNS} patterns, or one of more than {MAX_PATTERN_BYTES} bytes"
            ));
        }
        Ok(())
    }
}

fn unusable(error: &CompileError) -> String {
    match error {
        CompileError::ValidationError { src, .. } => {
            let cause = innermost(src);
            format!("{}, at '{}'", cause.kind, cause.instance_location)
        }
        error => error.to_string(),
    }
}

/// Loads nothing, neither from the network nor from files.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, _: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err("references to other documents are not followed".into())
    }
}

/// What is wrong, of a tree of reasons.
fn innermost<'a, 's, 'v>(error: &'a ValidationError<'s, 'v>) -> &'a ValidationError<'s, 'v> {
    let mut error = error;
    while let Some(cause) = error.causes.first() {
        error = cause;
    }
    error
}

fn value(json: &Json) -> Result<Value, String> {
    json.value().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn a_document_is_held_against_the_schema() {
        let schema = schema_of(
            r#"{"type":"object","properties":{"region":{"enum":["north","south"]},"n":{"type":"integer","minimum":1}},
                "required":["region"],"additionalProperties":false}"#,
        )
        .unwrap();
        assert_eq!(check(&schema, &json(r#"{"region":"north","n":3}"#)), Ok(()));
        let error = check(&schema, &json(r#"{"region":"north","n":0}"#)).unwrap_err();
        assert!(error.contains("/n"), "{error}");
        assert!(check(&schema, &json("{}")).unwrap_err().contains("region"));
        assert!(check(&schema, &json(&format!("{{\"region\":\"{}\"}}", "x".repeat(20_000)))).is_err());
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        for wrong in [
            "no json",
            r#"{"type":"nonsense"}"#,
            r#"{"$ref":"https://example.net/other.json"}"#,
            r#"{"pattern":"(a{1000}){1000}"}"#,
            &format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000)),
        ] {
            assert!(schema_of(wrong).is_err(), "{}", &wrong[..wrong.len().min(40)]);
        }
        assert!(schema_of("true").is_ok());
    }

    #[test]
    fn a_schema_that_costs_too_much_is_refused() {
        let doubled = |levels: usize| {
            let definitions: Vec<String> = (0..levels)
                .map(|n| format!(r##""{n}":{{"allOf":[{{"$ref":"#/$defs/{0}"}},{{"$ref":"#/$defs/{0}"}}]}}"##, n + 1))
                .collect();
            format!(r##"{{"$ref":"#/$defs/0","$defs":{{{},"{levels}":true}}}}"##, definitions.join(","))
        };
        assert!(schema_of(&doubled(3)).is_ok());
        let chained: Vec<String> = (0..100).map(|n| format!(r##""{n}":{{"$ref":"#/$defs/{}"}}"##, n + 1)).collect();
        for wrong in [
            doubled(20),
            format!(r##"{{"$ref":"#/$defs/0","$defs":{{{},"100":true}}}}"##, chained.join(",")),
            r##"{"properties":{"child":{"$ref":"#"}}}"##.to_owned(),
            format!(r#"{{"pattern":"{}"}}"#, "a".repeat(300)),
            format!(r#"{{"allOf":[{}]}}"#, vec![r#"{"pattern":"a"}"#; 40].join(",")),
            r##"{"$dynamicRef":"#x"}"##.to_owned(),
        ] {
            assert!(schema_of(&wrong).is_err(), "{}", &wrong[..wrong.len().min(60)]);
        }
    }
}
