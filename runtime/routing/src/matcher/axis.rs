//! The values of one term, cut into positions: between the constants of all conditions, nothing can tell two values apart.
//!
//! So a value is one small number, found once for each message by one search, and every test is a set of ranges of
//! positions, whatever it compares with.

use super::condition::{Numbers, Test, Texts};
use super::kernel::{Kernel, rank};
use super::slot::Slot;
use super::tables::TextTable;
use crate::program::ComparisonOperator;

/// A place on an axis.
pub(super) type Position = u32;

/// Ranges of positions, each from the first to before the second, rising and apart.
pub(super) type Ranges = Vec<(Position, Position)>;

const UNDEFINED: Position = 0;
const NULL: Position = 1;
const NO: Position = 2;
/// The position of `true`.
pub(super) const YES: Position = 3;
const ARRAY: Position = 4;
const OBJECT: Position = 5;
const NOT_A_NUMBER: Position = 6;
/// Numbers: below the first constant, the first constant, between it and the second, and so on.
const NUMBERS: Position = 7;

/// The positions of one term.
#[derive(Debug, Default)]
pub(super) struct Axis {
    numbers: Vec<f64>,
    texts: Vec<Box<str>>,
    /// The places in `texts`, by text.
    places: TextTable,
    /// Some condition asks which of two texts comes first.
    ordered: bool,
}

impl Axis {
    /// Notes the constants of a test.
    pub(super) fn note(&mut self, test: &Test) {
        match &test.numbers {
            Numbers::None | Numbers::All => {}
            Numbers::In(numbers) | Numbers::NotIn(numbers) => self.numbers.extend(numbers),
            Numbers::Compare(_, number) => self.numbers.push(*number),
        }
        match &test.texts {
            Texts::None | Texts::All => {}
            Texts::In(texts) | Texts::NotIn(texts) => self.texts.extend(texts.iter().map(|text| text.as_str().into())),
            Texts::Compare(_, text) => {
                self.texts.push(text.as_str().into());
                self.ordered = true;
            }
        }
    }

    /// Sorts the constants. Afterwards positions have a meaning.
    pub(super) fn prepare(&mut self) {
        // Zero has two signs, which compare as equal.
        self.numbers.iter_mut().for_each(|number| *number += 0.0);
        self.numbers.sort_unstable_by(f64::total_cmp);
        self.numbers.dedup();
        self.texts.sort_unstable();
        self.texts.dedup();
        self.numbers.shrink_to_fit();
        self.texts.shrink_to_fit();
        for (place, text) in (0..).zip(&self.texts) {
            self.places.insert(text, place);
        }
    }

    /// How many positions there are.
    pub(super) fn len(&self) -> Position {
        self.text_base().saturating_add(between(self.texts.len()))
    }

    /// How many constants there are, at least one.
    pub(super) fn constants(&self) -> usize {
        (self.numbers.len() + self.texts.len()).max(1)
    }

    /// Bytes of memory, about.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + self.numbers.len() * size_of::<f64>()
            + self.texts.iter().map(|text| 2 * text.len() + 64).sum::<usize>()
    }

    fn text_base(&self) -> Position {
        NUMBERS.saturating_add(between(self.numbers.len()))
    }

    /// Where a value is. `text` gives the bytes of a string.
    #[inline]
    pub(super) fn position<'t>(&self, slot: &Slot, kernel: Kernel, text: impl FnOnce() -> &'t [u8]) -> Position {
        match *slot {
            Slot::Unknown | Slot::Undefined => UNDEFINED,
            Slot::Null => NULL,
            Slot::Boolean(false) => NO,
            Slot::Boolean(true) => YES,
            Slot::Array => ARRAY,
            Slot::Object => OBJECT,
            Slot::Number(number) if number.is_nan() => NOT_A_NUMBER,
            Slot::Number(number) => {
                let below = rank(kernel, &self.numbers, number);
                let equal = self.numbers.get(below) == Some(&number);
                NUMBERS.saturating_add(place(below, equal))
            }
            Slot::Text(_) if self.places.is_empty() => self.text_base(),
            Slot::Text(_) => {
                let text = text();
                let place = match self.places.get(text) {
                    Some(at) => at.saturating_mul(2).saturating_add(1),
                    // No condition asks for the order, so every text that is no constant is alike.
                    None if !self.ordered => 0,
                    None => place(self.texts.partition_point(|constant| constant.as_bytes() < text), false),
                };
                self.text_base().saturating_add(place)
            }
        }
    }

    /// The positions whose values a test accepts.
    pub(super) fn ranges(&self, test: &Test) -> Ranges {
        let mut ranges = Ranges::new();
        for (accepted, position) in [
            (test.undefined, UNDEFINED),
            (test.null, NULL),
            (test.no, NO),
            (test.yes, YES),
            (test.array, ARRAY),
            (test.object, OBJECT),
            (test.not_a_number, NOT_A_NUMBER),
        ] {
            if accepted {
                push(&mut ranges, (position, position + 1));
            }
        }
        let (base, end) = (NUMBERS, self.text_base());
        let number = |number: &f64| {
            let below = self.numbers.partition_point(|constant| constant < number);
            base.saturating_add(place(below, true))
        };
        match &test.numbers {
            Numbers::None => {}
            Numbers::All => push(&mut ranges, (base, end)),
            Numbers::In(numbers) => inside(&mut ranges, numbers.iter().map(number).collect()),
            Numbers::NotIn(numbers) => outside(&mut ranges, numbers.iter().map(number).collect(), base, end),
            Numbers::Compare(operator, constant) => push(&mut ranges, side(*operator, number(constant), base, end)),
        }
        let (base, end) = (self.text_base(), self.len());
        let text = |text: &String| {
            let below = self.texts.partition_point(|constant| **constant < **text);
            base.saturating_add(place(below, true))
        };
        match &test.texts {
            Texts::None => {}
            Texts::All => push(&mut ranges, (base, end)),
            Texts::In(texts) => inside(&mut ranges, texts.iter().map(text).collect()),
            Texts::NotIn(texts) => outside(&mut ranges, texts.iter().map(text).collect(), base, end),
            Texts::Compare(operator, constant) => push(&mut ranges, side(*operator, text(constant), base, end)),
        }
        ranges
    }
}

