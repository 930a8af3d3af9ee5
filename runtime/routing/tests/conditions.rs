//! Condition text and message in, verdict out: the rules of the protocol notes, query language §3 and §4 and routing §3,
//! row by row.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which the relaxation for test functions misses"
)]

mod common;

use common::Message;
use nave_routing::{SystemProperties, TwinText, Verdict};

const T: Verdict = Verdict::True;
const F: Verdict = Verdict::False;
const U: Verdict = Verdict::Undefined;

fn check(message: &Message, rows: &[(&str, Verdict)]) {
    for (condition, verdict) in rows {
        assert_eq!(message.verdict(condition), *verdict, "{condition}");
    }
}

fn weather() -> Message {
    Message::json(
        r#"{"Weather":{"IsEnabled":true,"Temperature":50,"HistoricalData":[{"Month":"Feb","T":-2.5},{"Month":"Mar"}]},
            "n":null,"zero":0,"text":"Straße","empty":"","list":[1,"a",null,[2],{"k":1}],"o":{"k":1},"number":"32","big":1e308}"#,
    )
}

#[test]
fn examples_of_the_routing_page() {
    let message = Message {
        system: SystemProperties {
            content_type: Some("application/json"),
            content_encoding: Some("utf-8"),
            connection_device_id: Some("d1"),
            ..SystemProperties::default()
        },
        ..weather()
    }
    .with("level", "storage")
    .with("temperature", "32");
    check(
        &message,
        &[
            ("level = 'storage'", T),
            ("$contentType = 'application/json' AND $body.Weather.HistoricalData[0].Month = 'Feb'", T),
            ("$contentType = 'application/json' AND $body.Weather.HistoricalData[1].Month = 'Feb'", F),
            ("NOT is_defined($twin.tags.location)", T),
            ("$connectionDeviceId = 'd1' OR STARTS_WITH($connectionDeviceId,'line7-')", T),
            ("$connectionDeviceId = 'd2' OR STARTS_WITH($connectionDeviceId,'line7-')", F),
            ("true", T),
            ("false", F),
            ("temperature > 30", U),
            ("as_number(temperature) > 30", T),
            ("as_number(level) > 30", U),
            ("$body.Weather.IsEnabled", T),
            ("$body.Weather.Temperature >= 50", T),
            ("missing = 'x'", U),
        ],
    );
}

