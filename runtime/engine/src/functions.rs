//! The built-in functions, one typed method per call.

use nave_env::SharedEnv;
use nave_metrics::{Collect, Page};
use wasmtime::component::InstancePre;
use wasmtime::{Store, StoreLimits};

use crate::bindings::{
    allocation, allocation_world, methods, methods_world, provisioning, provisioning_world, routing, routing_world,
    twin, twin_world,
};
use crate::call::CallError;
use crate::engine::{Engine, EngineError};
use crate::pool::{Function, Prepared, Reuse, World};
use crate::source::Source;

macro_rules! impl_world {
    ($module:ident, $world:ident, $pre:ident) => {
        impl World for $module::$world {
            type Pre = $module::$pre<StoreLimits>;

            fn pre(pre: InstancePre<StoreLimits>) -> wasmtime::Result<Self::Pre> {
                $module::$pre::new(pre)
            }

            fn instantiate(pre: &Self::Pre, store: &mut Store<StoreLimits>) -> wasmtime::Result<Self> {
                pre.instantiate(store)
            }
        }
    };
}

impl_world!(twin_world, TwinFunction, TwinFunctionPre);
impl_world!(methods_world, MethodsFunction, MethodsFunctionPre);
impl_world!(provisioning_world, ProvisioningFunction, ProvisioningFunctionPre);
impl_world!(allocation_world, AllocationPolicy, AllocationPolicyPre);
impl_world!(routing_world, RoutingFunction, RoutingFunctionPre);

/// The five built-in functions, loaded.
pub struct Functions {
    twin: Function<twin_world::TwinFunction>,
    methods: Function<methods_world::MethodsFunction>,
    provisioning: Function<provisioning_world::ProvisioningFunction>,
    allocation: Function<allocation_world::AllocationPolicy>,
    routing: Function<routing_world::RoutingFunction>,
}

/// Functions that are compiled and not used yet: the first half of a reload that changes everything or nothing.
pub struct PreparedFunctions {
    twin: Prepared<twin_world::TwinFunction>,
    methods: Prepared<methods_world::MethodsFunction>,
    provisioning: Prepared<provisioning_world::ProvisioningFunction>,
    allocation: Prepared<allocation_world::AllocationPolicy>,
    routing: Prepared<routing_world::RoutingFunction>,
}

impl Functions {
    /// Loads all functions from `source`, with warm instances.
    ///
    /// # Errors
    ///
    /// [`EngineError`], naming the component.
    pub fn load(engine: &Engine, source: &Source) -> Result<Self, EngineError> {
        Self::load_with(engine, source, Reuse::Warm)
    }

    /// Loads all functions from `source`; `reuse` says whether an instance serves more than one call.
    ///
    /// # Errors
    ///
    /// [`EngineError`], naming the component.
    pub fn load_with(engine: &Engine, source: &Source, reuse: Reuse) -> Result<Self, EngineError> {
        Ok(Self {
            twin: Function::load(engine, "twin", &source.read("twin")?, reuse)?,
            methods: Function::load(engine, "methods", &source.read("methods")?, reuse)?,
            provisioning: Function::load(engine, "provisioning", &source.read("provisioning")?, reuse)?,
            allocation: Function::load(engine, "allocation", &source.read("allocation")?, reuse)?,
            routing: Function::load(engine, "routing", &source.read("routing")?, reuse)?,
        })
    }

    /// Measures how long calls take, by the clock of `env`.
    pub fn measure(&self, env: &SharedEnv) {
        self.twin.metrics().start(env);
        self.methods.metrics().start(env);
        self.provisioning.metrics().start(env);
        self.allocation.metrics().start(env);
        self.routing.metrics().start(env);
    }

    /// Compiles all functions again, without using them yet.
    ///
    /// # Errors
    ///
    /// [`EngineError`], naming the component.
    pub fn prepare(&self, source: &Source) -> Result<PreparedFunctions, EngineError> {
        Ok(PreparedFunctions {
            twin: self.twin.prepare(&source.read("twin")?)?,
            methods: self.methods.prepare(&source.read("methods")?)?,
            provisioning: self.provisioning.prepare(&source.read("provisioning")?)?,
            allocation: self.allocation.prepare(&source.read("allocation")?)?,
            routing: self.routing.prepare(&source.read("routing")?)?,
        })
    }

