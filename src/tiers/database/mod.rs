//! The database tier: so far its journal.

pub mod journal;
