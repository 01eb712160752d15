//! Transactions: the rows; the bodies are the engine's.

use super::keys::{access::RO, keys_in};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Control, Group, flag};

const FLAGS: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::ALLOW_BUSY;

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::control("multi", Group::Transactions, Exactly(1), Control::Multi).with(FLAGS).fast().doc(
        "Begins a transaction.",
        "1.2.0",
        "O(1)",
        "",
    ),
    CommandSpec::control("exec", Group::Transactions, Exactly(1), Control::Exec)
        .with(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::SKIP_SLOWLOG)
        .doc("Runs the commands of a transaction, all at once.", "1.2.0", "Depends on the commands", ""),
    CommandSpec::control("discard", Group::Transactions, Exactly(1), Control::Discard)
        .with(FLAGS)
        .fast()
        .doc("Drops a transaction.", "2.0.0", "O(N) in the number of queued commands", ""),
    CommandSpec::control("watch", Group::Transactions, AtLeast(2), Control::Watch)
        .with(FLAGS)
        .fast()
        .keys(&[keys_in(1, -1, 1, RO)])
        .doc("Aborts the next transaction if a key changes before it.", "2.2.0", "O(1) per key", "key..."),
    CommandSpec::control("unwatch", Group::Transactions, Exactly(1), Control::Unwatch)
        .with(FLAGS)
        .fast()
        .doc("Forgets the watched keys.", "2.2.0", "O(1)", ""),
];
