//! Who changed what, and how that ended: one structured record for each change of the control plane.
//!
//! Records are events of `tracing` with the target [`TARGET`], so that they can be kept apart from the log. They name
//! policies, devices, paths and codes; keys, tokens and documents are never part of one. Who did not prove who they are
//! has no record: that is counted, because anybody can cause it as often as they like.

use std::fmt;
use std::net::SocketAddr;

use nave_env::Env;

use crate::error::{ErrorCode, HubError};

/// The target of the events.
pub const TARGET: &str = "nave::audit";

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The holder of a shared access policy's key.
    Policy(String),
    /// A device that registered, by its registration id.
    Device(String),
    /// The holder of the admin token.
    Admin,
    /// Whoever can signal the process.
    Operator,
}

impl Actor {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy",
            Self::Device(_) => "device",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Policy(name) | Self::Device(name) => name,
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it was asked for, with this HTTP status or the one that it would have.
    Done(u16),
    /// With an error.
    Refused(ErrorCode),
    /// As a registration, or a request for several changes, can end without an error: in this state.
    Unsuccessful(&'static str),
}

impl From<&HubError> for Outcome {
    fn from(error: &HubError) -> Self {
        Self::Refused(error.code)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(status) => write!(formatter, "{status}"),
            Self::Refused(code) => write!(formatter, "{} {}", code.number(), code.name()),
            Self::Unsuccessful(state) => formatter.write_str(state),
        }
    }
}

/// A change that was made, or tried by somebody who is known.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// Where the request came from, if it came over a network.
    pub peer: Option<SocketAddr>,
    /// The hub's id, `$dps` for the provisioning service, or empty for the process.
    pub owner: &'a str,
    /// What was asked for, such as `PUT`.
    pub action: &'a str,
    /// What it was to be done to, such as `/devices/d1`.
    pub object: &'a str,
    /// How it ended.
    pub outcome: Outcome,
}

/// Writes a record.
pub fn record(env: &dyn Env, change: &Change<'_>) {
    let Change { actor, peer, owner, action, object, outcome } = change;
    tracing::info!(
        target: TARGET,
        time = env.now().iso(),
        actor_kind = actor.kind(),
        actor = actor.name(),
        peer = peer.map(tracing::field::display),
        owner,
        action,
        object,
        succeeded = matches!(outcome, Outcome::Done(_)),
        outcome = %outcome,
        "change"
    );
}
