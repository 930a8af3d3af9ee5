//! The committer over an engine that records what it was asked to do, and whose sync can be held back or left out.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use nave_env::Env;
use nave_env::sim::Simulation;
use nave_model::Timestamp;

use super::*;
use crate::{Entry, Expect};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

type State = BTreeMap<String, Entry>;

/// What happened, in order.
#[derive(Clone)]
enum Event {
    Write(HashMap<String, Option<Entry>>),
    Sync,
    /// The caller of a commit was told that these entries are durable.
    Acknowledged(Vec<(String, Option<Entry>)>),
}

#[derive(Default)]
struct Record {
    events: Vec<Event>,
    /// "Pretend that sync did nothing".
    sync_is_broken: bool,
    space: bool,
    fail_next_sync: Option<EngineError>,
    reopened: usize,
}

struct MemoryView(State);

impl View for MemoryView {
    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<(String, Entry)>, StoreError> {
        Ok(Vec::new())
    }
}

struct MemoryEngine {
    record: Arc<Mutex<Record>>,
    staged: Vec<(HashMap<String, Option<Entry>>, u64)>,
    durable: State,
    newest: u64,
    /// When present, each sync announces itself and waits for permission.
    gate: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

fn apply(state: &mut State, changes: &HashMap<String, Option<Entry>>) {
    for (key, change) in changes {
        match change {
            Some(entry) => state.insert(key.clone(), entry.clone()),
            None => state.remove(key),
        };
    }
}

impl Engine for MemoryEngine {
    fn view(&self) -> Option<Arc<dyn View>> {
        Some(Arc::new(MemoryView(self.durable.clone())))
    }

    fn newest(&self) -> u64 {
        self.newest
    }

    fn has_space(&self) -> bool {
        self.record.lock().space
    }

