//! The semantics of a hub and of the provisioning service: registry, twins, methods, telemetry, registration.
//!
//! This crate is where the parts meet. It reads state, calls a function for every decision, commits with compare-and-swap,
//! and tells devices afterwards. It knows nothing of sockets, and takes time, randomness and tasks from its
//! [`nave_env::Env`], so that whole hubs run in a simulation.
//!
//! * [`Platform`] is everything that one process serves; [`Hub`] and [`Provisioning`] are its parts.
//! * A device's connection is a [`Session`]; what the hub has for it goes into its [`Mailbox`].
//! * Every failure is a [`HubError`] with the protocol's code.

mod access;
mod aggregate;
pub mod audit;
mod authority;
mod bulk;
mod bus;
mod c2d;
mod connect;
mod connection_event;
mod credentials;
mod damaged;
mod edge;
mod error;
mod hub;
mod lane;
mod method;
mod metrics;
mod module;
mod outbox;
mod platform;
pub mod policy;
mod presence;
pub mod provisioning;
mod registry;
mod routes;
mod session;
mod statistics;
mod telemetry;
pub mod throttle;
pub mod tier;
mod twin;
mod view;

pub use access::Presented;
pub use aggregate::MAX_MODULES;
pub use authority::{Authorities, MAX_AUTHORITIES, MAX_AUTHORITY_NAME};
pub use bulk::{BulkChange, BulkOperation, MAX_BULK_CHANGES, check_bulk};
pub use bus::{Bus, HostId, HostMessage, HostReply, NoPeers, Receive, SimBus, Unreachable};
pub use c2d::{
    Appetite, CloudToDevice, CloudToDeviceSettings, Delivery, DeviceBound, Exchange, FeedbackBatch, Leaving,
    MAX_BATCH_RECORDS, MAX_DEVICE_BOUND_BYTES, MAX_FEEDBACK_RECORDS, MAX_MESSAGE_ID, MAX_PROPERTY_BYTES,
    MAX_QUEUE_DEPTH, MAX_TIME_TO_LIVE, MIN_TIME_TO_LIVE, Received, Settlement,
};
pub use connect::{Authenticated, ConnectOptions, Connected, Owner};
pub use credentials::AuthenticationInput;
pub use edge::ScopeInput;
pub use error::{ErrorCode, HubError};
pub use hub::{Hub, HubParts, MAX_COMMIT_ATTEMPTS};
pub use metrics::{HubMetrics, Outcomes, PlatformMetrics};
pub use module::{MAX_MANAGED_BY, ModuleInput};
pub use outbox::MAX_OUTBOX_ENTRIES;
pub use platform::Platform;
pub use presence::{Connection, MAX_REMEMBERED};
pub use provisioning::Provisioning;
pub use registry::{DeviceInput, DeviceView, MAX_LISTED_DEVICES, MAX_STATUS_REASON};
pub use routes::{PreparedRouting, RoutingConfig, RoutingError};
pub use session::{
    CloseReason, MAX_METHODS_IN_FLIGHT, Mailbox, MailboxFull, MethodAnswer, Session, Subscriptions, ToDevice,
};
pub use statistics::DeviceStatistics;
pub use telemetry::{MAX_BATCH_MESSAGES, MAX_MESSAGE_BYTES, MAX_MESSAGES_AT_ONCE, Message, system};
pub use twin::{KnownTwin, TwinUpdate, TwinView};
