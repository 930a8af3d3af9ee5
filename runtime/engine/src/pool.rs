//! One function: its compiled form, its warm instances, and the call.
//!
//! Built-in functions are reused: a fresh instance costs several times the call (page faults on first touch of its
//! memory). Reuse is bounded in number and in calls, and an instance that trapped or belongs to a version that was
//! replaced is never used again. Nothing of one request can be seen by the next unless a function keeps state, which the
//! built-in ones do not; plug-ins, which might, always get a fresh instance.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Store, StoreLimits, Trap};

use crate::call::{CALL_DEADLINE, CallError, Failure};
use crate::engine::{Engine, EngineError, TICK};
use crate::metrics::FunctionMetrics;

/// Calls after which a warm instance is replaced: bounds what a leak in a function can grow to.
pub const MAX_CALLS_PER_INSTANCE: u32 = 10_000;

/// Warm instances kept per function: as many as threads may call at once. More run fresh and are thrown away.
pub const MAX_WARM_INSTANCES: usize = 8;

const DEADLINE_TICKS: u64 = CALL_DEADLINE.as_nanos().div_ceil(TICK.as_nanos()) as u64;

/// Whether an instance serves more than one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Instances are kept warm, at most [`MAX_WARM_INSTANCES`] for at most [`MAX_CALLS_PER_INSTANCE`] calls each: for the
    /// built-in functions, which keep no state.
    #[default]
    Warm,
    /// Every call gets a new instance, which is thrown away after it: for code that may keep state, that is for plug-ins.
    /// Nothing of one call can then reach the next. The instance and the page faults of its first use are paid each time.
    Never,
}

/// A generated world: how to get from a compiled component to typed calls.
pub(crate) trait World: Sized + Send + 'static {
    type Pre: Send + Sync + 'static;
    fn pre(pre: InstancePre<StoreLimits>) -> wasmtime::Result<Self::Pre>;
    fn instantiate(pre: &Self::Pre, store: &mut Store<StoreLimits>) -> wasmtime::Result<Self>;
}

pub(crate) struct Function<W: World> {
    name: &'static str,
    engine: Engine,
    reuse: Reuse,
    current: RwLock<Arc<Version<W>>>,
    metrics: FunctionMetrics,
}

/// A version that is compiled and not used yet.
pub(crate) struct Prepared<W: World>(Arc<Version<W>>);

struct Version<W: World> {
    pre: W::Pre,
    warm: Mutex<Vec<Warm<W>>>,
}

struct Warm<W> {
    store: Store<StoreLimits>,
    world: W,
    calls: u32,
}

impl<W: World> Function<W> {
    pub(crate) fn load(engine: &Engine, name: &'static str, bytes: &[u8], reuse: Reuse) -> Result<Self, EngineError> {
        let version = Version::load(engine, name, bytes)?;
        Ok(Self {
            name,
            engine: engine.clone(),
            reuse,
            current: RwLock::new(Arc::new(version)),
            metrics: FunctionMetrics::default(),
        })
    }

    /// Compiles another version, which is used once it is [installed](Self::install).
    pub(crate) fn prepare(&self, bytes: &[u8]) -> Result<Prepared<W>, EngineError> {
        Ok(Prepared(Arc::new(Version::load(&self.engine, self.name, bytes)?)))
    }

    /// Puts another version in place. Calls that are under way finish on the old one.
    pub(crate) fn install(&self, prepared: Prepared<W>) {
        *self.current.write() = prepared.0;
    }

    pub(crate) const fn metrics(&self) -> &FunctionMetrics {
        &self.metrics
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn call<T>(
        &self,
        call: impl FnOnce(&W, &mut Store<StoreLimits>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let _span = nave_trace::function(self.name).entered();
        self.metrics.around(|| self.run(call))
    }

    fn run<T>(&self, call: impl FnOnce(&W, &mut Store<StoreLimits>) -> wasmtime::Result<T>) -> Result<T, CallError> {
        let version = Arc::clone(&self.current.read());
        let warm = version.warm.lock().pop();
        let mut instance = match warm {
            Some(warm) => warm,
            None => self.instantiate(&version)?,
        };
        instance.store.set_epoch_deadline(DEADLINE_TICKS);
        let answer = call(&instance.world, &mut instance.store).map_err(|error| self.failed(&error))?;
        instance.calls += 1;
        if self.reuse == Reuse::Warm && instance.calls < MAX_CALLS_PER_INSTANCE {
            let mut warm = version.warm.lock();
            if warm.len() < MAX_WARM_INSTANCES {
                warm.push(instance);
            }
        }
        Ok(answer)
    }

    fn instantiate(&self, version: &Version<W>) -> Result<Warm<W>, CallError> {
        let mut store = self.engine.store();
        store.set_epoch_deadline(DEADLINE_TICKS);
        let world = W::instantiate(&version.pre, &mut store).map_err(|error| {
            let failure =
                if error.is::<Trap>() { self.failed(&error).failure } else { Failure::Busy(format!("{error:#}")) };
            CallError { function: self.name, failure }
        })?;
        Ok(Warm { store, world, calls: 0 })
    }

    fn failed(&self, error: &wasmtime::Error) -> CallError {
        let failure = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Failure::Deadline,
            Some(trap) => Failure::Trap(trap.to_string()),
            None => Failure::Trap(format!("{error:#}")),
        };
        CallError { function: self.name, failure }
    }
}

impl<W: World> Version<W> {
    fn load(engine: &Engine, name: &'static str, bytes: &[u8]) -> Result<Self, EngineError> {
        let component = engine.component(name, bytes)?;
        // An empty linker: a component that imports anything is refused here.
        let pre = Linker::new(engine.inner()).instantiate_pre(&component).and_then(W::pre);
        let pre = pre.map_err(|error| EngineError::World { name: name.to_owned(), error: format!("{error:#}") })?;
        Ok(Self { pre, warm: Mutex::new(Vec::new()) })
    }
}
