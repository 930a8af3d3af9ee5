//! Deciding several commits together: what one synced engine batch will hold.

use std::collections::HashMap;

use crate::{
    CommitError, Entry, Expect, Guard, MAX_COMMIT_BYTES, MAX_COMMIT_OPERATIONS, MAX_KEY_BYTES, MAX_VALUE_BYTES, Put,
    Revision, StoreError,
};

/// Checks the limits of this crate and returns the bytes that the commit holds.
pub(crate) fn check_limits(guards: &[Guard], puts: &[Put]) -> Result<usize, CommitError> {
    if guards.len() + puts.len() > MAX_COMMIT_OPERATIONS {
        return Err(CommitError::TooLarge("more than 1,024 guards and puts"));
    }
    let mut bytes = 0;
    for key in guards.iter().map(|guard| &guard.key).chain(puts.iter().map(|put| &put.key)) {
        if key.is_empty() {
            return Err(CommitError::TooLarge("a key is empty"));
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(CommitError::TooLarge("a key has more than 1,024 bytes"));
        }
        bytes += key.len();
    }
    for value in puts.iter().filter_map(|put| put.value.as_ref()) {
        if value.len() > MAX_VALUE_BYTES {
            return Err(CommitError::TooLarge("a value has more than 4 MiB"));
        }
        bytes += value.len();
    }
    if bytes > MAX_COMMIT_BYTES {
        return Err(CommitError::TooLarge("keys and values have more than 8 MiB"));
    }
    Ok(bytes)
}

/// What became of one commit of a fold.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Its puts are part of the fold.
    Accepted(Revision),
    /// A guard failed. `durable` tells whether that follows from durable state alone, so that it stays true if the fold
    /// cannot be written.
    Conflict { key: String, current: Option<Entry>, durable: bool },
    /// The state that a guard names cannot be read.
    Unreadable(StoreError),
}

/// The commits that were accepted since the last sync, on top of the durable state.
pub(crate) struct Fold {
    newest: u64,
    changes: HashMap<String, Option<Entry>>,
}

impl Fold {
    /// An empty fold over a durable state whose newest revision is `newest` (0 if there is none yet).
    pub(crate) fn new(newest: u64) -> Self {
        Self { newest, changes: HashMap::new() }
    }

    /// Decides one commit. `durable` reads the durable state.
    pub(crate) fn offer(
        &mut self,
        guards: Vec<Guard>,
        puts: Vec<Put>,
        durable: impl Fn(&str) -> Result<Option<Entry>, StoreError>,
    ) -> Verdict {
        for guard in guards {
            let (current, from_fold) = match self.changes.get(&guard.key) {
                Some(change) => (change.clone(), true),
                None => match durable(&guard.key) {
                    Ok(current) => (current, false),
                    Err(error) => return Verdict::Unreadable(error),
                },
            };
            let holds = match (guard.expect, &current) {
                (Expect::Absent, None) => true,
                (Expect::At(revision), Some(entry)) => entry.revision == revision,
                _ => false,
            };
            if !holds {
                return Verdict::Conflict { key: guard.key, current, durable: !from_fold };
            }
        }
        if puts.is_empty() {
            return Verdict::Accepted(self.revision());
        }
        let Some(revision) = self.newest.checked_add(1).and_then(Revision::new) else {
            return Verdict::Unreadable(StoreError::Engine("the revisions are used up".into()));
        };
        self.newest = revision.get();
        for put in puts {
            self.changes.insert(put.key, put.value.map(|value| Entry { revision, value }));
        }
        Verdict::Accepted(revision)
    }

    /// The newest revision, this fold included.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The same as a commit that changes nothing is told.
    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.newest).unwrap_or(FIRST)
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The last change of every key that the fold touches; `None` deletes.
    pub(crate) fn into_changes(self) -> HashMap<String, Option<Entry>> {
        self.changes
    }
}

/// What a commit without puts returns on a store that never held anything.
const FIRST: Revision = match Revision::new(1) {
    Some(first) => first,
    None => unreachable!(),
};

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn nothing(_: &str) -> Result<Option<Entry>, StoreError> {
        Ok(None)
    }

    fn put(key: &str, value: &'static str) -> Put {
        Put { key: key.into(), value: Some(Bytes::from_static(value.as_bytes())) }
    }

    fn absent(key: &str) -> Guard {
        Guard { key: key.into(), expect: Expect::Absent }
    }

    #[test]
    fn a_later_commit_sees_an_earlier_one_of_the_same_fold() {
        let mut fold = Fold::new(7);
        let Verdict::Accepted(first) = fold.offer(vec![absent("a")], vec![put("a", "1")], nothing) else {
            panic!("refused")
        };
        assert_eq!(first.get(), 8);
        let Verdict::Conflict { key, current, durable } = fold.offer(vec![absent("a")], vec![put("b", "1")], nothing)
        else {
            panic!("accepted")
        };
        assert_eq!((key.as_str(), current.map(|entry| entry.revision), durable), ("a", Some(first), false));
        let guard = Guard { key: "a".into(), expect: Expect::At(first) };
        let delete = Put { key: "a".into(), value: None };
        assert!(matches!(fold.offer(vec![guard], vec![delete], nothing), Verdict::Accepted(_)));
        assert!(matches!(fold.offer(vec![absent("a")], vec![], nothing), Verdict::Accepted(r) if r.get() == 9));
        assert_eq!(fold.into_changes(), HashMap::from([("a".to_owned(), None)]));
    }

    #[test]
    fn a_conflict_with_durable_state_is_marked_as_such() {
        let entry = Entry { revision: FIRST, value: Bytes::new() };
        let mut fold = Fold::new(1);
        let verdict = fold.offer(vec![absent("a")], vec![put("a", "1")], |_| Ok(Some(entry.clone())));
        assert!(matches!(verdict, Verdict::Conflict { durable: true, .. }));
        assert!(fold.is_empty());
    }

    #[test]
    fn limits_are_enforced() {
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        assert!(check_limits(&[], &[put(&long, "")]).is_err());
        assert!(check_limits(&[absent("")], &[]).is_err());
        let big = |bytes| Put { key: "k".into(), value: Some(Bytes::from(vec![0; bytes])) };
        assert!(check_limits(&[], &[big(MAX_VALUE_BYTES + 1)]).is_err());
        assert!(check_limits(&[], &[big(MAX_VALUE_BYTES)]).is_ok());
        assert!(check_limits(&[], &[big(MAX_VALUE_BYTES), big(MAX_VALUE_BYTES)]).is_err());
        assert!(check_limits(&vec![absent("k"); MAX_COMMIT_OPERATIONS + 1], &[]).is_err());
    }
}
