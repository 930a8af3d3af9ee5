//! The commands that manage a running hub.

pub(crate) mod backup;
pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod enrollment;
pub(crate) mod events;
pub(crate) mod feedback;
pub(crate) mod hosts;
pub(crate) mod hub;
mod identity;
mod input;
pub(crate) mod man;
pub(crate) mod method;
pub(crate) mod module;
pub(crate) mod policy;
pub(crate) mod registration;
pub(crate) mod reload;
pub(crate) mod restore;
pub(crate) mod send;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod twin;
