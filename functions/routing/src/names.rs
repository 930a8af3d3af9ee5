//! The words of the language: functions, their parameters and results, system properties, keywords.

use crate::{Function, SystemProperty};

/// A set of types that a value may have when the condition runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Types(u8);

impl Types {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const UNDEFINED: Self = Self(1);
    pub(crate) const NULL: Self = Self(1 << 1);
    pub(crate) const BOOLEAN: Self = Self(1 << 2);
    pub(crate) const NUMBER: Self = Self(1 << 3);
    pub(crate) const TEXT: Self = Self(1 << 4);
    pub(crate) const ARRAY: Self = Self(1 << 5);
    pub(crate) const OBJECT: Self = Self(1 << 6);
    pub(crate) const ANY: Self = Self(0x7F);

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The types that a value may have, for people. What may be missing besides goes without saying.
    pub(crate) fn describe(self) -> String {
        let names = [
            (Self::NULL, "null"),
            (Self::BOOLEAN, "a boolean"),
            (Self::NUMBER, "a number"),
            (Self::TEXT, "a string"),
            (Self::ARRAY, "an array"),
            (Self::OBJECT, "an object"),
        ];
        let parts: Vec<_> = names.into_iter().filter(|(types, _)| self.meets(*types)).map(|(_, name)| name).collect();
        if parts.is_empty() { "undefined".into() } else { parts.join(" or ") }
    }
}

/// What a function takes and gives.
pub(crate) struct Signature {
    pub(crate) function: Function,
    /// The spellings; the first is the usual one.
    pub(crate) names: &'static [&'static str],
    /// One set for each parameter; the last is also that of further arguments.
    pub(crate) parameters: &'static [Types],
    pub(crate) fewest: usize,
    pub(crate) most: usize,
    pub(crate) result: Types,
}

const fn signature(
    function: Function,
    names: &'static [&'static str],
    parameters: &'static [Types],
    result: Types,
) -> Signature {
    Signature { function, names, parameters, fewest: parameters.len(), most: parameters.len(), result }
}

const TEXT: Types = Types::TEXT;
const NUMBER: Types = Types::NUMBER;
const ANY: Types = Types::ANY;
const BOOLEAN: Types = Types::BOOLEAN;

