//! Allocation policies that strangers wrote: any component that exports `nave:allocation/policy`, run so that it can cost
//! nobody anything but its own request.
//!
//! * [`PluginEngine`] compiles a component under its [`PolicyLimits`] into a [`Policy`].
//! * [`Policy::allocate`] makes a fresh instance, calls it once and throws it away. Nothing of one call reaches the next.
//! * [`Policy::inspect`] says what the component is and what it would like to import.
//!
//! Components that other tool chains build import WASI 0.2. They get it with nothing behind it (`wasi.rs`): no files, no
//! sockets, no outgoing HTTP, no environment; clocks stand at the request's time, randomness comes from its seed, output
//! goes into a bounded buffer that the caller gets. So a decision is a function of its request, whatever built the policy.
//!
//! The hub and the command line use this very code with the very same limits: what a policy does on a laptop it does in a
//! running hub.

mod error;
mod inspect;
mod limits;
mod sandbox;
mod wasi;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::component::{Component, Instance, InstancePre};
use wasmtime::{
    Config, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Store, WasmBacktrace,
};

use crate::bindings::{allocation, allocation_world};
use crate::cache;
use crate::engine::{EngineError, TICK, compile};

pub use error::{PolicyCallError, PolicyError, PolicyFailure};
pub use inspect::{Access, Import, Inspection};
pub use limits::{
    LimitError, MAX_POLICY_CONCURRENCY, MAX_POLICY_DEADLINE, MAX_POLICY_MEMORY, MAX_POLICY_RESULT_BYTES,
    MAX_POLICY_STACK, MAX_POLICY_TABLE_ELEMENTS, PolicyLimits,
};
pub use sandbox::MAX_OUTPUT_BYTES;

use sandbox::Sandbox;

/// Core instances, memories and tables that one instance of a component may need. A component of componentize-py links a
/// few dozen modules; more than this is refused when it is compiled.
const CORE_INSTANCES_PER_COMPONENT: u32 = 64;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 16;

/// Bytes of an instance's memory that are zeroed instead of unmapped when it is thrown away: cheaper than page faults for
/// small policies, and what each idle slot may keep resident.
const KEEP_RESIDENT: usize = 256 << 10;

/// Frames of a backtrace that a report shows.
const MAX_BACKTRACE_FRAMES: usize = 20;

/// What the cached code of policies is called.
const CACHE_NAME: &str = "policy";

/// The names under which a component may export the optional interface, with the version that this host calls.
const CONFIGURATION: &str = "nave:allocation/configuration@0.1.0";

/// A monotonic clock: the time since an arbitrary start. Used for reports only, never for decisions.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Which policy, in which version: what errors and logs name it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyLabel {
    /// The policy's name.
    pub name: String,
    /// The version.
    pub version: String,
}

impl std::fmt::Display for PolicyLabel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

/// What a call took, whether it returned or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallReport {
    /// Making the instance.
    pub instantiation: Duration,
    /// The call itself.
    pub call: Duration,
    /// The most linear memory that the instance had, in bytes.
    pub memory_bytes: usize,
    /// What the policy wrote to its standard output and error, at most [`MAX_OUTPUT_BYTES`].
    pub output: String,
    /// Whether it wrote more than that.
    pub output_truncated: bool,
    /// After a trap: the functions that were active, innermost first, as far as the component names them.
    pub backtrace: Vec<String>,
}

/// Compiles policies, each into an engine of its own: a policy's instances come from its own slots, so one that holds all
/// of them takes none from a neighbour.
pub struct PluginEngine {
    cache: Option<PathBuf>,
    clock: Clock,
    engines: Mutex<Vec<EngineWeak>>,
}

impl PluginEngine {
    /// An engine that keeps compiled code in `cache`, or nowhere. Costs nothing until a policy is compiled.
    pub fn new(cache: Option<&Path>, clock: Clock) -> Self {
        Self { cache: cache.map(Path::to_owned), clock, engines: Mutex::default() }
    }

    /// Lets time pass for deadlines: to be called every [`TICK`] while calls may run. Without it calls have no deadline.
    pub fn tick(&self) {
        self.engines.lock().retain(|engine| engine.upgrade().map(|engine| engine.increment_epoch()).is_some());
    }

