//! A route's formula as lanes: conjunctions of tests on different terms.
//!
//! A lane is what an index can hold. Alternatives become several lanes of one route while these are few; what would make
//! more stays a rest, a small tree that is evaluated for the messages that pass the lane. So no condition grows
//! exponentially, however its ANDs and ORs are nested.

use super::axis::{Axis, Position, Ranges, contains, intersection, union};
use super::condition::Formula;
use super::vocabulary::TermId;

/// The most lanes of one route. Alternatives beyond it stay together as a rest.
pub(super) const MAX_LANES: usize = 8;

/// A conjunction of checks on different terms, and what has to hold besides.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lane {
    /// By rising term.
    pub(super) checks: Vec<Check>,
    pub(super) rest: Option<Rest>,
}

/// The value of a term has one of these positions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    pub(super) term: TermId,
    pub(super) ranges: Ranges,
}

/// A formula over positions.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rest {
    Check(Check),
    All(Vec<Rest>),
    Any(Vec<Rest>),
}

impl Rest {
    /// Whether it holds; `position` gives the position of a term.
    pub(super) fn holds(&self, position: &mut impl FnMut(TermId) -> Position) -> bool {
        match self {
            Self::Check(check) => contains(&check.ranges, position(check.term)),
            Self::All(parts) => parts.iter().all(|part| part.holds(position)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(position)),
        }
    }
}

/// The lanes of a formula: a message matches if it passes one of them.
pub(super) fn lanes(formula: &Formula, axes: &[Axis]) -> Vec<Lane> {
    match rest(formula, axes) {
        Simple::Never => Vec::new(),
        Simple::Always => vec![Lane { checks: Vec::new(), rest: None }],
        Simple::Rest(rest) => expand(rest, MAX_LANES),
    }
}

enum Simple {
    Never,
    Always,
    Rest(Rest),
}

/// The formula over positions, with the tests of one term that stand side by side joined into one.
fn rest(formula: &Formula, axes: &[Axis]) -> Simple {
    let (parts, all) = match formula {
        Formula::True => return Simple::Always,
        Formula::False => return Simple::Never,
        Formula::Test(term, test) => {
            let Some(axis) = usize::try_from(*term).ok().and_then(|term| axes.get(term)) else { return Simple::Never };
            return check(*term, axis.ranges(test), axis);
        }
        Formula::All(parts) => (parts, true),
        Formula::Any(parts) => (parts, false),
    };
    let mut joined: Vec<Check> = Vec::new();
    let mut others = Vec::new();
    for part in parts {
        match rest(part, axes) {
            Simple::Always if all => {}
            Simple::Never if !all => {}
            decided @ (Simple::Always | Simple::Never) => return decided,
            Simple::Rest(Rest::Check(check)) => match joined.iter_mut().find(|known| known.term == check.term) {
                None => joined.push(check),
                Some(known) if all => known.ranges = intersection(&known.ranges, &check.ranges),
                Some(known) => known.ranges = union(&known.ranges, &check.ranges),
            },
            Simple::Rest(part) => others.push(part),
        }
    }
    let mut kept = Vec::with_capacity(joined.len() + others.len());
    for joined in joined {
        let axis = usize::try_from(joined.term).ok().and_then(|term| axes.get(term));
        match axis.map_or(Simple::Never, |axis| check(joined.term, joined.ranges, axis)) {
            Simple::Always if all => {}
            Simple::Never if !all => {}
            Simple::Rest(check) => kept.push(check),
            decided => return decided,
        }
    }
    kept.extend(others);
    match kept.len() {
        0 if all => Simple::Always,
        0 => Simple::Never,
        1 => kept.pop().map_or(Simple::Never, Simple::Rest),
        _ => Simple::Rest(if all { Rest::All(kept) } else { Rest::Any(kept) }),
    }
}

fn check(term: TermId, ranges: Ranges, axis: &Axis) -> Simple {
    match ranges[..] {
        [] => Simple::Never,
        [(0, end)] if end == axis.len() => Simple::Always,
        _ => Simple::Rest(Rest::Check(Check { term, ranges })),
    }
}

/// The lanes of a formula, at most `budget`, which is at least one.
fn expand(rest: Rest, budget: usize) -> Vec<Lane> {
    match rest {
        Rest::Check(check) => vec![Lane { checks: vec![check], rest: None }],
        whole @ Rest::Any(_) if width(&whole) > budget => vec![Lane { checks: Vec::new(), rest: Some(whole) }],
        Rest::Any(parts) => parts.into_iter().flat_map(|part| expand(part, budget)).collect(),
        Rest::All(parts) => {
            let mut lanes = vec![Lane { checks: Vec::new(), rest: None }];
            let mut kept = Vec::new();
            for part in parts {
                let alternatives = width(&part);
                if lanes.len().saturating_mul(alternatives) > budget {
                    kept.push(part);
                    continue;
                }
                let alternatives = expand(part, alternatives.max(1));
                lanes = lanes
                    .iter()
                    .flat_map(|lane| alternatives.iter().filter_map(|alternative| both(lane, alternative)))
                    .collect();
            }
            if !kept.is_empty() {
                let kept = if kept.len() > 1 { Rest::All(kept) } else { kept.swap_remove(0) };
                for lane in &mut lanes {
                    lane.rest = Some(match lane.rest.take() {
                        Some(rest) => Rest::All(vec![rest, kept.clone()]),
                        None => kept.clone(),
                    });
                }
            }
            lanes
        }
    }
}

/// How many lanes a formula makes when nothing is kept together.
fn width(rest: &Rest) -> usize {
    match rest {
        Rest::Check(_) => 1,
        Rest::Any(parts) => parts.iter().map(width).fold(0, usize::saturating_add),
        Rest::All(parts) => parts.iter().map(width).fold(1, usize::saturating_mul),
    }
}

/// The lane of messages that pass both; `None` when no message can.
fn both(left: &Lane, right: &Lane) -> Option<Lane> {
    let mut lane = left.clone();
    for check in &right.checks {
        match lane.checks.binary_search_by_key(&check.term, |known| known.term) {
            Err(place) => lane.checks.insert(place, check.clone()),
            Ok(place) => {
                let known = lane.checks.get_mut(place)?;
                known.ranges = intersection(&known.ranges, &check.ranges);
                if known.ranges.is_empty() {
                    return None;
                }
            }
        }
    }
    lane.rest = match (lane.rest, right.rest.clone()) {
        (Some(left), Some(right)) => Some(Rest::All(vec![left, right])),
        (left, right) => left.or(right),
    };
    Some(lane)
}
