//! The service API of a hub: its paths, and the right that each asks for (protocol notes: authorization §2).

use std::sync::Arc;

use http::Method;
use nave_auth::Rights;
use nave_hub::audit::Actor;
use nave_hub::throttle::Operation;
use nave_hub::{ErrorCode, Hub, HubError};

use crate::call::Call;
use crate::events::Streams;
use crate::reply::{Reply, Style};
use crate::route::{self, check_hub_version, not_allowed};
use crate::service::Body;
use crate::{bulk, device, device_bound, devices, events, methods, modules, statistics, twins};

/// What a path stands for.
enum Resource {
    Devices,
    Device,
    Modules,
    Module,
    DeviceStatistics,
    ServiceStatistics,
    Twin,
    Methods,
    Events,
    /// Where a device sends its messages.
    Telemetry,
    /// A device's queue: services send to it, the device receives from it.
    Queue,
    /// A message that the device received.
    QueuedMessage,
    AbandonedMessage,
    /// A device's queue as something to be emptied.
    Commands,
    Feedback,
    FeedbackBatch,
    AbandonedFeedback,
    /// Part of the protocol, not of this release. With the right that it asks for; none where devices call themselves.
    Missing(&'static str, Option<Rights>),
}

/// The form of errors at this path.
pub(crate) fn style(call: &Call) -> Style {
    match resource(call) {
        Some(Resource::Methods) => Style::Nested,
        _ => Style::Hub,
    }
}

/// Answers a request to `hub`.
pub(crate) async fn answer(hub: &Arc<Hub>, call: &Call, body: Body, streams: &Streams) -> Result<Reply, HubError> {
    let resource = resource(call).ok_or_else(route::not_found)?;
    // Events are not part of the protocol, so nothing there depends on its version.
    if !matches!(resource, Resource::Events) {
        check_hub_version(&call.target)?;
    }
    if let Some(rights) = rights(&resource, &call.method).ok_or_else(|| not_allowed(&call.method))? {
        let facts = hub.authorize(call.token(), &call.target.segments(), rights)?;
        if call.method != Method::GET && !matches!(resource, Resource::Missing(..)) {
            call.changes_as(Actor::Policy(facts.policy.as_str().to_owned()));
        }
        if let Some(operation) = limited(&resource, &call.method) {
            hub.pass(operation, 1).await?;
        }
    }
    match resource {
        Resource::Devices => match call.method {
            Method::POST => bulk::change(hub, call, body).await,
            _ => devices::list(hub, call).await,
        },
        Resource::Device => match call.method {
            Method::PUT => devices::put(hub, call, body).await,
            Method::DELETE => devices::delete(hub, call).await,
            _ => devices::get(hub, call).await,
        },
        Resource::Modules => modules::list(hub, call).await,
        Resource::Module => match call.method {
            Method::PUT => modules::put(hub, call, body).await,
            Method::DELETE => modules::delete(hub, call).await,
            _ => modules::get(hub, call).await,
        },
        Resource::DeviceStatistics => statistics::devices(hub).await,
        Resource::ServiceStatistics => Ok(statistics::service(hub)),
        Resource::Twin => match call.method {
            Method::GET => twins::get(hub, call).await,
            _ => twins::update(hub, call, body).await,
        },
        Resource::Methods => methods::invoke(hub, call, body).await,
        Resource::Events => events::stream(hub, call, streams).await,
        Resource::Telemetry => device::send(hub, call, body).await,
        Resource::Queue => match call.method {
            Method::POST => device_bound::send(hub, call, body).await,
            _ => device::receive(hub, call).await,
        },
        Resource::QueuedMessage => device::complete(hub, call).await,
        Resource::AbandonedMessage => device::abandon(hub, call).await,
        Resource::Commands => device_bound::purge(hub, call).await,
        Resource::Feedback => device_bound::feedback(hub, call).await,
        Resource::FeedbackBatch => device_bound::complete_feedback(hub, call).await,
        Resource::AbandonedFeedback => device_bound::abandon_feedback(hub, call).await,
        Resource::Missing(feature, _) => Err(HubError::new(
            ErrorCode::FeatureNotSupported,
            format!("{feature}: not available in this release of the hub."),
        )),
    }
}

/// What a request counts as for the throttle; methods are metered where they are called.
fn limited(resource: &Resource, method: &Method) -> Option<Operation> {
    match resource {
        Resource::Devices | Resource::Device | Resource::Modules | Resource::Module | Resource::DeviceStatistics => {
            Some(Operation::Registry)
        }
        Resource::Twin if *method == Method::GET => Some(Operation::TwinReads),
        Resource::Twin => Some(Operation::TwinUpdates),
        _ => None,
    }
}

/// The rights for a method at a resource; the outer `None` where the method does not exist, the inner where a device calls for
/// itself and is authenticated there.
fn rights(resource: &Resource, method: &Method) -> Option<Option<Rights>> {
    match (resource, method) {
        (
            Resource::Devices | Resource::Device | Resource::Modules | Resource::Module | Resource::DeviceStatistics,
            &Method::GET,
        ) => Some(Some(Rights::REGISTRY_READ)),
        (Resource::Devices, &Method::POST) | (Resource::Device | Resource::Module, &Method::PUT | &Method::DELETE) => {
            Some(Some(Rights::REGISTRY_WRITE))
        }
        (Resource::ServiceStatistics, &Method::GET)
        | (Resource::Twin, &Method::GET | &Method::PATCH | &Method::PUT)
        | (Resource::Methods | Resource::Queue | Resource::AbandonedFeedback, &Method::POST)
        | (Resource::Commands | Resource::FeedbackBatch, &Method::DELETE)
        | (Resource::Events | Resource::Feedback, &Method::GET) => Some(Some(Rights::SERVICE_CONNECT)),
        (Resource::Telemetry | Resource::AbandonedMessage, &Method::POST)
        | (Resource::Queue, &Method::GET)
        | (Resource::QueuedMessage, &Method::DELETE) => Some(None),
        (Resource::Missing(_, rights), _) => Some(*rights),
        _ => None,
    }
}

fn resource(call: &Call) -> Option<Resource> {
    const READ: Option<Rights> = Some(Rights::REGISTRY_READ);
    const WRITE: Option<Rights> = Some(Rights::REGISTRY_WRITE);
    const SERVICE: Option<Rights> = Some(Rights::SERVICE_CONNECT);
    let words = call.target.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let post = call.method == Method::POST;
    Some(match words.as_slice() {
        ["devices"] => Resource::Devices,
        ["devices", "query"] if post => Resource::Missing("Queries", SERVICE),
        ["devices", _] => Resource::Device,
        ["devices", "keys", "regenerate"] => Resource::Missing("Rotating the keys of many devices", WRITE),
        ["devices", _, "modules"] => Resource::Modules,
        ["devices", _, "modules", _] => Resource::Module,
        ["devices", _, "messages", "events"] | ["devices", _, "modules", _, "messages", "events"] => {
            Resource::Telemetry
        }
        ["devices", _, "messages", "devicebound"] => Resource::Queue,
        ["devices", _, "messages", "devicebound", _] => Resource::QueuedMessage,
        ["devices", _, "messages", "devicebound", _, "abandon"] => Resource::AbandonedMessage,
        ["devices", _, "commands"] => Resource::Commands,
        ["devices", _, "applyconfigurationcontent"] => Resource::Missing("Configurations", SERVICE),
        ["devices", _, "files", ..] => Resource::Missing("File upload", None),
        ["twins", _] | ["twins", _, "modules", _] => Resource::Twin,
        ["twins", _, "methods"] | ["twins", _, "modules", _, "methods"] => Resource::Methods,
        ["events"] => Resource::Events,
        ["statistics", "devices"] => Resource::DeviceStatistics,
        ["statistics", "service"] => Resource::ServiceStatistics,
        ["jobs", "v2", ..] => Resource::Missing("Jobs", SERVICE),
        ["jobs", ..] if call.method == Method::GET => Resource::Missing("Import and export jobs", READ),
        ["jobs", ..] => Resource::Missing("Import and export jobs", WRITE),
        ["configurations", ..] => Resource::Missing("Configurations", SERVICE),
        ["digitaltwins", ..] => Resource::Missing("Digital twins", SERVICE),
        ["messages", "servicebound", "feedback"] => Resource::Feedback,
        ["messages", "servicebound", "feedback", _] => Resource::FeedbackBatch,
        ["messages", "servicebound", "feedback", _, "abandon"] => Resource::AbandonedFeedback,
        ["messages", "servicebound", ..] => Resource::Missing("Notifications of file uploads", SERVICE),
        _ => return None,
    })
}
