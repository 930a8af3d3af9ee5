//! Whatever the compiler and the device send, nothing panics and every run ends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the relaxation for test functions misses"
)]

mod common;

use common::{Message, try_program};
use nave_routing::{
    ArithmeticOperator, ComparisonOperator, Function, MessageView, Node, ProgramParts, Source, Span, Step,
    SystemProperty, TwinPath, TwinSection, TwinText, Verdict, evaluate, evaluate_observed,
};
use proptest::prelude::*;

const FUNCTIONS: [Function; 27] = [
    Function::IsDefined,
    Function::IsNull,
    Function::IsBool,
    Function::IsNumber,
    Function::IsString,
    Function::IsArray,
    Function::IsObject,
    Function::IsPrimitive,
    Function::Contains,
    Function::StartsWith,
    Function::EndsWith,
    Function::Length,
    Function::Lower,
    Function::Upper,
    Function::Substring,
    Function::IndexOf,
    Function::Concat,
    Function::Abs,
    Function::Exp,
    Function::Power,
    Function::Square,
    Function::Sqrt,
    Function::Ceiling,
    Function::Floor,
    Function::Sign,
    Function::AsNumber,
    Function::ArrayContains,
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof!["[abAB]".prop_map(Step::Member), (0..3_u32).prop_map(Step::Element)];
    prop::collection::vec(step, 0..3)
}

/// A node whose children are drawn from the given indices.
fn node(index: impl Strategy<Value = u32> + Clone + 'static) -> impl Strategy<Value = Node> {
    let many = prop::collection::vec(index.clone(), 0..4);
    let two = (index.clone(), index.clone());
    prop_oneof![
        Just(Node::Undefined),
        Just(Node::Null),
        any::<bool>().prop_map(Node::Boolean),
        any::<f64>().prop_map(Node::Number),
        "[ab0-9]{0,3}".prop_map(Node::Text),
        many.clone().prop_map(Node::List),
        prop::collection::vec("[ab]{0,1}", 0..3).prop_map(Node::ApplicationProperty),
        prop::sample::select(&SystemProperty::ALL[..]).prop_map(Node::SystemProperty),
        steps().prop_map(Node::Body),
        steps().prop_map(|steps| Node::Twin(TwinPath { section: TwinSection::Tags, steps })),
        index.clone().prop_map(Node::Negate),
        index.clone().prop_map(Node::Not),
        two.clone().prop_map(|(left, right)| Node::Arithmetic { operator: ArithmeticOperator::Remainder, left, right }),
        two.prop_map(|(left, right)| Node::Comparison { operator: ComparisonOperator::Less, left, right }),
        (index, many.clone(), any::<bool>()).prop_map(|(value, candidates, negated)| Node::Membership {
            value,
            candidates,
            negated
        }),
        (prop::sample::select(&FUNCTIONS[..]), many.clone())
            .prop_map(|(function, arguments)| Node::Call { function, arguments }),
        many.clone().prop_map(Node::All),
        many.prop_map(Node::Any),
    ]
}

/// Makes a valid program of random nodes: children are the latest nodes that no other uses; a node for which there are
/// too few is left out; what is left over at the end becomes the operands of one AND.
fn plant(random: Vec<Node>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut free: Vec<u32> = Vec::new();
    for mut node in random {
        let wanted = match &node {
            Node::Negate(_) | Node::Not(_) | Node::Membership { .. } => 1,
            Node::Arithmetic { .. } | Node::Comparison { .. } => 2,
            Node::Call { function, .. } => arity(*function),
            Node::All(children) | Node::Any(children) => children.len().max(2),
            _ => 0,
        };
        if free.len() < wanted {
            continue;
        }
        let taken = free.split_off(free.len() - wanted);
        match &mut node {
            Node::Negate(child) | Node::Not(child) => *child = taken[0],
            Node::Arithmetic { left, right, .. } | Node::Comparison { left, right, .. } => {
                (*left, *right) = (taken[0], taken[1]);
            }
            Node::Call { arguments: children, .. } | Node::All(children) | Node::Any(children) => *children = taken,
            Node::List(children) => children.clear(),
            Node::Membership { candidates, value, .. } => {
                *value = taken[0];
                let first = u32::try_from(nodes.len()).unwrap();
                nodes.extend([Node::Number(1.0), Node::Text("a".into()), Node::Null, Node::List(vec![first + 2])]);
                *candidates = vec![first, first + 1, first + 3];
            }
            Node::Number(number) if !number.is_finite() => *number = 0.5,
            Node::ApplicationProperty(names) => *names = vec!["a".into()],
            Node::Body(steps) if steps.is_empty() => steps.push(Step::Member("a".into())),
            _ => {}
        }
        free.push(u32::try_from(nodes.len()).unwrap());
        nodes.push(node);
    }
    if free.len() > 1 {
        nodes.push(Node::All(free));
    }
    nodes
}

fn arity(function: Function) -> usize {
    match function {
        Function::Contains
        | Function::StartsWith
        | Function::EndsWith
        | Function::IndexOf
        | Function::Substring
        | Function::Concat
        | Function::Power
        | Function::ArrayContains => 2,
        _ => 1,
    }
}

