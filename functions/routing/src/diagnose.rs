//! What is wrong with a condition: collected by byte offsets, reported by lines and columns.

use crate::{Diagnostic, Position, Severity};

/// Something wrong between two byte offsets of the condition.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    pub(crate) suggestion: Option<String>,
}

impl Problem {
    pub(crate) fn new(start: usize, end: usize, message: impl Into<String>) -> Self {
        Self { start, end, message: message.into(), expected: None, suggestion: None }
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn suggestion(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    pub(crate) fn report(self, condition: &str, severity: Severity) -> Diagnostic {
        Diagnostic {
            severity,
            start: position(condition, self.start),
            end: position(condition, self.end),
            message: self.message,
            expected: self.expected,
            suggestion: self.suggestion,
        }
    }
}

/// The line, column and offset of a byte. An offset within a character counts as its start.
fn position(condition: &str, offset: usize) -> Position {
    let mut offset = offset.min(condition.len());
    while !condition.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = condition.get(..offset).unwrap_or(condition);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: count(before.matches('\n').count()).saturating_add(1),
        column: count(before.get(line_start..).unwrap_or("").chars().count()),
        offset: count(offset),
    }
}

/// A count as the interface has it. Conditions that are not refused for their length are far shorter than the limit.
pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_from_one_and_characters_from_zero() {
        let at = |offset| {
            let Position { line, column, offset } = position("aö\nb", offset);
            (line, column, offset)
        };
        assert_eq!(at(0), (1, 0, 0));
        assert_eq!(at(1), (1, 1, 1));
        assert_eq!(at(2), (1, 1, 1));
        assert_eq!(at(3), (1, 2, 3));
        assert_eq!(at(4), (2, 0, 4));
        assert_eq!(at(99), (2, 1, 5));
    }
}
