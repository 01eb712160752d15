//! The tiers that hold data: the local one, and what stands before the database.

pub mod certificates;
pub mod database;
pub mod local;
pub mod upstream;