/// How many positions some constants make: themselves, and what is around them.
fn between(constants: usize) -> Position {
    u32::try_from(constants).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(1)
}

fn place(below: usize, equal: bool) -> Position {
    u32::try_from(below).unwrap_or(u32::MAX).saturating_mul(2).saturating_add(u32::from(equal))
}

fn side(operator: ComparisonOperator, at: Position, base: Position, end: Position) -> (Position, Position) {
    match operator {
        ComparisonOperator::Less => (base, at),
        ComparisonOperator::LessOrEqual => (base, at + 1),
        ComparisonOperator::Greater => (at + 1, end),
        ComparisonOperator::GreaterOrEqual => (at, end),
        // Equality is a list of one constant.
        ComparisonOperator::Equal | ComparisonOperator::NotEqual => (at, at),
    }
}

fn inside(ranges: &mut Ranges, mut points: Vec<Position>) {
    points.sort_unstable();
    points.dedup();
    points.into_iter().for_each(|point| push(ranges, (point, point + 1)));
}

fn outside(ranges: &mut Ranges, mut points: Vec<Position>, base: Position, end: Position) {
    points.sort_unstable();
    points.dedup();
    let mut from = base;
    for point in points {
        push(ranges, (from, point));
        from = point + 1;
    }
    push(ranges, (from, end));
}

/// Appends a range that starts at or after the end of the last one.
fn push(ranges: &mut Ranges, (start, end): (Position, Position)) {
    match ranges.last_mut() {
        _ if start >= end => {}
        Some(last) if last.1 == start => last.1 = end,
        _ => ranges.push((start, end)),
    }
}

/// The positions that are in both.
pub(super) fn intersection(left: &Ranges, right: &Ranges) -> Ranges {
    let mut both = Ranges::new();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(&&(a, b)), Some(&&(c, d))) = (left.peek(), right.peek()) {
        push(&mut both, (a.max(c), b.min(d)));
        if b < d {
            left.next()
        } else {
            right.next()
        };
    }
    both
}

/// The positions that are in either.
pub(super) fn union(left: &Ranges, right: &Ranges) -> Ranges {
    let mut all: Ranges = left.iter().chain(right).copied().collect();
    all.sort_unstable();
    let mut either = Ranges::new();
    for (start, end) in all {
        match either.last_mut() {
            Some(last) if last.1 >= start => last.1 = last.1.max(end),
            _ => either.push((start, end)),
        }
    }
    either
}

/// Whether a position is in some range.
#[inline]
pub(super) fn contains(ranges: &[(Position, Position)], position: Position) -> bool {
    if ranges.len() <= 4 {
        return ranges.iter().any(|&(start, end)| start <= position && position < end);
    }
    let after = ranges.partition_point(|&(start, _)| start <= position);
    after.checked_sub(1).and_then(|last| ranges.get(last)).is_some_and(|&(_, end)| position < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_positions() {
        let (a, b) = (vec![(0, 3), (5, 9)], vec![(2, 6), (8, 12)]);
        assert_eq!(intersection(&a, &b), [(2, 3), (5, 6), (8, 9)]);
        assert_eq!(union(&a, &b), [(0, 12)]);
        assert_eq!(union(&vec![(0, 1)], &vec![(2, 3)]), [(0, 1), (2, 3)]);
        assert_eq!(intersection(&a, &vec![]), []);
    }

    #[test]
    fn a_value_is_where_its_tests_look() {
        let mut axis = Axis::default();
        let tests: Vec<Test> = [-1.5, 0.0, 7.0, 1e300]
            .into_iter()
            .flat_map(|number| {
                use ComparisonOperator::{Greater, GreaterOrEqual, Less, LessOrEqual};
                let compare = [Less, LessOrEqual, Greater, GreaterOrEqual].map(|it| Numbers::Compare(it, number));
                [Numbers::In(vec![number]), Numbers::NotIn(vec![number])].into_iter().chain(compare)
            })
            .map(|numbers| Test { numbers, ..Test::default() })
            .collect();
        tests.iter().for_each(|test| axis.note(test));
        axis.prepare();
        for value in [f64::NEG_INFINITY, -2.0, -1.5, -0.0, 0.0, 1.0, 7.0, 8.0, 1e300, f64::INFINITY] {
            let position = axis.position(&Slot::Number(value), Kernel::SCALAR, || b"");
            for test in &tests {
                let expected = match &test.numbers {
                    Numbers::In(constants) => constants[0] == value,
                    Numbers::NotIn(constants) => constants[0] != value,
                    Numbers::Compare(ComparisonOperator::Less, constant) => value < *constant,
                    Numbers::Compare(ComparisonOperator::LessOrEqual, constant) => value <= *constant,
                    Numbers::Compare(ComparisonOperator::Greater, constant) => value > *constant,
                    Numbers::Compare(_, constant) => value >= *constant,
                    _ => unreachable!(),
                };
                assert_eq!(contains(&axis.ranges(test), position), expected, "{value} {test:?}");
            }
        }
    }
}
