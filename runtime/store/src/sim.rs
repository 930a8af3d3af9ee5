//! A store in memory, in virtual time, that can be crashed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use nave_env::SharedEnv;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fold::{Fold, Verdict, check_limits};
use crate::{BoxFuture, CommitError, Entry, Guard, MAX_SCAN_LIMIT, Put, Revision, Store, StoreError};

type Answer = Result<Revision, CommitError>;

struct Pending {
    guards: Vec<Guard>,
    puts: Vec<Put>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Inner {
    durable: BTreeMap<String, Entry>,
    newest: u64,
    pending: VecDeque<Pending>,
    /// A task will apply what is pending.
    flushing: bool,
    /// Counts crashes, so that a task from before one does nothing after it.
    life: u64,
    full: bool,
}

/// The simulated [`Store`]. It plays the disk too: keep the `Arc` while hosts that use it crash and start again.
///
/// The environment is the store's own: one of a host that crashes would take the pending commits with it unanswered.
pub struct SimStore {
    env: SharedEnv,
    delay: Duration,
    inner: Arc<Mutex<Inner>>,
}

impl SimStore {
    /// An empty store that needs `delay` of virtual time to make commits durable.
    pub fn new(env: SharedEnv, delay: Duration) -> Self {
        Self { env, delay, inner: Arc::default() }
    }

    /// What a power cut does: everything that is not durable is gone, and who waits for it learns
    /// [`CommitError::Stopped`]. The store can be used again at once, as after a restart.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.life += 1;
        inner.flushing = false;
        // Dropping the senders answers `Stopped`.
        let pending = std::mem::take(&mut inner.pending);
        drop(inner);
        drop(pending);
    }

    /// Whether commits find the disk full from now on.
    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    async fn flush(env: SharedEnv, delay: Duration, inner: Arc<Mutex<Inner>>, life: u64) {
        env.sleep(delay).await;
        let answers = {
            let mut inner = inner.lock();
            if inner.life != life {
                return;
            }
            inner.flushing = false;
            apply(&mut inner)
        };
        for (answer, result) in answers {
            // A receiver that is gone does not want the answer.
            let _ = answer.send(result);
        }
    }
}

fn apply(inner: &mut Inner) -> Vec<(oneshot::Sender<Answer>, Answer)> {
    let mut answers = Vec::new();
    let mut fold = Fold::new(inner.newest);
    for pending in std::mem::take(&mut inner.pending) {
        if inner.full && !pending.puts.is_empty() {
            answers.push((pending.answer, Err(CommitError::Full)));
            continue;
        }
        let verdict = fold.offer(pending.guards, pending.puts, |key| Ok(inner.durable.get(key).cloned()));
        let result = match verdict {
            Verdict::Accepted(revision) => Ok(revision),
            Verdict::Conflict { key, current, .. } => Err(CommitError::Conflict { key, current }),
            Verdict::Unreadable(error) => Err(CommitError::Failed(error.to_string())),
        };
        answers.push((pending.answer, result));
    }
    inner.newest = fold.newest();
    for (key, change) in fold.into_changes() {
        match change {
            Some(entry) => inner.durable.insert(key, entry),
            None => inner.durable.remove(&key),
        };
    }
    answers
}

