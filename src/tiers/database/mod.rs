//! The database tier: its journal, the rules that say which keys it concerns, and the databases behind one trait.

pub mod backend;
pub mod backlog;
pub mod coherence;
pub mod encoding;
pub mod flights;
pub mod flusher;
mod follow;
pub mod grouping;
mod held_up;
pub mod install;
pub mod journal;
pub mod lanes;
pub mod mutation;
mod open;
pub mod payload;
pub mod postgres;
pub mod queries;
pub mod readiness;
pub mod rules;
pub mod shared;
pub mod sqlite;
pub mod statistics;
pub mod status;
pub mod store;
pub mod tier;
pub mod write_behind;

pub use open::open;
