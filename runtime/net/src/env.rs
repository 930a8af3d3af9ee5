//! The operating system as a [`nave_env::Env`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nave_env::{BoxFuture, Env, Moment, Task};
use nave_model::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::StartError;
use crate::limits::BACKGROUND_THREADS;

/// The real clocks, the kernel's randomness and a small pool of threads.
///
/// Spawned work and timers live on threads of their own, not on those that serve connections: work that a connection
/// began outlives it and its worker, and a slow task cannot delay telemetry. So a path that runs for every message does not
/// spawn: it drives its futures from the connection itself.
pub struct RealEnv {
    start: Instant,
    handle: Handle,
    runtime: Option<Runtime>,
    random: SystemRandom,
}

impl RealEnv {
    /// Starts the threads.
    pub fn start() -> Result<Arc<Self>, StartError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(BACKGROUND_THREADS)
            .max_blocking_threads(1)
            .thread_name("nave-work")
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Arc::new(Self { start: Instant::now(), handle, runtime: Some(runtime), random: SystemRandom::new() }))
    }

    /// The moment of the clock that tokio's timers use.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        self.start.checked_add(moment.since_start()).unwrap_or_else(|| Instant::now() + FAR)
    }
}

impl Env for RealEnv {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_nanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    fn sleep(&self, delay: Duration) -> BoxFuture<()> {
        // Made within the pool, so that it can be awaited on any thread, with or without a runtime.
        let _pool = self.handle.enter();
        Box::pin(tokio::time::sleep(delay))
    }

    fn spawn(&self, task: Task) {
        self.handle.spawn(task);
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        if self.random.fill(buffer).is_err() {
            // Going on would hand out keys that can be guessed, and the trait rightly has no error: Linux cannot fail here
            // once it has booted.
            tracing::error!("the operating system gives no random bytes; stopping");
            std::process::abort();
        }
    }
}

impl Drop for RealEnv {
    fn drop(&mut self) {
        // The last owner may be a task of the pool itself, which must not wait for its own end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn sleeps_on_a_thread_without_a_runtime_and_counts_the_time() {
        let env = RealEnv::start().expect("threads start");
        let before = env.monotonic();
        let (sender, receiver) = mpsc::channel();
        let sleep = env.sleep(Duration::from_millis(5));
        env.spawn(Box::pin(async move {
            sleep.await;
            sender.send(()).expect("the test waits");
        }));
        receiver.recv().expect("the task ran");
        assert!(env.monotonic().since(before) >= Duration::from_millis(5));
        assert!(env.now() > Timestamp::parse_iso("2024-01-01T00:00:00Z").expect("a time"));
    }

    #[test]
    fn fills_with_different_bytes_each_time() {
        let env = RealEnv::start().expect("threads start");
        let (mut first, mut second) = ([0; 32], [0; 32]);
        env.fill_random(&mut first);
        env.fill_random(&mut second);
        assert_ne!(first, [0; 32]);
        assert_ne!(first, second);
    }

    #[test]
    fn can_be_dropped_by_its_own_task() {
        let env = RealEnv::start().expect("threads start");
        let (sender, receiver) = mpsc::channel();
        let last = Arc::clone(&env);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        env.spawn(Box::pin(async move {
            wait.await.expect("told to go on");
            drop(last);
            sender.send(()).expect("the test waits");
        }));
        drop(env);
        go.send(()).expect("the task waits");
        receiver.recv().expect("the task went on");
    }

    #[test]
    fn turns_the_end_of_time_into_a_far_instant() {
        let env = RealEnv::start().expect("threads start");
        assert!(env.instant(Moment::from_start(Duration::MAX)) > Instant::now() + Duration::from_secs(3600));
    }
}
