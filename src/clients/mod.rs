//! Connected clients: what each connection keeps for itself, and what others may see of it.

mod monitors;
mod pushes;
mod subscriptions;
mod tracking;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

pub use monitors::Monitors;
pub use pushes::Pushes;
pub use subscriptions::{Audience, Subscriptions};
pub use tracking::{Tracker, Tracking, TrackingOptions, note_running};

use crate::acl::{DEFAULT, Rules, User};
use crate::protocol::{Args, OwnedArgs, Protocol};
use crate::tiers::local::{Keyspace, Waiter, WatchFlag};
use crate::tiers::upstream::{Stream, Watched};

/// Bytes of messages that may wait for a client.
const MAX_PUSHES: usize = 32 << 20;

/// What other connections may see of a client, and how they reach it.
pub struct Client {
    /// Unique since the start.
    pub id: u64,
    /// The peer's address, or the socket's path.
    pub address: String,
    /// Our own end.
    pub local_address: String,
    /// The descriptor's number.
    pub fd: i32,
    /// Wall-clock milliseconds of its connecting.
    pub connected_ms: u64,
    /// Whether it came over the Unix socket.
    pub is_unix: bool,
    /// Wall-clock milliseconds of its last request.
    pub last_request_ms: AtomicU64,
    /// The place of its last command in the command table.
    pub last_command: AtomicUsize,
    /// Its database.
    pub db: AtomicUsize,
    /// Whether it speaks RESP3.
    pub resp3: AtomicBool,
    /// Commands queued in its transaction, plus one; 0 outside of one.
    pub queued: AtomicUsize,
    /// Keys it watches.
    pub watching: AtomicUsize,
    /// Bytes of a request that is not complete.
    pub query_buffer: AtomicUsize,
    /// Bytes of replies it has not taken yet.
    pub output_buffer: AtomicUsize,
    /// Bytes it has queued for its transaction.
    pub transaction_memory: AtomicUsize,
    /// Not to be evicted.
    pub no_evict: AtomicBool,
    /// Does not change access records.
    pub no_touch: AtomicBool,
    /// Is shown what runs.
    pub monitors: AtomicBool,
    /// Names it gave itself.
    pub names: Mutex<ClientNames>,
    /// What it waits for, while it is blocked.
    pub blocked: Mutex<Option<Arc<Waiter>>>,
    /// Messages that it is to get between replies.
    pub pushes: Pushes,
    /// Channels, patterns and channels of shards that it listens to: how many of each.
    pub subscribed: [AtomicUsize; 3],
    killed: AtomicBool,
    wake: Wake,
}