/// Every function (protocol notes: query language §4).
pub(crate) const FUNCTIONS: [Signature; 27] = [
    signature(Function::IsDefined, &["IS_DEFINED"], &[ANY], BOOLEAN),
    signature(Function::IsNull, &["IS_NULL"], &[ANY], BOOLEAN),
    signature(Function::IsBool, &["IS_BOOL"], &[ANY], BOOLEAN),
    signature(Function::IsNumber, &["IS_NUMBER"], &[ANY], BOOLEAN),
    signature(Function::IsString, &["IS_STRING"], &[ANY], BOOLEAN),
    signature(Function::IsArray, &["IS_ARRAY"], &[ANY], BOOLEAN),
    signature(Function::IsObject, &["IS_OBJECT"], &[ANY], BOOLEAN),
    signature(Function::IsPrimitive, &["IS_PRIMITIVE"], &[ANY], BOOLEAN),
    signature(Function::Contains, &["CONTAINS"], &[TEXT, TEXT], BOOLEAN.or(Types::UNDEFINED)),
    signature(Function::StartsWith, &["STARTS_WITH", "STARTSWITH"], &[TEXT, TEXT], BOOLEAN.or(Types::UNDEFINED)),
    signature(Function::EndsWith, &["ENDS_WITH", "ENDSWITH"], &[TEXT, TEXT], BOOLEAN.or(Types::UNDEFINED)),
    signature(Function::Length, &["LENGTH"], &[TEXT], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Lower, &["LOWER"], &[TEXT], TEXT.or(Types::UNDEFINED)),
    signature(Function::Upper, &["UPPER"], &[TEXT], TEXT.or(Types::UNDEFINED)),
    Signature {
        fewest: 2,
        ..signature(Function::Substring, &["SUBSTRING"], &[TEXT, NUMBER, NUMBER], TEXT.or(Types::UNDEFINED))
    },
    signature(Function::IndexOf, &["INDEX_OF"], &[TEXT, TEXT], NUMBER.or(Types::UNDEFINED)),
    Signature {
        most: usize::MAX,
        ..signature(Function::Concat, &["CONCAT"], &[TEXT, TEXT], TEXT.or(Types::UNDEFINED))
    },
    signature(Function::Abs, &["ABS"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Exp, &["EXP"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Power, &["POWER"], &[NUMBER, NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Square, &["SQUARE"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Sqrt, &["SQRT"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Ceiling, &["CEILING"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Floor, &["FLOOR"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::Sign, &["SIGN"], &[NUMBER], NUMBER.or(Types::UNDEFINED)),
    signature(Function::AsNumber, &["AS_NUMBER"], &[TEXT.or(NUMBER)], NUMBER.or(Types::UNDEFINED)),
    signature(Function::ArrayContains, &["ARRAY_CONTAINS"], &[Types::ARRAY, ANY], BOOLEAN.or(Types::UNDEFINED)),
];

/// The function with a name, without regard to case.
pub(crate) fn function(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|signature| signature.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// What a function takes and gives. Every function is in the table, which a test checks.
pub(crate) fn signature_of(function: Function) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|signature| signature.function == function)
}

/// The system properties by their names after `$` (protocol notes: routing §3.1).
pub(crate) const SYSTEM_PROPERTIES: [(&str, SystemProperty); 12] = [
    ("contentType", SystemProperty::ContentType),
    ("contentEncoding", SystemProperty::ContentEncoding),
    ("connectionDeviceId", SystemProperty::ConnectionDeviceId),
    ("connectionModuleId", SystemProperty::ConnectionModuleId),
    ("connectionAuthMethod", SystemProperty::ConnectionAuthMethod),
    ("connectionDeviceGenerationId", SystemProperty::ConnectionDeviceGenerationId),
    ("enqueuedTime", SystemProperty::EnqueuedTime),
    ("messageId", SystemProperty::MessageId),
    ("correlationId", SystemProperty::CorrelationId),
    ("userId", SystemProperty::UserId),
    ("dt-dataschema", SystemProperty::DtDataschema),
    ("dt-subject", SystemProperty::DtSubject),
];

/// The system property with a name, without regard to case.
pub(crate) fn system_property(name: &str) -> Option<SystemProperty> {
    SYSTEM_PROPERTIES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, property)| property)
}

/// The known name that was probably meant: at most two slips of the keyboard away, one for short names.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // Longer than every name, and the distance takes time that is quadratic in the length.
    if name.len() > 64 {
        return None;
    }
    let allowed = if name.chars().count() < 5 { 1 } else { 2 };
    known
        .map(|known| (strsim::damerau_levenshtein(&known.to_lowercase(), &name.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A name in the form that programs hold: each character in lower case.
pub(crate) fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).collect()
}

/// Words that are operators or constants. A property with such a name is written `[[name]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    And,
    Or,
    Not,
    In,
    Nin,
    True,
    False,
    Null,
    Undefined,
}

impl Keyword {
    pub(crate) fn of(word: &str) -> Option<Self> {
        [
            ("and", Self::And),
            ("or", Self::Or),
            ("not", Self::Not),
            ("in", Self::In),
            ("nin", Self::Nin),
            ("true", Self::True),
            ("false", Self::False),
            ("null", Self::Null),
            ("undefined", Self::Undefined),
        ]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word))
        .map(|(_, keyword)| keyword)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_in_the_table_once() {
        for (place, signature) in FUNCTIONS.iter().enumerate() {
            assert_eq!(signature.function as usize, place);
            assert!(signature.fewest <= signature.most && !signature.parameters.is_empty());
        }
        assert_eq!(Function::ArrayContains as usize, FUNCTIONS.len() - 1);
        assert_eq!(SystemProperty::DtSubject as usize, SYSTEM_PROPERTIES.len() - 1);
    }

    #[test]
    fn slips_are_recognised() {
        let functions = || FUNCTIONS.iter().filter_map(|signature| signature.names.first().copied());
        assert_eq!(nearest("lenght", functions()), Some("LENGTH"));
        assert_eq!(nearest("isdefined", functions()), Some("IS_DEFINED"));
        assert_eq!(nearest("regex", functions()), None);
        assert_eq!(nearest(&"x".repeat(8000), functions()), None);
    }
}
