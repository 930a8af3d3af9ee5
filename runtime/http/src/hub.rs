//! The service API of a hub and the HTTPS API of its devices: every path, and the right that each asks for (protocol notes:
//! authorization §2).

use std::sync::Arc;

use http::Method;
use nave_auth::Rights;
use nave_hub::audit::Actor;
use nave_hub::throttle::Operation;
use nave_hub::{ErrorCode, Hub, HubError};

use crate::call::Call;
use crate::events::Streams;
use crate::reply::{Reply, Style};
#[cfg(any(test, feature = "fuzzing"))]
use crate::route::Target;
use crate::route::{self, check_hub_version, not_allowed};
use crate::service::Body;
use crate::table::{Access, Answer, Content, EMPTY, Found, Route, Verb, find, json, ok, route};
use crate::{bulk, device, device_bound, devices, events, methods, modules, statistics, twins};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    ListDevices,
    ChangeDevices,
    GetDevice,
    PutDevice,
    DeleteDevice,
    ListModules,
    GetModule,
    PutModule,
    DeleteModule,
    DeviceStatistics,
    ServiceStatistics,
    GetTwin,
    ChangeTwin,
    CallMethod,
    Events,
    /// A device sends messages.
    Send,
    /// A service sends a message to a device.
    SendToDevice,
    /// A device takes a message from its queue.
    Receive,
    CompleteMessage,
    AbandonMessage,
    PurgeQueue,
    ReceiveFeedback,
    CompleteFeedback,
    AbandonFeedback,
}

const READ: Access = Access::Hub(Rights::REGISTRY_READ);
const WRITE: Access = Access::Hub(Rights::REGISTRY_WRITE);
const SERVICE: Access = Access::Hub(Rights::SERVICE_CONNECT);

const BYTES: Content = Content("application/octet-stream", None);
const FEEDBACK: Content = Content("application/vnd.microsoft.iothub.feedback.json", Some("Feedback"));

