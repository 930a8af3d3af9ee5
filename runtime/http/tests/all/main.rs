//! Whole surfaces: requests as the SDKs send them, to a platform with the real functions, in a simulation.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod admin;
mod audit;
mod bulk;
mod contract;
mod device;
mod device_bound;
mod devices;
mod enrollments;
mod events;
mod hosts;
mod life_cycle;
mod methods;
mod modules;
mod openapi;
mod policies;
mod provision;
mod registrations;
mod statistics;
mod twins;
mod world;
