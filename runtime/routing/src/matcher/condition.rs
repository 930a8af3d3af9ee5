//! A program as a formula of tests, each of which looks at one term.
//!
//! Conditions have three results. A formula says exactly when the result is *true*, with AND and OR only: each node of
//! the program is asked either "is it true?" or "is it false?", and NOT swaps the question on the way down. Undefined is
//! neither, so nothing is lost, and the formula is at most as large as the program.
//!
//! | asked | true? | false? |
//! |---|---|---|
//! | `NOT x` | x false | x true |
//! | `x AND y` | both true | either false |
//! | `x OR y` | either true | both false |
//! | a test of one value | the values that make it true | the values that make it false |

use std::sync::Arc;

use super::patterns::Pattern;
use super::vocabulary::{TermId, Vocabulary};
use crate::functions::{MAX_TEXT_BYTES, MAX_TEXT_WORK_BYTES};
use crate::program::{ComparisonOperator, Function, Node, NodeIndex, Program};
use crate::value::Value;

/// When a condition is true.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Formula {
    True,
    False,
    /// The value of the term is one that the test accepts.
    Test(TermId, Test),
    /// All of them; at least two.
    All(Vec<Formula>),
    /// One of them; at least two.
    Any(Vec<Formula>),
}

/// A set of values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Test {
    pub(super) undefined: bool,
    pub(super) null: bool,
    pub(super) no: bool,
    pub(super) yes: bool,
    pub(super) array: bool,
    pub(super) object: bool,
    pub(super) numbers: Numbers,
    /// The result of arithmetic that is not a number.
    pub(super) not_a_number: bool,
    pub(super) texts: Texts,
}

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Numbers {
    #[default]
    None,
    All,
    In(Vec<f64>),
    NotIn(Vec<f64>),
    Compare(ComparisonOperator, f64),
}

/// A set of strings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Texts {
    #[default]
    None,
    All,
    In(Vec<String>),
    NotIn(Vec<String>),
    Compare(ComparisonOperator, String),
}

/// When `program` is true.
pub(super) fn formula(program: &Arc<Program>, vocabulary: &mut Vocabulary) -> Formula {
    // With so few texts, none of them longer than a function makes, the interpreter would never run out of work.
    let texts: usize = program.nodes().iter().map(text_arguments).sum();
    if texts > MAX_TEXT_WORK_BYTES / MAX_TEXT_BYTES {
        return is_true(vocabulary.interpreted(program));
    }
    Reading { program, vocabulary }.formula(program.root(), true)
}

fn text_arguments(node: &Node) -> usize {
    if let Node::Call { arguments, .. } = node { arguments.len() } else { 0 }
}

fn is_true(term: TermId) -> Formula {
    Formula::Test(term, Test { yes: true, ..Test::default() })
}

struct Reading<'p, 'v> {
    program: &'p Arc<Program>,
    vocabulary: &'v mut Vocabulary,
}

impl Reading<'_, '_> {
    /// When the node is true, or when it is false. The recursion is as deep as the program is high.
    fn formula(&mut self, index: NodeIndex, asked: bool) -> Formula {
        let Some(node) = self.program.node(index) else { return Formula::False };
        match node {
            Node::Undefined => Formula::False,
            Node::Boolean(value) => constant(*value == asked),
            Node::Null | Node::Number(_) | Node::Text(_) | Node::List(_) => constant(!asked),
            Node::Not(operand) => self.formula(*operand, !asked),
            Node::All(operands) => self.combine(operands, asked, asked),
            Node::Any(operands) => self.combine(operands, asked, !asked),
            Node::Comparison { operator, left, right } => self.comparison(index, *operator, *left, *right, asked),
            Node::Membership { value, candidates, negated } => {
                self.membership(index, *value, candidates, *negated, asked)
            }
            Node::Call { function, arguments } => self.call(index, *function, arguments, asked),
            _ => self.truth(index, asked),
        }
    }

    fn combine(&mut self, operands: &[NodeIndex], asked: bool, all: bool) -> Formula {
        let parts = operands.iter().map(|&operand| self.formula(operand, asked));
        if all { Formula::all(parts) } else { Formula::any(parts) }
    }

    /// A value where a condition is expected: anything defined but `true` is false.
    fn truth(&mut self, index: NodeIndex, asked: bool) -> Formula {
        let term = self.term(index);
        if asked {
            return is_true(term);
        }
        let test = Test { yes: false, undefined: false, ..Test::anything() };
        Formula::Test(term, test)
    }