    /// Removes cached code of components other than those with these SHA-256 digests, lower case hexadecimal, and all of other
    /// engines.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn prune_cache(&self, digests: &[String]) -> std::io::Result<()> {
        let Some(directory) = &self.cache else { return Ok(()) };
        let engine = wasmtime::Engine::new(&config(&PolicyLimits::default())).map_err(std::io::Error::other)?;
        let keep: Vec<String> = digests.iter().map(|digest| cache::file_name_of(&engine, CACHE_NAME, digest)).collect();
        cache::prune(directory, CACHE_NAME, &keep)
    }

    /// Compiles a component, or takes its compiled form from the cache, and tries it out: it is instantiated once, and its
    /// schema is read if it exports one. Takes seconds for the interpreters that JavaScript and Python policies contain.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], which says what the author has to change.
    pub fn compile(&self, label: &PolicyLabel, bytes: &[u8], limits: &PolicyLimits) -> Result<Policy, PolicyError> {
        limits.check()?;
        inspect::check_header(bytes)?;
        let engine =
            wasmtime::Engine::new(&config(limits)).map_err(|error| PolicyError::Engine(format!("{error:#}")))?;
        let component = compile(&engine, self.cache.as_deref(), CACHE_NAME, bytes).map_err(|error| match error {
            EngineError::Compile { error, .. } => PolicyError::Compile(error),
            error => PolicyError::Engine(error.to_string()),
        })?;
        let inspection = inspect::inspect(&engine, &component, bytes)?;
        check_needs(&component, limits)?;
        let pre = wasi::linker(&engine, &component)?
            .instantiate_pre(&component)
            .map_err(|error| PolicyError::World(format!("{error:#}")))?;
        let pre = allocation_world::AllocationPolicyPre::new(pre)
            .map_err(|error| PolicyError::World(format!("{error:#}")))?;
        self.engines.lock().push(engine.weak());
        let inner = Inner { label: label.clone(), limits: *limits, pre, clock: Arc::clone(&self.clock), inspection };
        let mut policy = Policy { inner: Arc::new(inner), schema: None };
        policy.schema = policy.try_out()?;
        Ok(policy)
    }
}

/// A compiled policy. Clones share the code and the slots for instances.
#[derive(Clone)]
pub struct Policy {
    inner: Arc<Inner>,
    schema: Option<Arc<str>>,
}

struct Inner {
    label: PolicyLabel,
    limits: PolicyLimits,
    pre: allocation_world::AllocationPolicyPre<Sandbox>,
    clock: Clock,
    inspection: Inspection,
}

impl Policy {
    /// Name and version.
    pub fn label(&self) -> &PolicyLabel {
        &self.inner.label
    }

    /// What a call may take.
    pub fn limits(&self) -> &PolicyLimits {
        &self.inner.limits
    }

    /// What the component is and what it would like to import.
    pub fn inspect(&self) -> &Inspection {
        &self.inner.inspection
    }

    /// The JSON Schema of its configuration, if it exports the interface `configuration`.
    pub fn configuration_schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Decides, in a fresh instance.
    pub fn allocate(
        &self,
        request: &allocation::Request,
    ) -> (Result<allocation::Outcome, PolicyCallError>, CallReport) {
        let mut store = self.store(request.unix_nanos, request.seed);
        let mut report = CallReport::default();
        let started = (self.inner.clock)();
        let instantiated = self.inner.pre.instantiate(&mut store);
        let called = (self.inner.clock)();
        report.instantiation = called.saturating_sub(started);
        let result = instantiated.and_then(|world| {
            let outcome = world.nave_allocation_policy().call_allocate(&mut store, request);
            report.call = (self.inner.clock)().saturating_sub(called);
            outcome
        });
        (self.finish(store, result, &mut report), report)
    }

