//! A deterministic environment: one thread, virtual time, everything decided by a seed.
//!
//! A [`Simulation`] owns the tasks, the timers and the random numbers. Each [`SimEnv`] made from it is one *host*: what a
//! host spawned dies with it on [`SimEnv::crash`], as a process would. When no task can run, time jumps to the next timer,
//! so a timeout of an hour costs nothing. Which of several runnable tasks goes next is drawn from the seed, so that a seed
//! is an interleaving and a failing one can be run again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use nave_model::Timestamp;
use parking_lot::Mutex;

use crate::{BoxFuture, Env, Moment, Task};

/// Polls after which [`Simulation::run`] gives up: far more than any test needs, so a livelock ends as a failure.
pub const MAX_POLLS: u64 = 50_000_000;

/// The world in which simulated hosts live. Clones share it.
#[derive(Clone)]
pub struct Simulation {
    world: Arc<World>,
}

/// Why [`Simulation::run`] could not finish its future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// No task can run and no timer is armed.
    Deadlock,
    /// [`MAX_POLLS`] polls were not enough.
    Livelock,
}

impl Simulation {
    /// A world whose every choice follows from `seed`, starting at the wall-clock time `start`.
    pub fn new(seed: u64, start: Timestamp) -> Self {
        let state = State {
            now: Duration::ZERO,
            start,
            random: SplitMix(seed),
            next_task: 0,
            next_timer: 0,
            next_host: 0,
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeMap::new(),
        };
        Self { world: Arc::new(World { state: Mutex::new(state) }) }
    }

    /// A new host of this world.
    pub fn host(&self) -> Arc<SimEnv> {
        let mut state = self.world.state.lock();
        let host = state.next_host;
        state.next_host += 1;
        Arc::new(SimEnv { world: Arc::clone(&self.world), host, wrong_by: AtomicI64::new(0) })
    }

    /// A number below `bound` (0 if `bound` is 0), from the seed.
    pub fn below(&self, bound: u64) -> u64 {
        self.world.state.lock().random.below(bound)
    }

