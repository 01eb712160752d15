//! The scripts that write the journal upstream and read it: each of them is atomic there.
//!
//! Invariants:
//! - What a command leaves in its keys, and their version, go into the stream with the command itself. Versions rise over
//!   all hosts; as they are never below the time, they go on rising if upstream lost its data.
//! - A key stands among the pending, with its latest version, exactly as long as that is not in the database.
//! - A write, or a change by others, ends the lease under which a row is being loaded: so what was read before it never
//!   comes into the cache after it.
//! - What upstream refuses for want of memory, or as a replica, it refuses before anything is done: a probe that writes
//!   nothing new comes first.

use crate::tiers::upstream::Script;

/// Runs a command and writes down what it leaves, if the rows that it depends on are at hand. Arguments: the names of
/// [`Names::journal`](super::names::Names::journal), what absence means for each row, which must be at hand, what stands
/// before leases, the rows, the protocol, and the command.
///
/// Nothing of it is a key: of a client that is told of changes, Redis 7.0 notes all keys of a script anew for each read in it.
pub const WRITE: &str = concat!(
    include_str!("head.lua"),
    include_str!("guard.lua"),
    include_str!("probe.lua"),
    include_str!("run.lua"),
    include_str!("journal.lua")
);

/// Looks whether rows are at hand. Arguments as of [`WRITE`], to the rows.
pub const GUARD: &str = concat!(include_str!("head.lua"), include_str!("guard.lua"), "return {0,0,0}");

/// Before the commands of a transaction: notes which rows are there. Arguments as of [`WRITE`], to the rows.
pub const NOTE: &str = concat!(include_str!("head.lua"), include_str!("probe.lua"), include_str!("note.lua"));

/// Behind them: writes down what they leave. Arguments as of [`WRITE`], to the rows.
pub const JOURNAL: &str =
    concat!(include_str!("head.lua"), include_str!("noted.lua"), include_str!("journal.lua"));

/// Begins to load a row. The key; arguments: pending, the lease's name, a token, and how long the lease lives.
pub static LEASE: Script = Script::new(include_str!("lease.lua"));

/// Puts a loaded row into the cache, if the lease stands. The key; arguments: the lease's name, its token, pending, the
/// kind, when it expires or 0 (of what is absent, how long that is remembered), and what the value is made of.
pub static FILL: Script = Script::new(include_str!("fill.lua"));

/// Drops keys whose rows others changed: at once, or, where a newer state is pending, when that is in the database. Keys:
/// pending, stale, and the rows'; argument: what stands before leases.
pub const FORGET: &str = include_str!("forget.lua");

/// Ends entries that are in the database. Keys: stream, pending, bytes, stale; arguments: how many, their ids and sizes,
/// then rows and versions.
pub const COMPLETE: &str = include_str!("complete.lua");

/// Lifts the version. Its key; the least that it is to be.
pub const SEED: &str = include_str!("seed.lua");

/// Ends a host that is gone and has nothing pending. The stream; its name, and that of its sign of life.
pub const BURY: &str = include_str!("bury.lua");
