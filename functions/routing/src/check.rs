//! What can be said about a condition before any message arrives: types, and what they make certain.
//!
//! A constant of a type that a function does not take is an error, because the call can never mean anything. Everything
//! else that is certain to be undefined or false is a warning: the protocol gives it a meaning.

use crate::diagnose::Problem;
use crate::names::{Types, signature_of};
use crate::parser::Parsed;
use crate::{
    ArithmeticOperator, Call, Comparison, ComparisonOperator, Membership, Node, NodeIndex, Source, SystemProperty,
};

const COMPARABLE: Types = Types::BOOLEAN.or(Types::NUMBER).or(Types::TEXT);

/// What the check finds.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Checks every node once, operands first.
pub(crate) fn check(text: &str, parsed: &Parsed, source: Source) -> Findings {
    let mut check = Check { text, parsed, source, types: Vec::new(), findings: Findings::default(), unreadable: false };
    for (node, &span) in parsed.nodes.iter().zip(&parsed.spans) {
        let types = check.types_of(node, span);
        check.types.push(types);
    }
    check.condition(crate::diagnose::count(parsed.nodes.len().saturating_sub(1)));
    check.findings
}

struct Check<'a> {
    text: &'a str,
    parsed: &'a Parsed,
    source: Source,
    /// The types of the nodes so far.
    types: Vec<Types>,
    findings: Findings,
    /// Whether it has been said that the body of this source cannot be read.
    unreadable: bool,
}

impl<'a> Check<'a> {
    fn of(&self, index: NodeIndex) -> Types {
        usize::try_from(index).ok().and_then(|index| self.types.get(index)).copied().unwrap_or(Types::ANY)
    }

