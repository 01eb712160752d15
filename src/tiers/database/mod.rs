//! The database tier: its journal, the rules that say which keys it concerns, and the databases behind one trait.

pub mod backlog;
pub mod encoding;
pub mod flights;
pub mod grouping;
pub mod journal;
mod open;
pub mod payload;
pub mod postgres;
pub mod rules;
pub mod sqlite;
pub mod statistics;
pub mod store;

pub use open::open;
