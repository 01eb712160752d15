//! The database tier: its journal, the rules that say which keys it concerns, and the databases behind one trait.

pub mod journal;
pub mod rules;
pub mod store;