/// Everything that a hub serves.
pub(crate) const ROUTES: &[Route<Do>] = &[
    Route {
        takes: &["top"],
        ..route(
            Verb::Get,
            "/devices",
            Do::ListDevices,
            READ,
            ("listDevices", "Lists devices, without an order."),
            &[ok("Devices")],
        )
    },
    Route {
        body: Some(json("BulkChanges")),
        ..route(
            Verb::Post,
            "/devices",
            Do::ChangeDevices,
            WRITE,
            ("changeDevices", "Changes many devices and modules; each succeeds or fails by itself."),
            &[ok("BulkResult"), Answer(400, Some(json("BulkResult")))],
        )
    },
    route(Verb::Get, "/devices/{deviceId}", Do::GetDevice, READ, ("getDevice", "A device."), &[ok("Device")]),
    Route {
        takes: &["ifMatch"],
        body: Some(json("DeviceInput")),
        ..route(
            Verb::Put,
            "/devices/{deviceId}",
            Do::PutDevice,
            WRITE,
            ("putDevice", "Creates a device, or with If-Match replaces it."),
            &[ok("Device")],
        )
    },
    Route {
        takes: &["ifMatch"],
        ..route(
            Verb::Delete,
            "/devices/{deviceId}",
            Do::DeleteDevice,
            WRITE,
            ("deleteDevice", "Deletes a device and its modules."),
            &[EMPTY],
        )
    },
    route(
        Verb::Get,
        "/devices/{deviceId}/modules",
        Do::ListModules,
        READ,
        ("listModules", "Lists the modules of a device."),
        &[ok("Modules")],
    ),
    route(
        Verb::Get,
        "/devices/{deviceId}/modules/{moduleId}",
        Do::GetModule,
        READ,
        ("getModule", "A module."),
        &[ok("Module")],
    ),
    Route {
        takes: &["ifMatch"],
        body: Some(json("ModuleInput")),
        ..route(
            Verb::Put,
            "/devices/{deviceId}/modules/{moduleId}",
            Do::PutModule,
            WRITE,
            ("putModule", "Creates a module, or with If-Match replaces it."),
            &[ok("Module")],
        )
    },
    Route {
        takes: &["ifMatch"],
        ..route(
            Verb::Delete,
            "/devices/{deviceId}/modules/{moduleId}",
            Do::DeleteModule,
            WRITE,
            ("deleteModule", "Deletes a module."),
            &[EMPTY],
        )
    },
    route(
        Verb::Get,
        "/statistics/devices",
        Do::DeviceStatistics,
        READ,
        ("deviceStatistics", "How many devices there are."),
        &[ok("DeviceStatistics")],
    ),
    route(
        Verb::Get,
        "/statistics/service",
        Do::ServiceStatistics,
        SERVICE,
        ("serviceStatistics", "How many devices are connected."),
        &[ok("ServiceStatistics")],
    ),
    route(Verb::Get, "/twins/{deviceId}", Do::GetTwin, SERVICE, ("getTwin", "The twin of a device."), &[ok("Twin")]),
    Route {
        takes: &["ifMatch"],
        body: Some(json("TwinChange")),
        ..route(
            Verb::Patch,
            "/twins/{deviceId}",
            Do::ChangeTwin,
            SERVICE,
            ("patchTwin", "Merges tags and desired properties; null removes."),
            &[ok("Twin")],
        )
    },
    Route {
        takes: &["ifMatch"],
        body: Some(json("TwinChange")),
        ..route(
            Verb::Put,
            "/twins/{deviceId}",
            Do::ChangeTwin,
            SERVICE,
            ("replaceTwin", "Replaces tags and desired properties."),
            &[ok("Twin")],
        )
    },
    route(
        Verb::Get,
        "/twins/{deviceId}/modules/{moduleId}",
        Do::GetTwin,
        SERVICE,
        ("getModuleTwin", "The twin of a module."),
        &[ok("Twin")],
    ),
    Route {
        takes: &["ifMatch"],
        body: Some(json("TwinChange")),
        ..route(
            Verb::Patch,
            "/twins/{deviceId}/modules/{moduleId}",
            Do::ChangeTwin,
            SERVICE,
            ("patchModuleTwin", "Merges tags and desired properties of a module; null removes."),
            &[ok("Twin")],
        )
    },
    Route {
        takes: &["ifMatch"],
        body: Some(json("TwinChange")),
        ..route(
            Verb::Put,
            "/twins/{deviceId}/modules/{moduleId}",
            Do::ChangeTwin,
            SERVICE,
            ("replaceModuleTwin", "Replaces tags and desired properties of a module."),
            &[ok("Twin")],
        )
    },
    Route {
        body: Some(json("MethodCall")),
        ..route(
            Verb::Post,
            "/twins/{deviceId}/methods",
            Do::CallMethod,
            SERVICE,
            ("callMethod", "Calls a method of a connected device."),
            &[ok("MethodResult")],
        )
    },
    Route {
        body: Some(json("MethodCall")),
        ..route(
            Verb::Post,
            "/twins/{deviceId}/modules/{moduleId}/methods",
            Do::CallMethod,
            SERVICE,
            ("callModuleMethod", "Calls a method of a connected module."),
            &[ok("MethodResult")],
        )
    },
    Route {
        takes: &["consumerGroup", "partition", "from", "maxWait", "maxCount"],
        ..route(
            Verb::Get,
            "/events",
            Do::Events,
            SERVICE,
            ("events", "Messages of devices as a stream, one JSON object a line. Nave's own."),
            &[Answer(200, Some(Content("application/x-ndjson", Some("Event"))))],
        )
    },
    Route {
        body: Some(BYTES),
        ..route(
            Verb::Post,
            "/devices/{deviceId}/messages/events",
            Do::Send,
            Access::Device,
            ("sendMessages", "A device sends a message, or with the media type of batches several."),
            &[EMPTY],
        )
    },
    Route {
        body: Some(BYTES),
        ..route(
            Verb::Post,
            "/devices/{deviceId}/modules/{moduleId}/messages/events",
            Do::Send,
            Access::Device,
            ("sendModuleMessages", "A module sends a message, or with the media type of batches several."),
            &[EMPTY],
        )
    },
    Route {
        body: Some(BYTES),
        ..route(
            Verb::Post,
            "/devices/{deviceId}/messages/deviceBound",
            Do::SendToDevice,
            SERVICE,
            ("sendToDevice", "Sends a message to a device; properties are headers, as a device receives them."),
            &[EMPTY],
        )
    },
    route(
        Verb::Get,
        "/devices/{deviceId}/messages/deviceBound",
        Do::Receive,
        Access::Device,
        ("receiveMessage", "A device takes its oldest message, which is locked for it; 204 if there is none."),
        &[Answer(200, Some(BYTES)), EMPTY],
    ),
    Route {
        takes: &["reject"],
        ..route(
            Verb::Delete,
            "/devices/{deviceId}/messages/deviceBound/{lockToken}",
            Do::CompleteMessage,
            Access::Device,
            ("completeMessage", "A device is done with a message, or rejects it."),
            &[EMPTY],
        )
    },
    route(
        Verb::Post,
        "/devices/{deviceId}/messages/deviceBound/{lockToken}/abandon",
        Do::AbandonMessage,
        Access::Device,
        ("abandonMessage", "A device gives a message back to its queue."),
        &[EMPTY],
    ),
    route(
        Verb::Delete,
        "/devices/{deviceId}/commands",
        Do::PurgeQueue,
        SERVICE,
        ("purgeQueue", "Empties the queue of a device."),
        &[ok("Purged")],
    ),
    route(
        Verb::Get,
        "/messages/serviceBound/feedback",
        Do::ReceiveFeedback,
        SERVICE,
        ("receiveFeedback", "Feedback on messages to devices, which is locked for the reader; 204 if there is none."),
        &[Answer(200, Some(FEEDBACK)), EMPTY],
    ),
    route(
        Verb::Delete,
        "/messages/serviceBound/feedback/{lockToken}",
        Do::CompleteFeedback,
        SERVICE,
        ("completeFeedback", "The reader is done with feedback."),
        &[EMPTY],
    ),
    route(
        Verb::Post,
        "/messages/serviceBound/feedback/{lockToken}/abandon",
        Do::AbandonFeedback,
        SERVICE,
        ("abandonFeedback", "The reader gives feedback back."),
        &[EMPTY],
    ),
];