    fn write(&mut self, changes: HashMap<String, Option<Entry>>, newest: u64) -> Result<(), EngineError> {
        self.record.lock().events.push(Event::Write(changes.clone()));
        self.staged.push((changes, newest));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        if let Some((announce, permission)) = &self.gate {
            announce.send(()).unwrap();
            permission.recv().unwrap();
        }
        let mut record = self.record.lock();
        if let Some(error) = record.fail_next_sync.take() {
            self.staged.clear();
            return Err(error);
        }
        if !record.sync_is_broken {
            record.events.push(Event::Sync);
        }
        drop(record);
        for (changes, newest) in self.staged.drain(..) {
            apply(&mut self.durable, &changes);
            self.newest = newest;
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), EngineError> {
        self.record.lock().reopened += 1;
        Ok(())
    }
}

fn start(sync_is_broken: bool, gated: bool) -> (Committer, Arc<Mutex<Record>>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let record = Arc::new(Mutex::new(Record { sync_is_broken, space: true, ..Record::default() }));
    let (announce, announced) = mpsc::channel();
    let (permit, permission) = mpsc::channel();
    let engine = MemoryEngine {
        record: Arc::clone(&record),
        staged: Vec::new(),
        durable: State::new(),
        newest: 0,
        gate: gated.then_some((announce, permission)),
    };
    let env = Simulation::new(1, Timestamp::from_unix_seconds(1)).host();
    (Committer::start(engine, env).unwrap(), record, announced, permit)
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.into(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn absent(key: &str) -> Guard {
    Guard { key: key.into(), expect: Expect::Absent }
}

fn read(committer: &Committer, key: &str) -> Option<Bytes> {
    committer.view().unwrap().get(key).unwrap().map(|entry| entry.value)
}

#[test]
fn nothing_is_answered_or_visible_before_the_sync() {
    let (committer, _, announced, permit) = start(false, true);
    let mut commit = committer.commit(vec![], vec![put("a", "1")]);
    announced.recv().unwrap();
    assert!((&mut commit).now_or_never().is_none(), "answered before the sync");
    assert_eq!(read(&committer, "a"), None, "visible before the sync");
    permit.send(()).unwrap();
    block_on(commit).unwrap();
    assert_eq!(read(&committer, "a").unwrap(), "1");
}

#[test]
fn commits_that_arrive_during_a_sync_share_the_next_one_and_see_each_other() {
    let (committer, record, announced, permit) = start(false, true);
    let first = committer.commit(vec![], vec![put("x", "0")]);
    announced.recv().unwrap();
    let winner = committer.commit(vec![absent("a")], vec![put("a", "1"), put("b", "1")]);
    let loser = committer.commit(vec![absent("a")], vec![put("a", "2")]);
    let other = committer.commit(vec![], vec![put("c", "1")]);
    permit.send(()).unwrap();
    announced.recv().unwrap();
    permit.send(()).unwrap();
    let first = block_on(first).unwrap();
    let winner = block_on(winner).unwrap();
    let Err(CommitError::Conflict { key, current }) = block_on(loser) else { panic!("both won") };
    assert_eq!((key.as_str(), current.map(|entry| entry.revision)), ("a", Some(winner)));
    let other = block_on(other).unwrap();
    assert!(first < winner && winner < other);
    let syncs = record.lock().events.iter().filter(|event| matches!(event, Event::Sync)).count();
    assert_eq!(syncs, 2);
}

#[test]
fn steps_share_a_sync_and_end_at_the_first_that_is_refused() {
    let (committer, record, _, _) = start(false, false);
    let step = |guards, put| Step { guards, puts: vec![put] };
    let both = vec![step(vec![absent("a")], put("a", "1")), step(vec![absent("b")], put("b", "1"))];
    let revision = block_on(committer.commit_steps(both.clone())).unwrap();
    assert_eq!(record.lock().events.len(), 2, "one write and one sync");
    let entry = committer.view().unwrap().get("b").unwrap().unwrap();
    assert_eq!((entry.revision, entry.value), (revision, Bytes::from("1")));

    let refused = |done| matches!(done, Err(StepError { done: 0, error: CommitError::Conflict { .. } }));
    assert!(refused(block_on(committer.commit_steps(both))));
    let half = vec![
        step(vec![absent("c")], put("c", "1")),
        step(vec![absent("a")], put("a", "2")),
        step(vec![absent("d")], put("d", "1")),
    ];
    let Err(StepError { done: 1, error: CommitError::Conflict { key, current } }) =
        block_on(committer.commit_steps(half))
    else {
        panic!("the second step was not refused")
    };
    assert_eq!((key.as_str(), current.unwrap().value), ("a", Bytes::from("1")));
    assert_eq!(read(&committer, "c").unwrap(), "1", "what was applied before stays");
    assert_eq!(read(&committer, "d"), None);
}

#[test]
fn a_disk_that_fails_takes_all_steps_with_it() {
    let (committer, record, _, _) = start(false, false);
    block_on(committer.commit(vec![], vec![put("a", "1")])).unwrap();
    record.lock().space = false;
    let steps = vec![
        Step { guards: vec![], puts: vec![put("b", "1")] },
        Step { guards: vec![absent("a")], puts: vec![put("c", "1")] },
    ];
    assert_eq!(block_on(committer.commit_steps(steps)), Err(StepError { done: 0, error: CommitError::Full }));
    assert_eq!(read(&committer, "b"), None);
}

#[test]
fn a_fold_of_conflicts_needs_no_sync() {
    let (committer, record, _, _) = start(false, false);
    block_on(committer.commit(vec![], vec![put("a", "1")])).unwrap();
    for _ in 0..3 {
        assert!(block_on(committer.commit(vec![absent("a")], vec![put("a", "2")])).is_err());
    }
    assert_eq!(record.lock().events.len(), 2, "one write and one sync");
}

/// Runs a history and then cuts it everywhere: with what was not synced dropped, and with any prefix of it kept (an engine
/// batch is atomic on disk). Says what was acknowledged and is not there.
fn check_every_cut(sync_is_broken: bool) -> Result<(), String> {
    let (committer, record, _, _) = start(sync_is_broken, false);
    let mut keys = HashMap::new();
    for round in 0..40 {
        // Several at once, so that there are folds of several commits.
        let pending: Vec<_> = (0..round % 5 + 1)
            .map(|i| {
                let key = format!("k{}", (round * 7 + i * 3) % 11);
                let put = if (round + i) % 6 == 5 { Put { key, value: None } } else { put(&key, &format!("{round}")) };
                (put.clone(), committer.commit(vec![], vec![put]))
            })
            .collect();
        for (put, commit) in pending {
            let revision = block_on(commit).map_err(|error| error.to_string())?;
            keys.insert(put.key.clone(), put.value.map(|value| Entry { revision, value }));
            let seen = committer.view().unwrap().get(&put.key).unwrap();
            let known = seen.into_iter().map(|entry| (put.key.clone(), Some(entry))).collect();
            record.lock().events.push(Event::Acknowledged(known));
        }
    }
    let events = record.lock().events.clone();
    for cut in 0..=events.len() {
        let last_sync = events[..cut].iter().rposition(|event| matches!(event, Event::Sync)).unwrap_or(0);
        let unsynced = events[last_sync..cut].iter().filter(|event| matches!(event, Event::Write(_))).count();
        for kept in 0..=unsynced {
            let mut image = State::new();
            let mut after_sync = 0;
            for (at, event) in events[..cut].iter().enumerate() {
                if let Event::Write(changes) = event {
                    if at >= last_sync {
                        after_sync += 1;
                    }
                    if after_sync <= kept {
                        apply(&mut image, changes);
                    }
                }
            }
            for event in &events[..cut] {
                let Event::Acknowledged(entries) = event else { continue };
                for (key, entry) in entries {
                    let Some(entry) = entry else { continue };
                    let found = image.get(key).map(|entry| entry.revision);
                    let superseded = events[..cut].iter().any(|event| match event {
                        Event::Write(changes) => changes.get(key).is_some_and(|change| {
                            change.as_ref().is_none_or(|change| change.revision > entry.revision)
                        }),
                        _ => false,
                    });
                    if !superseded && found != Some(entry.revision) {
                        return Err(format!("cut {cut}, {kept} kept: {key} lost"));
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_cut_keeps_what_was_acknowledged() {
    check_every_cut(false).unwrap();
}

#[test]
fn without_the_sync_the_check_fails() {
    assert!(check_every_cut(true).is_err(), "the check cannot see a missing sync");
}

#[test]
fn a_full_disk_refuses_commits_until_there_is_space() {
    let (committer, record, _, _) = start(false, false);
    block_on(committer.commit(vec![], vec![put("a", "1")])).unwrap();
    record.lock().space = false;
    assert_eq!(block_on(committer.commit(vec![], vec![put("b", "1")])), Err(CommitError::Full));
    assert_eq!(read(&committer, "a").unwrap(), "1");
    assert!(matches!(
        block_on(committer.commit(vec![absent("a")], vec![put("b", "1")])),
        Err(CommitError::Conflict { .. })
    ));
    record.lock().space = true;
    block_on(committer.commit(vec![], vec![put("b", "1")])).unwrap();
    assert_eq!(record.lock().reopened, 0, "an engine that did not fail stays open");
}

#[test]
fn an_engine_that_ran_full_is_reopened_and_a_broken_one_is_not() {
    let (committer, record, _, _) = start(false, false);
    record.lock().fail_next_sync = Some(EngineError::Full);
    assert_eq!(block_on(committer.commit(vec![], vec![put("a", "1")])), Err(CommitError::Full));
    assert_eq!(read(&committer, "a"), None);
    block_on(committer.commit(vec![], vec![put("a", "2")])).unwrap();
    assert_eq!(record.lock().reopened, 1);
    record.lock().fail_next_sync = Some(EngineError::Broken("medium error".into()));
    assert!(matches!(block_on(committer.commit(vec![], vec![put("a", "3")])), Err(CommitError::Failed(_))));
    assert!(matches!(block_on(committer.commit(vec![], vec![put("a", "4")])), Err(CommitError::Failed(_))));
    assert_eq!(read(&committer, "a").unwrap(), "2");
    assert_eq!(record.lock().reopened, 1);
}

#[test]
fn closing_finishes_what_is_queued_and_then_refuses() {
    let (committer, _, _, _) = start(false, false);
    let pending: Vec<_> = (0..50).map(|i| committer.commit(vec![], vec![put(&format!("k{i}"), "1")])).collect();
    committer.close();
    for commit in pending {
        block_on(commit).unwrap();
    }
    assert_eq!(block_on(committer.commit(vec![], vec![put("a", "1")])), Err(CommitError::Stopped));
    assert_eq!(committer.view().err(), Some(StoreError::Stopped));
}

#[test]
fn the_queue_is_bounded() {
    let (committer, _, announced, permit) = start(false, true);
    let first = committer.commit(vec![], vec![put("a", "1")]);
    announced.recv().unwrap();
    let queued: Vec<_> = (0..MAX_QUEUED_COMMITS).map(|_| committer.commit(vec![], vec![put("b", "1")])).collect();
    assert_eq!(block_on(committer.commit(vec![], vec![put("b", "1")])), Err(CommitError::Busy));
    for _ in 0..=MAX_QUEUED_COMMITS.div_ceil(MAX_FOLD_COMMITS) {
        permit.send(()).unwrap();
    }
    block_on(first).unwrap();
    for commit in queued {
        block_on(commit).unwrap();
    }
}

#[test]
fn the_interval_of_reopening_is_kept() {
    let world = Simulation::new(1, Timestamp::from_unix_seconds(1));
    let env = world.host();
    assert!(env.monotonic().since(Moment::from_start(Duration::ZERO)) < REOPEN_INTERVAL);
    let record = Arc::new(Mutex::new(Record { space: true, ..Record::default() }));
    let engine =
        MemoryEngine { record: Arc::clone(&record), staged: Vec::new(), durable: State::new(), newest: 0, gate: None };
    let committer = Committer::start(engine, env).unwrap();
    for _ in 0..3 {
        record.lock().fail_next_sync = Some(EngineError::Full);
        assert_eq!(block_on(committer.commit(vec![], vec![put("a", "1")])), Err(CommitError::Full));
        record.lock().fail_next_sync = None;
    }
    assert_eq!(record.lock().reopened, 1, "the first failure reopens at once, the next ones wait");
}
