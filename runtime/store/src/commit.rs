//! The committer: one thread that folds concurrent commits into one synced engine batch.
//!
//! While a sync is in progress other commits queue up; they become the next fold. So the number of syncs follows the
//! speed of the disk and not the number of commits. Readers look at the view that the committer published after the last
//! sync, which is why nobody can see a value that a power cut would take back.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nave_env::{Moment, SharedEnv};
use nave_metrics::Page;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::oneshot;

use crate::engine::{Engine, EngineError, View};
use crate::fold::{Fold, Verdict, check_limits};
use crate::metrics::StoreMetrics;
use crate::{BoxFuture, CommitError, Guard, Put, Revision, Step, StepError, StoreError};

/// Most commits in one fold: bounds how long the first of them waits for the others.
const MAX_FOLD_COMMITS: usize = 1_024;

/// Bytes of keys and values after which a fold is closed.
const MAX_FOLD_BYTES: usize = 16 * 1024 * 1024;

/// Most commits that wait; beyond, [`CommitError::Busy`].
const MAX_QUEUED_COMMITS: usize = 16_384;

/// Most bytes of keys and values that wait; beyond, [`CommitError::Busy`].
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Least time between two attempts to reopen a failed engine: reopening reads the engine's journals.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

type Answer = Result<Revision, StepError>;