/// The form of errors at this path.
pub(crate) fn style(call: &Call) -> Style {
    let words = call.target.segments();
    match find(ROUTES, &words, &Method::POST) {
        Found::Operation(route) if route.does == Do::CallMethod => Style::Nested,
        _ => Style::Hub,
    }
}

/// Whether a path is one of a hub.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn is_path(method: &Method, target: &Target) -> bool {
    !matches!(find(ROUTES, &target.segments(), method), Found::Nothing)
}

/// Whether a request may change something, so that it is carried out to its end even if the client goes away. Receiving counts:
/// what was locked has to be noted. A method call is broken off, because a device that hangs would else keep a place for it;
/// telemetry is one append, which has no such end.
pub(crate) fn changes(call: &Call) -> bool {
    let Found::Operation(route) = find(ROUTES, &call.target.segments(), &call.method) else { return false };
    match route.does {
        Do::CallMethod | Do::Send | Do::Events => false,
        Do::Receive | Do::ReceiveFeedback => true,
        _ => call.method != Method::GET,
    }
}

/// Answers a request to `hub`.
pub(crate) async fn answer(hub: &Arc<Hub>, call: &Call, body: Body, streams: &Streams) -> Result<Reply, HubError> {
    let words = call.target.segments();
    let route = match find(ROUTES, &words, &call.method) {
        Found::Operation(route) => route,
        other => {
            let missing = missing(call);
            if missing.is_none() && matches!(other, Found::Nothing) {
                return Err(route::not_found());
            }
            check_hub_version(&call.target)?;
            let (feature, rights) = missing.ok_or_else(|| not_allowed(&call.method))?;
            if let Some(rights) = rights {
                hub.authorize(call.token(), &words, rights)?;
            }
            return Err(HubError::new(
                ErrorCode::FeatureNotSupported,
                format!("{feature}: not available in this release of the hub."),
            ));
        }
    };
    nave_trace::routed(hub.id().as_str(), route.path);
    // Events are not part of the protocol, so nothing there depends on its version.
    if route.does != Do::Events {
        check_hub_version(&call.target)?;
    }
    if let Access::Hub(rights) = route.access {
        let facts = hub.authorize(call.token(), &words, rights)?;
        if call.method != Method::GET {
            call.changes_as(Actor::Policy(facts.policy.as_str().to_owned()));
        }
        if let Some(operation) = limited(route.does) {
            hub.pass(operation, 1).await?;
        }
    }
    match route.does {
        Do::ListDevices => devices::list(hub, call).await,
        Do::ChangeDevices => bulk::change(hub, call, body).await,
        Do::GetDevice => devices::get(hub, call).await,
        Do::PutDevice => devices::put(hub, call, body).await,
        Do::DeleteDevice => devices::delete(hub, call).await,
        Do::ListModules => modules::list(hub, call).await,
        Do::GetModule => modules::get(hub, call).await,
        Do::PutModule => modules::put(hub, call, body).await,
        Do::DeleteModule => modules::delete(hub, call).await,
        Do::DeviceStatistics => statistics::devices(hub).await,
        Do::ServiceStatistics => Ok(statistics::service(hub)),
        Do::GetTwin => twins::get(hub, call).await,
        Do::ChangeTwin => twins::update(hub, call, body).await,
        Do::CallMethod => methods::invoke(hub, call, body).await,
        Do::Events => events::stream(hub, call, streams).await,
        Do::Send => device::send(hub, call, body).await,
        Do::SendToDevice => device_bound::send(hub, call, body).await,
        Do::Receive => device::receive(hub, call).await,
        Do::CompleteMessage => device::complete(hub, call).await,
        Do::AbandonMessage => device::abandon(hub, call).await,
        Do::PurgeQueue => device_bound::purge(hub, call).await,
        Do::ReceiveFeedback => device_bound::feedback(hub).await,
        Do::CompleteFeedback => device_bound::complete_feedback(hub, call).await,
        Do::AbandonFeedback => device_bound::abandon_feedback(hub, call).await,
    }
}