    /// Runs `future`, and every spawned task with it, until it resolves.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if it never can.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> Result<T, Stuck> {
        let mut future = std::pin::pin!(future);
        let root = Arc::new(RootWaker { woken: AtomicBool::new(true) });
        let root_waker = Waker::from(Arc::clone(&root));
        for _ in 0..MAX_POLLS {
            let ready = self.world.state.lock().ready.len() as u64;
            let root_ready = root.woken.load(Ordering::Relaxed);
            let pick = self.below(ready + u64::from(root_ready));
            if root_ready && pick == ready {
                root.woken.store(false, Ordering::Relaxed);
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&root_waker)) {
                    return Ok(value);
                }
            } else if ready > 0 {
                self.poll_task(pick);
            } else if !self.advance() {
                return Err(Stuck::Deadlock);
            }
        }
        Err(Stuck::Livelock)
    }

    fn poll_task(&self, pick: u64) {
        let mut state = self.world.state.lock();
        let Some(id) = usize::try_from(pick).ok().and_then(|pick| state.ready.iter().nth(pick).copied()) else {
            return;
        };
        state.ready.remove(&id);
        // The task is taken out while it runs: it may spawn, sleep or crash its own host.
        let Some(mut task) = state.tasks.get_mut(&id).and_then(|slot| slot.future.take()) else { return };
        drop(state);
        let waker = Waker::from(Arc::new(TaskWaker { world: Arc::clone(&self.world), id }));
        let finished = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut state = self.world.state.lock();
        if finished {
            state.tasks.remove(&id);
        } else if let Some(slot) = state.tasks.get_mut(&id) {
            slot.future = Some(task);
            return;
        }
        drop(state);
        // Dropped outside the lock: a future's destructors may wake others.
        drop(task);
    }

    fn advance(&self) -> bool {
        let waker = {
            let mut state = self.world.state.lock();
            let Some((&(at, id), _)) = state.timers.first_key_value() else { return false };
            state.now = state.now.max(at);
            state.timers.remove(&(at, id))
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// One simulated host.
pub struct SimEnv {
    world: Arc<World>,
    host: u64,
    /// Milliseconds by which its wall clock is ahead.
    wrong_by: AtomicI64,
}

impl SimEnv {
    /// A host in a world of its own, for code that needs time and randomness and nothing to run.
    pub fn new(seed: u64, start: Timestamp) -> Self {
        Self { world: Simulation::new(seed, start).world, host: 0, wrong_by: AtomicI64::new(0) }
    }

    /// Makes this host's wall clock wrong by so many milliseconds, ahead or behind, from now on: it jumps. Timers and the
    /// monotonic clock go on as before.
    pub fn set_clock_error(&self, milliseconds: i64) {
        self.wrong_by.store(milliseconds, Ordering::Relaxed);
    }

    /// Ends every task that this host spawned, wherever it stands, as a power cut would.
    pub fn crash(&self) {
        let dropped: Vec<_> = {
            let mut state = self.world.state.lock();
            let ids: Vec<_> =
                state.tasks.iter().filter(|(_, slot)| slot.host == self.host).map(|(id, _)| *id).collect();
            ids.iter()
                .filter_map(|id| {
                    state.ready.remove(id);
                    state.tasks.remove(id)
                })
                .collect()
        };
        drop(dropped);
    }
}

impl Env for SimEnv {
    fn now(&self) -> Timestamp {
        let right = {
            let state = self.world.state.lock();
            state.start.after(state.now)
        };
        let wrong_by = self.wrong_by.load(Ordering::Relaxed).saturating_mul(1_000_000);
        Timestamp::from_unix_nanos(right.unix_nanos().saturating_add_signed(wrong_by))
    }

    fn monotonic(&self) -> Moment {
        Moment::from_start(self.world.state.lock().now)
    }

    fn sleep(&self, delay: Duration) -> BoxFuture<()> {
        let until = self.world.state.lock().now.saturating_add(delay);
        Box::pin(Sleep { world: Arc::clone(&self.world), until, timer: None })
    }

    fn spawn(&self, task: Task) {
        let mut state = self.world.state.lock();
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(id, Slot { host: self.host, future: Some(task) });
        state.ready.insert(id);
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        let mut state = self.world.state.lock();
        for chunk in buffer.chunks_mut(8) {
            let bytes = state.random.next().to_le_bytes();
            chunk.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
    }
}

struct World {
    state: Mutex<State>,
}

struct State {
    now: Duration,
    start: Timestamp,
    random: SplitMix,
    next_task: u64,
    next_timer: u64,
    next_host: u64,
    tasks: BTreeMap<u64, Slot>,
    ready: BTreeSet<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
}

struct Slot {
    host: u64,
    future: Option<Task>,
}

struct Sleep {
    world: Arc<World>,
    until: Duration,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let world = Arc::clone(&self.world);
        let mut state = world.state.lock();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let id = self.timer.unwrap_or_else(|| {
            state.next_timer += 1;
            state.next_timer
        });
        state.timers.insert((self.until, id), context.waker().clone());
        self.timer = Some(id);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.timer {
            let waker = self.world.state.lock().timers.remove(&(self.until, id));
            drop(waker);
        }
    }
}

struct TaskWaker {
    world: Arc<World>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut state = self.world.state.lock();
        if state.tasks.contains_key(&self.id) {
            state.ready.insert(self.id);
        }
    }
}

struct RootWaker {
    woken: AtomicBool,
}

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"): tiny, and good enough for tests.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(seed: u64) -> Vec<(u64, u64)> {
        let simulation = Simulation::new(seed, Timestamp::from_unix_seconds(1_790_000_000));
        let env = simulation.host();
        let seen = Arc::new(Mutex::new(Vec::new()));
        for task in 0..5u64 {
            let (env2, seen) = (Arc::clone(&env), Arc::clone(&seen));
            env.spawn(Box::pin(async move {
                for step in 0..4 {
                    env2.sleep(Duration::from_millis(10)).await;
                    seen.lock().push((task, step));
                }
            }));
        }
        let started = env.monotonic();
        simulation.run(env.sleep(Duration::from_secs(3_600))).unwrap();
        assert_eq!(env.monotonic().since(started), Duration::from_secs(3_600));
        Arc::try_unwrap(seen).unwrap().into_inner()
    }

    #[test]
    fn a_seed_is_an_interleaving() {
        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
        assert_eq!(trace(7).len(), 20);
    }

    #[test]
    fn a_wall_clock_jumps_alone() {
        let simulation = Simulation::new(1, Timestamp::from_unix_seconds(1_000));
        let (jumping, steady) = (simulation.host(), simulation.host());
        let before = jumping.monotonic();
        jumping.set_clock_error(-5_000);
        assert_eq!(jumping.now(), Timestamp::from_unix_seconds(995));
        jumping.set_clock_error(7_000);
        assert_eq!(
            (jumping.now(), steady.now()),
            (Timestamp::from_unix_seconds(1_007), Timestamp::from_unix_seconds(1_000))
        );
        assert_eq!(jumping.monotonic(), before);
    }

    #[test]
    fn a_crash_ends_the_tasks_of_its_host_only() {
        let simulation = Simulation::new(1, Timestamp::from_unix_seconds(0));
        let (doomed, survivor) = (simulation.host(), simulation.host());
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (name, env) in [("doomed", &doomed), ("survivor", &survivor)] {
            let (env2, seen) = (Arc::clone(env), Arc::clone(&seen));
            env.spawn(Box::pin(async move {
                env2.sleep(Duration::from_secs(2)).await;
                seen.lock().push(name);
            }));
        }
        simulation.run(survivor.sleep(Duration::from_secs(1))).unwrap();
        doomed.crash();
        simulation.run(survivor.sleep(Duration::from_secs(5))).unwrap();
        assert_eq!(*seen.lock(), ["survivor"]);
    }

    #[test]
    fn a_deadlock_is_reported() {
        let simulation = Simulation::new(1, Timestamp::from_unix_seconds(0));
        assert_eq!(simulation.run(std::future::pending::<()>()), Err(Stuck::Deadlock));
    }
}
