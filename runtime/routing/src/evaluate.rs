//! The interpreter: a program and a message in, one of three results out.
//!
//! It is deliberately plain; a faster matcher must agree with it.

use crate::functions;
use crate::message::MessageView;
use crate::program::{ArithmeticOperator, Node, NodeIndex, Program};
use crate::value::Value;

/// The result of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The message matches.
    True,
    /// The message does not match. A value that is neither boolean nor undefined counts as false.
    False,
    /// The condition has no result, because something that it reads is missing or has the wrong type. The message does
    /// not match; the cloud service logs this as an undefined evaluation.
    Undefined,
}

/// Runs a program over a message.
#[must_use]
pub fn evaluate(program: &Program, message: &MessageView<'_>) -> Verdict {
    evaluate_observed(program, message, |_, _| {})
}

/// Like [`evaluate`], and calls `observe` with the value of each node that was evaluated, operands first. Operands that
/// AND and OR skipped, because the result was already certain, are not reported.
pub fn evaluate_observed<'a>(
    program: &'a Program,
    message: &'a MessageView<'_>,
    observe: impl FnMut(NodeIndex, &Value<'a>),
) -> Verdict {
    let leaf = |index| program.node(index).map_or(Value::Undefined, |node| of_message(message, node));
    let mut run = Run { program, leaf, observe, text_work: functions::MAX_TEXT_WORK_BYTES };
    match truth(&run.value(program.root())) {
        Some(true) => Verdict::True,
        Some(false) => Verdict::False,
        None => Verdict::Undefined,
    }
}

/// The value of one part of a program. `leaf` gives the values of the nodes that read the message.
pub(crate) fn value_of_part<'a>(
    program: &'a Program,
    part: NodeIndex,
    leaf: impl FnMut(NodeIndex) -> Value<'a>,
) -> Value<'a> {
    Run { program, leaf, observe: |_, _: &Value<'a>| {}, text_work: functions::MAX_TEXT_WORK_BYTES }.value(part)
}

/// The value of a node that reads the message; every other node is undefined here.
fn of_message<'a>(message: &'a MessageView<'_>, node: &'a Node) -> Value<'a> {
    match node {
        Node::ApplicationProperty(names) => Value::of_text(names.iter().find_map(|name| message.application(name))),
        Node::SystemProperty(property) => Value::of_text(message.system().get(*property)),
        Node::Body(steps) => Value::of_json(message.body_json().and_then(|body| body.at(steps))),
        Node::Twin(path) => Value::of_json(message.twin_json(path)),
        _ => Value::Undefined,
    }
}

/// A value where a condition is expected: anything defined but `true` counts as false
/// (protocol notes: query language §3).
fn truth(value: &Value<'_>) -> Option<bool> {
    match value {
        Value::Undefined => None,
        Value::Boolean(value) => Some(*value),
        _ => Some(false),
    }
}

fn boolean<'a>(value: Option<bool>) -> Value<'a> {
    value.map_or(Value::Undefined, Value::Boolean)
}

struct Run<'a, L, O> {
    program: &'a Program,
    /// The value of a node that reads the message.
    leaf: L,
    observe: O,
    /// How many bytes the string functions may still touch.
    text_work: usize,
}

impl<'a, L: FnMut(NodeIndex) -> Value<'a>, O: FnMut(NodeIndex, &Value<'a>)> Run<'a, L, O> {
    /// The value of a node. The recursion is as deep as the tree is high: at most [`crate::MAX_DEPTH`].
    fn value(&mut self, index: NodeIndex) -> Value<'a> {
        let value = self.program.node(index).map_or(Value::Undefined, |node| self.compute(index, node));
        (self.observe)(index, &value);
        value
    }

    fn compute(&mut self, index: NodeIndex, node: &'a Node) -> Value<'a> {
        match node {
            Node::Undefined | Node::Null | Node::Boolean(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => {
                Value::of_constant(self.program, index)
            }
            Node::ApplicationProperty(_) | Node::SystemProperty(_) | Node::Body(_) | Node::Twin(_) => {
                (self.leaf)(index)
            }
            Node::Negate(operand) => self.value(*operand).as_number().map_or(Value::Undefined, |n| Value::Number(-n)),
            Node::Arithmetic { operator, left, right } => {
                let (left, right) = (self.value(*left).as_number(), self.value(*right).as_number());
                left.zip(right).map_or(Value::Undefined, |(left, right)| {
                    Value::Number(match operator {
                        ArithmeticOperator::Add => left + right,
                        ArithmeticOperator::Subtract => left - right,
                        ArithmeticOperator::Multiply => left * right,
                        ArithmeticOperator::Divide => left / right,
                        ArithmeticOperator::Remainder => left % right,
                    })
                })
            }
            Node::Comparison { operator, left, right } => {
                let (left, right) = (self.value(*left), self.value(*right));
                boolean(left.compare(*operator, &right))
            }
            Node::Membership { value, candidates, negated } => match self.value(*value) {
                Value::Undefined => Value::Undefined,
                value => {
                    let mut candidates = candidates.iter().map(|&index| Value::of_constant(self.program, index));
                    Value::Boolean(candidates.any(|candidate| value.same(&candidate)) != *negated)
                }
            },
            Node::Call { function, arguments } => {
                let arguments: Vec<_> = arguments.iter().map(|&argument| self.value(argument)).collect();
                functions::call(*function, &arguments, &mut self.text_work)
            }
            Node::Not(operand) => boolean(truth(&self.value(*operand)).map(|value| !value)),
            Node::All(operands) => self.combine(operands, false),
            Node::Any(operands) => self.combine(operands, true),
        }
    }

    /// AND (`decisive` is false) and OR (`decisive` is true): the decisive value wins over everything, undefined wins
    /// over the other value. Operands after a decisive one are not evaluated.
    fn combine(&mut self, operands: &'a [NodeIndex], decisive: bool) -> Value<'a> {
        let mut result = Value::Boolean(!decisive);
        for &operand in operands {
            match truth(&self.value(operand)) {
                Some(value) if value == decisive => return Value::Boolean(decisive),
                Some(_) => {}
                None => result = Value::Undefined,
            }
        }
        result
    }
}
