//! Time, randomness and tasks of one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use nave_env::{BoxFuture, Env, Moment, Task};
use nave_model::Timestamp;
use parking_lot::Mutex;

/// Where time and randomness come from.
pub trait Source: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// The monotonic clock.
    fn monotonic(&self) -> Moment;

    /// Fills `buffer` with bytes that are fit for keys.
    fn fill_random(&self, buffer: &mut [u8]);
}

/// The environment of one request.
///
/// A component has no threads, and its instance ends with the answer. So tasks run while the request waits and once more
/// before its answer; a wait never ends, because nobody would be there at its end, and what waits is dropped with the rest.
pub struct RequestEnv {
    source: Box<dyn Source>,
    tasks: Mutex<Vec<Task>>,
}

impl RequestEnv {
    /// An environment for one request.
    pub fn new(source: Box<dyn Source>) -> Arc<Self> {
        Arc::new(Self { source, tasks: Mutex::default() })
    }

    /// Runs `work` and the tasks that it spawns until `work` ends, and then the tasks for as long as they get on. `None` if
    /// `work` waits for something that cannot come: time, or another request.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut work = std::pin::pin!(work);
        let mut result = None;
        loop {
            woken.0.store(false, Ordering::Relaxed);
            if result.is_none()
                && let Poll::Ready(value) = work.as_mut().poll(&mut context)
            {
                result = Some(value);
            }
            let has_new_tasks = self.poll_tasks(&mut context);
            if !has_new_tasks && !woken.0.load(Ordering::Relaxed) {
                return result;
            }
        }
    }

    /// Polls every task once; whether others came meanwhile.
    fn poll_tasks(&self, context: &mut Context<'_>) -> bool {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        let mut new = self.tasks.lock();
        let has_new = !new.is_empty();
        new.splice(0..0, tasks);
        has_new
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Env for RequestEnv {
    fn now(&self) -> Timestamp {
        self.source.now()
    }

    fn monotonic(&self) -> Moment {
        self.source.monotonic()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }

    fn spawn(&self, task: Task) {
        self.tasks.lock().push(task);
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        self.source.fill_random(buffer);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A clock that stands, and bytes that count.
    #[derive(Default)]
    pub(crate) struct Fixed(Mutex<u8>);

    impl Source for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_seconds(1_790_000_000)
        }

        fn monotonic(&self) -> Moment {
            Moment::from_start(Duration::ZERO)
        }

        fn fill_random(&self, buffer: &mut [u8]) {
            for byte in buffer {
                let mut next = self.0.lock();
                *next = next.wrapping_add(1);
                *byte = *next;
            }
        }
    }

    #[test]
    fn tasks_run_while_the_request_waits_and_after_it() {
        let env = RequestEnv::new(Box::new(Fixed::default()));
        let (sender, receiver) = oneshot::channel();
        let (after, ended) = (Arc::new(AtomicBool::new(false)), Arc::clone(&env));
        let flag = Arc::clone(&after);
        let result = env.run(async move {
            let inner = Arc::clone(&ended);
            ended.spawn(Box::pin(async move {
                let _ = sender.send(7);
                inner.spawn(Box::pin(async move { flag.store(true, Ordering::Relaxed) }));
            }));
            receiver.await
        });
        assert_eq!(result, Some(Ok(7)));
        assert!(after.load(Ordering::Relaxed));
    }

    #[test]
    fn what_would_have_to_wait_is_given_up() {
        let env = RequestEnv::new(Box::new(Fixed::default()));
        let sleeping = Arc::clone(&env);
        assert_eq!(env.run(async move { sleeping.sleep(Duration::from_secs(1)).await }), None);
        let spawning = Arc::clone(&env);
        let forever = async move {
            let sleep = spawning.sleep(Duration::from_secs(1));
            spawning.spawn(sleep);
            1
        };
        assert_eq!(env.run(forever), Some(1));
    }
}