#[test]
fn names_ignore_case_and_values_do_not() {
    let message = Message {
        system: SystemProperties { message_id: Some("Id"), ..weather().system },
        twin: TwinText { tags: Some(r#"{"Site":"North"}"#), ..TwinText::default() },
        ..weather()
    }
    .with("LEVEL", "Storage");
    check(
        &message,
        &[
            ("level = 'Storage'", T),
            ("Level = 'storage'", F),
            ("$MESSAGEID = 'Id'", T),
            ("$messageid = 'id'", F),
            ("$BODY.weather.HISTORICALDATA[0].month = 'Feb'", T),
            ("$body.weather.historicaldata[0].month = 'feb'", F),
            ("$TWIN.TAGS.SITE = 'North'", T),
            ("$twin.tags.site = 'north'", F),
        ],
    );
}

#[test]
fn dollar_names_fall_back_to_application_properties() {
    let message = Message::json("{}").with("$odd", "1").with("odd", "2").with("plain", "3").with("contentType", "4");
    check(
        &message,
        &[
            ("$odd = '1'", T),
            ("odd = '2'", T),
            ("$plain = '3'", T),
            ("$contentType = 'application/json'", T),
            ("contentType = '4'", T),
            // A system property never comes from the device's own properties.
            ("$connectionModuleId = '5'", U),
        ],
    );
    let spoofed = Message::json("{}").with("connectionModuleId", "5").with("$connectionModuleId", "5");
    check(&spoofed, &[("$connectionModuleId = '5'", U), ("connectionModuleId = '5'", T)]);
}

#[test]
fn every_system_property_is_read_from_its_slot() {
    let system = SystemProperties {
        content_type: Some("1"),
        content_encoding: Some("2"),
        connection_device_id: Some("3"),
        connection_module_id: Some("4"),
        connection_auth_method: Some("5"),
        connection_device_generation_id: Some("6"),
        enqueued_time: Some("7"),
        message_id: Some("8"),
        correlation_id: Some("9"),
        user_id: Some("10"),
        dt_dataschema: Some("11"),
        dt_subject: Some("12"),
    };
    let message = Message { system, ..Message::json("") };
    let names = [
        "contentType",
        "contentEncoding",
        "connectionDeviceId",
        "connectionModuleId",
        "connectionAuthMethod",
        "connectionDeviceGenerationId",
        "enqueuedTime",
        "messageId",
        "correlationId",
        "userId",
        "dt-dataschema",
        "dt-subject",
    ];
    for (number, name) in (1..).zip(names) {
        assert_eq!(message.verdict(&format!("${name} = '{number}'")), T, "{name}");
        assert_eq!(
            Message { system: SystemProperties::default(), ..Message::json("") }
                .verdict(&format!("${name} = '{number}'")),
            U
        );
    }
}

#[test]
fn bodies_need_their_content_type_and_encoding() {
    let with = |content_type, content_encoding| Message {
        system: SystemProperties { content_type, content_encoding, ..SystemProperties::default() },
        ..Message::json(r#"{"a":1}"#)
    };
    let condition = "$body.a = 1";
    assert_eq!(with(Some("application/json"), Some("utf-8")).verdict(condition), T);
    assert_eq!(with(Some("application/json;charset=utf-8"), Some("UTF-8")).verdict(condition), T);
    assert_eq!(with(Some("application/json"), None).verdict(condition), U);
    assert_eq!(with(None, Some("utf-8")).verdict(condition), U);
    assert_eq!(Message::json("{\"a\":1").verdict(condition), U);
    assert_eq!(Message::json("{\"a\":1").verdict("NOT is_defined($body.a)"), T);
    assert_eq!(Message::json("[1]").verdict("$body[0] = 1"), U);
}

#[test]
fn twins_are_read_by_section() {
    let twin = TwinText {
        tags: Some(r#"{"a":1}"#),
        desired: Some(r#"{"a":2,"$version":7}"#),
        reported: Some(r#"{"a":3,"$metadata":{"a":{"$lastUpdated":"2026-01-01T00:00:00Z"}}}"#),
    };
    check(
        &Message { twin, ..Message::json("") },
        &[
            ("$twin.tags.a = 1 AND $twin.properties.desired.a = 2 AND $twin.properties.reported.a = 3", T),
            ("$twin.properties.desired.$version = 7", T),
            ("$twin.properties.reported.$metadata.a.$lastUpdated > '2025'", T),
            ("$twin.properties.desired.a < $twin.properties.reported.a", T),
            ("is_object($twin.tags)", T),
            ("$twin.tags.b = 1", U),
        ],
    );
    check(&Message::json(""), &[("is_defined($twin.tags)", F), ("$twin.tags.a = 1", U)]);
}

#[test]
fn comparisons() {
    check(
        &weather(),
        &[
            // Missing, and different primitive types, `!=` too.
            ("$body.missing = 1", U),
            ("$body.missing != 1", U),
            ("$body.missing = $body.missing", U),
            ("$body.Weather.Temperature = '50'", U),
            ("$body.Weather.Temperature != '50'", U),
            ("$body.Weather.IsEnabled = 1", U),
            // Null.
            ("$body.n = null", T),
            ("$body.n != null", F),
            ("$body.zero = null", F),
            ("$body.zero != null", T),
            ("$body.missing = null", U),
            ("$body.missing != null", U),
            ("$body.n < null", U),
            ("$body.n <= 1", U),
            ("$body.n = $body.n", T),
            ("null = null", T),
            // Only primitives compare.
            ("$body.o = $body.o", U),
            ("$body.list = $body.list", U),
            ("$body.o != null", U),
            ("$body.list = [1]", U),
            // Strings are ordinal and case-sensitive.
            ("'a' < 'b'", T),
            ("'B' < 'a'", T),
            ("'a' = 'A'", F),
            ("'a' < 'aa'", T),
            ("'2026-08-15T00:00:00Z' > '2026-08-14T23:59:59Z'", T),
            // Numbers are doubles.
            ("0.1 + 0.2 = 0.3", F),
            ("9007199254740993 = 9007199254740992", T),
            ("$body.zero = -0", T),
            ("0x10 = 16", T),
            ("1e3 >= 1000", T),
            ("2 <> 2", F),
            ("2 <= 2 AND 2 >= 2 AND NOT 2 < 2 AND NOT 2 > 2", T),
            // Booleans.
            ("$body.Weather.IsEnabled = true", T),
            ("$body.Weather.IsEnabled != false", T),
            ("false < true", T),
            ("undefined = undefined", U),
        ],
    );
}

#[test]
fn three_valued_logic() {
    let values = [("true", T), ("false", F), ("$body.missing", U)];
    for (left, left_value) in values {
        for (right, right_value) in values {
            let and = match (left_value, right_value) {
                (F, _) | (_, F) => F,
                (T, T) => T,
                _ => U,
            };
            let or = match (left_value, right_value) {
                (T, _) | (_, T) => T,
                (F, F) => F,
                _ => U,
            };
            check(&weather(), &[(&format!("{left} AND {right}"), and), (&format!("{left} OR {right}"), or)]);
        }
    }
    check(
        &weather(),
        &[
            ("NOT true", F),
            ("NOT false", T),
            ("NOT $body.missing", U),
            ("NOT NOT $body.missing", U),
            ("$body.missing OR false OR true", T),
            ("$body.missing AND true AND false", F),
            // Anything defined but true counts as false where a condition is expected.
            ("$body.text", F),
            ("$body.zero", F),
            ("$body.n", F),
            ("$body.o", F),
            ("NOT $body.text", T),
            ("$body.text OR true", T),
            ("$body.text AND $body.missing", F),
        ],
    );
}

#[test]
fn membership() {
    check(
        &weather().with("level", "b"),
        &[
            ("level IN ['a', 'b']", T),
            ("level NIN ['a', 'b']", F),
            ("level IN ['B']", F),
            ("level NIN ['B']", T),
            ("$body.missing IN ['a']", U),
            ("$body.missing NIN ['a']", U),
            ("$body.missing IN [undefined]", U),
            ("$body.n IN [null]", T),
            ("$body.zero IN ['0', null, false]", F),
            ("$body.zero IN ['0', 0]", T),
            ("[1, 'a'] IN [[1, 'a'], [2]]", T),
            ("$body.list IN [[1]]", F),
            ("$body.o NIN [1]", T),
        ],
    );
}

#[test]
fn arithmetic() {
    check(
        &weather(),
        &[
            ("1 + 2 * 3 = 7", T),
            ("(1 + 2) * 3 = 9", T),
            ("7 - 2 - 1 = 4", T),
            ("7 / 2 = 3.5", T),
            ("7 % 4 = 3", T),
            ("-7 % 4 = -3", T),
            ("-$body.Weather.Temperature = -50", T),
            ("--5 = 5", T),
            ("$body.zero / 0 = 1", F),
            ("1 / $body.zero > 1e308", T),
            ("$body.big * 10 = $body.big * 100", T),
            ("$body.zero / $body.zero = $body.zero / $body.zero", F),
            ("$body.zero / $body.zero != 0", T),
            ("$body.text + 1 = 1", U),
            ("$body.text + $body.text = 'x'", U),
            ("$body.missing + 1 = 1", U),
            ("-$body.text = 1", U),
            ("$body.n * 0 = 0", U),
        ],
    );
}

#[test]
fn type_functions() {
    let rows = [
        // value, defined, null, bool, number, string, array, object, primitive
        ("$body.missing", "........"),
        ("$body.n", "dn.....p"),
        ("$body.Weather.IsEnabled", "d.b....p"),
        ("$body.zero", "d..i...p"),
        ("$body.text", "d...s..p"),
        ("$body.list", "d....a.."),
        ("$body.o", "d.....o."),
        ("[1]", "d....a.."),
        ("level", "d...s..p"),
    ];
    let functions =
        ["IS_DEFINED", "IS_NULL", "IS_BOOL", "IS_NUMBER", "IS_STRING", "IS_ARRAY", "IS_OBJECT", "IS_PRIMITIVE"];
    let message = weather().with("level", "x");
    for (value, expected) in rows {
        for (function, expected) in functions.into_iter().zip(expected.chars()) {
            let verdict = if expected == '.' { F } else { T };
            check(&message, &[(&format!("{function}({value})"), verdict)]);
        }
    }
}

#[test]
fn string_functions() {
    check(
        &weather().with("level", "Störung-7"),
        &[
            ("CONTAINS(level, 'ör')", T),
            ("CONTAINS(level, 'ÖR')", F),
            ("CONTAINS(level, '')", T),
            ("STARTS_WITH(level, 'St')", T),
            ("STARTSWITH(level, 'st')", F),
            ("ENDS_WITH(level, '-7')", T),
            ("ENDSWITH(level, '-8')", F),
            ("LENGTH(level) = 9", T),
            ("LENGTH($body.empty) = 0", T),
            ("LENGTH('😀') = 1", T),
            ("LOWER('ÄB') = 'äb'", T),
            ("UPPER('äb') = 'ÄB'", T),
            ("UPPER($body.text) = 'STRASSE'", T),
            ("SUBSTRING(level, 0, 3) = 'Stö'", T),
            ("SUBSTRING(level, 2) = 'örung-7'", T),
            ("SUBSTRING(level, 2, 100) = 'örung-7'", T),
            ("SUBSTRING(level, 100) = ''", T),
            ("SUBSTRING(level, 1e300, 1e300) = ''", T),
            ("SUBSTRING(level, 1.9, 1.9) = 't'", T),
            ("SUBSTRING(level, -1) = 'x'", U),
            ("SUBSTRING(level, 0, -1) = ''", U),
            ("SUBSTRING(level, $body.zero / 0) = ''", U),
            ("INDEX_OF(level, 'r') = 3", T),
            ("INDEX_OF(level, 'x') = -1", T),
            ("INDEX_OF(level, '') = 0", T),
            ("CONCAT(level, '/', $body.empty, 'x') = 'Störung-7/x'", T),
            ("CONCAT(level, $body.zero) = 'x'", U),
            ("CONCAT(level, $body.missing) = 'x'", U),
            ("CONTAINS($body.zero, '0')", U),
            ("CONTAINS($body.missing, '0')", U),
            ("LENGTH($body.list) = 5", U),
            ("LOWER($body.n) = 'null'", U),
        ],
    );
}

#[test]
fn numeric_functions() {
    check(
        &weather(),
        &[
            ("ABS(-2.5) = 2.5", T),
            ("EXP(0) = 1", T),
            ("POWER(2, 10) = 1024", T),
            ("SQUARE(-3) = 9", T),
            ("SQRT(9) = 3", T),
            ("SQRT(-1) = SQRT(-1)", F),
            ("CEILING(1.2) = 2 AND CEILING(-1.2) = -1", T),
            ("FLOOR(1.8) = 1 AND FLOOR(-1.2) = -2", T),
            ("SIGN(-5) = -1 AND SIGN(0) = 0 AND SIGN(5) = 1", T),
            ("ABS($body.text) = 1", U),
            ("POWER($body.zero, $body.missing) = 1", U),
            ("AS_NUMBER($body.number) = 32", T),
            ("AS_NUMBER($body.zero) = 0", T),
            ("AS_NUMBER($body.text) = 0", U),
            ("AS_NUMBER($body.Weather.IsEnabled) = 1", U),
            ("AS_NUMBER('1e999') > 0", U),
        ],
    );
}

#[test]
fn array_contains() {
    check(
        &weather().with("level", "a"),
        &[
            ("ARRAY_CONTAINS($body.list, 1)", T),
            ("ARRAY_CONTAINS($body.list, '1')", F),
            ("ARRAY_CONTAINS($body.list, level)", T),
            ("ARRAY_CONTAINS($body.list, null)", T),
            ("ARRAY_CONTAINS($body.list, [2])", T),
            ("ARRAY_CONTAINS($body.list, $body.o)", T),
            ("ARRAY_CONTAINS($body.list, $body.missing)", U),
            ("ARRAY_CONTAINS($body.missing, 1)", U),
            ("ARRAY_CONTAINS($body.text, 1)", U),
            ("ARRAY_CONTAINS(['a', 'b'], level)", T),
            ("ARRAY_CONTAINS([ ['a'], 'b'], level)", F),
        ],
    );
}
