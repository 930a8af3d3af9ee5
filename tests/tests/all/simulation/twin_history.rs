//! Whether what was seen of a twin is linearizable: whether there is one order of all operations, each at a moment between its
//! call and its answer, in which a twin that does one thing at a time would have given the same answers.
//!
//! In general that is a search (Wing and Gong, "Testing and verifying concurrent objects", 1993). Here versions make it a
//! matter of precedence. A section begins at a version and every accepted change raises it by one, so a change that was
//! acknowledged says which one it was, and a read says after which changes it came. Values are written once, so a read also
//! says which change of unknown outcome made its version. What remains are constraints of the form "before":
//!
//! - the change to version *n* of a section comes before the change to *n* + 1;
//! - a read of versions *d* and *r* comes after the changes to *d* and *r*, and before those to *d* + 1 and *r* + 1;
//! - a notification of version *d* arrives after the change to *d*;
//! - each operation has its moment after its call and before its answer; one without an answer, any time after its call.
//!
//! **This is enough.** Give each operation, in an order that respects "before", the earliest moment that is neither before its
//! call nor before the moments of what precedes it. If that is before every operation's answer, the operations in the order of
//! these moments (of equal ones, in the order of "before") are a linearization: an operation that was answered before another
//! was called has the earlier moment, changes come in the order of their versions, and each read sees the newest change of each
//! section. **And it is needed**: a linearization fulfils the constraints, and by induction none of its moments is before the
//! earliest one.
//!
//! A version that nobody was told of is the work of a change of unknown outcome that nobody saw. Of these, those called
//! first take the lowest versions: if any assignment works, this one does, since two of them that are the other way round can
//! be swapped (both were called before the earlier moment), and taking one that was called earlier only loosens constraints.
//! Those left over never happened.
//!
//! The tests compare all this with a search over all orders.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The answer that never came.
const NEVER: u64 = u64::MAX;

/// A part of a twin that has a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Desired,
    Reported,
}

const SECTIONS: [Section; 2] = [Section::Desired, Section::Reported];

/// A section at a moment: its version, and the value that the last change put there, if there was a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) version: u64,
    pub(crate) value: Option<u64>,
}

/// What a twin begins with.
const FIRST: Seen = Seen { version: 1, value: None };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A change of a section to a value that no other has; the version of an acknowledged one.
    Change(Section, u64, Option<u64>),
    /// Both sections, at once.
    Read(Seen, Seen),
    /// The device learnt about a change of the desired section.
    Notified(u64),
}

/// An operation. Calls and answers are numbered in the order in which they happened.
#[derive(Clone, Copy, Debug)]
struct Operation {
    called: u64,
    answered: u64,
    what: What,
}

/// A twin's history as it is written down.
#[derive(Default)]
pub(crate) struct History {
    steps: Cell<u64>,
    operations: RefCell<Vec<Operation>>,
}

/// The call of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Called(u64);

impl History {
    /// An operation begins.
    pub(crate) fn call(&self) -> Called {
        Called(self.step())
    }

    /// A change was acknowledged.
    pub(crate) fn changed(&self, call: Called, section: Section, value: u64, version: u64) {
        self.add(call, What::Change(section, value, Some(version)));
    }

    /// Nobody knows whether a change happened, or will.
    pub(crate) fn unknown(&self, call: Called, section: Section, value: u64) {
        let operation = Operation { called: call.0, answered: NEVER, what: What::Change(section, value, None) };
        self.operations.borrow_mut().push(operation);
    }

    /// A read was answered.
    pub(crate) fn read(&self, call: Called, desired: Seen, reported: Seen) {
        self.add(call, What::Read(desired, reported));
    }

    /// A notification of a version of the desired section arrived.
    pub(crate) fn notified(&self, version: u64) {
        let call = self.call();
        self.add(call, What::Notified(version));
    }

    /// How many operations there are.
    pub(crate) fn len(&self) -> usize {
        self.operations.borrow().len()
    }

    /// Checks the history; an error says what is not possible.
    pub(crate) fn check(&self) -> Result<(), String> {
        check(&self.operations.borrow())
    }

    fn step(&self) -> u64 {
        self.steps.set(self.steps.get() + 1);
        self.steps.get()
    }

    fn add(&self, call: Called, what: What) {
        let answered = self.step();
        self.operations.borrow_mut().push(Operation { called: call.0, answered, what });
    }
}

