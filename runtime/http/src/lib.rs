//! The HTTPS surfaces of hubs and of the provisioning service.
//!
//! * [`Surface`] answers everything that clients reach over TLS: the hub's service API (devices, modules, twins, methods,
//!   messages, events), what devices do over HTTPS, the provisioning service's API (enrollments, registrations) and the
//!   registration of devices over HTTPS.
//! * [`Admin`] answers the operator's own requests on the loopback listener.
//!
//! Both are an [`HttpService`](service::HttpService): one call per request, no sockets. Bodies are read only after the
//! caller is known, and never beyond a bound; whatever fails is a response in the form that the SDKs of that surface read.

mod admin;
mod bulk;
mod call;
mod device;
mod device_bound;
mod devices;
mod dps;
mod enrollment_document;
mod enrollments;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hub;
mod identity_document;
mod message_headers;
mod methods;
mod metrics;
mod modules;
mod monitoring;
mod openapi;
mod operator;
mod policies;
mod provision;
mod registrations;
mod reply;
mod route;
pub mod service;
mod shared_document;
mod statistics;
mod surface;
mod table;
mod twins;
mod work;

pub use admin::Admin;
pub use bulk::MAX_REGISTRY_BODY_BYTES;
pub use device::MAX_BATCH_BODY_BYTES;
pub use devices::MAX_IDENTITY_BODY_BYTES;
pub use enrollments::{DEFAULT_PAGE_ITEMS, MAX_BULK_BODY_BYTES, MAX_BULK_ITEMS, MAX_ENROLLMENT_BODY_BYTES};
pub use events::{MAX_EVENT_STREAMS, MAX_EVENT_WAIT_SECONDS};
pub use methods::MAX_METHOD_BODY_BYTES;
pub use monitoring::{Monitoring, Readiness};
pub use operator::{Operator, OperatorError};
pub use surface::Surface;
pub use twins::MAX_TWIN_BODY_BYTES;
