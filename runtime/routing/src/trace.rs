//! Why a message matches a condition or not: the value of each part, or why it has none.

use std::fmt;

use crate::evaluate::{Verdict, evaluate_observed};
use crate::message::MessageView;
use crate::program::{Node, NodeIndex, Program, Span};
use crate::value::Value;

/// The longest value that a trace shows, in characters; the rest is cut off, so that a trace stays readable.
pub const MAX_SHOWN_CHARACTERS: usize = 64;

/// What a condition came to, part by part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The result.
    pub verdict: Verdict,
    /// Every part of the condition, operands before what they are operands of; the whole is last.
    pub parts: Vec<TracedPart>,
}

/// A part of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedPart {
    /// Where it was written.
    pub span: Span,
    /// What it came to.
    pub result: PartResult,
}

/// What a part of a condition came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartResult {
    /// A value, as it would be written.
    Value(String),
    /// It was not looked at: another operand of AND or OR had decided.
    Skipped,
    /// The message has no such property.
    NoProperty,
    /// The body cannot be read as JSON: content type, content encoding or the text itself are not what they have to be.
    NoBody,
    /// The body or twin has nothing there.
    NoPath,
    /// An operand is undefined.
    UndefinedOperand,
    /// The operands have types that do not go together, or a function has no result for them.
    WrongTypes,
    /// It is the constant `undefined`.
    Constant,
}

impl fmt::Display for PartResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(value) => value,
            Self::Skipped => "not needed: the result was certain already",
            Self::NoProperty => "undefined: the message has no such property",
            Self::NoBody => {
                "undefined: the body is not readable JSON (content type application/json, encoding utf-8, utf-16 or utf-32)"
            }
            Self::NoPath => "undefined: nothing is there",
            Self::UndefinedOperand => "undefined: an operand is undefined",
            Self::WrongTypes => "undefined: the types do not go together",
            Self::Constant => "undefined",
        })
    }
}

/// Runs a program over a message and tells how it came to its result.
#[must_use]
pub fn trace(program: &Program, message: &MessageView<'_>) -> Trace {
    let mut shown: Vec<Option<Option<String>>> = vec![None; program.nodes().len()];
    let verdict = evaluate_observed(program, message, |index, value| {
        if let Some(place) = shown.get_mut(index as usize) {
            *place = Some(show(value));
        }
    });
    let is_undefined = |index: NodeIndex| matches!(shown.get(index as usize), Some(Some(None)));
    let parts = (0..).zip(program.nodes()).zip(&shown).map(|((index, node), shown)| {
        let result = match shown {
            None if is_constant(node) => {
                show(&Value::of_constant(program, index)).map_or(PartResult::Constant, PartResult::Value)
            }
            None => PartResult::Skipped,
            Some(Some(value)) => PartResult::Value(value.clone()),
            Some(None) => why_undefined(node, message, is_undefined),
        };
        TracedPart { span: program.span(index).unwrap_or_default(), result }
    });
    Trace { verdict, parts: parts.collect() }
}

fn why_undefined(node: &Node, message: &MessageView<'_>, is_undefined: impl Fn(NodeIndex) -> bool) -> PartResult {
    match node {
        Node::Undefined => PartResult::Constant,
        Node::ApplicationProperty(_) | Node::SystemProperty(_) => PartResult::NoProperty,
        Node::Body(_) if message.body_json().is_none() => PartResult::NoBody,
        Node::Body(_) | Node::Twin(_) => PartResult::NoPath,
        _ => {
            let mut any = false;
            node.children(|child| any |= is_undefined(child));
            if any { PartResult::UndefinedOperand } else { PartResult::WrongTypes }
        }
    }
}

/// Constants in lists are not evaluated by themselves.
fn is_constant(node: &Node) -> bool {
    matches!(node, Node::Undefined | Node::Null | Node::Boolean(_) | Node::Number(_) | Node::Text(_) | Node::List(_))
}

/// A value as it would be written; nothing for undefined.
fn show(value: &Value<'_>) -> Option<String> {
    let text = match value {
        Value::Undefined => return None,
        Value::Null => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => format!("'{text}'"),
        Value::Json(json) => json.to_property_text(),
        Value::List(..) => {
            let elements = value.as_array().into_iter().flat_map(|array| array.iter());
            let elements = elements.map(|element| show(&element).unwrap_or_else(|| "undefined".to_owned()));
            format!("[{}]", elements.collect::<Vec<_>>().join(", "))
        }
    };
    Some(match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or("")),
    })
}