/// The changes of a section by the versions that they made; the first version has none. Each is an index of `operations`.
fn writers(operations: &[Operation], section: Section) -> Result<BTreeMap<u64, usize>, String> {
    let mut writers = BTreeMap::new();
    let mut unknown: BTreeMap<u64, usize> = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        match operation.what {
            What::Change(of, value, None) if of == section => drop(unknown.insert(value, index)),
            What::Change(of, value, Some(version)) if of == section => {
                if version <= FIRST.version {
                    return Err(format!("{section:?}: the change to {value} made version {version}"));
                }
                if writers.insert(version, index).is_some() {
                    return Err(format!("{section:?}: two changes made version {version}"));
                }
            }
            _ => {}
        }
    }
    let mut newest = writers.last_key_value().map_or(FIRST.version, |(version, _)| *version);
    for operation in operations {
        let seen = match operation.what {
            What::Read(desired, _) if section == Section::Desired => desired,
            What::Read(_, reported) if section == Section::Reported => reported,
            What::Notified(version) if section == Section::Desired => {
                newest = newest.max(version);
                continue;
            }
            _ => continue,
        };
        newest = newest.max(seen.version);
        let wrote =
            |index: usize| matches!(operations[index].what, What::Change(_, value, _) if Some(value) == seen.value);
        let right = match (writers.get(&seen.version), seen.value) {
            (Some(writer), _) => wrote(*writer),
            (None, None) => seen == FIRST,
            (None, Some(value)) => match unknown.remove(&value) {
                Some(writer) if seen.version > FIRST.version => writers.insert(seen.version, writer).is_none(),
                _ => false,
            },
        };
        if !right {
            return Err(format!("{section:?}: a read shows {seen:?}, and no change can have made that"));
        }
    }
    let mut left: Vec<usize> = unknown.into_values().collect();
    left.sort_by_key(|index| operations[*index].called);
    let mut left = left.into_iter();
    for version in FIRST.version + 1..=newest {
        if let std::collections::btree_map::Entry::Vacant(vacant) = writers.entry(version) {
            vacant.insert(left.next().ok_or_else(|| format!("{section:?}: nobody made version {version}"))?);
        }
    }
    Ok(writers)
}

fn check(operations: &[Operation]) -> Result<(), String> {
    let mut values = BTreeSet::new();
    for operation in operations {
        if let What::Change(section, value, _) = operation.what {
            assert!(values.insert((section, value)), "a value is written once");
        }
    }
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); operations.len()];
    for section in SECTIONS {
        let writers = writers(operations, section)?;
        let mut after = |first: Option<&usize>, second: Option<&usize>| {
            if let (Some(first), Some(second)) = (first, second) {
                before[*second].push(*first);
            }
        };
        for (version, writer) in &writers {
            after(writers.get(&(version - 1)), Some(writer));
        }
        for (index, operation) in operations.iter().enumerate() {
            let version = match (operation.what, section) {
                (What::Read(seen, _), Section::Desired) | (What::Read(_, seen), Section::Reported) => {
                    after(Some(&index), writers.get(&(seen.version + 1)));
                    seen.version
                }
                (What::Notified(version), Section::Desired) => version,
                _ => continue,
            };
            after(writers.get(&version), Some(&index));
        }
    }
    let (order, earliest) = moments(operations, &before);
    if let Some(late) = order.iter().find(|index| earliest[**index] >= operations[**index].answered) {
        let cause = before[*late].iter().max_by_key(|index| earliest[**index]).map(|index| operations[*index]);
        return Err(format!("{:?} comes after {cause:?}, which was called after it was answered", operations[*late]));
    }
    if order.len() < operations.len() {
        let stuck: Vec<_> = (0..operations.len()).filter(|index| !order.contains(index)).take(4).collect();
        let stuck: Vec<_> = stuck.into_iter().map(|index| operations[index]).collect();
        return Err(format!("each of these comes before itself: {stuck:?}"));
    }
    Ok(())
}

/// An order of the operations that respects `before`, without those that cannot have a place, and the earliest moment of each.
fn moments(operations: &[Operation], before: &[Vec<usize>]) -> (Vec<usize>, Vec<u64>) {
    let mut missing: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut following: Vec<Vec<usize>> = vec![Vec::new(); operations.len()];
    for (index, earlier) in before.iter().enumerate() {
        earlier.iter().for_each(|earlier| following[*earlier].push(index));
    }
    let mut earliest: Vec<u64> = operations.iter().map(|operation| operation.called).collect();
    let mut ready: VecDeque<usize> = (0..operations.len()).filter(|index| missing[*index] == 0).collect();
    let mut order = Vec::with_capacity(operations.len());
    while let Some(index) = ready.pop_front() {
        order.push(index);
        for later in &following[index] {
            earliest[*later] = earliest[*later].max(earliest[index]);
            missing[*later] -= 1;
            if missing[*later] == 0 {
                ready.push_back(*later);
            }
        }
    }
    (order, earliest)
}

