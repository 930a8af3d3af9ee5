//! Three readings of the language agree on random conditions and random messages: the matcher, which decides all routes of
//! a hub together, the interpreter, which runs one program, and an evaluator written from the specification.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the relaxation for test functions misses"
)]

mod common;
mod spec;

use std::collections::BTreeSet;

use common::try_program;
use nave_routing::{
    EndpointName, MessageView, Program, Route, RouteName, RouteTable, Source, SystemProperties, TableParts, TwinText,
    Verdict, evaluate,
};
use proptest::prelude::*;
use spec::{Expr, Seg, Spec, SpecMessage, json, text, verdict};

const NUMBERS: [f64; 7] = [-2.0, 0.0, 0.5, 1.0, 2.0, 3.0, 1e20];
const TEXTS: [&str; 8] = ["", "a", "ab", "b", "abc", "1", "2.0", "ö"];
const NAMES: [&str; 4] = ["a", "b", "c", "ä"];

fn constant() -> impl Strategy<Value = Spec> {
    prop_oneof![
        4 => prop::sample::select(&NUMBERS[..]).prop_map(Spec::Num),
        4 => prop::sample::select(&TEXTS[..]).prop_map(|text| Spec::Str(text.into())),
        1 => any::<bool>().prop_map(Spec::Bool),
        1 => Just(Spec::Null),
    ]
}

/// A value of a body or twin.
fn document() -> impl Strategy<Value = Spec> {
    constant().prop_recursive(3, 24, 5, |inner| {
        // Names that differ in case only, and repeated ones.
        let name = prop::sample::select(vec!["a", "A", "b", "c", "Ä", "ä"]).prop_map(str::to_owned);
        prop_oneof![
            3 => prop::collection::vec((name, inner.clone()), 0..5).prop_map(Spec::Obj),
            1 => prop::collection::vec(inner, 0..4).prop_map(Spec::Arr),
        ]
    })
}

fn path() -> impl Strategy<Value = Vec<Seg>> {
    let name = || prop::sample::select(&NAMES[..3]).prop_map(|name| Seg::Name(name.into()));
    let segment = prop_oneof![3 => name(), 1 => (0..3_usize).prop_map(Seg::Index)];
    (name(), prop::collection::vec(segment, 0..2)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

fn leaf() -> impl Strategy<Value = Expr> {
    prop_oneof![
        4 => prop::sample::select(&NAMES[..]).prop_map(|name| Expr::App(name.to_uppercase())),
        1 => prop::sample::select(vec!["$messageId", "$contentType"]).prop_map(Expr::Sys),
        6 => path().prop_map(Expr::Body),
        2 => path().prop_map(Expr::Tags),
    ]
}

fn operator() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["=", "!=", "<>", "<", "<=", ">", ">="])
}

/// Values of any kind, constants included.
fn operand() -> impl Strategy<Value = Expr> {
    let simple = prop_oneof![3 => leaf(), 1 => constant().prop_map(Expr::Const)];
    simple.prop_recursive(2, 6, 2, |inner| {
        let one = prop::sample::select(vec!["abs", "floor", "square", "as_number", "length", "lower", "upper"]);
        let two = prop::sample::select(vec!["index_of", "concat"]);
        prop_oneof![
            2 => inner.clone(),
            1 => inner.clone().prop_map(|operand| Expr::Neg(operand.into())),
            1 => (prop::sample::select(vec!['+', '-', '*', '/', '%']), inner.clone(), inner.clone())
                .prop_map(|(operator, left, right)| Expr::Arith(operator, left.into(), right.into())),
            2 => (one, inner.clone()).prop_map(|(function, argument)| Expr::Call(function, vec![argument])),
            1 => (two, inner.clone(), inner).prop_map(|(function, left, right)| Expr::Call(function, vec![left, right])),
        ]
    })
}