    fn comparison(
        &mut self,
        index: NodeIndex,
        operator: ComparisonOperator,
        left: NodeIndex,
        right: NodeIndex,
        asked: bool,
    ) -> Formula {
        let (value, operator, other) = match (self.constant(left), self.constant(right)) {
            (None, Some(other)) => (left, operator, other),
            (Some(other), None) => (right, mirrored(operator), other),
            _ => return self.truth(index, asked),
        };
        // What the comparison is for each kind of value follows from what it is for one of them.
        let fits = |value: Value<'_>| value.compare(operator, &other) == Some(asked);
        let mut test = Test {
            null: fits(Value::Null),
            no: fits(Value::Boolean(false)),
            yes: fits(Value::Boolean(true)),
            ..Test::default()
        };
        match &other {
            Value::Number(number) => {
                test.numbers = Numbers::compare(if asked { operator } else { opposite(operator) }, *number);
                test.not_a_number = fits(Value::Number(f64::NAN));
                test.texts = Texts::when(fits(Value::Text("".into())));
            }
            Value::Text(text) => {
                test.texts = Texts::compare(if asked { operator } else { opposite(operator) }, text.to_string());
                test.numbers = Numbers::when(fits(Value::Number(0.0)));
                test.not_a_number = fits(Value::Number(f64::NAN));
            }
            // Null or a boolean: all numbers are alike, and so are all strings. Arrays and objects compare to nothing.
            _ => {
                test.numbers = Numbers::when(fits(Value::Number(0.0)));
                test.not_a_number = fits(Value::Number(f64::NAN));
                test.texts = Texts::when(fits(Value::Text("".into())));
            }
        }
        let term = self.term(value);
        Formula::test(term, test)
    }

    fn membership(
        &mut self,
        index: NodeIndex,
        value: NodeIndex,
        candidates: &[NodeIndex],
        negated: bool,
        asked: bool,
    ) -> Formula {
        let constants: Option<Vec<Value<'_>>> =
            candidates.iter().map(|&candidate| self.constant(candidate)).map(|v| v.filter(is_scalar)).collect();
        let Some(constants) = constants.filter(|_| self.constant(value).is_none()) else {
            return self.truth(index, asked);
        };
        let member = |value: Value<'_>| constants.iter().any(|candidate| value.same(candidate));
        let numbers = constants.iter().filter_map(Value::as_number).collect();
        let texts = constants.iter().filter_map(Value::as_text).map(str::to_owned).collect();
        // Asked whether it is a member, or whether it is defined and none.
        let inside = asked != negated;
        let test = Test {
            undefined: false,
            null: member(Value::Null) == inside,
            no: member(Value::Boolean(false)) == inside,
            yes: member(Value::Boolean(true)) == inside,
            array: !inside,
            object: !inside,
            not_a_number: !inside,
            numbers: if inside { Numbers::In(numbers) } else { Numbers::NotIn(numbers) },
            texts: if inside { Texts::In(texts) } else { Texts::NotIn(texts) },
        };
        let term = self.term(value);
        Formula::test(term, test)
    }

    fn call(&mut self, index: NodeIndex, function: Function, arguments: &[NodeIndex], asked: bool) -> Formula {
        let (&[value] | &[value, _]) = arguments else { return self.truth(index, asked) };
        if self.constant(value).is_some() {
            return self.truth(index, asked);
        }
        let number = Test { numbers: Numbers::All, not_a_number: true, ..Test::default() };
        let text = Test { texts: Texts::All, ..Test::default() };
        let boolean = Test { no: true, yes: true, ..Test::default() };
        let null = Test { null: true, ..Test::default() };
        let test = match function {
            Function::IsDefined => Test { undefined: false, ..Test::anything() },
            Function::IsNull => null,
            Function::IsBool => boolean,
            Function::IsNumber => number,
            Function::IsString => text,
            Function::IsArray => Test { array: true, ..Test::default() },
            Function::IsObject => Test { object: true, ..Test::default() },
            Function::IsPrimitive => Test { array: false, object: false, undefined: false, ..Test::anything() },
            Function::Contains | Function::StartsWith | Function::EndsWith => {
                let Some(Value::Text(constant)) = arguments.get(1).and_then(|&part| self.constant(part)) else {
                    return self.truth(index, asked);
                };
                let constant = constant.into_owned();
                let term = self.term(value);
                if constant.is_empty() {
                    return if asked { Formula::test(term, text) } else { Formula::False };
                }
                let pattern = match function {
                    Function::Contains => Pattern::Part(constant),
                    Function::StartsWith => Pattern::Start(constant),
                    _ => Pattern::End(constant),
                };
                let term = self.vocabulary.pattern(term, pattern);
                return Formula::test(term, Test { yes: asked, no: !asked, ..Test::default() });
            }
            _ => return self.truth(index, asked),
        };
        // The functions that ask for a type have no undefined result.
        let term = self.term(value);
        Formula::test(term, if asked { test } else { test.complement() })
    }