#[cfg(test)]
mod tests {
    use nave_env::sim::Simulation;
    use nave_model::Timestamp;

    use super::*;

    fn change(called: u64, answered: u64, section: Section, value: u64, version: u64) -> Operation {
        Operation { called, answered, what: What::Change(section, value, Some(version)) }
    }

    fn lost(called: u64, section: Section, value: u64) -> Operation {
        Operation { called, answered: NEVER, what: What::Change(section, value, None) }
    }

    fn read(called: u64, answered: u64, desired: (u64, u64), reported: (u64, u64)) -> Operation {
        let seen = |(version, value)| Seen { version, value: (version > 1).then_some(value) };
        Operation { called, answered, what: What::Read(seen(desired), seen(reported)) }
    }

    const D: Section = Section::Desired;
    const R: Section = Section::Reported;
    const NONE: (u64, u64) = (1, 0);

    #[test]
    fn takes_what_a_twin_may_do() {
        for history in [
            vec![],
            vec![
                change(1, 2, D, 10, 2),
                read(3, 4, (2, 10), NONE),
                change(5, 6, R, 10, 2),
                read(7, 8, (2, 10), (2, 10)),
            ],
            // A read beside a change may see it or not.
            vec![change(1, 4, D, 10, 2), read(2, 3, NONE, NONE)],
            vec![change(1, 4, D, 10, 2), read(2, 3, (2, 10), NONE)],
            // An unknown change happened, happens later, or never.
            vec![lost(1, D, 10), read(2, 3, (2, 10), NONE)],
            vec![lost(1, D, 10), read(2, 3, NONE, NONE), read(4, 5, (2, 10), NONE)],
            vec![lost(1, D, 10), change(2, 3, D, 11, 2), read(4, 5, (2, 11), NONE)],
            // It was overwritten before anybody saw it.
            vec![lost(1, D, 10), change(2, 3, D, 11, 3), read(4, 5, (3, 11), NONE)],
            // Two changes at the same time, in the order of their versions.
            vec![change(1, 4, D, 10, 3), change(2, 3, D, 11, 2)],
            vec![change(1, 3, D, 10, 2), Operation { called: 2, answered: 4, what: What::Notified(2) }],
        ] {
            assert_eq!(check(&history), Ok(()), "{history:?}");
            assert!(search(&history), "{history:?}");
        }
    }

    #[test]
    fn finds_what_no_twin_can_have_done() {
        for (why, history) in [
            ("an acknowledged change is gone", vec![change(1, 2, D, 10, 2), read(3, 4, NONE, NONE)]),
            ("two changes have a version", vec![change(1, 2, D, 10, 2), change(3, 4, D, 11, 2)]),
            ("a version nobody made", vec![change(1, 2, D, 10, 3)]),
            ("versions against time", vec![change(1, 2, D, 10, 3), change(3, 4, D, 11, 2)]),
            ("a value that nobody wrote", vec![read(1, 2, (2, 10), NONE)]),
            ("a value before its change", vec![read(1, 2, (2, 10), NONE), change(3, 4, D, 10, 2)]),
            ("another value of a version", vec![change(1, 2, D, 10, 2), lost(3, D, 11), read(4, 5, (2, 11), NONE)]),
            ("an unknown change before its call", vec![change(1, 2, D, 10, 3), lost(3, D, 11)]),
            ("reads go back", vec![lost(1, D, 10), read(2, 3, (2, 10), NONE), read(4, 5, NONE, NONE)]),
            (
                "reads that see two sections in different orders",
                vec![
                    change(1, 10, D, 10, 2),
                    change(2, 11, R, 20, 2),
                    read(3, 12, (2, 10), NONE),
                    read(4, 13, NONE, (2, 20)),
                ],
            ),
            (
                "a change that two versions show",
                vec![lost(1, D, 10), read(2, 3, (2, 10), NONE), read(4, 5, (3, 10), NONE)],
            ),
            (
                "a notification before the change",
                vec![Operation { called: 1, answered: 2, what: What::Notified(2) }, change(3, 4, D, 10, 2)],
            ),
            (
                "a first version with a value",
                vec![
                    lost(1, D, 10),
                    Operation { called: 2, answered: 3, what: What::Read(Seen { version: 1, value: Some(10) }, FIRST) },
                ],
            ),
        ] {
            assert!(check(&history).is_err(), "{why}: {history:?}");
            assert!(!search(&history), "{why}: {history:?}");
        }
    }