/// What a client says of itself.
#[derive(Debug, Default, Clone)]
pub struct ClientNames {
    /// `CLIENT SETNAME`
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`
    pub library: String,
    /// `CLIENT SETINFO LIB-VER`
    pub library_version: String,
    /// The ACL user.
    pub user: String,
}

impl Client {
    /// A client that just connected. One that is on no list is the server's own.
    pub fn new(id: u64, origin: Origin, now_ms: u64) -> Self {
        let names = ClientNames { user: "default".to_owned(), ..ClientNames::default() };
        Self {
            id,
            address: origin.address,
            local_address: origin.local_address,
            fd: origin.fd,
            is_unix: origin.is_unix,
            connected_ms: now_ms,
            last_request_ms: AtomicU64::new(now_ms),
            last_command: AtomicUsize::new(usize::MAX),
            db: AtomicUsize::new(0),
            resp3: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            watching: AtomicUsize::new(0),
            query_buffer: AtomicUsize::new(0),
            output_buffer: AtomicUsize::new(0),
            transaction_memory: AtomicUsize::new(0),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            monitors: AtomicBool::new(false),
            names: Mutex::new(names),
            blocked: Mutex::new(None),
            pushes: Pushes::default(),
            subscribed: Default::default(),
            killed: AtomicBool::new(false),
            wake: Wake::default(),
        }
    }

    /// Closes the connection as soon as its task notices.
    pub fn kill(&self) {
        self.killed.store(true, Relaxed);
        self.wake.raise();
    }

    /// Whether it listens to anything.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed.iter().any(|count| count.load(Relaxed) > 0)
    }

    /// Sends a message, behind the replies of what has run. Who lets too much of them wait is disconnected.
    pub fn push(&self, message: &[u8]) {
        self.push_within(message, MAX_PUSHES);
    }

    /// The same with so many bytes for too much.
    pub fn push_within(&self, message: &[u8], most: usize) {
        if self.pushes.add(message) > most {
            tracing::warn!(client = self.id, "closing: it does not take the messages it asked for");
            self.kill();
        }
        self.wake.raise();
    }

    /// Makes the connection's task look around.
    pub fn wake(&self) {
        self.wake.raise();
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    /// Resolves when something happened that the connection's task must look at.
    pub async fn woken(&self) {
        std::future::poll_fn(|context| self.poll_woken(context)).await;
    }

    /// The same for whoever polls: the task of `context` is woken next.
    #[inline]
    pub fn poll_woken(&self, context: &mut Context<'_>) -> Poll<()> {
        self.wake.poll_raised(context)
    }
}

/// A flag that one task waits for. Looking at it costs a connection with every read, so it is less than a `Notify`.
#[derive(Default)]
struct Wake {
    raised: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Wake {
    fn raise(&self) {
        self.raised.store(true, Release);
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
    }

    /// Takes the flag down if it is up.
    fn poll_raised(&self, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut waker = self.waker.lock();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
        }
        // After the waker is in place: whoever raises the flag from here on finds it.
        if self.raised.load(Relaxed) && self.raised.swap(false, Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// All connected clients.
#[derive(Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    count: AtomicUsize,
    blocked: AtomicUsize,
    /// Who is told of changes.
    pub tracking: Tracking,
    /// Who hears what is published.
    pub subscriptions: Subscriptions,
    /// Who is shown what runs.
    pub monitors: Monitors,
}

/// Where a new connection comes from.
pub struct Origin {
    /// The peer's address, or the socket's path.
    pub address: String,
    /// Our own end.
    pub local_address: String,
    /// The descriptor's number.
    pub fd: i32,
    /// Whether it came over the Unix socket.
    pub is_unix: bool,
}

impl Clients {
    /// Adds a connection, unless there are `limit` already.
    pub fn add(&self, origin: Origin, now_ms: u64, limit: usize) -> Option<Arc<Client>> {
        let mut connected = self.connected.lock();
        if connected.len() >= limit {
            return None;
        }
        let id = self.next_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client::new(id, origin, now_ms));
        connected.insert(id, client.clone());
        self.count.store(connected.len(), Relaxed);
        Some(client)
    }

    /// Removes a connection that is gone.
    pub fn remove(&self, id: u64) {
        let mut connected = self.connected.lock();
        connected.remove(&id);
        self.count.store(connected.len(), Relaxed);
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    /// The one with this id.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.connected.lock().get(&id).cloned()
    }

    /// Notes what a client is blocked on, or that it no longer is.
    pub fn set_blocked(&self, client: &Client, waiter: Option<Arc<Waiter>>) {
        let mut blocked = client.blocked.lock();
        match (blocked.is_some(), waiter.is_some()) {
            (false, true) => drop(self.blocked.fetch_add(1, Relaxed)),
            (true, false) => drop(self.blocked.fetch_sub(1, Relaxed)),
            _ => {}
        }
        *blocked = waiter;
    }

    /// How many are blocked.
    pub fn blocked(&self) -> usize {
        self.blocked.load(Relaxed)
    }
}

/// Which replies a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// Not this one, and not the next.
    SkipThis,
    /// Not the next one.
    SkipNext,
}

/// Whether `CLIENT CACHING` was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Caching {
    /// No.
    #[default]
    Unsaid,
    /// Right now: it is for the next command.
    Said,
    /// It is for this command, or transaction.
    Due,
}

/// The state of one connection, owned by its task.
pub struct Session {
    /// What others see of it.
    pub client: Arc<Client>,
    /// The database it works on.
    pub db: usize,
    /// The protocol it speaks.
    pub protocol: Protocol,
    /// Who it is.
    pub user: Arc<User>,
    /// Whether it may do anything but authenticate.
    pub authenticated: bool,
    /// Which replies it wants.
    pub reply_mode: ReplyMode,
    /// The transaction it is in.
    pub transaction: Option<Transaction>,
    /// Keys it watches.
    pub watched: Vec<(usize, Box<[u8]>)>,
    /// Raised when one of them changes.
    pub watch_flag: WatchFlag,
    /// Its own connection upstream, while it watches keys there.
    pub watched_upstream: Option<Watched>,
    /// Its own connection upstream, while it has subscriptions there.
    pub stream: Option<Stream>,
    /// What it listens to.
    pub subscribed: [BTreeSet<Box<[u8]>>; 3],
    /// Whether that is anything.
    pub is_subscribed: bool,
    /// How it is told of changes of what it reads.
    pub tracking: Option<Arc<Tracker>>,
    /// Whether `CLIENT CACHING` came right before.
    pub caching: Caching,
    /// The connection ends once its replies are out.
    pub closing: bool,
    /// The time, in microseconds, if it stands still: within a script.
    pub frozen_us: Option<u64>,
    /// Milliseconds that it is to wait before its command's reply (`DEBUG SLEEP`).
    pub sleep_ms: Option<u64>,
}

/// Commands queued between `MULTI` and `EXEC`.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Places in the command table, with arguments.
    pub queue: VecDeque<(usize, OwnedArgs)>,
    /// The commands, if they go upstream; those that have no row have no place.
    pub forwarded: Vec<(Option<usize>, OwnedArgs)>,
    /// A command was refused: `EXEC` will be too.
    pub is_broken: bool,
    memory: usize,
}

impl Transaction {
    /// Queues a command.
    pub fn push(&mut self, command: usize, args: Args<'_>) {
        let args = args.to_owned();
        self.memory += args.memory();
        self.queue.push_back((command, args));
    }

    /// Queues a command that goes upstream.
    pub fn push_forwarded(&mut self, command: Option<usize>, args: Args<'_>) {
        let args = args.to_owned();
        self.memory += args.memory();
        self.forwarded.push((command, args));
    }

    /// Bytes the queue holds.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl Session {
    /// A session as a new connection has it.
    pub fn new(client: Arc<Client>, user: Arc<User>, authenticated: bool) -> Self {
        Self {
            client,
            user,
            db: 0,
            protocol: Protocol::Resp2,
            authenticated,
            reply_mode: ReplyMode::On,
            transaction: None,
            watched: Vec::new(),
            watch_flag: WatchFlag::default(),
            watched_upstream: None,
            stream: None,
            subscribed: Default::default(),
            is_subscribed: false,
            tracking: None,
            caching: Caching::Unsaid,
            closing: false,
            frozen_us: None,
            sleep_ms: None,
        }
    }

    /// A session of the server's own, which may do everything.
    pub fn own(client: Arc<Client>) -> Self {
        Self::new(client, Arc::new(User::new(DEFAULT, Rules::all())), true)
    }

    /// Is somebody from here on.
    pub fn become_user(&mut self, user: Arc<User>) {
        self.client.names.lock().user = user.shown();
        self.user = user;
        self.authenticated = true;
    }

    /// Works on another database.
    pub fn select(&mut self, db: usize) {
        self.db = db;
        self.client.db.store(db, Relaxed);
    }

    /// Listens to something from here on.
    pub fn subscribe(&mut self, clients: &Clients, audience: Audience, name: &[u8]) {
        if self.subscribed[audience as usize].insert(name.into()) {
            clients.subscriptions.add(audience, name, &self.client);
            self.note_subscribed(audience);
        }
    }

    /// Listens to it no more.
    pub fn unsubscribe(&mut self, clients: &Clients, audience: Audience, name: &[u8]) {
        if self.subscribed[audience as usize].remove(name) {
            clients.subscriptions.remove(audience, name, &self.client);
            self.note_subscribed(audience);
        }
    }

    /// Listens to nothing any more.
    pub fn unsubscribe_all(&mut self, clients: &Clients) {
        if !self.is_subscribed {
            return;
        }
        for audience in [Audience::Channel, Audience::Pattern, Audience::Shard] {
            for name in std::mem::take(&mut self.subscribed[audience as usize]) {
                clients.subscriptions.remove(audience, &name, &self.client);
            }
            self.note_subscribed(audience);
        }
    }

    fn note_subscribed(&mut self, audience: Audience) {
        let count = self.subscribed[audience as usize].len();
        self.client.subscribed[audience as usize].store(count, Relaxed);
        self.is_subscribed = self.subscribed.iter().any(|names| !names.is_empty());
    }

    /// Is told of changes from here on, or told in another way.
    pub fn begin_tracking(&mut self, tracker: Arc<Tracker>, clients: &Clients, keyspace: &Keyspace) {
        clients.tracking.enable(tracker.clone());
        if self.tracking.replace(tracker).is_none() {
            keyspace.begin_listening();
        }
    }

    /// Is told no more.
    pub fn end_tracking(&mut self, clients: &Clients, keyspace: &Keyspace) {
        if let Some(tracker) = self.tracking.take() {
            keyspace.end_listening();
            clients.tracking.disable(&tracker);
        }
        self.caching = Caching::Unsaid;
    }

    /// Speaks another protocol.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.resp3.store(protocol == Protocol::Resp3, Relaxed);
    }
}
