use super::*;
use crate::Position;

/// Conditions that are refused: the part that the error is about, and something that the message says.
#[test]
fn refusals_say_where_and_why() {
    for (condition, about, says) in [
        ("", "", "empty"),
        (" /* c */ ", " /* c */ ", "empty"),
        ("level = ", "", "ends too early"),
        ("= 1", "=", "not expected"),
        ("level 'storage'", "'storage'", "not expected"),
        ("a = 'x' b = 'y'", "b", "not expected"),
        ("a = b = c", "=", "cannot be chained"),
        ("(a = 'x'", "", "ends too early"),
        ("a = 'x')", ")", "not opened"),
        ("a = NOT b", "NOT", "not expected"),
        ("a is null", "is", "is_null"),
        ("a like 'x%'", "like", "contains"),
        ("a between 1 and 2", "between", "AND"),
        ("a IN ('x')", "(", "brackets"),
        ("$body = 1", "$body", "whole body"),
        ("length($body) > 1", "$body", "whole body"),
        ("$twin.deviceId = 'x'", "$twin.deviceId", "only tags"),
        ("$twin.properties = 'x'", "$twin.properties", "only tags"),
        ("$twin = 'x'", "$twin", "only tags"),
        ("$ = 'x'", "$", "followed by a name"),
        ("$body.a. = 1", "=", "goes on with a name"),
        ("$body.2nd = 1", "2nd", "digit"),
        ("$body.a[-1] = 1", "-", "whole number"),
        ("$body.a[1.5] = 1", "1.5", "whole number"),
        ("$body.a[0x1] = 1", "0x1", "whole number"),
        ("$body.a[99999999999] = 1", "99999999999", "whole number"),
        ("$body.a['b'] = 1", "'b'", "whole number"),
        ("$body.a[1 = 1", "=", "no end"),
        ("level[0] = 'x'", "level[", "no elements"),
        ("$contentType.a = 'x'", "$contentType.", "no members"),
        ("$foo[0] = 'x'", "$foo[", "no members"),
        ("[[a b]] = 'x'", " ", "cannot be queried"),
        ("$body.[[a:b]] = 1", ":", "cannot be queried"),
        ("[[a\"b]] = 'x'", "\"", "cannot be queried"),
        ("[[]] = 'x'", "[[]]", "empty"),
        ("[[a = 'x'", "[[a = 'x'", "no end"),
        ("a@b = 'x'", "@", "cannot be queried"),
        ("a? = 'x'", "?", "cannot be queried"),
        ("$body.a.{b} = 1", "{", "cannot be queried"),
        ("a # b", "#", "no meaning"),
        ("and = 'x'", "and", "[[and]]"),
        ("regex(a, 'b')", "regex", "no function"),
        ("lenght(a) = 1", "lenght", "no function"),
        ("abs() = 1", "abs()", "1 argument, not 0"),
        ("power(1) = 1", "power(1)", "2 arguments, not 1"),
        ("substring('a') = 'x'", "substring('a')", "2 to 3 arguments, not 1"),
        ("concat('a') = 'x'", "concat('a')", "2 or more arguments, not 1"),
        ("is_defined(a, b)", "is_defined(a, b)", "1 argument, not 2"),
        ("abs('x') = 1", "'x'", "takes a number here, not a string"),
        ("abs(null) = 1", "null", "takes a number here, not null"),
        ("contains(level, 5)", "5", "takes a string here, not a number"),
        ("concat('a', 'b', true) = 'x'", "true", "takes a string here, not a boolean"),
        ("array_contains('x', 1)", "'x'", "takes an array here, not a string"),
        ("as_number(true) = 1", "true", "takes a number or a string here"),
        ("SELECT * FROM devices WHERE a = 'x'", "SELECT", "follows WHERE"),
        ("where level = 'x'", "where", "follows WHERE"),
        ("where = 'x' y", "y", "not expected"),
        ("a = 'x' /* c", "/* c", "no end"),
        ("a = \u{2018}x\u{2019}", "\u{2018}", "straight quotes"),
    ] {
        let error = error(condition);
        assert_eq!(place(condition, &error), about, "{condition}: {error:?}");
        assert!(error.message.contains(says), "{condition}: {error:?}");
    }
}

/// Mistakes for which a correction is known; with it, the condition compiles.
#[test]
fn suggestions_for_errors_compile() {
    for condition in [
        "",
        "a == 'x'",
        "a = 'x' && b = 'y'",
        "a = 'x' || b = 'y'",
        "!is_defined(a)",
        "a = 'x';",
        "a = 'x' NOT b = 'y'",
        "a NOT IN ['x']",
        "lenght(a) = 1",
        "isdefined(a)",
        "$body.2nd = 1",
        r"a = 'C:\temp'",
        "level = 12ab",
    ] {
        let corrected = corrected(condition, &error(condition));
        assert_eq!(compiled(&corrected).warnings, [], "{corrected}");
    }
}

