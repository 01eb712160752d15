//! The directives, in one table: names as Redis has them, kinds, bounds, defaults.

use super::limits::DEFAULT as OUTPUT_LIMITS;

/// Which keys go when memory runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Redis's")]
pub enum Policy {
    Noeviction,
    AllkeysLru,
    AllkeysLfu,
    AllkeysRandom,
    AllkeysS3fifo,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

/// The policies' names, in the order of [`Policy`].
const POLICIES: &[&str] = &[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "allkeys-s3fifo",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

impl Policy {
    /// The policy of an index into the names.
    #[inline]
    pub(super) fn of(index: i64) -> Self {
        const ALL: [Policy; 9] = [
            Policy::Noeviction,
            Policy::AllkeysLru,
            Policy::AllkeysLfu,
            Policy::AllkeysRandom,
            Policy::AllkeysS3fifo,
            Policy::VolatileLru,
            Policy::VolatileLfu,
            Policy::VolatileRandom,
            Policy::VolatileTtl,
        ];
        ALL.get(index as usize).copied().unwrap_or(Policy::Noeviction)
    }

    /// Whether only keys with a deadline go.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl)
    }

    /// Whether access records count frequency.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::AllkeysLfu | Self::VolatileLfu)
    }
}

/// What values a directive takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `yes` or `no`.
    Bool,
    /// An integer within bounds.
    Int(i64, i64),
    /// Bytes, within bounds, with units.
    Memory(i64, i64),
    /// An integer in octal.
    Octal(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// The classes of keyspace events.
    Events,
    /// Limits of what clients leave unread, by class.
    OutputLimits,
    /// Numbers from 0 to 100.
    Percentiles,
    /// Seconds and changes, pair by pair.
    SavePoints,
    /// The name of a file, without a path.
    FileName,
}

/// One directive.
pub(super) struct Directive {
    pub(super) name: &'static str,
    /// An older name.
    pub(super) alias: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    /// Whether it can be changed while the server runs.
    pub(super) mutable: bool,
}

macro_rules! alias {
    () => {
        None
    };
    ($alias:literal) => {
        Some($alias)
    };
}

macro_rules! directives {
    ($($id:ident $name:literal $(= $alias:literal)? $kind:expr, $default:expr, $mutable:literal;)*) => {
        /// A directive.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are Redis's")]
        pub enum Id { $($id),* }

        /// The table, in the order of [`Id`].
        pub(super) const DIRECTIVES: &[Directive] = &[$(Directive {
            name: $name,
            alias: alias!($($alias)?),
            kind: $kind,
            default: $default,
            mutable: $mutable,
        }),*];

        /// All of them.
        pub(super) const IDS: &[Id] = &[$(Id::$id),*];
    };
}

use Kind::{Bool, Events, FileName, Int, Memory, Octal, OutputLimits, Percentiles, SavePoints, Text, Word};

const MAX: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

