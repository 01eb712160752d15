//! The server as a whole: what all connections share.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::acl::Acl;
use crate::clients::Clients;
use crate::clock;
use crate::config::{Config, Id, Settings};
use crate::growth::GrowthMonitor;
use crate::latency::LatencyMonitor;
use crate::lazy_free::LazyFree;
use crate::libraries::Libraries;
use crate::pause::Pause;
use crate::protocol::ReplyError;
use crate::ratelimit::RateLimits;
use crate::ratelimit::leases::Leases;
use crate::scripts::Scripts;
use crate::slow_log::SlowLog;
use crate::snapshots::Snapshots;
use crate::telemetry::Telemetry;
use crate::tiers::database::shared::Shared;
use crate::tiers::database::tier::Tier;
use crate::tiers::database::write_behind::WriteBehind;
use crate::tiers::local::{Effects, Event, EventClass, Keyspace, Waiter, memory};
use crate::tiers::upstream::Upstream;

/// What is left to the thread for what takes long.
pub enum Apart {
    /// A command; the waiter is finished with its reply.
    Command(Arc<Waiter>),
    /// What changes left to be done.
    Effects(Effects),
}

/// Everything that outlives a connection.
pub struct Instance {
    /// The keys.
    pub keyspace: Keyspace,
    /// The Redis behind this server, if there is one.
    pub upstream: Option<Arc<Upstream>>,
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// What the server was started with.
    pub config: Config,
    /// The users, and what they may do.
    pub acl: Acl,
    /// The connected clients.
    pub clients: Clients,
    /// What is counted.
    pub telemetry: Telemetry,
    /// Commands that took long.
    pub slow_log: Mutex<SlowLog>,
    /// Events that took long.
    pub latency: Mutex<LatencyMonitor>,
    /// `CLIENT PAUSE`.
    pub pause: Pause,
    /// The policies of rate limits, and what they admitted and refused.
    pub limits: RateLimits,
    /// Permits of limits over all hosts that this one holds.
    pub leases: Leases<ReplyError>,
    /// Scripts by their digests, and which run long.
    pub scripts: Scripts,
    /// Libraries of functions.
    pub libraries: Libraries,
    /// Which keys only grow in number.
    pub growth: Mutex<GrowthMonitor>,
    /// Bytes in use when the server had just started.
    pub startup_memory: usize,
    /// Names this process among all that ever were.
    pub run_id: String,
    /// When it started.
    pub started: std::time::Instant,
    /// Whether keys past their deadline are looked for (`DEBUG SET-ACTIVE-EXPIRE`).
    pub active_expire: AtomicBool,
    io_uring: AtomicBool,
    serving: AtomicBool,
    stopping: AtomicBool,
    stop: tokio::sync::Notify,
    /// Frees what takes long.
    pub lazy_free: LazyFree,
    /// Files with all keys.
    pub snapshots: Snapshots,
    /// Whether `SHUTDOWN` said to write one, or not to.
    pub last_snapshot: Mutex<Option<bool>>,
    apart: Sender<Apart>,
    write_behind: OnceLock<WriteBehind>,
    /// What is to be done apart from the worker threads; the engine takes the receiver when it starts its thread.
    pub apart_queue: Mutex<Option<Receiver<Apart>>>,
}

