//! The database tier: its journal, the rules that say which keys it concerns, and the databases behind one trait.

pub mod grouping;
pub mod journal;
pub mod payload;
pub mod rules;
pub mod statistics;
pub mod store;