    /// Instantiates once and reads the schema: what fails here would fail for every device.
    fn try_out(&self) -> Result<Option<Arc<str>>, PolicyError> {
        let mut store = self.store(0, 0);
        let pre: &InstancePre<Sandbox> = self.inner.pre.instance_pre();
        let result = pre.instantiate(&mut store).and_then(|instance| read_schema(&mut store, &instance));
        let mut report = CallReport::default();
        match self.finish(store, result, &mut report) {
            Ok(schema) => Ok(schema.map(Arc::from)),
            Err(error) => Err(PolicyError::Start { failure: error.failure, output: report.output }),
        }
    }

    fn store(&self, unix_nanos: u64, seed: u64) -> Store<Sandbox> {
        let limits = &self.inner.limits;
        let engine = self.inner.pre.instance_pre().component().engine();
        let mut store = Store::new(engine, Sandbox::new(limits, unix_nanos, seed));
        store.limiter(|sandbox| sandbox);
        store.set_hostcall_fuel(limits.result_bytes);
        store.set_epoch_deadline(ticks(limits.deadline));
        store
    }

    fn finish<T>(
        &self,
        store: Store<Sandbox>,
        result: wasmtime::Result<T>,
        report: &mut CallReport,
    ) -> Result<T, PolicyCallError> {
        let sandbox = store.into_data();
        report.memory_bytes = sandbox.memory_bytes();
        (report.output, report.output_truncated) = sandbox.into_output();
        result.map_err(|error| {
            if let Some(trace) = error.downcast_ref::<WasmBacktrace>() {
                let names = trace.frames().iter().take(MAX_BACKTRACE_FRAMES).map(|frame| match frame.func_name() {
                    Some(name) => name.to_owned(),
                    None => format!("function {}", frame.func_index()),
                });
                report.backtrace = names.collect();
            }
            PolicyCallError { label: self.inner.label.clone(), failure: PolicyFailure::of(&error, &self.inner.limits) }
        })
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Policy").field("label", &self.inner.label).finish_non_exhaustive()
    }
}

fn read_schema(store: &mut Store<Sandbox>, instance: &Instance) -> wasmtime::Result<Option<String>> {
    let Some(interface) = instance.get_export_index(&mut *store, None, CONFIGURATION) else { return Ok(None) };
    let function = instance.get_export_index(&mut *store, Some(&interface), "schema");
    let function = function.ok_or_else(|| wasmtime::Error::msg("the interface `configuration` has no `schema`"))?;
    let function = instance.get_typed_func::<(), (String,)>(&mut *store, function)?;
    Ok(Some(function.call(&mut *store, ())?.0))
}

/// What an instance takes before it has done anything must fit, or every call would fail.
fn check_needs(component: &Component, limits: &PolicyLimits) -> Result<(), PolicyError> {
    let Some(needs) = component.resources_required() else {
        return Err(PolicyError::World("it imports core modules, which no host of policies has".to_owned()));
    };
    let memory = needs.max_initial_memory_size.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
    if memory > limits.memory_bytes {
        return Err(PolicyError::Start {
            failure: PolicyFailure::Memory { limit: limits.memory_bytes },
            output: format!("it starts with {memory} bytes of memory"),
        });
    }
    if needs.num_memories > MEMORIES_PER_COMPONENT || needs.num_tables > TABLES_PER_COMPONENT {
        return Err(PolicyError::World(format!(
            "it needs {} memories and {} tables; {MEMORIES_PER_COMPONENT} and {TABLES_PER_COMPONENT} are allowed",
            needs.num_memories, needs.num_tables
        )));
    }
    Ok(())
}

/// The deadline in ticks. A call that begins just before a tick still gets all of its time.
fn ticks(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX - 1) + 1
}

/// Everything that decides about the compiled code is the same for all policies, so that changed limits need no compiling.
fn config(limits: &PolicyLimits) -> Config {
    let instances = limits.concurrency;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_PER_COMPONENT)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .total_memories(instances * MEMORIES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .total_tables(instances * TABLES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memory_size(MAX_POLICY_MEMORY)
        .table_elements(MAX_POLICY_TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(16 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MAX_POLICY_MEMORY as u64)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes)
        .cranelift_opt_level(OptLevel::Speed)
        // A decision can be repeated on another machine, whatever its processor makes of NaN.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .concurrency_support(false);
    config
}
