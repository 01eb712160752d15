//! Anteroom: a Redis-compatible caching server that runs beside an application.
//!
//! The way of a request: socket → [`server`] → [`protocol`] → [`engine`] (the gate, then the handler that the command's
//! row names) → [`commands`] → [`tiers`] (the keyspace, through a view) → reply → socket.

#[cfg(not(miri))]
#[global_allocator]
static ALLOCATOR: tiers::local::memory::CountingAllocator = tiers::local::memory::CountingAllocator;

pub mod acl;
pub mod admin;
pub mod clients;
pub mod clock;
pub mod commands;
pub mod config;
pub mod engine;
pub mod growth;
pub mod instance;
pub mod latency;
pub mod lazy_free;
pub mod libraries;
pub mod lua;
pub mod pause;
pub mod protocol;
pub mod ratelimit;
pub mod scripts;
pub mod server;
pub mod slow_log;
pub mod snapshots;
pub mod telemetry;
pub mod tiers;
pub mod types;
