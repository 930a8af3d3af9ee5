//! The entry point for a fuzzer. It takes any bytes and panics if an invariant is broken.

use crate::evaluate::{Verdict, evaluate};
use crate::message::{MessageView, SystemProperties, TwinText};
use crate::names::{EndpointName, RouteName};
use crate::program::{
    ArithmeticOperator, ComparisonOperator, Function, MAX_NODES, Node, NodeIndex, PROGRAM_VERSION, Program,
    ProgramParts, Span, Step, SystemProperty, TwinPath, TwinSection,
};
use crate::source::Source;
use crate::table::{Route, RouteTable, TableParts};

/// Programs of any form are refused or run, and the matcher finds what the interpreter finds.
///
/// Bytes up to [`BODY`] are programs for a small machine with a stack, which mostly makes trees and, when told so, anything
/// else; the rest is the body of the message.
pub fn fuzz_program(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == BODY).unwrap_or(data.len());
    let (code, rest) = data.split_at(end);
    let body = rest.get(1..).unwrap_or(&[]);
    let programs: Vec<Program> = code.split(|byte| *byte == NEXT).take(64).filter_map(program).collect();
    let application = [("a", "1"), ("B", "ab"), ("b", "b")];
    let twin = TwinText { tags: Some(r#"{"a":{"b":[1,"a"]},"b":"1"}"#), reported: Some("{"), desired: None };
    let view = MessageView::new(Source::DeviceMessages, body)
        .with_system(SystemProperties {
            content_type: Some("application/json"),
            content_encoding: Some("utf-8"),
            message_id: Some("ab"),
            ..SystemProperties::default()
        })
        .with_application(&application)
        .with_twin(&twin);
    let expected: Vec<u32> =
        (0..).zip(&programs).filter(|(_, it)| evaluate(it, &view) == Verdict::True).map(|(number, _)| number).collect();
    let routes = programs.into_iter().enumerate().filter_map(|(number, program)| {
        let route = Route {
            name: RouteName::parse(&number.to_string()).ok()?,
            source: Source::DeviceMessages,
            condition: String::new(),
            endpoint: EndpointName::events(),
            enabled: true,
        };
        Some((route, program))
    });
    let parts = TableParts { routes: routes.collect(), ..TableParts::new("hub1") };
    let Ok(table) = RouteTable::new(parts) else { unreachable!("few routes with different names") };
    let mut found = Vec::new();
    table.matching(&view, &mut found);
    found.sort_unstable();
    assert_eq!(found, expected, "the matcher and the interpreter agree");
    assert_eq!(table.decide(&view), table.decide_observed(&view, |_, _| {}));
}

/// Ends a program.
const NEXT: u8 = 0xFF;
/// Ends all programs.
const BODY: u8 = 0xFE;

const TEXTS: [&str; 8] = ["", "a", "ab", "b", "1", "-2.5", "ö", "bab"];
const NAMES: [&str; 4] = ["a", "b", "c", "ä"];

fn of<T: Clone>(all: &[T], byte: u8) -> Option<T> {
    all.get(usize::from(byte) % all.len().max(1)).cloned()
}

fn steps(byte: u8) -> Vec<Step> {
    let member = |byte: u8| Step::Member(of(&NAMES, byte).unwrap_or("a").to_owned());
    match byte >> 4 {
        0..6 => vec![member(byte)],
        6..12 => vec![member(byte), member(byte >> 2)],
        12..14 => vec![member(byte), Step::Element(u32::from(byte & 1))],
        _ => vec![member(byte), Step::Element(0), member(byte >> 2)],
    }
}

fn program(code: &[u8]) -> Option<Program> {
    let mut code = code.iter().copied().take(MAX_NODES);
    let (mut nodes, mut free): (Vec<Node>, Vec<NodeIndex>) = (Vec::new(), Vec::new());
    while let Some(byte) = code.next() {
        let mut more = || code.next().unwrap_or(0);
        let mut pop = || free.pop().unwrap_or(NodeIndex::MAX);
        let node = match byte % 19 {
            0 => Node::Undefined,
            1 => Node::Null,
            2 => Node::Boolean(more() & 1 == 1),
            3 => Node::Number(f64::from(more().cast_signed()) / 2.0),
            4 => Node::Text(of(&TEXTS, more())?.to_owned()),
            5 => Node::ApplicationProperty(vec![of(&NAMES, more())?.to_owned()]),
            6 => Node::SystemProperty(of(&SystemProperty::ALL, more())?),
            7 | 18 => Node::Body(steps(more())),
            8 => {
                let section = of(&[TwinSection::Tags, TwinSection::Desired, TwinSection::Reported], byte / 19)?;
                Node::Twin(TwinPath { section, steps: steps(more()) })
            }
            9 => Node::Negate(pop()),
            10 => {
                use ArithmeticOperator::{Add, Divide, Multiply, Remainder, Subtract};
                let operator = of(&[Add, Subtract, Multiply, Divide, Remainder], more())?;
                Node::Arithmetic { operator, right: pop(), left: pop() }
            }
            11 => {
                use ComparisonOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
                let operator = of(&[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual], more())?;
                Node::Comparison { operator, right: pop(), left: pop() }
            }
            12 => {
                let what = more();
                let candidates = (0..=what & 3).map(|_| pop()).collect();
                Node::Membership { candidates, value: pop(), negated: what & 4 != 0 }
            }
            13 => {
                let function = of(&Function::ALL, more())?;
                let mut arguments: Vec<NodeIndex> = (0..function.fewest_arguments()).map(|_| pop()).collect();
                arguments.reverse();
                Node::Call { function, arguments }
            }
            14 => Node::Not(pop()),
            15 => Node::All((0..2 + more() % 3).map(|_| pop()).collect()),
            16 => Node::Any((0..2 + more() % 3).map(|_| pop()).collect()),
            // Anything that a broken compiler may say.
            _ => Node::List(vec![u32::from_le_bytes([more(), more(), more(), more()])]),
        };
        free.push(NodeIndex::try_from(nodes.len()).ok()?);
        nodes.push(node);
    }
    if free.len() > 1 {
        nodes.push(Node::All(free));
    }
    let parts = ProgramParts {
        version: PROGRAM_VERSION,
        spans: vec![Span::default(); nodes.len()],
        root: NodeIndex::try_from(nodes.len()).ok()?.wrapping_sub(1),
        needs_body: nodes.iter().any(|node| matches!(node, Node::Body(_))),
        needs_twin: nodes.iter().any(|node| matches!(node, Node::Twin(_))),
        nodes,
    };
    parts.validate().ok()
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("route_program", super::fuzz_program);
    }
}
