//! Everything non-deterministic that the hub needs, behind one small trait.
//!
//! The hub never reads a clock, a random source or an executor on its own: it asks the [`Env`] that it was given. In
//! production that is the operating system (implemented in `nave-net`); in tests it is [`sim::SimEnv`], in which a whole
//! hub runs on one thread, in virtual time, from a seed.

mod gate;
pub mod sim;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use nave_model::Timestamp;

pub use gate::{COMPLAINT_INTERVAL, Gate};

/// An owned future without a result, as [`Env::spawn`] takes it.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// An owned, sendable future with a result.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// The environment as it is handed around.
pub type SharedEnv = Arc<dyn Env>;

/// A point on the monotonic clock: the time since an arbitrary start of the [`Env`] that made it.
///
/// It never goes backwards and says nothing about the wall clock; use it for timeouts only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies `since_start` after the start of the environment.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time since the start of the environment.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The moment `delay` later; it stops at the end of the clock instead of wrapping.
    #[must_use]
    pub const fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(delay))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the hub takes from its surroundings.
pub trait Env: Send + Sync + 'static {
    /// The wall clock, as it is shown to people and written to disk. It may jump.
    fn now(&self) -> Timestamp;

    /// The monotonic clock, for timeouts.
    fn monotonic(&self) -> Moment;

    /// Resolves once `delay` has passed on the monotonic clock.
    fn sleep(&self, delay: Duration) -> BoxFuture<()>;

    /// Runs `task` to its end in the background.
    fn spawn(&self, task: Task);

    /// Fills `buffer` with random bytes that are fit for keys.
    fn fill_random(&self, buffer: &mut [u8]);
}
