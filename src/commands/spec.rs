//! What a row of the command table says: the only source of a command's arity, flags, keys, categories and routing.

use std::cell::RefCell;

use crate::clients::Session;
use crate::instance::Instance;
use crate::protocol::{Args, CommandResult, OwnedArgs, Reply, ReplyError};
use crate::ratelimit::RateLimits;
use crate::tiers::local::View;

use super::keys::{DerivedKey, KeySpec, Keys};
use super::ratelimit::LastLimit;
use super::routing::{Rewriting, Route};

/// A handler of data: sees the keys it declared, and nothing else.
pub type DataHandler = fn(&mut View<'_>, Args<'_>, &mut Reply<'_>) -> CommandResult;
/// A handler of data that may have to wait.
pub type BlockingHandler = fn(&mut View<'_>, Args<'_>, &mut Reply<'_>) -> Result<Attempt, ReplyError>;
/// A handler of the connection or of the server as a whole.
pub type SessionHandler = fn(&mut Context<'_, '_>, Args<'_>, &mut Reply<'_>) -> CommandResult;

/// A handler of rate limits: sees the keys it declared, the policies and the time.
pub type LimitHandler = fn(&mut View<'_>, &Limiter<'_>, Args<'_>, &mut Reply<'_>) -> CommandResult;

/// What a handler of rate limits may touch beside its keys.
pub struct Limiter<'a> {
    /// The policies, and what is counted of them.
    pub limits: &'a RateLimits,
    /// The time as of which the command runs, in microseconds since the Unix epoch.
    pub now_us: u64,
    /// What was asked for before.
    pub last: &'a RefCell<LastLimit>,
}

/// What a session handler may touch.
pub struct Context<'a, 'view> {
    /// The connection.
    pub session: &'a mut Session,
    /// The server. Its keyspace is to be reached through `view` only: a transaction may hold its locks already.
    pub instance: &'a Instance,
    /// The keyspace, shard by shard.
    pub view: &'a mut View<'view>,
}

/// How an attempt at a blocking command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is done and the reply is written.
    Done,
    /// Nothing there yet: nothing was changed, nothing was written.
    Wait {
        /// Milliseconds to wait; `None` for as long as it takes.
        timeout_ms: Option<u64>,
        /// What to reply when the time is up.
        on_timeout: OnTimeout,
    },
}

/// The reply to a wait that ended with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// `*-1` in RESP2.
    NullArray,
    /// The same, but `$-1` where a transaction does not wait at all.
    NullArrayOrNull,
    /// `+OK` (`DEBUG SLEEP`).
    Ok,
}

/// What runs, and so what it may touch.
#[derive(Clone, Copy)]
pub enum Run {
    /// Keys under lock.
    Data(DataHandler),
    /// Keys under lock, and it may wait for them to change.
    Blocking(BlockingHandler),
    /// Keys under lock, and rate limits.
    Limit(LimitHandler),
    /// The session and the server, no keys under lock.
    Session(SessionHandler),
    /// The engine itself: transactions.
    Control(Control),
    /// The engine itself: Lua.
    Script(Script),
    /// Only subcommands.
    Container(&'static [CommandSpec]),
}

/// The commands whose bodies live in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `MULTI`
    Multi,
    /// `EXEC`
    Exec,
    /// `DISCARD`
    Discard,
    /// `WATCH`
    Watch,
    /// `UNWATCH`
    Unwatch,
    /// `RESET`
    Reset,
    /// `CACHE.INVALIDATE`
    Invalidate,
    /// A command of the database tier.
    Database(Database),
}

/// The commands of the database tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// `DB.FLUSH`
    Flush,
    /// `DB.STATUS`
    Status,
    /// `DB.DEADLETTER`
    DeadLetter,
    /// `DB.QUERY`
    Query,
}

/// The commands that run Lua.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// `EVAL` and its kin.
    Eval {
        /// The script is named by its digest.
        by_digest: bool,
        /// It may only read.
        only_reads: bool,
    },
    /// `FCALL` and its kin.
    Call {
        /// The function may only read.
        only_reads: bool,
    },
    /// `FUNCTION LOAD`
    LoadLibrary,
    /// `FUNCTION RESTORE`
    RestoreLibraries,
}