directives! {
    Maxmemory "maxmemory" Memory(0, MAX), "0", true;
    MaxmemoryPolicy "maxmemory-policy" Word(POLICIES), "noeviction", true;
    MaxmemorySamples "maxmemory-samples" Int(1, 64), "5", true;
    Activedefrag "activedefrag" Bool, "yes", true;
    ActiveDefragIgnoreBytes "active-defrag-ignore-bytes" Memory(1, MAX), "16777216", true;
    ActiveDefragThresholdLower "active-defrag-threshold-lower" Int(0, 1000), "10", true;
    ActiveDefragCycleMax "active-defrag-cycle-max" Int(1, 99), "25", true;
    LfuLogFactor "lfu-log-factor" Int(0, INT), "10", true;
    LfuDecayTime "lfu-decay-time" Int(0, INT), "1", true;
    HashMaxListpackEntries "hash-max-listpack-entries" = "hash-max-ziplist-entries" Int(0, MAX), "512", true;
    HashMaxListpackValue "hash-max-listpack-value" = "hash-max-ziplist-value" Memory(0, MAX), "64", true;
    ListMaxListpackSize "list-max-listpack-size" = "list-max-ziplist-size" Int(-INT - 1, INT), "-2", true;
    ListCompressDepth "list-compress-depth" Int(0, INT), "0", true;
    SetMaxIntsetEntries "set-max-intset-entries" Int(0, MAX), "512", true;
    SetMaxListpackEntries "set-max-listpack-entries" Int(0, MAX), "128", true;
    SetMaxListpackValue "set-max-listpack-value" Memory(0, MAX), "64", true;
    ZsetMaxListpackEntries "zset-max-listpack-entries" = "zset-max-ziplist-entries" Int(0, MAX), "128", true;
    ZsetMaxListpackValue "zset-max-listpack-value" = "zset-max-ziplist-value" Memory(0, MAX), "64", true;
    StreamNodeMaxBytes "stream-node-max-bytes" Memory(0, MAX), "4096", true;
    StreamNodeMaxEntries "stream-node-max-entries" Int(0, MAX), "100", true;
    HllSparseMaxBytes "hll-sparse-max-bytes" Memory(0, MAX), "3000", true;
    ProtoMaxBulkLen "proto-max-bulk-len" Memory(1_048_576, INT), "536870912", true;
    ClientQueryBufferLimit "client-query-buffer-limit" Memory(1_048_576, MAX), "1073741824", true;
    Maxclients "maxclients" Int(1, INT), "10000", true;
    Timeout "timeout" Int(0, INT), "0", true;
    TcpKeepalive "tcp-keepalive" Int(0, INT), "300", true;
    TcpBacklog "tcp-backlog" Int(0, INT), "511", false;
    Unixsocketperm "unixsocketperm" Octal(0, 0o777), "0", false;
    Databases "databases" Int(1, 256), "16", false;
    Requirepass "requirepass" Text, "", true;
    Aclfile "aclfile" Text, "", false;
    AcllogMaxLen "acllog-max-len" Int(0, MAX), "128", true;
    AclPubsubDefault "acl-pubsub-default" Word(&["resetchannels", "allchannels"]), "resetchannels", true;
    ProtectedMode "protected-mode" Bool, "yes", true;
    SlowlogLogSlowerThan "slowlog-log-slower-than" Int(-1, MAX), "10000", true;
    SlowlogMaxLen "slowlog-max-len" Int(0, MAX), "128", true;
    TrackingTableMaxKeys "tracking-table-max-keys" Int(0, MAX), "1000000", true;
    LatencyMonitorThreshold "latency-monitor-threshold" Int(0, MAX), "0", true;
    LatencyTracking "latency-tracking" Bool, "yes", true;
    BusyReplyThreshold "busy-reply-threshold" = "lua-time-limit" Int(0, MAX), "5000", true;
    ScriptMemoryLimit "script-memory-limit" Memory(1_048_576, MAX), "268435456", true;
    NotifyKeyspaceEvents "notify-keyspace-events" Events, "", true;
    Port "port" Int(0, 65535), "6379", false;
    TlsPort "tls-port" Int(0, 65535), "0", false;
    TlsCertFile "tls-cert-file" Text, "", false;
    TlsKeyFile "tls-key-file" Text, "", false;
    TlsCaCertFile "tls-ca-cert-file" Text, "", false;
    TlsAuthClients "tls-auth-clients" Word(&["no", "yes", "optional"]), "yes", false;
    Unixsocket "unixsocket" Text, "", false;
    Bind "bind" Text, "127.0.0.1", false;
    Dir "dir" Text, "./data", false;
    Loglevel "loglevel" Word(&["error", "warn", "info", "debug", "trace"]), "info", false;
    Threads "threads" Int(1, 1024), "1", false;
    ShutdownTimeout "shutdown-timeout" Int(0, INT), "10", false;
    Save "save" SavePoints, "", true;
    Dbfilename "dbfilename" FileName, "dump.rdb", true;
    Appendonly "appendonly" Bool, "no", false;
    Hz "hz" Int(1, 500), "10", true;
    ActiveExpireEffort "active-expire-effort" Int(1, 10), "1", true;
    LazyfreeLazyUserFlush "lazyfree-lazy-user-flush" Bool, "yes", true;
    ClientOutputBufferLimit "client-output-buffer-limit" OutputLimits, OUTPUT_LIMITS, true;
    LatencyTrackingInfoPercentiles "latency-tracking-info-percentiles" Percentiles, "50 99 99.9", true;
    // Without effect, for what sets them unasked. Tables always grow a little with each change, what is expensive to free
    // is always freed on another thread, and eviction ends when there is room.
    Activerehashing "activerehashing" Bool, "yes", true;
    DynamicHz "dynamic-hz" Bool, "yes", true;
    LazyfreeLazyEviction "lazyfree-lazy-eviction" Bool, "yes", true;
    LazyfreeLazyExpire "lazyfree-lazy-expire" Bool, "yes", true;
    LazyfreeLazyServerDel "lazyfree-lazy-server-del" Bool, "yes", true;
    LazyfreeLazyUserDel "lazyfree-lazy-user-del" Bool, "yes", true;
    MaxmemoryEvictionTenacity "maxmemory-eviction-tenacity" Int(0, 100), "10", true;
}

impl Id {
    pub(super) fn directive(self) -> &'static Directive {
        &DIRECTIVES[self as usize]
    }

    /// The directive of this name, in any case.
    pub(super) fn named(name: &str) -> Option<Self> {
        IDS.iter().copied().find(|id| {
            let directive = id.directive();
            directive.name.eq_ignore_ascii_case(name)
                || directive.alias.is_some_and(|alias| alias.eq_ignore_ascii_case(name))
        })
    }
}

/// The letters of `notify-keyspace-events` with their bits.
const EVENT_LETTERS: &[(char, u32)] = &[
    ('K', 1),
    ('E', 1 << 1),
    ('g', 1 << 2),
    ('$', 1 << 3),
    ('l', 1 << 4),
    ('s', 1 << 5),
    ('h', 1 << 6),
    ('z', 1 << 7),
    ('x', 1 << 8),
    ('e', 1 << 9),
    ('t', 1 << 10),
    ('m', 1 << 11),
    ('d', 1 << 13),
    ('n', 1 << 14),
];

/// What `A` stands for: everything but missed and new keys.
const ALL_EVENTS: u32 = 0b10_0111_1111_1100;

/// The bits of a text of letters.
pub(super) fn parse_events(text: &str) -> Option<u32> {
    text.chars().try_fold(0, |bits, letter| {
        if letter == 'A' {
            return Some(bits | ALL_EVENTS);
        }
        EVENT_LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| bits | bit)
    })
}

/// The letters of these bits, as Redis shows them: `A` first if all are there, `K` and `E` at the end.
pub(super) fn format_events(bits: u32) -> String {
    let mut text = String::new();
    let all = bits & ALL_EVENTS == ALL_EVENTS;
    if all {
        text.push('A');
    }
    for order in ["g$lshzxetdn", "KEm"] {
        for letter in order.chars() {
            let bit = EVENT_LETTERS.iter().find(|(known, _)| *known == letter).map_or(0, |(_, bit)| *bit);
            if bits & bit != 0 && !(all && bit & ALL_EVENTS != 0) {
                text.push(letter);
            }
        }
    }
    text
}
