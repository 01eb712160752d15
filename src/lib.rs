//! Anteroom: a Redis-compatible caching server that runs beside an application.

pub mod types;