/// Which shards a data command runs under.
#[derive(Clone, Copy)]
pub enum Scope {
    /// Those of the keys it declares.
    Keys,
    /// All of them.
    All,
    /// One after the other, each locked while it is looked at.
    Each,
    /// Depends on the arguments.
    By(fn(Args<'_>) -> Scope),
}

/// Which of a command's arguments are channels that its user must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// The first.
    First,
    /// All.
    All,
    /// All are patterns of channels.
    Patterns,
}

impl Channels {
    /// How many arguments at most.
    pub fn count(self) -> usize {
        if self == Self::First { 1 } else { usize::MAX }
    }

    /// Whether they are patterns.
    pub fn are_patterns(self) -> bool {
        self == Self::Patterns
    }
}

/// How many arguments a command takes, its name included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// This many.
    Exactly(u16),
    /// This many or more.
    AtLeast(u16),
}

/// What a command is documented as belonging to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Group {
    Generic,
    String,
    Bitmap,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
    HyperLogLog,
    Geo,
    Connection,
    Cluster,
    Server,
    Transactions,
    Scripting,
    PubSub,
    RateLimit,
    Database,
}

/// Flags, as `COMMAND` names them; the values are ours.
pub mod flag {
    /// Changes data.
    pub const WRITE: u32 = 1;
    /// Reads data and changes none.
    pub const READONLY: u32 = 1 << 1;
    /// May need memory: refused when there is none.
    pub const DENYOOM: u32 = 1 << 2;
    /// For administrators.
    pub const ADMIN: u32 = 1 << 3;
    /// Publishes or subscribes.
    pub const PUBSUB: u32 = 1 << 4;
    /// Not from scripts.
    pub const NOSCRIPT: u32 = 1 << 5;
    /// May block.
    pub const BLOCKING: u32 = 1 << 6;
    /// Runs while the data is loaded.
    pub const LOADING: u32 = 1 << 7;
    /// Runs on a stale replica.
    pub const STALE: u32 = 1 << 8;
    /// Not shown in `MONITOR`.
    pub const SKIP_MONITOR: u32 = 1 << 9;
    /// Not in the slow log.
    pub const SKIP_SLOWLOG: u32 = 1 << 10;
    /// Constant or logarithmic time.
    pub const FAST: u32 = 1 << 11;
    /// Before authentication.
    pub const NO_AUTH: u32 = 1 << 12;
    /// May be replicated though it is no write.
    pub const MAY_REPLICATE: u32 = 1 << 13;
    /// Not inside a transaction.
    pub const NO_MULTI: u32 = 1 << 14;
    /// Its keys cannot all be found from the key specs.
    pub const MOVABLEKEYS: u32 = 1 << 15;
    /// Runs while a script is busy.
    pub const ALLOW_BUSY: u32 = 1 << 16;
    /// Not while asynchronous loading.
    pub const NO_ASYNC_LOADING: u32 = 1 << 17;
    /// Takes long, on the whole keyspace or by itself: runs on a thread apart from those that serve connections.
    pub const OFFLOAD: u32 = 1 << 18;
    /// Its keys may be none.
    pub const NO_MANDATORY_KEYS: u32 = 1 << 20;
    /// For the server's developers.
    pub const SYSTEM: u32 = 1 << 19;
}

/// ACL categories beyond those that follow from flags and group.
pub mod category {
    /// Can bring a server to its knees.
    pub const DANGEROUS: u32 = 1;
    /// Concerns the key space rather than values.
    pub const KEYSPACE: u32 = 1 << 1;
    /// Works on lists.
    pub const LIST: u32 = 1 << 2;
    /// Works on sets.
    pub const SET: u32 = 1 << 3;
    /// Works on sorted sets.
    pub const SORTED_SET: u32 = 1 << 4;
    /// Concerns the connection.
    pub const CONNECTION: u32 = 1 << 5;
    /// For administrators, though not flagged so.
    pub const ADMIN: u32 = 1 << 6;
}