/// What a request counts as for the throttle; methods are metered where they are called.
const fn limited(does: Do) -> Option<Operation> {
    match does {
        // `ChangeDevices` is counted once it is known for how many it is.
        Do::ListDevices
        | Do::GetDevice
        | Do::PutDevice
        | Do::DeleteDevice
        | Do::ListModules
        | Do::GetModule
        | Do::PutModule
        | Do::DeleteModule
        | Do::DeviceStatistics => Some(Operation::Registry),
        Do::GetTwin => Some(Operation::TwinReads),
        Do::ChangeTwin => Some(Operation::TwinUpdates),
        _ => None,
    }
}

/// Part of the protocol, not of this release: what is missing, with the right that it asks for; none where devices call
/// themselves.
fn missing(call: &Call) -> Option<(&'static str, Option<Rights>)> {
    const READ: Option<Rights> = Some(Rights::REGISTRY_READ);
    const WRITE: Option<Rights> = Some(Rights::REGISTRY_WRITE);
    const SERVICE: Option<Rights> = Some(Rights::SERVICE_CONNECT);
    let words = call.target.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match words.as_slice() {
        ["devices", "query"] if call.method == Method::POST => ("Queries", SERVICE),
        ["devices", "keys", "regenerate"] => ("Rotating the keys of many devices", WRITE),
        ["devices", _, "applyconfigurationcontent"] => ("Configurations", SERVICE),
        ["devices", _, "files", ..] => ("File upload", None),
        ["jobs", "v2", ..] => ("Jobs", SERVICE),
        ["jobs", ..] if call.method == Method::GET => ("Import and export jobs", READ),
        ["jobs", ..] => ("Import and export jobs", WRITE),
        ["configurations", ..] => ("Configurations", SERVICE),
        ["digitaltwins", ..] => ("Digital twins", SERVICE),
        ["messages", "servicebound", "feedback", ..] => return None,
        ["messages", "servicebound", ..] => ("Notifications of file uploads", SERVICE),
        _ => return None,
    })
}
