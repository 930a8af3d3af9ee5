//! Values, and when they are equal.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::json::Json;
use crate::program::{ComparisonOperator, Node, NodeIndex, Program};

/// The value of a part of a condition, borrowed from the program and the message.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// A missing property or path, or what has no meaning.
    Undefined,
    /// JSON null.
    Null,
    /// A boolean.
    Boolean(bool),
    /// An IEEE 754 double; arithmetic can make it infinite or not a number.
    Number(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// An array or object of the body or twin; never another kind of JSON value.
    Json(&'a Json),
    /// A constant array of the condition.
    List(&'a Program, &'a [NodeIndex]),
}

impl<'a> Value<'a> {
    /// What a JSON value is in a condition; nothing is undefined.
    pub(crate) fn of_json(json: Option<&'a Json>) -> Self {
        match json {
            None => Self::Undefined,
            Some(Json::Null) => Self::Null,
            Some(Json::Boolean(value)) => Self::Boolean(*value),
            Some(Json::Number(value)) => value.as_f64().map_or(Self::Undefined, Self::Number),
            Some(Json::Text(value)) => Self::Text(Cow::Borrowed(value)),
            Some(other) => Self::Json(other),
        }
    }

    pub(crate) fn of_text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Undefined, |text| Self::Text(Cow::Borrowed(text)))
    }

    /// The value of a constant; every other node is undefined here.
    pub(crate) fn of_constant(program: &'a Program, index: NodeIndex) -> Self {
        match program.node(index) {
            Some(Node::Null) => Self::Null,
            Some(Node::Boolean(value)) => Self::Boolean(*value),
            Some(Node::Number(value)) => Self::Number(*value),
            Some(Node::Text(value)) => Self::Text(Cow::Borrowed(value)),
            Some(Node::List(elements)) => Self::List(program, elements),
            _ => Self::Undefined,
        }
    }

    /// The length and a way to the elements, when it is an array.
    pub(crate) fn as_array(&self) -> Option<ArrayView<'a>> {
        match *self {
            Self::List(program, elements) => Some(ArrayView::Constant(program, elements)),
            Self::Json(Json::Array(elements)) => Some(ArrayView::Json(elements)),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = *self { Some(number) } else { None }
    }

    /// Membership by equality: of the same type and equal, arrays and objects element by element. Never undefined;
    /// an undefined value is equal to nothing.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Boolean(left), Self::Boolean(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => left == right,
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Json(Json::Object(left)), Self::Json(Json::Object(right))) => same_objects(left, right),
            _ => match (self.as_array(), other.as_array()) {
                (Some(left), Some(right)) => {
                    left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| left.same(&right))
                }
                _ => false,
            },
        }
    }

    /// A comparison with three results; `None` is undefined (protocol notes: query language §3).
    pub(crate) fn compare(&self, operator: ComparisonOperator, other: &Self) -> Option<bool> {
        use ComparisonOperator::{Equal, NotEqual};
        if let (Self::Null, _) | (_, Self::Null) = (self, other) {
            let primitive = |value: &Self| !matches!(value, Self::Undefined | Self::Json(_) | Self::List(..));
            if !primitive(self) || !primitive(other) {
                return None;
            }
            let both = matches!((self, other), (Self::Null, Self::Null));
            return match operator {
                Equal => Some(both),
                NotEqual => Some(!both),
                _ => None,
            };
        }
        match (self, other) {
            (Self::Boolean(left), Self::Boolean(right)) => Some(satisfies(operator, Some(left.cmp(right)))),
            (Self::Number(left), Self::Number(right)) => Some(satisfies(operator, left.partial_cmp(right))),
            (Self::Text(left), Self::Text(right)) => Some(satisfies(operator, Some(left.cmp(right)))),
            _ => None,
        }
    }
}

/// An array of the condition, the body or the twin.
#[derive(Clone, Copy)]
pub(crate) enum ArrayView<'a> {
    Constant(&'a Program, &'a [NodeIndex]),
    Json(&'a [Json]),
}

impl<'a> ArrayView<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Constant(_, elements) => elements.len(),
            Self::Json(elements) => elements.len(),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).map(move |index| match self {
            Self::Constant(program, elements) => {
                elements.get(index).map_or(Value::Undefined, |&element| Value::of_constant(program, element))
            }
            Self::Json(elements) => Value::of_json(elements.get(index)),
        })
    }
}

/// Whether an ordering is one that the operator asks for. Without an ordering (not a number), only `!=` holds.
fn satisfies(operator: ComparisonOperator, ordering: Option<Ordering>) -> bool {
    match operator {
        ComparisonOperator::Equal => ordering == Some(Ordering::Equal),
        ComparisonOperator::NotEqual => ordering != Some(Ordering::Equal),
        ComparisonOperator::Less => ordering == Some(Ordering::Less),
        ComparisonOperator::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        ComparisonOperator::Greater => ordering == Some(Ordering::Greater),
        ComparisonOperator::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// Same names with the same values, in any order; a name that is repeated must be repeated in both. Names are values
/// here, so case matters. Sorted, because a device chooses both objects and a search for each name would take quadratic
/// time; and only when the sizes agree, so that looking for one object among many costs no more than reading them.
fn same_objects(left: &[(String, Json)], right: &[(String, Json)]) -> bool {
    fn sorted(members: &[(String, Json)]) -> Vec<(&str, &Json)> {
        let mut members: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value)).collect();
        members.sort_by_key(|(name, _)| *name);
        members
    }
    left.len() == right.len()
        && sorted(left).into_iter().zip(sorted(right)).all(|((left_name, left), (right_name, right))| {
            left_name == right_name && Value::of_json(Some(left)).same(&Value::of_json(Some(right)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn same(left: &str, right: &str) -> bool {
        Value::of_json(Some(&json(left))).same(&Value::of_json(Some(&json(right))))
    }

    #[test]
    fn documents_are_the_same_whatever_the_order_of_members() {
        assert!(same(r#"{"a":1,"b":[null,{"c":true}]}"#, r#"{"b":[null,{"c":true}],"a":1.0}"#));
        assert!(same(r#"{"a":2,"b":0,"a":1}"#, r#"{"a":2,"a":1,"b":0}"#));
        assert!(!same(r#"{"a":2,"a":1}"#, r#"{"a":1}"#));
        assert!(!same(r#"{"a":1}"#, r#"{"A":1}"#));
        assert!(!same(r#"{"a":1}"#, r#"{"a":1,"b":1}"#));
        assert!(!same("[1,2]", "[2,1]"));
        assert!(!same("[]", "{}"));
        assert!(!same("1", "\"1\""));
    }

    #[test]
    fn a_large_object_with_members_in_reverse_is_compared_in_reasonable_time() {
        // Quadratic comparison of 50,000 members takes minutes, which fails by the test runner's patience.
        let object =
            |names: &mut dyn Iterator<Item = u32>| Json::Object(names.map(|n| (n.to_string(), Json::Null)).collect());
        let (forward, backward) = (object(&mut (0..50_000)), object(&mut (0..50_000).rev()));
        assert!(Value::Json(&forward).same(&Value::Json(&backward)));
    }

    #[test]
    fn not_a_number_is_only_unequal() {
        use ComparisonOperator::*;
        let (nan, one) = (Value::Number(f64::NAN), Value::Number(1.0));
        for operator in [Equal, Less, LessOrEqual, Greater, GreaterOrEqual] {
            assert_eq!(nan.compare(operator, &one), Some(false));
        }
        assert_eq!(nan.compare(NotEqual, &nan.clone()), Some(true));
    }
}