    /// Tries all orders.
    fn search(operations: &[Operation]) -> bool {
        fn go(left: &[Operation], desired: &[Option<u64>], reported: &[Option<u64>]) -> bool {
            let seen =
                |section: &[Option<u64>]| Seen { version: section.len() as u64, value: *section.last().unwrap() };
            if left.iter().all(|operation| operation.answered == NEVER) {
                return true;
            }
            let first_answer = left.iter().map(|operation| operation.answered).min().unwrap();
            left.iter().enumerate().filter(|(_, next)| next.called < first_answer).any(|(index, next)| {
                let mut rest = left.to_vec();
                rest.remove(index);
                match next.what {
                    What::Read(d, r) => d == seen(desired) && r == seen(reported) && go(&rest, desired, reported),
                    What::Notified(version) => version <= desired.len() as u64 && go(&rest, desired, reported),
                    What::Change(section, value, version) => {
                        let mut sections = [desired.to_vec(), reported.to_vec()];
                        let changed = &mut sections[section as usize];
                        changed.push(Some(value));
                        version.is_none_or(|version| version == changed.len() as u64)
                            && go(&rest, &sections[0], &sections[1])
                    }
                }
            })
        }
        go(operations, &[None], &[None])
    }

    /// A history of a twin that does one thing at a time, then damaged in places: small, so that all orders can be tried.
    fn random(random: &Simulation) -> Vec<Operation> {
        let mut sections = [vec![None], vec![None]];
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        let mut operations = Vec::new();
        for index in 0..1 + random.below(6) {
            let moment = 10 * (index + 1);
            let mut answered = moment + 1 + random.below(25);
            let what = match random.below(5) {
                kind @ 0..=2 => {
                    let section = SECTIONS[usize::from(kind == 2)];
                    let happens = random.below(5) > 0;
                    let known = happens && random.below(4) > 0;
                    if happens {
                        sections[section as usize].push(Some(100 + index));
                    }
                    if !known {
                        answered = NEVER;
                    }
                    What::Change(section, 100 + index, known.then_some(sections[section as usize].len() as u64))
                }
                3 => What::Notified(1 + random.below(sections[0].len() as u64)),
                _ => {
                    let [desired, reported] = [&sections[0], &sections[1]]
                        .map(|s| Seen { version: s.len() as u64, value: *s.last().unwrap() });
                    What::Read(desired, reported)
                }
            };
            operations.push(Operation { called: moment.saturating_sub(random.below(25)), answered, what });
        }
        for _ in 0..random.below(3) {
            let index = random.below(operations.len() as u64) as usize;
            let other = operations[random.below(operations.len() as u64) as usize].called;
            let damaged = &mut operations[index];
            match (&mut damaged.what, random.below(4)) {
                (What::Change(_, _, Some(version)) | What::Notified(version), 0 | 1) => *version = 1 + random.below(4),
                (What::Read(seen, _), 0) => seen.version = 1 + random.below(4),
                (What::Read(_, seen), 1) => seen.value = Some(100 + random.below(6)),
                (_, 2) if damaged.answered != NEVER => {
                    (damaged.called, damaged.answered) = (other, other + 1 + random.below(12));
                }
                _ => {}
            }
        }
        // No two things happen at once.
        for (index, operation) in operations.iter().enumerate() {
            times.push((operation.called, false, index));
            times.push((operation.answered, true, index));
        }
        times.sort();
        for (step, (time, answer, index)) in times.into_iter().enumerate() {
            match answer {
                false => operations[index].called = step as u64,
                true if time != NEVER => operations[index].answered = step as u64,
                true => {}
            }
        }
        operations
    }

    #[test]
    fn agrees_with_a_search_over_all_orders() {
        let simulation = Simulation::new(7, Timestamp::from_unix_seconds(0));
        let mut counts = [0, 0];
        for _ in 0..30_000 {
            let history = random(&simulation);
            let possible = search(&history);
            assert_eq!(check(&history).is_ok(), possible, "{:?}: {history:#?}", check(&history));
            counts[usize::from(possible)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 3_000), "{counts:?}");
    }
}