/// A commit, or several that belong into one fold.
struct Request {
    steps: Vec<Step>,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

impl Request {
    /// Offers the steps up to the first that is refused; the verdict is that of the last one that was offered.
    fn offer(self, fold: &mut Fold, view: &dyn View) -> Decided {
        let mut done = 0;
        let mut verdict = Verdict::Accepted(fold.revision());
        for step in self.steps {
            verdict = fold.offer(step.guards, step.puts, |key| view.get(key));
            if !matches!(verdict, Verdict::Accepted(_)) {
                break;
            }
            done += 1;
        }
        Decided { done, verdict, answer: self.answer }
    }
}

/// A request that a fold has decided.
struct Decided {
    /// Its steps that are part of the fold.
    done: usize,
    verdict: Verdict,
    answer: oneshot::Sender<Answer>,
}

impl Decided {
    /// What the caller is told once the fold is written, or could not be.
    fn outcome(&self, failure: Option<&CommitError>) -> Answer {
        let (done, error) = match (&self.verdict, failure) {
            (Verdict::Accepted(revision), None) => return Ok(*revision),
            // What was refused because of durable state alone is refused whatever became of the fold.
            (Verdict::Conflict { key, current, durable }, failure)
                if *durable && self.done == 0 || failure.is_none() =>
            {
                (self.done, CommitError::Conflict { key: key.clone(), current: current.clone() })
            }
            (Verdict::Accepted(_) | Verdict::Conflict { .. }, Some(failure)) => (0, failure.clone()),
            (Verdict::Unreadable(error), failure) => {
                (if failure.is_none() { self.done } else { 0 }, CommitError::Failed(error.to_string()))
            }
            (Verdict::Conflict { .. }, None) => (self.done, CommitError::Stopped),
        };
        Err(StepError { done, error })
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    bytes: usize,
    /// The committer sleeps and must be woken.
    idle: bool,
    stopping: bool,
}

/// What the store's handle and its committer share.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The last durable state; `None` while the engine is being reopened, or for good once the store is closed.
    view: RwLock<Option<Arc<dyn View>>>,
    metrics: StoreMetrics,
    /// The last write succeeded, or none was tried.
    writable: AtomicBool,
}

/// The handle of a running committer. Dropping it finishes what is queued and closes the engine.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Starts the thread that owns `engine`.
    pub(crate) fn start(engine: impl Engine, env: SharedEnv) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            view: RwLock::new(engine.view()),
            metrics: StoreMetrics::default(),
            writable: AtomicBool::new(true),
        });
        let worker = Worker { shared: Arc::clone(&shared), engine, env, suspended: None, last_reopen: None };
        let thread = std::thread::Builder::new().name("nave-store".into()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// See [`crate::Store::commit`].
    pub(crate) fn commit(
        &self,
        guards: Vec<Guard>,
        puts: Vec<Put>,
    ) -> BoxFuture<'static, Result<Revision, CommitError>> {
        let span = nave_trace::commit(puts.len());
        match self.enqueue(vec![Step { guards, puts }]) {
            Ok(answer) => nave_trace::within(
                span,
                Box::pin(async move { answer.await.unwrap_or_else(stopped).map_err(|refused| refused.error) }),
            ),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// See [`crate::Store::commit_steps`]: all of them are in one fold.
    pub(crate) fn commit_steps(&self, steps: Vec<Step>) -> BoxFuture<'static, Result<Revision, StepError>> {
        let span = nave_trace::commit(steps.iter().map(|step| step.puts.len()).sum());
        match self.enqueue(steps) {
            Ok(answer) => nave_trace::within(span, Box::pin(async move { answer.await.unwrap_or_else(stopped) })),
            Err(error) => Box::pin(std::future::ready(Err(StepError { done: 0, error }))),
        }
    }

    /// Puts what was counted on the page.
    pub(crate) fn collect(&self, page: &mut Page) {
        let queued = {
            let queue = self.shared.queue.lock();
            (queue.waiting.len(), queue.bytes)
        };
        self.shared.metrics.collect(page, queued, self.is_writable());
    }

    /// Whether changes are taken: false while the disk is full or fails, and once the store is closed.
    pub(crate) fn is_writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed) && !self.shared.queue.lock().stopping
    }

    fn enqueue(&self, steps: Vec<Step>) -> Result<oneshot::Receiver<Answer>, CommitError> {
        let queued = self.try_enqueue(steps);
        if let Err(error) = &queued {
            self.shared.metrics.count(Err(error));
        }
        queued
    }

    fn try_enqueue(&self, steps: Vec<Step>) -> Result<oneshot::Receiver<Answer>, CommitError> {
        let mut bytes = 0;
        for step in &steps {
            bytes += check_limits(&step.guards, &step.puts)?;
        }
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.stopping {
            return Err(CommitError::Stopped);
        }
        if queue.waiting.len() >= MAX_QUEUED_COMMITS || queue.bytes + bytes > MAX_QUEUED_BYTES {
            return Err(CommitError::Busy);
        }
        queue.bytes += bytes;
        queue.waiting.push_back(Request { steps, bytes, answer: sender });
        if mem::take(&mut queue.idle) {
            drop(queue);
            self.shared.wake.notify_one();
        }
        Ok(receiver)
    }

    /// The last durable state.
    pub(crate) fn view(&self) -> Result<Arc<dyn View>, StoreError> {
        if let Some(view) = self.shared.view.read().as_ref() {
            return Ok(Arc::clone(view));
        }
        Err(if self.shared.queue.lock().stopping { StoreError::Stopped } else { StoreError::Unavailable })
    }

    /// Refuses further commits, finishes the queued ones and closes the engine.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the store's committer panicked");
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

struct Worker<E> {
    shared: Arc<Shared>,
    engine: E,
    env: SharedEnv,
    /// Why the engine cannot be written to at the moment.
    suspended: Option<EngineError>,
    last_reopen: Option<Moment>,
}

impl<E: Engine> Worker<E> {
    fn run(mut self) {
        // Also on a panic: nobody may wait for a thread that is gone.
        let _stop = StopGuard(Arc::clone(&self.shared));
        while let Some(requests) = self.next_fold() {
            self.commit(requests);
        }
        *self.shared.view.write() = None;
    }

    /// Waits for work; `None` once the store is closed and nothing is left to do.
    fn next_fold(&self) -> Option<Vec<Request>> {
        let mut queue = self.shared.queue.lock();
        while queue.waiting.is_empty() {
            if queue.stopping {
                return None;
            }
            queue.idle = true;
            self.shared.wake.wait(&mut queue);
        }
        queue.idle = false;
        let mut requests = Vec::with_capacity(queue.waiting.len().min(MAX_FOLD_COMMITS));
        let mut bytes = 0;
        while requests.len() < MAX_FOLD_COMMITS && bytes < MAX_FOLD_BYTES {
            let Some(request) = queue.waiting.pop_front() else { break };
            bytes += request.bytes;
            requests.push(request);
        }
        queue.bytes -= bytes;
        Some(requests)
    }

