//! The functions of the language (protocol notes: query language §4). A wrong type is undefined, never an error.

use std::borrow::Cow;

use crate::program::Function;
use crate::value::Value;

/// The longest string that a function makes, in bytes; beyond it the result is undefined. Four times the largest
/// message, so that only a condition that multiplies text meets it.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// How many bytes of text the functions of one condition touch for one message; beyond it, results are undefined. Without
/// it, a condition of 8,192 characters and a body of 256 KiB could keep a processor busy for seconds.
pub const MAX_TEXT_WORK_BYTES: usize = 16 * 1024 * 1024;

/// The value of a call. `text_work` is what remains of [`MAX_TEXT_WORK_BYTES`].
pub(crate) fn call<'a>(function: Function, arguments: &[Value<'a>], text_work: &mut usize) -> Value<'a> {
    let touched = arguments.iter().filter_map(Value::as_text).map(str::len).fold(0, usize::saturating_add);
    match text_work.checked_sub(touched) {
        Some(remaining) => *text_work = remaining,
        None => return Value::Undefined,
    }
    if let (Function::Concat, arguments) = (function, arguments) {
        return concat(arguments);
    }
    match arguments {
        [value] => unary(function, value),
        [left, right] => binary(function, left, right),
        [text, start, length] if function == Function::Substring => substring(text, start, Some(length)),
        _ => None,
    }
    .unwrap_or(Value::Undefined)
}

fn unary<'a>(function: Function, value: &Value<'a>) -> Option<Value<'a>> {
    let number = || value.as_number();
    Some(match function {
        Function::IsDefined => Value::Boolean(!matches!(value, Value::Undefined)),
        Function::IsNull => Value::Boolean(matches!(value, Value::Null)),
        Function::IsBool => Value::Boolean(matches!(value, Value::Boolean(_))),
        Function::IsNumber => Value::Boolean(matches!(value, Value::Number(_))),
        Function::IsString => Value::Boolean(matches!(value, Value::Text(_))),
        Function::IsArray => Value::Boolean(value.as_array().is_some()),
        Function::IsObject => Value::Boolean(matches!(value, Value::Json(_)) && value.as_array().is_none()),
        Function::IsPrimitive => {
            Value::Boolean(matches!(value, Value::Null | Value::Boolean(_) | Value::Number(_) | Value::Text(_)))
        }
        Function::Length => number_of(value.as_text()?.chars().count()),
        Function::Lower => bounded(value.as_text()?.to_lowercase())?,
        Function::Upper => bounded(value.as_text()?.to_uppercase())?,
        Function::Abs => Value::Number(number()?.abs()),
        Function::Exp => Value::Number(number()?.exp()),
        Function::Square => Value::Number(number()? * number()?),
        Function::Sqrt => Value::Number(number()?.sqrt()),
        Function::Ceiling => Value::Number(number()?.ceil()),
        Function::Floor => Value::Number(number()?.floor()),
        Function::Sign => Value::Number(sign(number()?)),
        Function::AsNumber => match value {
            Value::Number(number) => Value::Number(*number),
            _ => Value::Number(as_number(value.as_text()?)?),
        },
        _ => return None,
    })
}

fn binary<'a>(function: Function, left: &Value<'a>, right: &Value<'a>) -> Option<Value<'a>> {
    let texts = || left.as_text().zip(right.as_text());
    Some(match function {
        Function::Contains => texts().map(|(text, part)| Value::Boolean(text.contains(part)))?,
        Function::StartsWith => texts().map(|(text, part)| Value::Boolean(text.starts_with(part)))?,
        Function::EndsWith => texts().map(|(text, part)| Value::Boolean(text.ends_with(part)))?,
        Function::IndexOf => {
            let (text, part) = texts()?;
            let before = text.find(part).and_then(|at| text.get(..at));
            before.map_or(Value::Number(-1.0), |before| number_of(before.chars().count()))
        }
        Function::Substring => substring(left, right, None)?,
        Function::Power => Value::Number(left.as_number()?.powf(right.as_number()?)),
        Function::ArrayContains if matches!(right, Value::Undefined) => return None,
        Function::ArrayContains => Value::Boolean(left.as_array()?.iter().any(|element| element.same(right))),
        _ => return None,
    })
}

