//! Where work that may take its time is done: on threads that serve no connection, in queues that are bounded and fair.
//!
//! The hub owns no threads. Whoever starts it gives each pool as many as it likes, by calling [`Pool::work`] on them; a
//! pool without threads ([`Pool::inline`]) does the work where it is submitted, which is what a simulation wants.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Most pieces of work that wait in a pool, over all its queues. It bounds what a pool can hold in memory; each queue has a
/// smaller bound of its own.
const MAX_WAITING: usize = 4_096;

type Job = Box<dyn FnOnce() + Send>;

/// How much of one kind of work there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Pieces that are worked on at once.
    pub running: u32,
    /// Pieces that wait for their turn.
    pub waiting: u32,
}

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// The queue, or the pool, is full.
    #[error("too much of this waits already")]
    Full,
    /// The pool was closed, or the work panicked.
    #[error("the work ended before its result")]
    Ended,
}

/// A bounded pool with one queue per key.
pub struct Pool {
    is_inline: bool,
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    queues: HashMap<String, Queue>,
    /// Keys whose queue is not empty, the one that waits longest first: each gets a turn before one gets a second.
    turns: VecDeque<String>,
    waiting: usize,
    is_closed: bool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    limit: u32,
    running: u32,
}

impl Pool {
    /// A pool for threads that call [`Pool::work`].
    pub fn new() -> Self {
        Self { is_inline: false, state: Mutex::default(), ready: Condvar::new() }
    }

    /// A pool that does everything at once, where it is submitted.
    pub fn inline() -> Self {
        Self { is_inline: true, ..Self::new() }
    }

    /// Works until the pool is closed. To be called on each of its threads.
    pub fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((key, job)) = state.next() {
                drop(state);
                perform(job);
                state = self.state.lock();
                state.finished(&key);
                // Somebody may have waited for this key's turn.
                self.ready.notify_one();
            } else if state.is_closed {
                return;
            } else {
                self.ready.wait(&mut state);
            }
        }
    }

    /// Whether it was closed: the host stops.
    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Refuses further work. What waits is dropped; what runs ends.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.queues.values_mut().for_each(|queue| queue.jobs.clear());
        state.turns.clear();
        state.waiting = 0;
        self.ready.notify_all();
    }

    /// Pieces of work that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Does `work` when its turn comes, and returns its result. Work that nobody waits for any more when its turn comes is
    /// not begun.
    ///
    /// # Errors
    ///
    /// [`NotDone::Full`] at once, if so much waits; [`NotDone::Ended`] if there will be no result.
    pub async fn run<T: Send + 'static>(
        &self,
        key: &str,
        bounds: Bounds,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let (sender, receiver) = oneshot::channel();
        self.submit(
            key,
            bounds,
            Box::new(move || {
                if !sender.is_closed() {
                    // Nobody waits any more if this fails.
                    let _ = sender.send(work());
                }
            }),
        )?;
        receiver.await.map_err(|_| NotDone::Ended)
    }

    fn submit(&self, key: &str, bounds: Bounds, job: Job) -> Result<(), NotDone> {
        if self.is_inline {
            perform(job);
            return Ok(());
        }
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(NotDone::Ended);
        }
        if state.waiting >= MAX_WAITING {
            return Err(NotDone::Full);
        }
        let queue = state.queues.entry_ref(key).or_default();
        queue.limit = bounds.running;
        let free = queue.limit.saturating_sub(queue.running);
        let allowed = usize::try_from(bounds.waiting.saturating_add(free)).unwrap_or(usize::MAX);
        if queue.jobs.len() >= allowed {
            return Err(NotDone::Full);
        }
        queue.jobs.push_back(job);
        let is_first = queue.jobs.len() == 1;
        state.waiting += 1;
        if is_first {
            state.turns.push_back(key.to_owned());
        }
        self.ready.notify_one();
        Ok(())
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The next piece of work whose key may run another.
    fn next(&mut self) -> Option<(String, Job)> {
        for _ in 0..self.turns.len() {
            let key = self.turns.pop_front()?;
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            if queue.running >= queue.limit {
                self.turns.push_back(key);
                continue;
            }
            let Some(job) = queue.jobs.pop_front() else { continue };
            queue.running += 1;
            self.waiting -= 1;
            if !queue.jobs.is_empty() {
                self.turns.push_back(key.clone());
            }
            return Some((key, job));
        }
        None
    }

    fn finished(&mut self, key: &str) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.running -= 1;
        if queue.running == 0 && queue.jobs.is_empty() {
            self.queues.remove(key);
        }
    }
}

