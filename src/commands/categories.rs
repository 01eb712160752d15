//! The ACL categories of a row: those that follow from flags and group, and the explicit ones.

use super::spec::{CommandSpec, Group, Run, category, flag};

/// All of them, in Redis's order.
pub const CATEGORIES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Those of a row.
pub fn categories(spec: &CommandSpec) -> Vec<&'static str> {
    let set = |flags: u32, name: &'static str| spec.has(flags).then_some(name);
    // A container has no group of its own: its subcommands have.
    let is_of = |group: Group| spec.group == group && !matches!(spec.run, Run::Container(_));
    let group = |group: Group, name: &'static str| is_of(group).then_some(name);
    let either = |group: Group, bit: u32, name: &'static str| {
        (is_of(group) || spec.categories & bit != 0).then_some(name)
    };
    let explicit = |bit: u32, name: &'static str| (spec.categories & bit != 0).then_some(name);
    let is_admin = spec.has(flag::ADMIN) || spec.categories & category::ADMIN != 0;
    let is_dangerous = spec.has(flag::ADMIN) || spec.categories & category::DANGEROUS != 0;
    [
        explicit(category::KEYSPACE, "keyspace"),
        set(flag::READONLY, "read").filter(|_| spec.group != Group::Scripting),
        set(flag::WRITE, "write"),
        either(Group::Set, category::SET, "set"),
        either(Group::SortedSet, category::SORTED_SET, "sortedset"),
        either(Group::List, category::LIST, "list"),
        group(Group::Stream, "stream"),
        group(Group::Hash, "hash"),
        group(Group::String, "string"),
        group(Group::Bitmap, "bitmap"),
        group(Group::HyperLogLog, "hyperloglog"),
        group(Group::Geo, "geo"),
        set(flag::PUBSUB, "pubsub"),
        is_admin.then_some("admin"),
        Some(if spec.has(flag::FAST) { "fast" } else { "slow" }),
        set(flag::BLOCKING, "blocking"),
        is_dangerous.then_some("dangerous"),
        either(Group::Connection, category::CONNECTION, "connection"),
        group(Group::Transactions, "transaction"),
        group(Group::Scripting, "scripting"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