    fn commit(&mut self, requests: Vec<Request>) {
        self.reopen_if_due();
        let Some(view) = self.shared.view.read().clone() else {
            let error = self.suspended.as_ref().map_or(CommitError::Stopped, as_commit_error);
            for request in requests {
                self.shared.metrics.count(Err(&error));
                // A receiver that is gone does not want the answer.
                let _ = request.answer.send(Err(StepError { done: 0, error: error.clone() }));
            }
            return;
        };
        self.shared.metrics.batch.count(requests.iter().map(|request| request.steps.len() as u64).sum());
        let mut fold = Fold::new(self.engine.newest());
        let decided: Vec<_> = requests.into_iter().map(|request| request.offer(&mut fold, &*view)).collect();
        drop(view);
        let written = if fold.is_empty() {
            Ok(())
        } else {
            let written = self.write(fold);
            self.shared.writable.store(written.is_ok(), Ordering::Relaxed);
            written
        };
        let failure = written.err().map(|error| as_commit_error(&error));
        for decided in decided {
            let outcome = decided.outcome(failure.as_ref());
            let done = outcome.as_ref().map_or_else(|refused| refused.done, |_| decided.done);
            (0..done).for_each(|_| self.shared.metrics.count(Ok(())));
            if let Err(refused) = &outcome {
                self.shared.metrics.count(Err(&refused.error));
            }
            let _ = decided.answer.send(outcome);
        }
    }

    /// Makes a fold durable, then visible.
    fn write(&mut self, fold: Fold) -> Result<(), EngineError> {
        if let Some(error) = &self.suspended {
            return Err(error.clone());
        }
        if !self.engine.has_space() {
            return Err(EngineError::Full);
        }
        let newest = fold.newest();
        let began = self.env.monotonic();
        let result = self.engine.write(fold.into_changes(), newest).and_then(|()| self.engine.sync());
        self.shared.metrics.sync.observe(self.env.monotonic().since(began));
        match result {
            Ok(()) => {
                *self.shared.view.write() = self.engine.view();
                Ok(())
            }
            Err(error) => {
                tracing::error!(?error, "the store cannot write");
                self.suspended = Some(error.clone());
                Err(error)
            }
        }
    }

    /// A failed engine keeps serving reads as it is. It is reopened when a commit comes and there is space.
    fn reopen_if_due(&mut self) {
        match &self.suspended {
            None | Some(EngineError::Broken(_)) => return,
            Some(EngineError::Full | EngineError::NeedsReopen(_)) => {}
        }
        let now = self.env.monotonic();
        if !self.engine.has_space() || self.last_reopen.is_some_and(|last| now.since(last) < REOPEN_INTERVAL) {
            return;
        }
        self.last_reopen = Some(now);
        // Readers wait for the lock meanwhile instead of failing.
        let mut published = self.shared.view.write();
        *published = None;
        self.suspended = self.engine.reopen().err();
        *published = self.engine.view();
        drop(published);
        match &self.suspended {
            None => tracing::info!("the store is writable again"),
            Some(error) => tracing::error!(?error, "the store could not be reopened"),
        }
    }
}

/// Stops the store when the committer ends, however it ends.
struct StopGuard(Arc<Shared>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        let abandoned = {
            let mut queue = self.0.queue.lock();
            queue.stopping = true;
            queue.bytes = 0;
            mem::take(&mut queue.waiting)
        };
        // Dropping the senders answers `Stopped`.
        drop(abandoned);
    }
}

/// The committer ended before it answered.
fn stopped(_: oneshot::error::RecvError) -> Answer {
    Err(StepError { done: 0, error: CommitError::Stopped })
}

fn as_commit_error(error: &EngineError) -> CommitError {
    match error {
        EngineError::Full => CommitError::Full,
        EngineError::NeedsReopen(what) | EngineError::Broken(what) => CommitError::Failed(what.clone()),
    }
}

#[cfg(test)]
mod tests;