/// A panic costs its piece of work and not the thread.
fn perform(job: Job) {
    if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("work in a pool panicked: whoever waited for it is told that it ended");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    const ONE: Bounds = Bounds { running: 1, waiting: 2 };

    /// Polls until the other thread has done its part.
    fn wait_for<T>(future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        loop {
            if let Some(result) = future.as_mut().now_or_never() {
                return result;
            }
            std::thread::yield_now();
        }
    }

    /// Submits work that writes its name down.
    fn note(pool: &Pool, key: &str, name: &'static str, notes: &mpsc::Sender<&'static str>) -> Result<(), NotDone> {
        let notes = notes.clone();
        pool.submit(key, ONE, Box::new(move || notes.send(name).unwrap()))
    }

    #[test]
    fn each_key_has_its_turn_before_one_has_a_second() {
        let pool = Pool::new();
        let (notes, read) = mpsc::channel();
        for name in ["a1", "a2", "a3"] {
            note(&pool, "a", name, &notes).unwrap();
        }
        assert_eq!(note(&pool, "a", "a4", &notes), Err(NotDone::Full));
        note(&pool, "b", "b1", &notes).unwrap();
        assert_eq!(pool.waiting(), 4);
        let mut order = Vec::new();
        let next = || pool.state.lock().next();
        while let Some((key, job)) = next() {
            perform(job);
            pool.state.lock().finished(&key);
            order.push(read.recv().unwrap());
        }
        assert_eq!(order, ["a1", "b1", "a2", "a3"]);
        assert!(pool.state.lock().queues.is_empty());
    }

    #[test]
    fn no_key_runs_more_than_it_may() {
        let pool = Pool::new();
        let (notes, _read) = mpsc::channel();
        note(&pool, "a", "a1", &notes).unwrap();
        note(&pool, "a", "a2", &notes).unwrap();
        let (key, _running) = pool.state.lock().next().unwrap();
        assert!(pool.state.lock().next().is_none(), "a2 waits for a1");
        note(&pool, "b", "b1", &notes).unwrap();
        assert_eq!(pool.state.lock().next().unwrap().0, "b");
        pool.state.lock().finished(&key);
        assert_eq!(pool.state.lock().next().unwrap().0, "a");
    }

    #[test]
    fn threads_survive_panics_and_end_when_the_pool_is_closed() {
        let pool = Arc::new(Pool::new());
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| pool.work());
            let bounds = Bounds { running: 1, waiting: 8 };
            let result = futures_util::future::join(
                pool.run("a", bounds, || -> u32 { panic!("expected by the test") }),
                pool.run("a", bounds, || 7),
            );
            assert_eq!(wait_for(result), (Err(NotDone::Ended), Ok(7)));
            pool.close();
            worker.join().unwrap();
        });
        assert_eq!(pool.run("a", ONE, || 1).now_or_never(), Some(Err(NotDone::Ended)));
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun() {
        let pool = Pool::new();
        let mut begun = Box::pin(pool.run("a", ONE, || panic!("nobody waits")));
        assert!(begun.as_mut().now_or_never().is_none());
        drop(begun);
        let (_, job) = pool.state.lock().next().unwrap();
        job();
        assert_eq!(Pool::inline().run("a", ONE, || 3).now_or_never(), Some(Ok(3)));
    }
}
