//! What commands print: tables for people, JSON for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs; a list is one array, a stream one object a line.
    Json,
}

/// Longest cell of a table, in characters; longer text is cut. JSON shows everything.
const MAX_CELL: usize = 60;

/// Prints one thing: in a table one line a member.
pub(crate) fn one(format: Format, value: &Value) -> Result<(), Failure> {
    match format {
        Format::Json => line(&pretty(value)),
        Format::Table => {
            let mut rows = Vec::new();
            flatten("", value, &mut rows);
            let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
            let lines = rows.iter().map(|(name, text)| format!("{name:width$}  {text}").trim_end().to_owned());
            line(&lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Prints a list; `columns` are a heading and a JSON pointer each.
pub(crate) fn list(format: Format, items: &[Value], columns: &[(&str, &str)]) -> Result<(), Failure> {
    match format {
        Format::Json => line(&pretty(&Value::Array(items.to_vec()))),
        Format::Table if items.is_empty() => {
            // On standard error: a program that counts lines counts none.
            eprintln!("(nothing)");
            Ok(())
        }
        Format::Table => line(&table(items, columns)),
    }
}

/// Prints text and ends the line. A reader that has gone is no failure.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::runtime(error)),
        _ => Ok(()),
    }
}

fn table(items: &[Value], columns: &[(&str, &str)]) -> String {
    let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
    rows.extend(items.iter().map(|item| {
        columns.iter().map(|(_, pointer)| cut(&item.pointer(pointer).map_or_else(String::new, cell))).collect()
    }));
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max().unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(&name, value, rows);
            }
        }
        Value::Null => {}
        _ => rows.push((name.to_owned(), cell(value))),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        _ => value.to_string(),
    }
}

/// Control characters, which a device may have sent, do not reach the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = (!character.is_control()).then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_CELL {
        return text.to_owned();
    }
    text.chars().take(MAX_CELL - 1).chain(['…']).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let items =
            [json!({"id": "a", "x": {"y": 1}}), json!({"id": "longer", "x": {"y": [1, 2]}}), json!({"id": null})];
        assert_eq!(table(&items, &[("ID", "/id"), ("Y", "/x/y")]), "ID      Y\na       1\nlonger  1, 2\n");
    }

    #[test]
    fn what_a_device_sent_cannot_drive_the_terminal_or_fill_it() {
        assert_eq!(cell(&json!("a\u{1b}[31mb\n")), "a\\u{1b}[31mb\\n");
        let cut = cut(&"ä".repeat(100));
        assert_eq!(cut.chars().count(), MAX_CELL);
        assert!(cut.ends_with('…'));
    }

    #[test]
    fn one_thing_is_shown_member_by_member() {
        let mut rows = Vec::new();
        flatten("", &json!({"a": {"b": 1, "c": {}}, "d": null, "e": "x"}), &mut rows);
        let rows: Vec<(&str, &str)> = rows.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert_eq!(rows, [("a.b", "1"), ("a.c", "{}"), ("e", "x")]);
    }
}
