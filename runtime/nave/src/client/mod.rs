//! How commands reach a hub: over its public HTTPS interface, with the credentials of the ready file or of a connection
//! string.

mod http;
mod target;

pub(crate) use self::http::{Http, Method};
pub(crate) use self::target::{Endpoint, Local, Target, random};
