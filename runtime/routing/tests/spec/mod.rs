//! The language as its specification reads (protocol notes: routing §3 and query language §1, §3, §4), evaluated over syntax
//! trees: no parser, no program, nothing shared with the code that it is compared to.

use std::fmt::Write as _;

/// A value of the language and of JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Spec {
    Undefined,
    Null,
    Bool(bool),
    Num(f64),
    Str(String),
    Arr(Vec<Spec>),
    Obj(Vec<(String, Spec)>),
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Const(Spec),
    /// An application property.
    App(String),
    /// `$messageId`, `$contentType`
    Sys(&'static str),
    Body(Vec<Seg>),
    Tags(Vec<Seg>),
    Neg(Box<Expr>),
    Arith(char, Box<Expr>, Box<Expr>),
    Cmp(&'static str, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Vec<Spec>, bool),
    Call(&'static str, Vec<Expr>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

#[derive(Clone, Debug)]
pub(crate) enum Seg {
    Name(String),
    Index(usize),
}

/// What conditions read.
#[derive(Clone, Debug)]
pub(crate) struct SpecMessage {
    pub(crate) app: Vec<(String, String)>,
    pub(crate) message_id: Option<String>,
    pub(crate) body: Spec,
    pub(crate) tags: Spec,
}

/// True, false or undefined.
pub(crate) fn verdict(expr: &Expr, message: &SpecMessage) -> Option<bool> {
    truth(&value(expr, message))
}

/// "Non-boolean as a condition: treated as false"; undefined stays undefined.
fn truth(value: &Spec) -> Option<bool> {
    match value {
        Spec::Undefined => None,
        Spec::Bool(value) => Some(*value),
        _ => Some(false),
    }
}

fn three(value: Option<bool>) -> Spec {
    value.map_or(Spec::Undefined, Spec::Bool)
}

fn value(expr: &Expr, message: &SpecMessage) -> Spec {
    let of = |expr: &Expr| value(expr, message);
    match expr {
        Expr::Const(constant) => constant.clone(),
        Expr::App(name) => {
            let named = message.app.iter().rev().find(|(known, _)| known.to_lowercase() == name.to_lowercase());
            named.map_or(Spec::Undefined, |(_, value)| Spec::Str(value.clone()))
        }
        Expr::Sys("$messageId") => message.message_id.clone().map_or(Spec::Undefined, Spec::Str),
        Expr::Sys(_) => Spec::Str("application/json".into()),
        Expr::Body(path) => follow(&message.body, path),
        Expr::Tags(path) => follow(&message.tags, path),
        Expr::Neg(operand) => num(&of(operand)).map_or(Spec::Undefined, |n| Spec::Num(-n)),
        Expr::Arith(operator, left, right) => match (num(&of(left)), num(&of(right))) {
            (Some(left), Some(right)) => Spec::Num(match operator {
                '+' => left + right,
                '-' => left - right,
                '*' => left * right,
                '/' => left / right,
                _ => left % right,
            }),
            _ => Spec::Undefined,
        },
        Expr::Cmp(operator, left, right) => three(compare(operator, &of(left), &of(right))),
        Expr::In(operand, list, negated) => match of(operand) {
            Spec::Undefined => Spec::Undefined,
            value => Spec::Bool(list.iter().any(|candidate| equal(&value, candidate)) != *negated),
        },
        Expr::Call(function, arguments) => call(function, &arguments.iter().map(of).collect::<Vec<_>>()),
        Expr::Not(operand) => three(truth(&of(operand)).map(|value| !value)),
        Expr::And(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| truth(&of(part))).collect();
            let all = parts.iter().all(|part| *part == Some(true)).then_some(true);
            three(if parts.contains(&Some(false)) { Some(false) } else { all })
        }
        Expr::Or(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| truth(&of(part))).collect();
            let none = parts.iter().all(|part| *part == Some(false)).then_some(false);
            three(if parts.contains(&Some(true)) { Some(true) } else { none })
        }
    }
}

fn follow(top: &Spec, path: &[Seg]) -> Spec {
    let mut at = top;
    for segment in path {
        let next = match (at, segment) {
            (Spec::Obj(members), Seg::Name(name)) => {
                members.iter().rev().find(|(known, _)| known.to_lowercase() == name.to_lowercase()).map(|(_, v)| v)
            }
            (Spec::Arr(elements), Seg::Index(index)) => elements.get(*index),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Spec::Undefined,
        }
    }
    at.clone()
}

fn num(value: &Spec) -> Option<f64> {
    if let Spec::Num(number) = value { Some(*number) } else { None }
}

fn compare(operator: &str, left: &Spec, right: &Spec) -> Option<bool> {
    use std::cmp::Ordering;
    let primitive = |value: &Spec| !matches!(value, Spec::Undefined | Spec::Arr(_) | Spec::Obj(_));
    if !primitive(left) || !primitive(right) {
        return None;
    }
    let ordering: Option<Ordering> = match (left, right) {
        (Spec::Null, _) | (_, Spec::Null) => {
            let both = left == right;
            return match operator {
                "=" => Some(both),
                "!=" | "<>" => Some(!both),
                _ => None,
            };
        }
        (Spec::Num(left), Spec::Num(right)) => left.partial_cmp(right),
        (Spec::Str(left), Spec::Str(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Spec::Bool(left), Spec::Bool(right)) => Some(left.cmp(right)),
        _ => return None,
    };
    Some(match operator {
        "=" => ordering == Some(Ordering::Equal),
        "!=" | "<>" => ordering != Some(Ordering::Equal),
        "<" => ordering == Some(Ordering::Less),
        "<=" => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        ">" => ordering == Some(Ordering::Greater),
        _ => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// Membership by equality, deep for arrays and objects.
fn equal(left: &Spec, right: &Spec) -> bool {
    match (left, right) {
        (Spec::Undefined, _) | (_, Spec::Undefined) => false,
        (Spec::Arr(left), Spec::Arr(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Spec::Obj(left), Spec::Obj(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.iter().any(|(n, v)| n == name && equal(v, value)))
        }
        _ => left == right,
    }
}

fn call(function: &str, arguments: &[Spec]) -> Spec {
    use Spec::{Bool, Num, Str, Undefined};
    let text = |place: usize| if let Some(Str(text)) = arguments.get(place) { Some(text.as_str()) } else { None };
    let number = |place: usize| arguments.get(place).and_then(num);
    let first = arguments.first().unwrap();
    let result = || {
        Some(match function {
            "is_defined" => Bool(*first != Undefined),
            "is_null" => Bool(*first == Spec::Null),
            "is_bool" => Bool(matches!(first, Bool(_))),
            "is_number" => Bool(matches!(first, Num(_))),
            "is_string" => Bool(matches!(first, Str(_))),
            "is_array" => Bool(matches!(first, Spec::Arr(_))),
            "is_object" => Bool(matches!(first, Spec::Obj(_))),
            "is_primitive" => Bool(matches!(first, Spec::Null | Bool(_) | Num(_) | Str(_))),
            "contains" => Bool(text(0)?.contains(text(1)?)),
            "starts_with" => Bool(text(0)?.starts_with(text(1)?)),
            "ends_with" => Bool(text(0)?.ends_with(text(1)?)),
            #[allow(clippy::cast_precision_loss, reason = "short texts")]
            "length" => Num(text(0)?.chars().count() as f64),
            "lower" => Str(text(0)?.to_lowercase()),
            "upper" => Str(text(0)?.to_uppercase()),
            #[allow(clippy::cast_precision_loss, reason = "short texts")]
            "index_of" => {
                let (text, part) = (text(0)?, text(1)?);
                Num(text.find(part).map_or(-1.0, |at| text[..at].chars().count() as f64))
            }
            "concat" => Str((0..arguments.len()).map(text).collect::<Option<String>>()?),
            "abs" => Num(number(0)?.abs()),
            "floor" => Num(number(0)?.floor()),
            "square" => Num(number(0)? * number(0)?),
            "as_number" => match first {
                Num(number) => Num(*number),
                _ => Num(text(0)?.trim_ascii().parse::<f64>().ok().filter(|n| n.is_finite())?),
            },
            "array_contains" => match (first, arguments.get(1)?) {
                (Spec::Arr(_), Undefined) => Undefined,
                (Spec::Arr(elements), wanted) => Bool(elements.iter().any(|element| equal(element, wanted))),
                _ => Undefined,
            },
            other => unreachable!("{other}"),
        })
    };
    result().unwrap_or(Undefined)
}

/// JSON text of a value.
pub(crate) fn json(value: &Spec) -> String {
    match value {
        Spec::Undefined | Spec::Null => "null".into(),
        Spec::Bool(value) => value.to_string(),
        Spec::Num(number) => number.to_string(),
        Spec::Str(text) => serde_json::to_string(text).unwrap(),
        Spec::Arr(elements) => format!("[{}]", elements.iter().map(json).collect::<Vec<_>>().join(", ")),
        Spec::Obj(members) => {
            let members =
                members.iter().map(|(name, value)| format!("{}:{}", json(&Spec::Str(name.clone())), json(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

/// The condition as its author would write it.
pub(crate) fn text(expr: &Expr) -> String {
    let joined = |parts: &[Expr], word: &str| format!("({})", parts.iter().map(text).collect::<Vec<_>>().join(word));
    match expr {
        Expr::Const(constant) => constant_text(constant),
        Expr::App(name) => name.clone(),
        Expr::Sys(name) => (*name).into(),
        Expr::Body(path) => path_text("$body", path),
        Expr::Tags(path) => path_text("$twin.tags", path),
        Expr::Neg(operand) => format!("-({})", text(operand)),
        Expr::Arith(operator, left, right) => format!("({} {operator} {})", text(left), text(right)),
        Expr::Cmp(operator, left, right) => format!("({} {operator} {})", text(left), text(right)),
        Expr::In(operand, list, negated) => {
            let list = list.iter().map(constant_text).collect::<Vec<_>>().join(", ");
            format!("({} {} [{list}])", text(operand), if *negated { "NIN" } else { "IN" })
        }
        Expr::Call(function, arguments) => {
            format!("{function}({})", arguments.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        Expr::Not(operand) => format!("(NOT {})", text(operand)),
        Expr::And(parts) => joined(parts, " AND "),
        Expr::Or(parts) => joined(parts, " OR "),
    }
}

fn constant_text(constant: &Spec) -> String {
    match constant {
        Spec::Undefined => "undefined".into(),
        Spec::Null => "null".into(),
        Spec::Bool(value) => value.to_string(),
        Spec::Num(number) => number.to_string(),
        Spec::Str(text) => format!("'{text}'"),
        Spec::Arr(elements) => format!("[{}]", elements.iter().map(constant_text).collect::<Vec<_>>().join(", ")),
        Spec::Obj(_) => unreachable!("there are no constant objects"),
    }
}

fn path_text(start: &str, path: &[Seg]) -> String {
    path.iter().fold(start.to_owned(), |mut text, segment| {
        let _ = match segment {
            Seg::Name(name) => write!(text, ".{name}"),
            Seg::Index(index) => write!(text, "[{index}]"),
        };
        text
    })
}
