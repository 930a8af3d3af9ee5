//! A trace says what each part of a condition came to, or why it came to nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the relaxation for test functions misses"
)]

mod common;

use common::{Message, program};
use nave_routing::{PartResult, Verdict, trace};

fn parts(condition: &str, message: &Message) -> (Verdict, Vec<(String, PartResult)>) {
    let traced = trace(&program(condition), &message.view());
    let written = |start, end| condition.get(start as usize..end as usize).unwrap().to_owned();
    let parts = traced.parts.into_iter().map(|part| (written(part.span.start, part.span.end), part.result));
    (traced.verdict, parts.collect())
}

fn result(condition: &str, part: &str, message: &Message) -> PartResult {
    let (_, parts) = parts(condition, message);
    parts.into_iter().rev().find(|(written, _)| written == part).unwrap_or_else(|| panic!("no part {part}")).1
}

#[test]
fn each_part_has_its_value_or_the_reason_for_none() {
    let value = |text: &str| PartResult::Value(text.into());
    let message = Message::json(r#"{"t":31.5,"list":[1,{"a":null}],"long":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#)
        .with("temperature", "32");
    let condition = "$body.t > 30 AND temperature > 30 AND missing = 'x' AND $body.none = 1";
    assert_eq!(parts(condition, &message).0, Verdict::Undefined);
    for (part, expected) in [
        ("$body.t", value("31.5")),
        ("$body.t > 30", value("true")),
        ("temperature", value("'32'")),
        ("temperature > 30", PartResult::WrongTypes),
        ("missing", PartResult::NoProperty),
        ("missing = 'x'", PartResult::UndefinedOperand),
        ("$body.none", PartResult::NoPath),
        (condition, PartResult::UndefinedOperand),
    ] {
        assert_eq!(result(condition, part, &message), expected, "{part}");
    }
    assert_eq!(result("true OR missing = 'x'", "missing", &message), PartResult::Skipped);
    assert_eq!(result("$body.t IN [1, 31.5]", "31.5", &message), value("31.5"));
    assert_eq!(result("is_array($body.list)", "$body.list", &message), value(r#"[1,{"a":null}]"#));
    assert_eq!(result("undefined = 1", "undefined", &message), PartResult::Constant);
    let PartResult::Value(long) = result("is_string($body.long)", "$body.long", &message) else { panic!() };
    assert_eq!(long.chars().count(), nave_routing::MAX_SHOWN_CHARACTERS + 1);
    let mut text = Message::json(r#"{"t":1}"#);
    text.system.content_type = Some("text/plain");
    assert_eq!(result("$body.t = 1", "$body.t", &text), PartResult::NoBody);
    assert!(PartResult::NoBody.to_string().contains("application/json"));
}