fn parts(nodes: Vec<Node>) -> ProgramParts {
    ProgramParts {
        version: 1,
        spans: vec![Span::default(); nodes.len()],
        root: u32::try_from(nodes.len()).unwrap().wrapping_sub(1),
        needs_body: nodes.iter().any(|node| matches!(node, Node::Body(_))),
        needs_twin: nodes.iter().any(|node| matches!(node, Node::Twin(_))),
        nodes,
    }
}

fn message(body: &[u8]) -> Message {
    let twin = TwinText { tags: Some(r#"{"a":{"b":[1,"a"]},"b":"1"}"#), ..TwinText::default() };
    Message { body: body.to_vec(), twin, ..Message::json("") }.with("a", "1").with("b", "a")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_are_refused_or_run(nodes in prop::collection::vec(node(0..12_u32), 0..12), root in 0..14_u32, version in 0..3_u32) {
        let parts = ProgramParts { root, version, ..parts(nodes) };
        if let Ok(program) = parts.validate() {
            let _ = evaluate(&program, &message(br#"{"a":[1,2],"b":"x"}"#).view());
        }
    }

    #[test]
    fn valid_programs_run(nodes in prop::collection::vec(node(Just(0)), 1..40)) {
        let nodes = plant(nodes);
        prop_assume!(!nodes.is_empty());
        let program = parts(nodes).validate().map_err(|error| TestCaseError::fail(error.to_string()))?;
        let message = message(br#"{"a":[1,2],"b":"x"}"#);
        let view = message.view();
        let mut evaluated = vec![0; program.nodes().len()];
        let observed = evaluate_observed(&program, &view, |index, _| evaluated[index as usize] += 1);
        prop_assert_eq!(observed, evaluate(&program, &view));
        prop_assert!(evaluated.iter().all(|&times| times <= 1));
        prop_assert_eq!(evaluated.last(), Some(&1));
    }

    #[test]
    fn random_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..64), encoding in prop::sample::select(vec!["utf-8", "utf-16", "utf-32"])) {
        let mut message = message(&body);
        message.system.content_encoding = Some(encoding);
        let view = message.view();
        let readable = view.body_json().is_some();
        if encoding == "utf-8" {
            // The library's own value accepts and refuses the same bytes.
            prop_assert_eq!(readable, serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        }
        prop_assert_eq!(message.verdict("is_defined($body.a) AND FALSE"), Verdict::False);
    }

    /// A number is the same double in a condition, a body and a property.
    #[test]
    fn numbers_are_the_nearest_double_everywhere(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
        let written = format!("{number:e}");
        let message = Message::json(&format!(r#"{{"n":{written}}}"#)).with("n", &written);
        for condition in [format!("$body.n = {written}"), format!("as_number(n) = {written}")] {
            prop_assert_eq!(message.verdict(&condition), Verdict::True, "{}", condition);
        }
    }

    #[test]
    fn json_is_read_as_the_library_reads_it(text in json_text()) {
        let ours: Option<nave_routing::Json> = nave_routing::Json::parse(text.as_bytes());
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json::to_string(&ours.unwrap()).unwrap(), serde_json::to_string(&theirs).unwrap());
    }

    /// Pieces that often make a condition: each program that the compiler makes passes the host's checks and runs.
    #[test]
    fn compiled_programs_pass_the_hosts_checks(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "$body.a", "$body.b[0]", "$twin.tags.a.b", "$messageId", "1", "'a'", "null", "true", "(", ")", "[1, 'a']",
            "=", "<", "!=", "+", "-", "%", "AND", "OR", "NOT", "IN", "NIN", "is_defined(a)", "length($body.b)", "as_number(a)",
            "concat(a, $body.b)", "array_contains($body.a, 1)", "substring(b, 0)", "is_null(", "abs(",
        ]), 1..9),
    ) {
        if let Some(program) = try_program(&pieces.join(" "), Source::DeviceMessages) {
            let view = MessageView::new(Source::DeviceMessages, b"");
            let _ = (evaluate(&program, &view), evaluate(&program, &message(br#"{"a":[1,2],"b":"x"}"#).view()));
        }
    }
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-cé]{0,2}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
    .prop_map(|value| value.to_string())
}

/// The highest tree and the deepest body need a fraction of a thread's stack, even without optimisation.
#[test]
fn the_stack_is_bounded() {
    let run = || {
        let sum = format!("{}0", "$body.a + ".repeat(126));
        assert_eq!(Message::json(r#"{"a":1}"#).verdict(&format!("{sum} = 126")), Verdict::True);
        let nested = format!(r#"{{"a":{0}{1},"b":[{0}{1}]}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(Message::json(&nested).verdict("array_contains($body.b, $body.a)"), Verdict::True);
    };
    std::thread::Builder::new().stack_size(512 * 1024).spawn(run).unwrap().join().unwrap();
}

/// A condition that repeats an expensive function, on the largest message: the work is bounded, so that it becomes
/// undefined instead of slow.
#[test]
fn expensive_conditions_end() {
    let body = format!(r#"{{"a":"{}"}}"#, "x".repeat(256 * 1024));
    let message = Message::json(&body);
    let cheap = "contains($body.a, 'y')";
    assert_eq!(message.verdict(cheap), Verdict::False);
    let expensive = vec![cheap; 300].join(" OR ");
    assert_eq!(message.verdict(&expensive), Verdict::Undefined);
    let doubled = (0..6).fold("$body.a".to_owned(), |text, _| format!("concat({text}, {text})"));
    assert_eq!(message.verdict(&format!("length({doubled}) > 0")), Verdict::Undefined);
}