    /// Puts prepared functions in place of those that run. Calls that are under way finish on the old ones.
    pub fn install(&self, prepared: PreparedFunctions) {
        self.twin.install(prepared.twin);
        self.methods.install(prepared.methods);
        self.provisioning.install(prepared.provisioning);
        self.allocation.install(prepared.allocation);
        self.routing.install(prepared.routing);
    }

    /// Loads all functions again.
    ///
    /// # Errors
    ///
    /// [`EngineError`], naming the component; all functions stay as they were.
    pub fn reload(&self, source: &Source) -> Result<(), EngineError> {
        self.prepare(source).map(|prepared| self.install(prepared))
    }

    /// The twin of a new identity.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the call did not return; the inner error is the function's answer.
    pub fn create_twin(
        &self,
        initial_json: Option<&str>,
        unix_nanos: u64,
    ) -> Result<Result<twin::State, twin::Rejection>, CallError> {
        self.twin.call(|world, store| world.nave_twin_twin().call_create(store, initial_json, unix_nanos))
    }

    /// A service's change of a twin.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn update_twin(
        &self,
        request: &twin::UpdateRequest,
    ) -> Result<Result<twin::UpdateOutcome, twin::Rejection>, CallError> {
        self.twin.call(|world, store| world.nave_twin_twin().call_update(store, request))
    }

    /// A device's change of its reported properties.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn report_twin(
        &self,
        request: &twin::ReportRequest,
    ) -> Result<Result<twin::ReportOutcome, twin::Rejection>, CallError> {
        self.twin.call(|world, store| world.nave_twin_twin().call_report(store, request))
    }

    /// What a device missed of its desired properties since it saw version `since`; `None` for all of them.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn catch_up_twin(
        &self,
        desired: &twin::Section,
        since: u64,
    ) -> Result<Result<Option<String>, twin::Rejection>, CallError> {
        self.twin.call(|world, store| world.nave_twin_twin().call_catch_up(store, desired, since))
    }

    /// What to do with a method call.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn begin_method(&self, body_json: &str, presence: methods::Presence) -> Result<methods::Plan, CallError> {
        self.methods.call(|world, store| world.nave_methods_methods().call_begin(store, body_json, presence))
    }

    /// The answer to the caller of a method.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn complete_method(
        &self,
        timeouts: methods::Timeouts,
        answer: &methods::DeviceAnswer,
    ) -> Result<Result<String, methods::Refusal>, CallError> {
        self.methods.call(|world, store| world.nave_methods_methods().call_complete(store, timeouts, answer))
    }

    /// Judges a registration request.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn begin_registration(&self, request: &provisioning::Request) -> Result<provisioning::Step, CallError> {
        self.provisioning.call(|world, store| world.nave_provisioning_provisioning().call_begin(store, request))
    }

    /// Decides a registration with the outcome of its allocation.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn complete_registration(
        &self,
        request: &provisioning::Request,
        outcome: &provisioning::Outcome,
    ) -> Result<provisioning::Decision, CallError> {
        self.provisioning
            .call(|world, store| world.nave_provisioning_provisioning().call_complete(store, request, outcome))
    }

    /// Chooses a hub by a built-in policy.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn allocate(&self, request: &allocation::Request) -> Result<allocation::Outcome, CallError> {
        self.allocation.call(|world, store| world.nave_allocation_policy().call_allocate(store, request))
    }

    /// Compiles a route's condition.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn compile_route(
        &self,
        condition: &str,
        source: routing::Source,
    ) -> Result<Result<routing::Compiled, Vec<routing::Diagnostic>>, CallError> {
        self.routing.call(|world, store| world.nave_routing_routing().call_compile(store, condition, source))
    }
}

impl Collect for Functions {
    fn collect(&self, page: &mut Page) {
        self.twin.metrics().collect(self.twin.name(), page);
        self.methods.metrics().collect(self.methods.name(), page);
        self.provisioning.metrics().collect(self.provisioning.name(), page);
        self.allocation.metrics().collect(self.allocation.name(), page);
        self.routing.metrics().collect(self.routing.name(), page);
    }
}
