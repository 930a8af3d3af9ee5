//! Wakes of connections by other threads, handed over together.
//!
//! The runtime of a worker writes to its eventfd for each task that another thread wakes, and wakes its own thread for it. The
//! threads of store and log answer many connections at once: here the first of them wakes the worker, and the worker wakes
//! the tasks of all of them itself, which costs no system call.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

thread_local! {
    /// Those of the worker that this thread is.
    static HERE: OnceCell<Arc<Wakeups>> = const { OnceCell::new() };
}

/// The connections of one worker that other threads woke and that it has not looked at.
#[derive(Default)]
pub(crate) struct Wakeups {
    /// Each connection at most once.
    waiting: Mutex<Vec<Arc<Remote>>>,
    worker: AtomicWaker,
}

impl Wakeups {
    /// Makes these the ones of the calling thread.
    pub(crate) fn settle(self: Arc<Self>) {
        HERE.with(|here| {
            let earlier = here.set(self);
            debug_assert!(earlier.is_ok(), "a thread is one worker");
        });
    }

    /// Wakes whoever waits, for ever; to be run by the worker.
    pub(crate) async fn serve(self: Arc<Self>) {
        let mut woken = Vec::new();
        poll_fn(|cx| {
            // Before the look: whoever comes after it wakes us again.
            self.worker.register(cx.waker());
            self.take(&mut woken);
            Poll::<()>::Pending
        })
        .await;
    }

    fn take(&self, woken: &mut Vec<Arc<Remote>>) {
        mem::swap(&mut *self.waiting.lock(), woken);
        for remote in woken.drain(..) {
            // A swap and not a store: what the threads did that found the mark set is visible to the task, too.
            remote.queued.swap(false, Ordering::AcqRel);
            remote.task.wake_by_ref();
        }
    }

    fn push(&self, remote: Arc<Remote>) {
        let is_first = {
            let mut waiting = self.waiting.lock();
            waiting.push(remote);
            waiting.len() == 1
        };
        if is_first {
            self.worker.wake();
        }
    }
}

/// A waker for the task of `task` on this thread's worker; on a thread that is none, `task` itself.
pub(crate) fn waker(task: &Waker) -> Waker {
    let wakeups = HERE.with(|here| here.get().map(Arc::downgrade));
    wakeups.map_or_else(|| task.clone(), |wakeups| remote(task, wakeups))
}

fn remote(task: &Waker, wakeups: Weak<Wakeups>) -> Waker {
    Arc::new(Remote { task: task.clone(), queued: AtomicBool::new(false), wakeups }).into()
}

/// The waker of one connection.
struct Remote {
    task: Waker,
    /// It is among those that wait.
    queued: AtomicBool,
    /// Weak, because those that wait are in there.
    wakeups: Weak<Wakeups>,
}

impl Wake for Remote {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_here =
            HERE.with(|here| here.get().is_some_and(|here| std::ptr::eq(Arc::as_ptr(here), self.wakeups.as_ptr())));
        match self.wakeups.upgrade() {
            Some(wakeups) if !is_here => {
                if !self.queued.swap(true, Ordering::AcqRel) {
                    wakeups.push(Arc::clone(self));
                }
            }
            _ => self.task.wake_by_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(count: &Arc<Count>) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_worker_is_woken_once_for_all_that_others_wake_before_it_looks() {
        let (wakeups, worker) = (Arc::new(Wakeups::default()), Arc::new(Count::default()));
        let tasks: Vec<Arc<Count>> = (0..100).map(|_| Arc::default()).collect();
        let wakers: Vec<Waker> =
            tasks.iter().map(|task| remote(&Waker::from(Arc::clone(task)), Arc::downgrade(&wakeups))).collect();
        let mut woken = Vec::new();
        for round in 1..=2 {
            wakeups.worker.register(&Waker::from(Arc::clone(&worker)));
            wakeups.take(&mut woken);
            assert!(tasks.iter().all(|task| count(task) == round - 1));
            // The second time changes nothing.
            wakers.iter().chain(&wakers).for_each(Waker::wake_by_ref);
            assert_eq!(count(&worker), round);
            wakeups.take(&mut woken);
            assert!(tasks.iter().all(|task| count(task) == round), "each once");
        }
    }

    #[test]
    fn the_worker_itself_and_threads_of_a_worker_that_is_gone_wake_at_once() {
        thread::scope(|scope| {
            scope.spawn(|| {
                let (wakeups, task) = (Arc::new(Wakeups::default()), Arc::new(Count::default()));
                let before = waker(&Waker::from(Arc::clone(&task)));
                before.wake();
                assert_eq!(count(&task), 1, "a thread that is no worker");
                Arc::clone(&wakeups).settle();
                let here = waker(&Waker::from(Arc::clone(&task)));
                here.wake_by_ref();
                assert_eq!(count(&task), 2);
                let gone = remote(&Waker::from(Arc::clone(&task)), Weak::new());
                gone.wake();
                assert_eq!(count(&task), 3);
            });
        });
    }

    #[test]
    fn no_wake_is_lost_between_threads() {
        const TASKS: usize = 8;
        const ROUNDS: usize = 2_000;
        let wakeups = Arc::new(Wakeups::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.spawn(Arc::clone(&wakeups).serve());
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (slot, goal): (Arc<AtomicWaker>, Arc<AtomicUsize>) = Default::default();
                let (ours, given) = (Arc::clone(&slot), Arc::clone(&goal));
                let here = Arc::downgrade(&wakeups);
                let task = runtime.spawn(poll_fn(move |cx| {
                    ours.register(&remote(cx.waker(), Weak::clone(&here)));
                    if given.load(Ordering::Relaxed) == ROUNDS { Poll::Ready(()) } else { Poll::Pending }
                }));
                (task, slot, goal)
            })
            .collect();
        thread::scope(|scope| {
            for (_, slot, goal) in &tasks {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        goal.fetch_add(1, Ordering::Relaxed);
                        slot.wake();
                    }
                });
            }
            // It ends: every task saw the last thing that was given to it.
            runtime.block_on(async {
                for (task, ..) in &tasks {
                    while !task.is_finished() {
                        tokio::task::yield_now().await;
                    }
                }
            });
        });
    }
}