impl Instance {
    /// An empty server with this configuration. It lives as long as the process: no request counts references.
    ///
    /// # Errors
    /// If the thread that frees memory cannot be started.
    pub fn start(config: Config) -> std::io::Result<&'static Self> {
        let settings = config.settings.clone();
        let lazy_free = LazyFree::start()?;
        let (apart, apart_queue) = std::sync::mpsc::channel();
        let databases = settings.int(Id::Databases) as usize;
        let upstream = config.upstream.as_ref().map(|section| Upstream::new(section, &config.keys));
        let upstream = upstream.transpose()?.map(Arc::new);
        let run_id = std::iter::repeat_with(|| fastrand::digit(16));
        let instance: &'static Self = Box::leak(Box::new(Self {
            keyspace: Keyspace::new(databases, settings.clone()),
            settings,
            limits: RateLimits::new(&config.policies),
            upstream,
            config,
            acl: Acl::default(),
            clients: Clients::default(),
            telemetry: Telemetry::new(),
            slow_log: Mutex::new(SlowLog::default()),
            latency: Mutex::new(LatencyMonitor::default()),
            pause: Pause::default(),
            leases: Leases::default(),
            scripts: Scripts::default(),
            libraries: Libraries::default(),
            growth: Mutex::new(GrowthMonitor::default()),
            startup_memory: memory::used(),
            run_id: run_id.take(40).collect(),
            started: clock::monotonic(),
            active_expire: AtomicBool::new(true),
            io_uring: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: tokio::sync::Notify::new(),
            lazy_free,
            snapshots: Snapshots::default(),
            last_snapshot: Mutex::new(None),
            apart,
            write_behind: OnceLock::new(),
            apart_queue: Mutex::new(Some(apart_queue)),
        }));
        instance.keyspace.set_listener(&instance.clients);
        if let Some(upstream) = &instance.upstream {
            upstream.near.set_listener(&instance.clients);
        }
        Ok(instance)
    }

    /// The database that clients begin in.
    pub fn first_db(&self) -> usize {
        self.upstream.as_ref().map_or(0, |upstream| upstream.config.endpoint.db)
    }

    /// Notes an event for the latency monitor, if it took longer than its threshold.
    #[inline]
    pub fn note_latency(&self, event: &'static str, millis: u64) {
        if millis > 0 {
            self.note_long(event, millis);
        }
    }

    #[cold]
    fn note_long(&self, event: &'static str, millis: u64) {
        let threshold = self.settings.int(Id::LatencyMonitorThreshold);
        if threshold > 0 && millis >= threshold as u64 {
            self.latency.lock().add(event, clock::wall_ms() / 1000, millis);
        }
    }

    /// Has a command run apart from the worker threads; the waiter is finished with its reply.
    pub fn run_apart(&self, waiter: Arc<Waiter>) {
        // The receiver ends only with the process.
        drop(self.apart.send(Apart::Command(waiter)));
    }

    /// Says something on a channel; returns how many subscriptions heard it.
    pub fn publish(&self, channel: &[u8], text: &[u8]) -> usize {
        if self.clients.subscriptions.is_empty() {
            return 0;
        }
        self.clients.subscriptions.publish(channel, text, self.most_unheard())
    }

    /// The same on a channel of a shard.
    pub fn publish_sharded(&self, channel: &[u8], text: &[u8]) -> usize {
        self.clients.subscriptions.publish_sharded(channel, text, self.most_unheard())
    }

    /// How many bytes of messages may wait for a subscriber.
    fn most_unheard(&self) -> usize {
        match self.settings.output_limits().pubsub.hard {
            0 => usize::MAX,
            hard => hard as usize,
        }
    }

    /// Tells those who listen what happened to keys, as `notify-keyspace-events` says.
    pub fn publish_events(&self, events: &[(usize, Event, Box<[u8]>)]) {
        let subscriptions = &self.clients.subscriptions;
        if events.is_empty() || subscriptions.is_empty() {
            return;
        }
        let most = self.most_unheard();
        let kinds = self.settings.int(Id::NotifyKeyspaceEvents) as u32;
        for (db, event, key) in events {
            if kinds & EventClass::KEYSPACE != 0 {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
                subscriptions.publish(&channel, event.name.as_bytes(), most);
            }
            if kinds & EventClass::KEYEVENT != 0 {
                let channel = format!("__keyevent@{db}__:{}", event.name);
                subscriptions.publish(channel.as_bytes(), key, most);
            }
        }
    }

    /// Has what changes left to be done carried out apart from the worker threads.
    pub fn settle_apart(&self, effects: Effects) {
        // The receiver ends only with the process.
        drop(self.apart.send(Apart::Effects(effects)));
    }

    /// Puts the database behind the keyspace, or behind upstream. Once, before anybody is served.
    pub fn attach_database(&self, tier: WriteBehind) {
        if let WriteBehind::Local(tier) = *self.write_behind.get_or_init(|| tier) {
            self.keyspace.attach(tier);
        }
    }

    /// The database tier, if there is one.
    #[inline]
    pub fn write_behind(&self) -> Option<WriteBehind> {
        self.write_behind.get().copied()
    }

    /// The database behind the keyspace, if there is one.
    #[inline]
    pub fn database(&self) -> Option<&'static Tier> {
        match self.write_behind.get() {
            Some(WriteBehind::Local(tier)) => Some(tier),
            _ => None,
        }
    }

    /// The database behind upstream, if there is one.
    #[inline]
    pub fn shared_database(&self) -> Option<&'static Shared> {
        match self.write_behind.get() {
            Some(WriteBehind::Shared(shared)) => Some(shared),
            _ => None,
        }
    }

    /// Ends the server in good order (`SHUTDOWN`, SIGTERM).
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.stop.notify_one();
    }

    /// Sockets are read and written by io_uring.
    pub fn use_io_uring(&self) {
        self.io_uring.store(true, Relaxed);
    }

    /// Whether they are.
    pub fn uses_io_uring(&self) -> bool {
        self.io_uring.load(Relaxed)
    }

    /// From here on clients are served.
    pub fn begin_serving(&self) {
        self.serving.store(true, Relaxed);
    }

    /// Whether clients are served, and will be for a while.
    pub fn is_ready(&self) -> bool {
        self.serving.load(Relaxed) && !self.is_stopping()
    }

    /// Whether the server is ending.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Resolves when the server is to end.
    pub async fn stopped(&self) {
        self.stop.notified().await;
    }
}
