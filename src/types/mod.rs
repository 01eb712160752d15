//! Pure data structures: what Redis's types are made of.
//!
//! Nothing here knows of requests, replies, clocks or locks; times come in as plain milliseconds.

pub mod bits;
mod compact;
pub mod equality;
pub mod geo;
pub mod glob;
pub mod hash;
pub mod hasher;
pub mod hyperloglog;
pub mod list;
pub mod listpack;
pub mod number;
pub mod prefetch;
pub mod rdb;
pub mod relocate;
pub mod s3fifo;
pub mod set;
pub mod sorted_set;
pub mod stream;
pub mod table;
pub mod thin_bytes;