    fn node(&self, index: NodeIndex) -> Option<&'a Node> {
        self.parsed.nodes.get(usize::try_from(index).ok()?)
    }

    fn span(&self, index: NodeIndex) -> (usize, usize) {
        usize::try_from(index).ok().and_then(|index| self.parsed.spans.get(index)).copied().unwrap_or_default()
    }

    fn written(&self, index: NodeIndex) -> &'a str {
        let (start, end) = self.span(index);
        self.text.get(start..end).unwrap_or("")
    }

    fn is_constant(&self, index: NodeIndex) -> bool {
        self.node(index).is_some_and(|node| {
            matches!(node, Node::Null | Node::Boolean(_) | Node::Number(_) | Node::Text(_) | Node::List(_))
        })
    }

    /// Whether the author wrote `undefined`.
    fn is_undefined(&self, index: NodeIndex) -> bool {
        self.written(index).eq_ignore_ascii_case("undefined")
    }

    /// Whether a value is certain to be undefined for a reason that has been reported where it arises.
    fn is_hopeless(&self, index: NodeIndex) -> bool {
        self.of(index) == Types::UNDEFINED && !self.is_undefined(index)
    }

    fn warn(&mut self, problem: Problem) {
        self.findings.warnings.push(problem);
    }

    fn warn_at(&mut self, index: NodeIndex, message: String, suggestion: Option<String>) {
        let (start, end) = self.span(index);
        self.warn(Problem { suggestion, ..Problem::new(start, end, message) });
    }

    fn types_of(&mut self, node: &Node, span: (usize, usize)) -> Types {
        match node {
            Node::Undefined => Types::UNDEFINED,
            Node::Null => Types::NULL,
            Node::Boolean(_) => Types::BOOLEAN,
            Node::Number(_) => Types::NUMBER,
            Node::Text(_) => Types::TEXT,
            Node::List(_) => Types::ARRAY,
            Node::ApplicationProperty(_) => Types::TEXT.or(Types::UNDEFINED),
            Node::SystemProperty(property) => self.system_property(*property, span),
            Node::Body(_) => self.body(span),
            Node::Twin(_) => Types::ANY,
            Node::Negate(operand) => self.operands(&[*operand]),
            Node::Arithmetic(arithmetic) => {
                let operands = [arithmetic.left, arithmetic.right];
                let texts = operands.iter().all(|&operand| self.of(operand).without(Types::UNDEFINED) == Types::TEXT);
                if texts && arithmetic.operator == ArithmeticOperator::Add {
                    let suggestion =
                        format!("concat({}, {})", self.written(arithmetic.left), self.written(arithmetic.right));
                    let message = "`+` adds numbers; strings are joined by concat";
                    self.warn(Problem::new(span.0, span.1, message).suggestion(suggestion));
                    return Types::UNDEFINED;
                }
                self.operands(&operands)
            }
            Node::Comparison(comparison) => self.comparison(comparison, span),
            Node::Membership(membership) => self.membership(membership),
            Node::Call(call) => self.call(call),
            Node::Not(operand) => self.condition(*operand),
            Node::All(operands) | Node::Any(operands) => {
                operands.iter().fold(Types::BOOLEAN, |types, &operand| types.or(self.condition(operand)))
            }
        }
    }

    fn system_property(&mut self, property: SystemProperty, span: (usize, usize)) -> Types {
        let authentication =
            matches!(property, SystemProperty::ConnectionAuthMethod | SystemProperty::ConnectionDeviceGenerationId);
        if authentication && self.source != Source::DeviceMessages {
            let message =
                "only device messages say how their sender authenticated; for this source it is always undefined";
            self.warn(Problem::new(span.0, span.1, message));
            return Types::UNDEFINED;
        }
        Types::TEXT.or(Types::UNDEFINED)
    }

    fn body(&mut self, span: (usize, usize)) -> Types {
        if self.source != Source::DigitalTwinChangeEvents {
            return Types::ANY;
        }
        if !self.unreadable {
            self.unreadable = true;
            let message = "digital twin changes are JSON Patch, not application/json, so $body is always undefined";
            self.warn(Problem::new(span.0, span.1, message));
        }
        Types::UNDEFINED
    }

    /// Operands of arithmetic.
    fn operands(&mut self, operands: &[NodeIndex]) -> Types {
        let mut result = Types::NUMBER;
        for &operand in operands {
            let types = self.of(operand);
            if !types.meets(Types::NUMBER) && !self.is_hopeless(operand) {
                let message = format!("arithmetic takes numbers; this is {} and makes it undefined", types.describe());
                self.warn_at(operand, message, self.as_number(operand));
            }
            if types != Types::NUMBER {
                result = result.or(Types::UNDEFINED);
            }
        }
        if operands.iter().all(|&operand| self.of(operand).meets(Types::NUMBER)) { result } else { Types::UNDEFINED }
    }

    /// How to make a number of a string that is not constant.
    fn as_number(&self, index: NodeIndex) -> Option<String> {
        let is_text = self.of(index).without(Types::UNDEFINED) == Types::TEXT && !self.is_constant(index);
        is_text.then(|| format!("as_number({})", self.written(index)))
    }

    fn comparison(&mut self, comparison: &Comparison, span: (usize, usize)) -> Types {
        let Comparison { operator, left, right } = *comparison;
        let (left_types, right_types) = (self.of(left), self.of(right));
        let equality = matches!(operator, ComparisonOperator::Equal | ComparisonOperator::NotEqual);
        let with_null = equality
            && ((left_types.meets(Types::NULL) && right_types.meets(COMPARABLE.or(Types::NULL)))
                || (right_types.meets(Types::NULL) && left_types.meets(COMPARABLE)));
        if left_types.and(right_types).meets(COMPARABLE) || with_null {
            self.comparison_with_null(operator, left, right, span);
            let undefined = left_types.or(right_types).without(COMPARABLE.or(Types::NULL)) != Types::NONE
                || !(with_null || left_types == right_types);
            return if undefined { Types::BOOLEAN.or(Types::UNDEFINED) } else { Types::BOOLEAN };
        }
        if self.is_hopeless(left) || self.is_hopeless(right) {
            return Types::UNDEFINED;
        }
        let problem = Problem::new(span.0, span.1, "");
        for (this, other) in [(left, right), (right, left)] {
            if self.is_undefined(this) {
                let message = "a comparison with `undefined` is always undefined";
                let problem = Problem { message: message.into(), ..problem };
                return self.undefined(match operator {
                    ComparisonOperator::Equal => problem.suggestion(format!("NOT is_defined({})", self.written(other))),
                    ComparisonOperator::NotEqual => problem.suggestion(format!("is_defined({})", self.written(other))),
                    _ => problem,
                });
            }
        }
        let message = format!(
            "{} is compared with {}: the result is always undefined, so the message never matches",
            left_types.describe(),
            right_types.describe()
        );
        for (this, other) in [(left, right), (right, left)] {
            if self.of(other).meets(Types::NUMBER)
                && let Some(suggestion) = self.as_number(this)
            {
                let written = self.written(this);
                self.warn_at(
                    this,
                    format!("{message}; `{written}` is a string, which as_number converts"),
                    Some(suggestion),
                );
                return Types::UNDEFINED;
            }
            if let Some(Node::Boolean(value)) = self.node(other)
                && self.of(this).without(Types::UNDEFINED) == Types::TEXT
                && !self.is_constant(this)
            {
                self.warn_at(other, message, Some(format!("'{value}'")));
                return Types::UNDEFINED;
            }
        }
        self.undefined(Problem { message, ..problem })
    }

    /// `level = null`: properties are never null.
    fn comparison_with_null(
        &mut self,
        operator: ComparisonOperator,
        left: NodeIndex,
        right: NodeIndex,
        span: (usize, usize),
    ) {
        for (this, other) in [(left, right), (right, left)] {
            let never_null = !self.of(this).meets(Types::NULL) && !self.is_constant(this);
            if never_null && self.of(other) == Types::NULL {
                let (message, negation) = match operator {
                    ComparisonOperator::Equal => ("this is never null, so the comparison is never true", "NOT "),
                    _ => ("this is never null, so the comparison only asks whether it is defined", ""),
                };
                let suggestion = format!("{negation}is_defined({})", self.written(this));
                self.warn(Problem::new(span.0, span.1, message).suggestion(suggestion));
                return;
            }
        }
    }

    fn undefined(&mut self, problem: Problem) -> Types {
        self.warn(problem);
        Types::UNDEFINED
    }

    fn membership(&mut self, membership: &Membership) -> Types {
        let value = membership.value;
        let types = self.of(value);
        let candidates = membership.candidates.iter().fold(Types::NONE, |types, &index| types.or(self.of(index)));
        if !types.and(candidates).without(Types::UNDEFINED).meets(Types::ANY) && !self.is_hopeless(value) {
            let message = format!(
                "{} is never in a list of {}",
                types.describe(),
                candidates.without(Types::UNDEFINED).describe()
            );
            let suggestion = if candidates.meets(Types::NUMBER) { self.as_number(value) } else { None };
            self.warn_at(value, message, suggestion);
        }
        Types::BOOLEAN.or(types.and(Types::UNDEFINED))
    }

    fn call(&mut self, call: &Call) -> Types {
        let Some(signature) = signature_of(call.function) else { return Types::ANY };
        let name = signature.names.first().copied().unwrap_or_default();
        let mut certain = false;
        let parameters = signature
            .parameters
            .iter()
            .copied()
            .chain(std::iter::repeat(signature.parameters.last().copied().unwrap_or(Types::ANY)));
        for (&argument, parameter) in call.arguments.iter().zip(parameters) {
            let types = self.of(argument);
            if types.meets(parameter) {
                continue;
            }
            certain = true;
            let expected = parameter.describe();
            if self.is_constant(argument) {
                let (start, end) = self.span(argument);
                let message = format!("{name} takes {expected} here, not {}", types.describe());
                self.findings.errors.push(Problem::new(start, end, message).expected(expected));
            } else if !self.is_hopeless(argument) {
                let message = format!(
                    "{name} takes {expected} here; this is {}, so the result is always undefined",
                    types.describe()
                );
                let suggestion = if parameter == Types::NUMBER { self.as_number(argument) } else { None };
                self.warn_at(argument, message, suggestion);
            }
        }
        if certain { Types::UNDEFINED } else { signature.result }
    }

    /// A value where a condition is expected, and what it may be then.
    fn condition(&mut self, index: NodeIndex) -> Types {
        let types = self.of(index);
        if !types.meets(Types::BOOLEAN) && !self.is_hopeless(index) {
            let written = self.written(index);
            let property = matches!(self.node(index), Some(Node::ApplicationProperty(_) | Node::SystemProperty(_)));
            let suggestion = property.then(|| format!("{written} = 'true'"));
            let what = types.describe();
            self.warn_at(index, format!("{what} is never true, so this is not a condition"), suggestion);
        }
        Types::BOOLEAN.or(types.and(Types::UNDEFINED))
    }
}