/// The characters from `start` on, at most `length` of them. Fractions are cut off; negative numbers are undefined; a
/// start beyond the end gives the empty string.
fn substring<'a>(text: &Value<'a>, start: &Value<'a>, length: Option<&Value<'a>>) -> Option<Value<'a>> {
    let whole = |value: &Value<'a>| value.as_number().filter(|number| *number > -1.0).map(f64::trunc);
    let (text, start) = (text.as_text()?, whole(start)?);
    let length = length.map_or(Some(f64::INFINITY), whole)?;
    // A text has fewer characters than any number that the conversion would cut down to the largest `usize`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates, see above")]
    let (start, length) = (start as usize, length as usize);
    bounded(text.chars().skip(start).take(length).collect())
}

fn concat<'a>(arguments: &[Value<'a>]) -> Value<'a> {
    let Some(parts) = arguments.iter().map(Value::as_text).collect::<Option<Vec<_>>>() else {
        return Value::Undefined;
    };
    if parts.iter().map(|part| part.len()).sum::<usize>() > MAX_TEXT_BYTES {
        return Value::Undefined;
    }
    Value::Text(Cow::Owned(parts.concat()))
}

fn bounded<'a>(text: String) -> Option<Value<'a>> {
    (text.len() <= MAX_TEXT_BYTES).then_some(Value::Text(Cow::Owned(text)))
}

fn number_of<'a>(count: usize) -> Value<'a> {
    // Texts are far shorter than the 2^53 up to which doubles count exactly.
    #[allow(clippy::cast_precision_loss, reason = "exact, see above")]
    Value::Number(count as f64)
}

/// -1, 0 or 1; zero keeps its sign and not a number stays so.
fn sign(number: f64) -> f64 {
    if number == 0.0 { number } else { number.signum() }
}

/// A decimal number with optional sign, fraction and exponent, white space around it allowed. Names such as `inf` and
/// numbers beyond the range of a double are not numbers.
fn as_number(text: &str) -> Option<f64> {
    let text = text.trim_ascii();
    let plain = |c: u8| c.is_ascii_digit() || matches!(c, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(plain) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_numbers() {
        for (text, number) in
            [("32", 32.0), (" -1.5 ", -1.5), ("+2", 2.0), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("1E-2", 0.01)]
        {
            assert_eq!(as_number(text), Some(number), "{text}");
        }
        for text in ["", " ", "inf", "NaN", "infinity", "0x10", "1,5", "1 2", "1e999", "-", "e", "1e", "٣"] {
            assert_eq!(as_number(text), None, "{text}");
        }
    }

    #[test]
    fn results_and_work_are_bounded() {
        let long = Value::Text(Cow::Owned("x".repeat(MAX_TEXT_BYTES)));
        let mut work = MAX_TEXT_WORK_BYTES;
        assert!(matches!(call(Function::Upper, std::slice::from_ref(&long), &mut work), Value::Text(_)));
        let two = [long.clone(), Value::Text("y".into())];
        assert!(matches!(call(Function::Concat, &two, &mut work), Value::Undefined));
        assert_eq!(work, MAX_TEXT_WORK_BYTES - 2 * MAX_TEXT_BYTES - 1);
        let mut little = MAX_TEXT_BYTES - 1;
        assert!(matches!(call(Function::Length, &[long], &mut little), Value::Undefined));
        assert_eq!(sign(-0.0).to_bits(), (-0.0_f64).to_bits());
        assert_eq!(sign(-3.0), -1.0);
        assert!(sign(f64::NAN).is_nan());
    }
}