    /// The term whose value is that of a node.
    fn term(&mut self, index: NodeIndex) -> TermId {
        match self.program.node(index).and_then(|node| self.vocabulary.leaf(node)) {
            Some(leaf) => leaf,
            None => self.vocabulary.computed(self.program, index),
        }
    }

    /// The value of a node that is a constant.
    fn constant(&self, index: NodeIndex) -> Option<Value<'static>> {
        match self.program.node(index)? {
            Node::Undefined => Some(Value::Undefined),
            Node::Null => Some(Value::Null),
            Node::Boolean(value) => Some(Value::Boolean(*value)),
            Node::Number(number) => Some(Value::Number(*number)),
            Node::Text(text) => Some(Value::Text(text.clone().into())),
            // A constant array is left to the interpreter.
            _ => None,
        }
    }
}

fn constant(value: bool) -> Formula {
    if value { Formula::True } else { Formula::False }
}

fn is_scalar(value: &Value<'_>) -> bool {
    !matches!(value, Value::Json(_) | Value::List(..))
}

/// The operator for exchanged operands.
fn mirrored(operator: ComparisonOperator) -> ComparisonOperator {
    match operator {
        ComparisonOperator::Less => ComparisonOperator::Greater,
        ComparisonOperator::LessOrEqual => ComparisonOperator::GreaterOrEqual,
        ComparisonOperator::Greater => ComparisonOperator::Less,
        ComparisonOperator::GreaterOrEqual => ComparisonOperator::LessOrEqual,
        same => same,
    }
}

/// The operator that is true where the given one is false, for operands that have an order.
fn opposite(operator: ComparisonOperator) -> ComparisonOperator {
    match operator {
        ComparisonOperator::Equal => ComparisonOperator::NotEqual,
        ComparisonOperator::NotEqual => ComparisonOperator::Equal,
        ComparisonOperator::Less => ComparisonOperator::GreaterOrEqual,
        ComparisonOperator::LessOrEqual => ComparisonOperator::Greater,
        ComparisonOperator::Greater => ComparisonOperator::LessOrEqual,
        ComparisonOperator::GreaterOrEqual => ComparisonOperator::Less,
    }
}

impl Formula {
    fn test(term: TermId, test: Test) -> Self {
        if test == Test::default() { Self::False } else { Self::Test(term, test) }
    }

    fn all(parts: impl Iterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::True => {}
                Self::False => return Self::False,
                Self::All(parts) => all.extend(parts),
                part => all.push(part),
            }
        }
        if all.len() > 1 { Self::All(all) } else { all.pop().unwrap_or(Self::True) }
    }

    fn any(parts: impl Iterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for part in parts {
            match part {
                Self::False => {}
                Self::True => return Self::True,
                Self::Any(parts) => any.extend(parts),
                part => any.push(part),
            }
        }
        if any.len() > 1 { Self::Any(any) } else { any.pop().unwrap_or(Self::False) }
    }
}

impl Test {
    fn anything() -> Self {
        Self {
            undefined: true,
            null: true,
            no: true,
            yes: true,
            array: true,
            object: true,
            numbers: Numbers::All,
            not_a_number: true,
            texts: Texts::All,
        }
    }

    /// Every other value; of numbers and strings, all or none.
    fn complement(self) -> Self {
        Self {
            undefined: !self.undefined,
            null: !self.null,
            no: !self.no,
            yes: !self.yes,
            array: !self.array,
            object: !self.object,
            numbers: Numbers::when(self.numbers == Numbers::None),
            not_a_number: !self.not_a_number,
            texts: Texts::when(self.texts == Texts::None),
        }
    }
}

impl Numbers {
    fn when(all: bool) -> Self {
        if all { Self::All } else { Self::None }
    }

    fn compare(operator: ComparisonOperator, number: f64) -> Self {
        match operator {
            ComparisonOperator::Equal => Self::In(vec![number]),
            ComparisonOperator::NotEqual => Self::NotIn(vec![number]),
            _ => Self::Compare(operator, number),
        }
    }
}

impl Texts {
    fn when(all: bool) -> Self {
        if all { Self::All } else { Self::None }
    }

    fn compare(operator: ComparisonOperator, text: String) -> Self {
        match operator {
            ComparisonOperator::Equal => Self::In(vec![text]),
            ComparisonOperator::NotEqual => Self::NotIn(vec![text]),
            _ => Self::Compare(operator, text),
        }
    }
}
