//! The local tier (L1): the in-memory keyspace of this process.

mod decoded;
mod edit;
mod effects;
mod entry;
mod eviction;
mod expiry;
mod keyspace;
mod listener;
mod locks;
pub mod memory;
mod mirror;
mod observe;
mod observers;
mod places;
mod scan;
mod shard;
mod snapshot;
mod statistics;
mod strings;
mod timed;
mod trial;
mod value;
mod view;

pub use decoded::rdb_limits;
pub use effects::{Effects, Event, EventClass};
pub use entry::Entry;
pub use eviction::{Evicted, access_record, frequency, idle_seconds};
pub use keyspace::{Keyspace, KeyspaceCounters};
pub use listener::Listener;
pub use locks::{LockPlan, Locks};
pub use mirror::{Change, Columns, DATABASE, Mirror};
pub use observers::{Waiter, WaiterOutcome, WatchFlag};
pub use strings::Expiry;
pub use trial::{Tried, TriedChange};
pub use value::{Stored, Value, ValueRef};
pub use view::{KeyInfo, ShardHeld, View};
