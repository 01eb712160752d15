//! Where a command runs if there is an upstream, as its row says or as follows from it; and what is known of commands of
//! Redis that have no row here.

use super::spec::{CommandSpec, Group, Run, flag};
use crate::tiers::upstream::Rewrite;

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Here: it concerns the connection to us, or this server.
    Local,
    /// Upstream, by a connection that all share.
    Shared,
    /// Upstream, by a connection of the client's own.
    Dedicated,
    /// Upstream, by a connection of the client's own that goes on saying things.
    Stream,
    /// Nowhere, and why.
    Refused(&'static str),
}

/// How a reply differs between RESP2 and RESP3, beside the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewriting {
    /// Not at all.
    Plain,
    /// Pairs in it are not nested in RESP2.
    Flat,
    /// With more arguments than so many, null in place of the whole is a null array in RESP2.
    NullArrayAbove(usize),
    /// Nulls in it are null arrays in RESP2.
    InnerNullArrays,
}

/// What follows from a row.
#[derive(Debug, Clone, Copy)]
pub struct Routing {
    /// Where the command runs.
    pub route: Route,
    /// Whether its reply may be kept, if it has one key.
    pub is_cacheable: bool,
    /// How its reply differs between RESP2 and RESP3, if that is known.
    pub rewriting: Option<Rewriting>,
}

impl Routing {
    /// What follows from a row.
    pub(super) fn of(spec: &CommandSpec) -> Self {
        let route = spec.route.unwrap_or(match spec.run {
            Run::Data(_) | Run::Script(_) => Route::Shared,
            Run::Blocking(_) => Route::Dedicated,
            // Scripts, libraries and channels are upstream's.
            _ if spec.listens() => Route::Stream,
            _ if matches!(spec.group, Group::Scripting | Group::PubSub) => Route::Shared,
            Run::Limit(_) | Run::Session(_) | Run::Control(_) | Run::Container(_) => Route::Local,
        });
        let is_cacheable = route == Route::Shared
            && spec.has(flag::READONLY)
            && !spec.keys.is_empty()
            && spec.group != Group::Scripting
            && !spec.is_uncached
            && !spec.tips.contains(&"nondeterministic_output");
        // Families whose replies were compared in both protocols.
        let is_known = matches!(
            spec.group,
            Group::Generic
                | Group::String
                | Group::Bitmap
                | Group::Hash
                | Group::List
                | Group::Set
                | Group::SortedSet
                | Group::HyperLogLog
                | Group::Geo
        );
        let is_known = is_known || (spec.group == Group::Stream && is_cacheable);
        Self { route, is_cacheable, rewriting: is_known.then_some(spec.rewriting) }
    }
}

impl Rewriting {
    /// How the reply to a request with so many arguments is put into RESP2.
    pub fn with(self, arguments: usize) -> Rewrite {
        match self {
            Self::Flat => Rewrite::Flat,
            Self::InnerNullArrays => Rewrite::InnerNullArrays,
            Self::NullArrayAbove(most) if arguments > most => Rewrite::NullArray,
            Self::Plain | Self::NullArrayAbove(_) => Rewrite::Plain,
        }
    }
}

/// What is known of a command that has no row.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// Its name.
    pub name: &'static str,
    /// Where it runs.
    pub route: Route,
}

const NO_REPLICAS: Route = Route::Refused("Anteroom is no place to replicate from or to");

const fn foreign(name: &'static str, route: Route) -> Foreign {
    Foreign { name, route }
}

/// Commands of Redis that have no row here, of which more must be known than upstream says of them.
const FOREIGN: &[Foreign] =
    &[foreign("sync", NO_REPLICAS), foreign("psync", NO_REPLICAS), foreign("replconf", NO_REPLICAS)];

/// What is known of a command that has no row.
pub fn foreign_command(name: &[u8]) -> Option<&'static Foreign> {
    FOREIGN.iter().find(|foreign| foreign.name.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::super::table::COMMANDS;
    use super::*;

    fn routing(name: &str) -> Routing {
        COMMANDS.find(name.as_bytes()).unwrap().routing
    }

    #[test]
    fn routes_follow_from_rows() {
        for (name, route) in [
            ("get", Route::Shared),
            ("blpop", Route::Dedicated),
            ("ping", Route::Local),
            ("config|get", Route::Local),
            ("ratelimit.take", Route::Local),
            ("flushall", Route::Shared),
            ("eval", Route::Shared),
            ("script|load", Route::Shared),
            ("object|encoding", Route::Shared),
            ("memory|usage", Route::Shared),
            ("publish", Route::Shared),
            ("pubsub|numsub", Route::Shared),
            ("ssubscribe", Route::Stream),
        ] {
            assert_eq!(routing(name).route, route, "{name}");
        }
        let cacheable: Vec<&str> = COMMANDS
            .iter()
            .filter(|command| command.routing.is_cacheable)
            .map(|command| command.name.as_str())
            .collect();
        for name in ["get", "mget", "hgetall", "zrange", "smembers", "lrange", "exists", "getbit", "geopos"] {
            assert!(cacheable.contains(&name), "{name}");
        }
        for name in
            ["ttl", "pttl", "srandmember", "object|idletime", "scan", "hscan", "touch", "set", "randomkey"]
        {
            assert!(!cacheable.contains(&name), "{name}");
        }
    }

    #[test]
    fn foreign_commands_have_no_row() {
        for foreign in FOREIGN {
            assert!(COMMANDS.get(foreign.name.as_bytes()).is_none(), "{}: say it in the row", foreign.name);
        }
        assert!(foreign_command(b"PSYNC").is_some() && foreign_command(b"get").is_none());
    }
}
