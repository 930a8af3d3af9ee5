//! wasmtime, configured for short synchronous calls into untrusting and untrusted components.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, StoreLimits, StoreLimitsBuilder,
};

use crate::cache;

/// Most linear memory that one call may use. The largest request (two sections of 32 KB with metadata, a method payload
/// of 128 KB) needs well under 2 MB; a function that wants more traps, and its request fails.
pub const MAX_FUNCTION_MEMORY: usize = 16 << 20;

/// Most elements of a component's tables. They hold indirect call targets only; more is a trap.
pub const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Most stack that a function may use; more is a trap. The documents that functions parse are limited in depth, so real
/// calls use a fraction of it.
pub const MAX_FUNCTION_STACK: usize = 512 << 10;

/// How often the host must call [`Engine::tick`].
pub const TICK: Duration = Duration::from_millis(5);

/// Instances that may exist at once. With warm reuse the built-in functions need a handful; the rest is for concurrent
/// fresh instances. When all are in use a call fails with [`crate::Failure::Busy`].
const MAX_INSTANCES: u32 = 256;

/// Bytes of an instance's memory that are zeroed instead of unmapped when it is thrown away: cheaper than page faults.
const KEEP_RESIDENT: usize = 256 << 10;

/// What could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused its configuration; the machine lacks something it needs (virtual memory, usually).
    #[error(
        "the WebAssembly engine cannot start: {0}. It reserves virtual memory: check `ulimit -v` and cgroup limits"
    )]
    Start(String),
    /// A component file is missing or unreadable.
    #[error("cannot read the component {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not a component, or not one that this host can run.
    #[error("the component `{name}` cannot be compiled: {error}")]
    Compile {
        /// The function.
        name: String,
        /// Why.
        error: String,
    },
    /// A component does not export what its role demands, or imports something.
    #[error(
        "the component `{name}` does not fit its role: {error}. A function exports its interface and imports nothing"
    )]
    World {
        /// The function.
        name: String,
        /// Why.
        error: String,
    },
}

/// wasmtime with its pool, its limits and its cache of compiled code.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    cache: Option<PathBuf>,
}

impl Engine {
    /// Starts the engine. Compiled code is kept in `cache`, or nowhere.
    ///
    /// # Errors
    ///
    /// [`EngineError::Start`].
    pub fn new(cache: Option<&Path>) -> Result<Self, EngineError> {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(MAX_INSTANCES)
            .total_core_instances(MAX_INSTANCES * 4)
            .total_memories(MAX_INSTANCES)
            .total_tables(MAX_INSTANCES * 2)
            .max_memory_size(MAX_FUNCTION_MEMORY)
            .table_elements(MAX_TABLE_ELEMENTS)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(16 << 10);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .memory_reservation(MAX_FUNCTION_MEMORY as u64)
            .epoch_interruption(true)
            .max_wasm_stack(MAX_FUNCTION_STACK)
            .cranelift_opt_level(OptLevel::Speed)
            // All worlds are synchronous; the support for concurrent ones costs every call (wasmtime issue 12836).
            .concurrency_support(false);
        let inner = wasmtime::Engine::new(&config).map_err(|error| EngineError::Start(format!("{error:#}")))?;
        Ok(Self { inner, cache: cache.map(Path::to_owned) })
    }

    /// Lets time pass for deadlines: to be called every [`TICK`] while calls may run. Without it calls have no deadline,
    /// which is what a simulation in virtual time wants.
    pub fn tick(&self) {
        self.inner.increment_epoch();
    }

    /// Compiles a component, or takes its compiled form from the cache.
    ///
    /// # Errors
    ///
    /// [`EngineError::Compile`].
    pub(crate) fn component(&self, name: &str, bytes: &[u8]) -> Result<Component, EngineError> {
        let component = compile(&self.inner, self.cache.as_deref(), name, bytes)?;
        // There is one built-in function of that name: what else is there is of other versions.
        if let Some(directory) = &self.cache {
            let keep = cache::file_name(&self.inner, name, bytes);
            if let Err(error) = cache::prune(directory, name, &[keep]) {
                tracing::warn!(function = name, directory = %directory.display(), %error, "old compiled code stays");
            }
        }
        Ok(component)
    }

    pub(crate) fn store(&self) -> wasmtime::Store<StoreLimits> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MAX_FUNCTION_MEMORY)
            .table_elements(MAX_TABLE_ELEMENTS)
            .trap_on_grow_failure(true)
            .build();
        let mut store = wasmtime::Store::new(&self.inner, limits);
        store.limiter(|limits| limits);
        store
    }

    pub(crate) const fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }
}

/// Compiles a component for `engine`, or takes its compiled form from the directory `cache`.
///
/// # Errors
///
/// [`EngineError::Compile`].
pub(crate) fn compile(
    engine: &wasmtime::Engine,
    cache: Option<&Path>,
    name: &str,
    bytes: &[u8],
) -> Result<Component, EngineError> {
    let compile_error =
        |error: wasmtime::Error| EngineError::Compile { name: name.to_owned(), error: format!("{error:#}") };
    let Some(directory) = cache else {
        return Component::from_binary(engine, bytes).map_err(compile_error);
    };
    let file = cache::file_name(engine, name, bytes);
    if let Some(component) = cache::load(engine, &directory.join(&file)) {
        return Ok(component);
    }
    let component = Component::from_binary(engine, bytes).map_err(compile_error)?;
    if let Err(error) = cache::save(&component, directory, &file) {
        // Without a cache the next start is slower, nothing else.
        tracing::warn!(function = name, directory = %directory.display(), %error, "compiled code could not be cached");
    }
    Ok(component)
}