/// Conditions that compile but do hardly what was meant, and where that is said.
#[test]
fn what_is_certain_is_a_warning() {
    for (condition, about) in [
        ("'a' = 1", "'a' = 1"),
        ("true != 'true'", "true != 'true'"),
        ("[1] = 1", "[1] = 1"),
        ("$body.a < null", "$body.a < null"),
        ("$body.a < undefined", "$body.a < undefined"),
        ("$body[0].x = 1", "$body[0].x"),
        ("length(1 + 1) = 1", "1 + 1"),
        ("-'5' = 1", "'5'"),
        ("undefined", "undefined"),
        ("NOT 5", "5"),
        ("$body.a OR 'x'", "'x'"),
        ("5", "5"),
        ("is_defined($body.a) IN [1]", "is_defined($body.a)"),
    ] {
        assert_eq!(place(condition, &warning(condition)), about, "{condition}");
    }
    for fine in [
        "$body.a = $body.b",
        "$body.a = null",
        "$body.a != null",
        "$twin.tags.a = 'x'",
        "is_null($body.a)",
        "is_defined(undefined)",
        "$body.a + 1 > $body.b * 2",
        "level IN ['a', 1]",
        "$body.a NIN [ [1]]",
        "as_number($body.a) >= -1",
        "NOT $body.flag AND $body.other",
        "substring(level, 0, 2) = 'ab'",
        "array_contains($body.list, level)",
    ] {
        assert_eq!(compiled(fine).warnings, [], "{fine}");
    }
}

/// Warnings for which a correction is known; with it, the condition compiles without a warning.
#[test]
fn suggestions_for_warnings_help() {
    for (condition, expected) in [
        ("temperature > 30", "as_number(temperature) > 30"),
        ("30 < temperature", "30 < as_number(temperature)"),
        ("temperature = length(x)", "as_number(temperature) = length(x)"),
        ("$messageId != 5", "as_number($messageId) != 5"),
        ("temperature + 1 > 30", "as_number(temperature) + 1 > 30"),
        ("-temperature > 30", "-as_number(temperature) > 30"),
        ("abs(temperature) > 30", "abs(as_number(temperature)) > 30"),
        ("temperature IN [1, 2]", "as_number(temperature) IN [1, 2]"),
        ("flag = true", "flag = 'true'"),
        ("flag", "flag = 'true'"),
        ("level = 'x' AND flag", "level = 'x' AND flag = 'true'"),
        ("a + b = 'xy'", "concat(a, b) = 'xy'"),
        ("level = null", "NOT is_defined(level)"),
        ("level != null", "is_defined(level)"),
        ("level = undefined", "NOT is_defined(level)"),
        ("undefined != $body.a", "is_defined($body.a)"),
        ("body.temperature > 5", "$body.temperature > 5"),
        ("weather.temperature = '5'", "$body.weather.temperature = '5'"),
        ("tags.site = 'x'", "$twin.tags.site = 'x'"),
        ("properties.reported.a = 'x'", "$twin.properties.reported.a = 'x'"),
        ("$conectionDeviceId = 'd1'", "$connectionDeviceId = 'd1'"),
    ] {
        let warnings = compiled(condition).warnings;
        assert_eq!(corrected(condition, &warnings[0]), expected);
        assert_eq!(compiled(expected).warnings, [], "{expected}");
    }
}

#[test]
fn the_source_decides_what_can_be_read() {
    let warnings = |condition, source| compile(condition, source).unwrap().warnings.len();
    assert_eq!(warnings("$body.a = 1 OR $body.b = 1", Source::DigitalTwinChangeEvents), 1);
    assert_eq!(warnings("$body.a = 1", Source::TwinChangeEvents), 0);
    assert_eq!(warnings("$connectionAuthMethod = 'x'", Source::DeviceLifecycleEvents), 1);
    assert_eq!(warnings("$connectionAuthMethod = 'x'", Source::DeviceMessages), 0);
}

#[test]
fn positions_are_lines_columns_and_bytes() {
    let error = error("ö = 'x'\n AND ?");
    assert_eq!(error.start, Position { line: 2, column: 5, offset: 14 });
    assert_eq!(error.end, Position { line: 2, column: 6, offset: 15 });
}

#[test]
fn type_errors_are_reported_together_with_warnings_and_bounded() {
    let errors = compile("abs('x') = 1 AND sqrt('y') = 2 AND level = 5", Source::DeviceMessages).unwrap_err();
    let severities: Vec<_> = errors.iter().map(|error| error.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Error, Severity::Warning]);
    let many = vec!["abs('x') = 1"; 200].join(" AND ");
    assert_eq!(compile(&many, Source::DeviceMessages).unwrap_err().len(), crate::MAX_DIAGNOSTICS);
}
