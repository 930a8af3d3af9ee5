//! The functions as imports: what this crate is in a component that its host composes with them.
//!
//! A call that fails ends the whole instance there, as the component model has it, and with it the one request that the
//! instance serves. So a [`CallError`] never comes from here.

mod bindings;
pub mod plugin;

pub use bindings::nave::allocation::policy as allocation;
pub use bindings::nave::methods::methods;
pub use bindings::nave::provisioning::provisioning;
pub use bindings::nave::routing::routing;
pub use bindings::nave::twin::twin;

use crate::CallError;

/// The five built-in functions, and the allocation policy that the deployment put in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Functions;

impl Functions {
    /// Nothing to measure: the host of the whole has its own metrics.
    pub fn measure(&self, _env: &nave_env::SharedEnv) {}

    /// The twin of a new identity.
    ///
    /// # Errors
    ///
    /// None; the inner error is the function's answer.
    pub fn create_twin(
        &self,
        initial_json: Option<&str>,
        unix_nanos: u64,
    ) -> Result<Result<twin::State, twin::Rejection>, CallError> {
        Ok(twin::create(initial_json, unix_nanos))
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
        Ok(twin::update(request))
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
        Ok(twin::report(request))
    }

    /// What a device has to be told that knows the desired properties of an earlier version.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn catch_up_twin(
        &self,
        desired: &twin::Section,
        since: u64,
    ) -> Result<Result<Option<String>, twin::Rejection>, CallError> {
        Ok(twin::catch_up(desired, since))
    }

    /// What to do with a method call.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn begin_method(&self, body_json: &str, presence: methods::Presence) -> Result<methods::Plan, CallError> {
        Ok(methods::begin(body_json, presence))
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
        Ok(methods::complete(timeouts, answer))
    }

    /// Judges a registration request.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn begin_registration(&self, request: &provisioning::Request) -> Result<provisioning::Step, CallError> {
        Ok(provisioning::begin(request))
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
        Ok(provisioning::complete(request, outcome))
    }

    /// Chooses a hub by a built-in policy.
    ///
    /// # Errors
    ///
    /// As [`Functions::create_twin`].
    pub fn allocate(&self, request: &allocation::Request) -> Result<allocation::Outcome, CallError> {
        Ok(allocation::allocate(request))
    }

    /// Chooses a hub by the policy that the deployment put in under the plain name `custom-policy`.
    pub fn allocate_by_deployed_policy(&self, request: &allocation::Request) -> allocation::Outcome {
        bindings::custom_policy::allocate(request)
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
        Ok(routing::compile(condition, source))
    }
}

impl nave_metrics::Collect for Functions {
    fn collect(&self, _page: &mut nave_metrics::Page) {}
}
