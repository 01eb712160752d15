//! The tiers that hold data: today the local one.

pub mod local;