fn predicate() -> impl Strategy<Value = Expr> {
    let list = prop::collection::vec(
        prop_oneof![6 => constant(), 1 => prop::collection::vec(constant(), 0..3).prop_map(Spec::Arr)],
        1..4,
    );
    let is = prop::sample::select(vec![
        "is_defined",
        "is_null",
        "is_bool",
        "is_number",
        "is_string",
        "is_array",
        "is_object",
        "is_primitive",
    ]);
    let pattern = prop::sample::select(vec!["starts_with", "ends_with", "contains"]);
    let compared = |left: Expr, operator, right: Expr| Expr::Cmp(operator, left.into(), right.into());
    prop_oneof![
        6 => (leaf(), operator(), constant()).prop_map(move |(left, operator, right)| compared(left, operator, Expr::Const(right))),
        1 => (constant(), operator(), leaf()).prop_map(move |(left, operator, right)| compared(Expr::Const(left), operator, right)),
        2 => (operand(), operator(), operand()).prop_map(move |(left, operator, right)| compared(left, operator, right)),
        2 => (leaf(), list.clone(), any::<bool>()).prop_map(|(value, list, negated)| Expr::In(value.into(), list, negated)),
        1 => (operand(), list, any::<bool>()).prop_map(|(value, list, negated)| Expr::In(value.into(), list, negated)),
        2 => (is, operand()).prop_map(|(function, argument)| Expr::Call(function, vec![argument])),
        3 => (pattern.clone(), leaf(), prop::sample::select(&TEXTS[..]))
            .prop_map(|(function, value, part)| Expr::Call(function, vec![value, Expr::Const(Spec::Str(part.into()))])),
        1 => (pattern, operand(), operand()).prop_map(|(function, value, part)| Expr::Call(function, vec![value, part])),
        1 => (leaf(), operand()).prop_map(|(array, value)| Expr::Call("array_contains", vec![array, value])),
        1 => leaf(),
        1 => any::<bool>().prop_map(|value| Expr::Const(Spec::Bool(value))),
    ]
}

fn condition() -> impl Strategy<Value = Expr> {
    predicate().prop_recursive(4, 16, 4, |inner| {
        let many = prop::collection::vec(inner.clone(), 2..5);
        prop_oneof![
            3 => many.clone().prop_map(Expr::And),
            3 => many.prop_map(Expr::Or),
            1 => inner.clone().prop_map(|operand| Expr::Not(operand.into())),
            1 => (inner.clone(), operator(), inner)
                .prop_map(|(left, operator, right)| Expr::Cmp(operator, left.into(), right.into())),
        ]
    })
}

fn message() -> impl Strategy<Value = SpecMessage> {
    let property = (prop::sample::select(vec!["a", "A", "b", "c", "Ä"]), prop::sample::select(&TEXTS[..]));
    let app = prop::collection::vec(property.prop_map(|(name, value)| (name.to_owned(), value.to_owned())), 0..5);
    let id = prop::option::of(prop::sample::select(&TEXTS[..]).prop_map(str::to_owned));
    (app, id, document(), document()).prop_map(|(app, message_id, body, tags)| SpecMessage {
        app,
        message_id,
        body,
        tags,
    })
}

/// The text of a message: body and tags.
struct Written {
    body: String,
    tags: String,
}

impl Written {
    fn new(message: &SpecMessage) -> Self {
        Self { body: json(&message.body), tags: json(&message.tags) }
    }

