//! The engine: runs requests, synchronously, from an input buffer to an output buffer.
//!
//! It knows no sockets: any I/O backend can drive it. What cannot be done at once (a blocked client, work that takes
//! long) is handed back to the caller as a [`Step`].

mod apart;
mod batch;
mod block;
mod blocking;
mod database;
mod execute;
mod forward;
mod hold;
mod leases;
mod limits;
mod limits_in_block;
mod merge;
mod near_reads;
mod own_connection;
mod own_request;
mod pending;
mod permission;
mod pipeline;
mod postponed;
mod row_blocks;
mod row_calls;
mod row_keys;
mod row_scripts;
mod rows;
mod script;
mod shared_rows;
mod spread;
mod through;
mod touch;
mod tracked;
mod transaction;
mod worker;

pub use apart::start as start_apart;
pub use blocking::{Blocked, WaitEnd};
pub use leases::give_leases_back;
pub use own_request::run_own;
pub use pending::{Finished, LocalFuture, Pending};
pub use pipeline::{Progress, Step};
pub use worker::{Unacknowledged, Worker};