impl Store for SimStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move { Ok(self.inner.lock().durable.get(key).cloned()) })
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>> {
        Box::pin(async move {
            if limit > MAX_SCAN_LIMIT {
                return Err(StoreError::LimitTooLarge(limit));
            }
            let start = match after {
                Some(after) if after >= prefix => Bound::Excluded(after),
                _ => Bound::Included(prefix),
            };
            let inner = self.inner.lock();
            let range = inner.durable.range::<str, _>((start, Bound::Unbounded));
            let found = range.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
            Ok(found.map(|(key, entry)| (key.clone(), entry.clone())).collect())
        })
    }

    fn commit(&self, guards: Vec<Guard>, puts: Vec<Put>) -> BoxFuture<'static, Answer> {
        if let Err(error) = check_limits(&guards, &puts) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner.lock();
        inner.pending.push_back(Pending { guards, puts, answer: sender });
        if !std::mem::replace(&mut inner.flushing, true) {
            let life = inner.life;
            drop(inner);
            let task = Self::flush(Arc::clone(&self.env), self.delay, Arc::clone(&self.inner), life);
            self.env.spawn(Box::pin(task));
        }
        Box::pin(async move { receiver.await.unwrap_or(Err(CommitError::Stopped)) })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nave_env::Env as _;
    use nave_env::sim::Simulation;
    use nave_model::Timestamp;

    use super::*;
    use crate::{Expect, Step, StepError};

    fn put(key: &str, value: &'static str) -> Vec<Put> {
        vec![Put { key: key.into(), value: Some(Bytes::from_static(value.as_bytes())) }]
    }

    #[test]
    fn commits_take_virtual_time_and_a_crash_takes_what_was_pending() {
        let world = Simulation::new(1, Timestamp::from_unix_seconds(1));
        let host = world.host();
        let store = Arc::new(SimStore::new(host, Duration::from_millis(5)));
        let test = Arc::clone(&store);
        world
            .run(async move {
                let first = test.commit(vec![], put("a", "1"));
                assert_eq!(test.get("a").await, Ok(None), "visible before durable");
                let revision = first.await.unwrap();
                assert_eq!(test.get("a").await.unwrap().unwrap().revision, revision);
                let lost = test.commit(vec![], put("a", "2"));
                test.crash();
                assert_eq!(lost.await, Err(CommitError::Stopped));
                assert_eq!(test.get("a").await.unwrap().unwrap().value, "1");
                let guard = Guard { key: "a".into(), expect: Expect::At(revision) };
                let next = test.commit(vec![guard.clone()], put("a", "3")).await.unwrap();
                assert!(next > revision);
                let refused = test.commit(vec![guard], put("a", "4")).await;
                assert!(matches!(refused, Err(CommitError::Conflict { current: Some(e), .. }) if e.revision == next));
                test.set_full(true);
                assert_eq!(test.commit(vec![], put("a", "5")).await, Err(CommitError::Full));
                test.set_full(false);
                assert!(test.commit(vec![], put("b", "5")).await.is_ok());
                let keys = test.scan("", Some("a"), 10).await.unwrap();
                assert_eq!(keys.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b"]);
            })
            .unwrap();
    }

    #[test]
    fn steps_wait_for_each_other_and_a_crash_leaves_the_first_ones() {
        let world = Simulation::new(1, Timestamp::from_unix_seconds(1));
        let store = Arc::new(SimStore::new(world.host(), Duration::from_millis(5)));
        let steps = |keys: [&str; 2]| -> Vec<Step> {
            let absent = |key: &str| Guard { key: key.into(), expect: Expect::Absent };
            keys.iter().map(|key| Step { guards: vec![absent(key)], puts: put(key, "1") }).collect()
        };
        let (test, env) = (Arc::clone(&store), world.host());
        world
            .run(async move {
                test.commit_steps(steps(["a", "b"])).await.unwrap();
                let refused = test.commit_steps(steps(["c", "b"])).await.unwrap_err();
                assert!(
                    matches!(refused, StepError { done: 1, error: CommitError::Conflict { key, .. } } if key == "b")
                );
                let cut = async {
                    env.sleep(Duration::from_millis(7)).await;
                    test.crash();
                };
                let (lost, ()) = futures_util::future::join(test.commit_steps(steps(["d", "e"])), cut).await;
                assert_eq!(lost, Err(StepError { done: 1, error: CommitError::Stopped }));
                assert!(test.get("d").await.unwrap().is_some() && test.get("e").await.unwrap().is_none());
            })
            .unwrap();
    }
}