    fn check<T>(&self, message: &SpecMessage, check: impl FnOnce(&MessageView<'_>) -> T) -> T {
        let twin = TwinText { tags: Some(&self.tags), ..TwinText::default() };
        let view = MessageView::new(Source::DeviceMessages, self.body.as_bytes())
            .with_system(SystemProperties {
                content_type: Some("application/json"),
                content_encoding: Some("utf-8"),
                message_id: message.message_id.as_deref(),
                ..SystemProperties::default()
            })
            .with_application(&message.app)
            .with_twin(&twin);
        check(&view)
    }
}

fn route(number: usize) -> Route {
    Route {
        name: RouteName::parse(&format!("r{number}")).unwrap(),
        source: Source::DeviceMessages,
        condition: String::new(),
        endpoint: EndpointName::parse(&format!("e{}", number % 7)).unwrap(),
        enabled: true,
    }
}

fn table(programs: &[Program]) -> RouteTable {
    let routes = programs.iter().enumerate().map(|(number, program)| (route(number), program.clone())).collect();
    RouteTable::new(TableParts { routes, fallback: None, ..TableParts::new("hub1") }).unwrap()
}

/// What the matcher finds is what the interpreter finds for each route.
fn same_as_interpreter(table: &RouteTable, view: &MessageView<'_>) -> Result<(), TestCaseError> {
    let mut expected = BTreeSet::new();
    let observed = table.decide_observed(view, |route, verdict| {
        if verdict == Verdict::True {
            expected.insert(route.name.to_string());
        }
    });
    let mut found = Vec::new();
    let decision = table.decide_with_matches(view, |route| found.push(route.name.to_string()));
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    prop_assert_eq!(found.len(), distinct.len(), "each route once");
    prop_assert_eq!(&distinct, &expected);
    prop_assert_eq!(&decision, &observed);
    prop_assert_eq!(&table.decide(view), &observed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matcher_interpreter_and_specification_agree(
        conditions in prop::collection::vec(condition(), 1..40), messages in prop::collection::vec(message(), 1..8),
    ) {
        let compiled: Vec<(Expr, Program)> = conditions
            .into_iter()
            .filter_map(|expr| try_program(&text(&expr), Source::DeviceMessages).map(|program| (expr, program)))
            .collect();
        let programs: Vec<Program> = compiled.iter().map(|(_, program)| program.clone()).collect();
        let table = table(&programs);
        for message in &messages {
            Written::new(message).check(message, |view| {
                for (expr, program) in &compiled {
                    let expected = match verdict(expr, message) {
                        Some(true) => Verdict::True,
                        Some(false) => Verdict::False,
                        None => Verdict::Undefined,
                    };
                    prop_assert_eq!(evaluate(program, view), expected, "{} for {:?}", text(expr), message);
                }
                same_as_interpreter(&table, view)
            })?;
        }
    }
}

/// Enough routes for blocks of every width and buckets of every kind.
#[test]
fn many_routes_agree_with_the_interpreter() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    for count in [60, 200, 700, 3000] {
        let mut programs = Vec::new();
        while programs.len() < count {
            let expr = condition().new_tree(&mut runner).unwrap().current();
            programs.extend(try_program(&text(&expr), Source::DeviceMessages));
        }
        let table = table(&programs);
        for _ in 0..100 {
            let message = message().new_tree(&mut runner).unwrap().current();
            Written::new(&message).check(&message, |view| same_as_interpreter(&table, view)).unwrap();
        }
    }
}

/// Routes that come, change and go one by one: each table is as one made of all routes at once, and the ones before it do
/// not change.
#[test]
fn tables_that_grew_agree_with_the_interpreter() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let next_program = |runner: &mut TestRunner| loop {
        let expr = condition().new_tree(runner).unwrap().current();
        if let Some(program) = try_program(&text(&expr), Source::DeviceMessages) {
            return program;
        }
    };
    let programs: Vec<Program> = (0..600).map(|_| next_program(&mut runner)).collect();
    let first = table(&programs);
    let mut grown = first.with_route(route(3), next_program(&mut runner)).unwrap();
    for step in 0..700_usize {
        grown = match step % 5 {
            0 => grown.without_route(&route(step * 7 % 900).name),
            1 => grown.with_route(Route { enabled: false, ..route(step * 3 % 900) }, next_program(&mut runner)),
            _ => grown.with_route(route(step * 11 % 900), next_program(&mut runner)),
        }
        .unwrap();
        if step % 20 == 0 {
            let message = message().new_tree(&mut runner).unwrap().current();
            Written::new(&message).check(&message, |view| same_as_interpreter(&grown, view)).unwrap();
            Written::new(&message).check(&message, |view| same_as_interpreter(&first, view)).unwrap();
        }
    }
    assert_eq!(first.routes().count(), 600);
    for number in 0..900 {
        grown = grown.without_route(&route(number).name).unwrap();
    }
    assert_eq!(grown.routes().count(), 0);
    let message = message().new_tree(&mut runner).unwrap().current();
    let outcome = Written::new(&message).check(&message, |view| grown.decide(view).outcome);
    assert_eq!(outcome, nave_routing::Outcome::Fallback);
}