/// One row of the command table.
pub struct CommandSpec {
    /// Its name in lower case; a subcommand's without its container's.
    pub name: &'static str,
    /// What runs.
    pub run: Run,
    /// How many arguments.
    pub arity: Arity,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Explicit bits of [`category`].
    pub categories: u32,
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    /// Finds the keys where the specs cannot.
    pub get_keys: Option<fn(Args<'_>, &mut Keys)>,
    /// Which of its arguments are channels.
    pub channels: Option<Channels>,
    /// Makes its key of the arguments, where none of them is the key.
    pub derived_key: Option<fn(Args<'_>) -> DerivedKey>,
    /// What it does with its keys, where that depends on the arguments.
    pub key_flags: Option<fn(Args<'_>) -> u16>,
    /// Which shards it needs.
    pub scope: Scope,
    /// The argument that names the member or field that it looks for; 0 if there is none. A pipeline brings it into the
    /// cache ahead.
    pub member: usize,
    /// It reads the log of a rate limiter at its key, which a pipeline brings into the cache ahead.
    pub reads_log: bool,
    /// Its place in the documentation.
    pub group: Group,
    /// One line on what it does.
    pub summary: &'static str,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// The cost, in Landau's notation.
    pub complexity: &'static str,
    /// The arguments behind the name, in the notation of [`super::syntax`].
    pub syntax: &'static str,
    /// The subcommands of one that also runs by itself.
    subcommands: &'static [CommandSpec],
    /// Since when it is deprecated, and what replaces it.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Tips for clients that spread commands over a cluster.
    pub tips: &'static [&'static str],
    /// The arguments that it waits with, where those it came with would mean something else later.
    pub waits_with: Option<fn(&mut View<'_>, Args<'_>) -> OwnedArgs>,
    /// Where it runs if there is an upstream, unless that follows from the rest.
    pub route: Option<Route>,
    /// How its reply differs between RESP2 and RESP3, beside the marks.
    pub rewriting: Rewriting,
    /// A read whose reply is not to be kept, though that does not follow from the rest.
    pub is_uncached: bool,
}

impl CommandSpec {
    const fn new(name: &'static str, group: Group, run: Run, arity: Arity) -> Self {
        Self {
            name,
            run,
            arity,
            flags: 0,
            categories: 0,
            keys: &[],
            get_keys: None,
            channels: None,
            derived_key: None,
            key_flags: None,
            scope: Scope::Keys,
            member: 0,
            reads_log: false,
            group,
            summary: "",
            since: "1.0.0",
            complexity: "O(1)",
            syntax: "",
            subcommands: &[],
            deprecated: None,
            tips: &[],
            waits_with: None,
            route: None,
            rewriting: Rewriting::Plain,
            is_uncached: false,
        }
    }

    /// A command on keys.
    pub const fn data(name: &'static str, group: Group, arity: Arity, handler: DataHandler) -> Self {
        Self::new(name, group, Run::Data(handler), arity)
    }

    /// A command on keys that may wait for them.
    pub const fn waiting(name: &'static str, group: Group, arity: Arity, handler: BlockingHandler) -> Self {
        Self::new(name, group, Run::Blocking(handler), arity).with(flag::BLOCKING)
    }

    /// A command on keys that hold the state of rate limits.
    pub const fn limit(name: &'static str, arity: Arity, handler: LimitHandler) -> Self {
        Self::new(name, Group::RateLimit, Run::Limit(handler), arity)
    }

    /// A command on the connection or the server.
    pub const fn session(name: &'static str, group: Group, arity: Arity, handler: SessionHandler) -> Self {
        Self::new(name, group, Run::Session(handler), arity)
    }

    /// A command of the engine.
    pub const fn control(name: &'static str, group: Group, arity: Arity, control: Control) -> Self {
        Self::new(name, group, Run::Control(control), arity)
    }

    /// A command that runs Lua.
    pub const fn script(name: &'static str, arity: Arity, script: Script) -> Self {
        Self::new(name, Group::Scripting, Run::Script(script), arity)
    }

    /// A command that has only subcommands.
    pub const fn container(name: &'static str, group: Group, subcommands: &'static [CommandSpec]) -> Self {
        Self::new(name, group, Run::Container(subcommands), Arity::AtLeast(2))
    }

    /// A container that also does something by itself.
    pub const fn runs(mut self, arity: Arity, handler: SessionHandler) -> Self {
        self.subcommands = self.subcommands();
        self.run = Run::Session(handler);
        self.arity = arity;
        self
    }

    /// With these flags too.
    pub const fn with(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// A write that may need memory.
    pub const fn write(self) -> Self {
        self.with(flag::WRITE | flag::DENYOOM)
    }

    /// A write that never needs memory.
    pub const fn shrink(self) -> Self {
        self.with(flag::WRITE)
    }

    /// A read.
    pub const fn readonly(self) -> Self {
        self.with(flag::READONLY)
    }

    /// Constant or logarithmic time.
    pub const fn fast(self) -> Self {
        self.with(flag::FAST)
    }

    /// In these ACL categories too.
    pub const fn categories(mut self, categories: u32) -> Self {
        self.categories |= categories;
        self
    }

    /// With these keys.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.keys = keys;
        self
    }

    /// With a function that finds keys which the specs cannot tell.
    pub const fn get_keys(mut self, get_keys: fn(Args<'_>, &mut Keys)) -> Self {
        self.get_keys = Some(get_keys);
        self
    }

    /// With these channels.
    pub const fn channels(mut self, channels: Channels) -> Self {
        self.channels = Some(channels);
        self
    }

    /// With a function that makes the key of the arguments; it is locked like one that the specs declare.
    pub const fn derived_key(mut self, derive: fn(Args<'_>) -> DerivedKey) -> Self {
        self.derived_key = Some(derive);
        self
    }

    /// With a function that says what is done with the keys, where that depends on the arguments.
    pub const fn key_flags(mut self, key_flags: fn(Args<'_>) -> u16) -> Self {
        self.key_flags = Some(key_flags);
        self
    }

    /// Looking for the member or field that this argument names.
    pub const fn member(mut self, argument: usize) -> Self {
        self.member = argument;
        self
    }

    /// Reading the log of a rate limiter.
    pub const fn reads_log(mut self) -> Self {
        self.reads_log = true;
        self
    }

    /// Under these shards' locks.
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Its documentation: summary, the version that brought it, cost, syntax of the arguments.
    pub const fn doc(
        mut self,
        summary: &'static str,
        since: &'static str,
        complexity: &'static str,
        syntax: &'static str,
    ) -> Self {
        self.summary = summary;
        self.since = since;
        self.complexity = complexity;
        self.syntax = syntax;
        self
    }

    /// Deprecated since a version, in favour of something else.
    pub const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.deprecated = Some((since, replaced_by));
        self
    }

    /// With these tips for clients.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// Waiting with other arguments than it came with.
    pub const fn waits_with(mut self, settle: fn(&mut View<'_>, Args<'_>) -> OwnedArgs) -> Self {
        self.waits_with = Some(settle);
        self
    }

    /// Runs there if there is an upstream.
    pub const fn route(mut self, route: Route) -> Self {
        self.route = Some(route);
        self
    }

    /// Its reply differs so between RESP2 and RESP3, beside the marks.
    pub const fn rewriting(mut self, rewriting: Rewriting) -> Self {
        self.rewriting = rewriting;
        self
    }

    /// Its reply is not to be kept.
    pub const fn uncached(mut self) -> Self {
        self.is_uncached = true;
        self
    }

    /// Whether all these flags are set.
    #[inline]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// Whether it waits for its keys to be gone as well: a member of a group, whose group may be.
    pub fn waits_for_absence(&self) -> bool {
        matches!(self.run, Run::Blocking(_)) && self.group == Group::Stream && self.has(flag::WRITE)
    }

    /// Whether it changes what a connection listens to.
    #[inline]
    pub const fn listens(&self) -> bool {
        self.has(flag::PUBSUB | flag::NOSCRIPT)
    }

    /// The subcommands, if it is a container.
    pub const fn subcommands(&self) -> &'static [CommandSpec] {
        if let Run::Container(subcommands) = self.run { subcommands } else { self.subcommands }
    }
}

impl Arity {
    /// Whether so many arguments, the name included, will do.
    #[inline]
    pub const fn accepts(self, arguments: usize) -> bool {
        match self {
            Self::Exactly(count) => arguments == count as usize,
            Self::AtLeast(count) => arguments >= count as usize,
        }
    }
}
