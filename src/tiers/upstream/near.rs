//! The near cache: replies of reads by key and request, dropped when the key changes.
//!
//! What may be kept, [`KeyState`] decides; here is where it is kept, for how long, and who waits for a read that another
//! client has sent. A key has one record whatever its database, because invalidations do not name one. Entries carry the
//! epoch that they were read in; a new epoch makes all of them dead at once. Locks are held for a look or a change of one
//! record, never while bytes are sent.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, RwLock};

use super::coherence::{KeyState, Lease};
use super::gather::{Outcome, Ticket};
pub use super::records::Request;
use super::records::{Entry, Flight, OVERHEAD, Question, Record, Shard};
use super::statistics::{Statistics, count};
use crate::tiers::local::Listener;
use crate::types::hasher::hash_bytes;

const SHARDS: usize = 64;
/// A read that must be sent, and what is to become of its reply.
#[derive(Debug)]
pub struct Filling {
    hash: u64,
    key: Box<[u8]>,
    question: Question,
    /// Absent if the reply is not to be kept whatever happens.
    lease: Option<Lease>,
    flight: Arc<Flight>,
    sent_ms: u64,
    /// What a client was given meanwhile, to be compared.
    shadow: Option<Box<[u8]>>,
}

/// What there is for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A reply, which is written.
    Reply {
        /// It expires soon: this caller is to read it again.
        refresh: bool,
    },
}

/// What a miss has led to.
#[derive(Debug)]
pub enum Miss {
    /// Another client's read will answer it.
    Joined,
    /// This caller is to send the read.
    Lead(Filling),
    /// The read is to be sent, and its reply kept by nobody: a write of the key is under way.
    Unkept(Ticket),
}

/// What is kept of a key, for `CACHE.INSPECT`.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyReport {
    /// Replies kept.
    pub replies: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Milliseconds since the oldest was read.
    pub age_ms: u64,
    /// Milliseconds until the first expires.
    pub ttl_ms: u64,
    /// Whether a read of it is under way.
    pub is_filling: bool,
    /// How often what is kept of this key was dropped, as far as is known.
    pub version: u64,
}

/// The near cache.
#[derive(Debug)]
pub struct Near {
    shards: Box<[CachePadded<RwLock<Shard>>]>,
    epoch: AtomicU64,
    listener: OnceLock<&'static dyn Listener>,
    /// Writes of ours under way that may concern every key.
    writes_to_all: AtomicUsize,
    /// Until when upstream's last word stands.
    fresh_until_ms: AtomicU64,
    heartbeat_ms: u64,
    /// For how long what upstream said last may be served behind that.
    stale_ms: u64,
    early_refresh: bool,
    hand: AtomicUsize,
    statistics: Arc<Statistics>,
}

impl Near {
    /// An empty cache that may serve nothing before upstream was heard.
    pub fn new(heartbeat_ms: u64, stale_ms: u64, early_refresh: bool, statistics: Arc<Statistics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            epoch: AtomicU64::new(0),
            listener: OnceLock::new(),
            writes_to_all: AtomicUsize::new(0),
            fresh_until_ms: AtomicU64::new(0),
            heartbeat_ms,
            stale_ms,
            early_refresh,
            hand: AtomicUsize::new(0),
            statistics,
        }
    }

    /// Upstream answered what was sent at `sent_ms`, so that every invalidation up to then is here.
    pub fn heard(&self, sent_ms: u64) {
        self.fresh_until_ms.fetch_max(sent_ms + self.heartbeat_ms, Ordering::Release);
    }

    /// Whether upstream's last word is older than it may be.
    pub fn is_stale(&self, now_ms: u64) -> bool {
        now_ms > self.fresh_until_ms.load(Ordering::Acquire)
    }

    /// All that is kept or under way is dropped.
    pub fn drop_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        count(&self.statistics.flushes);
        self.tell_flushed();
    }

    /// Has those told who keep what they read: upstream will not tell us of all that changes.
    pub fn tell_flushed(&self) {
        if let Some(listener) = self.listener.get() {
            listener.flushed();
        }
    }

    /// Whether anybody wants to hear of changes of keys that were not read here.
    pub fn has_broadcasts(&self) -> bool {
        self.listener.get().is_some_and(|listener| listener.has_others())
    }

    /// Has those told of a change.
    pub fn tell_broadcast(&self, key: &[u8]) {
        if let Some(listener) = self.listener.get() {
            listener.changed_for_others(key);
        }
    }

    /// Has those told that they may have missed any.
    pub fn tell_missed(&self) {
        if let Some(listener) = self.listener.get() {
            listener.missed_by_others();
        }
    }

    /// Has somebody told of what upstream says. Once, before anybody is served.
    pub fn set_listener(&self, listener: &'static dyn Listener) {
        self.listener.get_or_init(|| listener);
    }

    /// How often all was dropped.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Starts the key's record on its way into the processor's cache. Does nothing if somebody else changes the shard.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) {
        if let Some(shard) = self.shard(hash).try_read() {
            shard.prefetch_record(hash);
        }
    }

    /// Starts the key's bytes and its first reply on their way, once its record is there.
    #[inline]
    pub fn prefetch_reply(&self, hash: u64) {
        if let Some(shard) = self.shard(hash).try_read() {
            shard.prefetch_reply(hash);
        }
    }

    /// Writes the reply that is kept for a read, if there is one.
    #[inline]
    pub fn find(&self, request: &Request<'_>, now_ms: u64, out: &mut Vec<u8>) -> Found {
        self.find_if(request, now_ms, |_| true, out)
    }

    /// The same for a reply that satisfies `fits`.
    #[inline]
    pub fn find_if(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        fits: impl Fn(&[u8]) -> bool,
        out: &mut Vec<u8>,
    ) -> Found {
        let fresh_until = self.fresh_until_ms.load(Ordering::Acquire);
        let is_stale = now_ms > fresh_until;
        if is_stale && now_ms > fresh_until + self.stale_ms || self.writes_to_all.load(Ordering::Acquire) > 0
        {
            return Found::Nothing;
        }
        let shard = self.shard(request.hash).read();
        let Some(record) = shard.find(request.hash, request.args.at(request.key_at)) else {
            return Found::Nothing;
        };
        if record.state.is_written() {
            return Found::Nothing;
        }
        let Some(entry) = record.entries.iter().find(|entry| entry.question.is(request)) else {
            return Found::Nothing;
        };
        if entry.epoch != self.epoch() || now_ms >= entry.deadline_ms || !fits(&entry.reply) {
            return Found::Nothing;
        }
        record.is_used.store(true, Ordering::Relaxed);
        out.extend_from_slice(&entry.reply);
        count(&self.statistics.hits);
        if let Some(counts) = shard.prefixes.at(record.prefix) {
            count(&counts.hits);
        }
        if is_stale {
            count(&self.statistics.stale_hits);
        }
        let refresh =
            self.early_refresh && is_due(entry, now_ms) && !entry.is_refreshed.swap(true, Ordering::Relaxed);
        Found::Reply { refresh }
    }

    /// Takes part in the reading of what is not there: joins a read that is under way or leads a new one.
    pub fn miss(&self, request: &Request<'_>, now_ms: u64, ticket: Ticket) -> Miss {
        count(&self.statistics.misses);
        let mut shard = self.shard(request.hash).write();
        let epoch = self.epoch();
        if self.writes_to_all.load(Ordering::Acquire) > 0 {
            return Miss::Unkept(ticket);
        }
        let key = request.args.at(request.key_at);
        let place = shard.find_or_add(request.hash, key);
        let Shard { records, prefixes, .. } = &mut *shard;
        let Some(record) = &mut records[place as usize] else { return Miss::Unkept(ticket) };
        if let Some(counts) = prefixes.at(record.prefix) {
            count(&counts.misses);
        }
        if let Some((_, flight)) = record.flights.iter().find(|(question, _)| question.is(request)) {
            flight.0.lock().push(ticket);
            count(&self.statistics.joined);
            return Miss::Joined;
        }
        let Some(lease) = record.state.lease(epoch) else { return Miss::Unkept(ticket) };
        let flight = Arc::new(Flight(Mutex::new(vec![ticket])));
        record.flights.push((Question::of(request), flight.clone()));
        let (hash, key, question) = (request.hash, key.into(), Question::of(request));
        Miss::Lead(Filling { hash, key, question, lease: Some(lease), flight, sent_ms: now_ms, shadow: None })
    }

    /// A read that nobody waits for: it refreshes what is kept, and compares it with `shadow`, what was served.
    pub fn read_again(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        shadow: Option<Box<[u8]>>,
    ) -> Option<Filling> {
        let mut shard = self.shard(request.hash).write();
        let epoch = self.epoch();
        let key = request.args.at(request.key_at);
        let place = shard.find_or_add(request.hash, key);
        let record = shard.records[place as usize].as_mut()?;
        let lease = record.state.lease(epoch);
        if lease.is_none() {
            shard.tidy(place);
            return None;
        }
        let (hash, key, question) = (request.hash, key.into(), Question::of(request));
        Some(Filling { hash, key, question, lease, flight: Arc::default(), sent_ms: now_ms, shadow })
    }

    /// The read has ended: keeps its reply until the deadline, if it may be kept, and gives it to all who wait.
    ///
    /// `as_command` is the question that is answered, if it is another than the one that was asked (`MGET` reads what
    /// `GET` asks for).
    pub fn settle(
        &self,
        filling: Filling,
        outcome: &Outcome,
        keep_until: Option<u64>,
        as_command: Option<usize>,
    ) {
        let now_ms = crate::clock::steady_ms(crate::clock::ticks());
        let mut garbage = None;
        if let Some(lease) = &filling.lease {
            let mut shard = self.shard(filling.hash).write();
            let place = shard.place(filling.hash, &filling.key);
            let Shard { records, prefixes, .. } = &mut *shard;
            if let Some(place) = place
                && let Some(record) = &mut records[place as usize]
            {
                record.flights.retain(|(_, flight)| !Arc::ptr_eq(flight, &filling.flight));
                let stands = record.state.redeem(lease, self.epoch());
                let counter = if stands { &self.statistics.fills } else { &self.statistics.voided };
                match (outcome, keep_until) {
                    (Ok(reply), Some(deadline_ms)) => {
                        count(counter);
                        if stands {
                            if let Some(shadow) = &filling.shadow {
                                count(&self.statistics.shadowed);
                                if shadow != reply {
                                    count(&self.statistics.mismatches);
                                }
                            }
                            let mut question = filling.question;
                            if let Some(command) = as_command {
                                question.command = command as u32;
                            }
                            let entry = Entry {
                                question,
                                reply: reply.clone(),
                                epoch: lease.epoch(),
                                filled_ms: now_ms,
                                deadline_ms,
                                load_ms: now_ms.saturating_sub(filling.sent_ms).min(u32::MAX.into()) as u32,
                                is_refreshed: AtomicBool::new(false),
                            };
                            record.is_used.store(true, Ordering::Relaxed);
                            if let Some(counts) = prefixes.at(record.prefix) {
                                count(&counts.fills);
                            }
                            garbage = record.keep(entry);
                        }
                    }
                    // What is kept answers no longer.
                    (Ok(_), None) if stands => {
                        record.entries.retain(|entry| entry.question != filling.question);
                    }
                    _ => {}
                }
                shard.tidy(place);
            }
        }
        drop(garbage);
        let tickets = std::mem::take(&mut *filling.flight.0.lock());
        for ticket in tickets {
            ticket.fulfil(outcome.clone());
        }
    }

    /// Upstream says that a key has changed.
    pub fn invalidate(&self, key: &[u8]) {
        count(&self.statistics.invalidations);
        self.change(hash_bytes(key), key, KeyState::invalidate);
        // Whoever is told must not find it here any more.
        if let Some(listener) = self.listener.get() {
            listener.changed_for_readers(key);
        }
    }

    fn change(&self, hash: u64, key: &[u8], change: impl FnOnce(&mut KeyState)) {
        let mut shard = self.shard(hash).write();
        let Some(place) = shard.place(hash, key) else { return };
        let garbage = shard.void(place, change);
        drop(shard);
        drop(garbage);
    }

    /// A write of ours to a key is about to be sent.
    pub fn begin_write(&self, hash: u64, key: &[u8]) {
        let mut shard = self.shard(hash).write();
        let place = shard.find_or_add(hash, key);
        let garbage = shard.void(place, KeyState::begin_write);
        drop(shard);
        drop(garbage);
    }

    /// It was acknowledged, or lost.
    pub fn end_write(&self, hash: u64, key: &[u8]) {
        self.change(hash, key, KeyState::end_write);
        // Upstream will say so too, but maybe only after the reply to the write, which goes another way.
        if let Some(listener) = self.listener.get() {
            listener.changed_for_readers(key);
        }
    }

    /// A write of ours that may concern every key is about to be sent.
    pub fn begin_write_to_all(&self) {
        self.writes_to_all.fetch_add(1, Ordering::AcqRel);
        self.drop_all();
    }

    /// It was acknowledged, or lost.
    pub fn end_write_to_all(&self) {
        self.drop_all();
        self.writes_to_all.fetch_sub(1, Ordering::AcqRel);
    }

    /// Drops records that were not asked for lately, until about so many bytes are free; says how many are.
    pub fn evict(&self, bytes: usize) -> usize {
        let mut freed = 0;
        // Twice round: the first round may only find that all were used.
        for _ in 0..2 * SHARDS {
            let index = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let (more, garbage) = self.shards[index].write().evict(bytes - freed, &self.statistics);
            drop(garbage);
            freed += more;
            if freed >= bytes {
                break;
            }
        }
        freed
    }

    /// Drops what is dead in one of the shards.
    pub fn sweep(&self, turn: usize, now_ms: u64) {
        let epoch = self.epoch();
        let garbage = self.shards[turn % SHARDS].write().sweep(epoch, now_ms);
        drop(garbage);
    }

    /// How many shards there are to sweep.
    pub const fn shards() -> usize {
        SHARDS
    }

    /// Calls `visit` with the key, and the number and bytes of its live replies.
    pub fn each(&self, mut visit: impl FnMut(&[u8], usize, usize)) {
        let epoch = self.epoch();
        for shard in &self.shards {
            for record in shard.read().records.iter().flatten() {
                let live = record.entries.iter().filter(|entry| entry.epoch == epoch);
                let (count, bytes) = live.fold((0, 0), |(count, bytes), entry| {
                    (count + 1, bytes + entry.reply.len() + entry.question.rest.len())
                });
                if count > 0 {
                    visit(&record.key, count, bytes + record.key.len() + OVERHEAD);
                }
            }
        }
    }

    /// Calls `visit` with prefixes of keys, and how many hits, misses and fills their keys had; `None` for the rest.
    pub fn each_prefix(&self, mut visit: impl FnMut(Option<&[u8]>, [u64; 3])) {
        for shard in &self.shards {
            shard.read().prefixes.each(&mut visit);
        }
    }

    /// Drops what is kept of keys that satisfy `concerns`.
    pub fn drop_keys(&self, concerns: impl Fn(&[u8]) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let mut garbage = Vec::new();
            for place in 0..shard.records.len() as u32 {
                let is_concerned = |record: &Record| concerns(&record.key);
                if shard.records[place as usize].as_ref().is_some_and(is_concerned) {
                    garbage.push(shard.void(place, KeyState::invalidate));
                }
            }
            drop(shard);
        }
    }

    /// What is kept of a key.
    pub fn inspect(&self, key: &[u8], now_ms: u64) -> Option<KeyReport> {
        let hash = hash_bytes(key);
        let shard = self.shard(hash).read();
        let record = shard.find(hash, key)?;
        let epoch = self.epoch();
        let live = || {
            let is_live = |entry: &&Entry| entry.epoch == epoch && entry.deadline_ms > now_ms;
            record.entries.iter().filter(is_live)
        };
        Some(KeyReport {
            replies: live().count(),
            bytes: live().map(|entry| entry.reply.len() + entry.question.rest.len()).sum(),
            age_ms: live().map(|entry| now_ms.saturating_sub(entry.filled_ms)).max().unwrap_or(0),
            ttl_ms: live().map(|entry| entry.deadline_ms.saturating_sub(now_ms)).min().unwrap_or(0),
            is_filling: !record.flights.is_empty(),
            version: epoch,
        })
    }
}

/// XFetch: the nearer the deadline, and the longer the reading takes, the likelier it is time to read again.
fn is_due(entry: &Entry, now_ms: u64) -> bool {
    let ahead = f64::from(entry.load_ms.max(1)) * -fastrand::f64().max(f64::MIN_POSITIVE).ln();
    now_ms as f64 + ahead >= entry.deadline_ms as f64
}

#[cfg(test)]
mod tests {
    use super::super::gather::Gather;
    use super::*;
    use crate::protocol::OwnedArgs;

    fn near() -> Near {
        let near = Near::new(1000, 0, false, Arc::default());
        near.heard(0);
        near
    }

    fn with<T>(words: &[&str], ask: impl FnOnce(&Request<'_>) -> T) -> T {
        let args = OwnedArgs::from_slices(words.iter().map(|word| word.as_bytes()));
        let args = args.as_args();
        let hash = hash_bytes(args.at(1));
        ask(&Request { db: 0, command: 7, args, key_at: 1, has_rest: true, resp3: false, hash })
    }

    fn find(near: &Near, words: &[&str], now_ms: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let found = with(words, |request| near.find(request, now_ms, &mut out));
        (found != Found::Nothing).then_some(out)
    }

    fn lead(near: &Near, words: &[&str]) -> Filling {
        let ticket = Arc::new(Gather::default()).ticket().0;
        match with(words, |request| near.miss(request, 0, ticket)) {
            Miss::Lead(filling) => filling,
            other => panic!("{other:?}"),
        }
    }

    fn fill(near: &Near, words: &[&str], reply: &[u8], deadline_ms: u64) {
        near.settle(lead(near, words), &Ok(reply.into()), Some(deadline_ms), None);
    }

    #[test]
    fn who_keeps_what_he_reads_is_told_of_a_write_of_ours_when_it_ends() {
        #[derive(Default)]
        struct Told(Mutex<Vec<String>>);
        impl Listener for Told {
            fn changed(&self, key: &[u8], _: bool) {
                self.changed_for_readers(key);
            }
            fn changed_for_readers(&self, key: &[u8]) {
                self.0.lock().push(String::from_utf8_lossy(key).into_owned());
            }
            fn changed_for_others(&self, _: &[u8]) {}
            fn has_others(&self) -> bool {
                false
            }
            fn missed_by_others(&self) {}
            fn flushed(&self) {
                self.0.lock().push("all".to_owned());
            }
        }
        let (near, told): (_, &'static Told) = (near(), Box::leak(Box::default()));
        near.set_listener(told);
        near.begin_write(hash_bytes(b"k"), b"k");
        assert!(told.0.lock().is_empty());
        near.end_write(hash_bytes(b"k"), b"k");
        assert_eq!(*told.0.lock(), ["k"], "before the reply goes out, whenever upstream says so");
    }

    #[test]
    fn replies_are_kept_by_request_until_their_deadline() {
        let near = near();
        fill(&near, &["HGET", "k", "a"], b"$1\r\n1\r\n", 100);
        fill(&near, &["HGET", "k", "b"], b"$1\r\n2\r\n", 200);
        assert_eq!(find(&near, &["HGET", "k", "a"], 99).unwrap(), b"$1\r\n1\r\n");
        assert_eq!(find(&near, &["HGET", "k", "b"], 99).unwrap(), b"$1\r\n2\r\n");
        assert!(find(&near, &["HGET", "k", "a"], 100).is_none());
        assert!(find(&near, &["HGET", "k", "c"], 0).is_none());
        assert!(find(&near, &["HGET", "k", "a", "b"], 0).is_none());
        near.invalidate(b"k");
        assert!(find(&near, &["HGET", "k", "b"], 99).is_none());
    }

    #[test]
    fn nothing_is_served_when_upstream_is_silent_unless_stale_is_wanted() {
        let near = near();
        fill(&near, &["GET", "k"], b"_\r\n", 10_000);
        assert!(find(&near, &["GET", "k"], 1000).is_some());
        assert!(find(&near, &["GET", "k"], 1001).is_none());
        let stale = Near::new(1000, 500, false, Arc::default());
        stale.heard(0);
        fill(&stale, &["GET", "k"], b"_\r\n", 10_000);
        assert!(find(&stale, &["GET", "k"], 1500).is_some());
        assert!(find(&stale, &["GET", "k"], 1501).is_none());
        assert_eq!(stale.statistics.stale_hits.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_read_serves_all_who_wait_and_a_change_lets_nobody_join() {
        let near = near();
        let gather = Arc::new(Gather::default());
        let first = lead(&near, &["GET", "k"]);
        let ask = |ticket| with(&["GET", "k"], |request| near.miss(request, 0, ticket));
        assert!(matches!(ask(gather.ticket().0), Miss::Joined));
        near.invalidate(b"k");
        let Miss::Lead(second) = ask(gather.ticket().0) else { panic!("joined a read that was voided") };
        near.settle(first, &Ok(b"+old\r\n".as_slice().into()), Some(100), None);
        assert!(find(&near, &["GET", "k"], 0).is_none());
        near.settle(second, &Ok(b"+new\r\n".as_slice().into()), Some(100), None);
        assert_eq!(find(&near, &["GET", "k"], 0).unwrap(), b"+new\r\n");
        let replies: Vec<_> = gather.take().into_iter().map(Result::unwrap).collect();
        assert_eq!(replies, [b"+old\r\n".as_slice().into(), b"+new\r\n".as_slice().into()]);
    }

    #[test]
    fn writes_let_nothing_be_kept_until_they_are_acknowledged() {
        let near = near();
        let (hash, ticket) = (hash_bytes(b"k"), || Arc::new(Gather::default()).ticket().0);
        fill(&near, &["GET", "k"], b"_\r\n", 100);
        near.begin_write(hash, b"k");
        assert!(find(&near, &["GET", "k"], 0).is_none());
        assert!(matches!(with(&["GET", "k"], |request| near.miss(request, 0, ticket())), Miss::Unkept(_)));
        near.end_write(hash, b"k");
        assert!(matches!(with(&["GET", "k"], |request| near.miss(request, 0, ticket())), Miss::Lead(_)));
        fill(&near, &["GET", "j"], b"_\r\n", 100);
        near.begin_write_to_all();
        assert!(find(&near, &["GET", "j"], 0).is_none());
        near.end_write_to_all();
        assert!(find(&near, &["GET", "j"], 0).is_none());
    }

    #[test]
    fn a_new_epoch_drops_all_and_records_are_forgotten() {
        let near = near();
        for number in 0..1000 {
            fill(&near, &["GET", &format!("k{number}")], b"_\r\n", 100);
        }
        let under_way = lead(&near, &["GET", "x"]);
        near.drop_all();
        assert!(find(&near, &["GET", "k1"], 0).is_none());
        near.settle(under_way, &Ok(b"_\r\n".as_slice().into()), Some(100), None);
        assert!(find(&near, &["GET", "x"], 0).is_none());
        (0..SHARDS).for_each(|turn| near.sweep(turn, 0));
        assert!(near.shards.iter().all(|shard| shard.read().places.is_empty()));
        assert_eq!(near.shards.iter().map(|shard| shard.read().records.len()).sum::<usize>(), 0);
    }

    #[test]
    fn a_single_record_is_forgotten_too() {
        let near = near();
        fill(&near, &["GET", "k"], b"_\r\n", 100);
        near.drop_all();
        (0..SHARDS).for_each(|turn| near.sweep(turn, 0));
        assert!(near.shards.iter().all(|shard| shard.read().records.is_empty()));
    }

    #[test]
    fn eviction_spares_what_was_used() {
        let near = near();
        for number in 0..1000 {
            fill(&near, &["GET", &format!("k{number}")], &[b'x'; 100], 100);
        }
        // The first round finds that all were used, and in the end takes one, whichever that is.
        near.evict(1);
        let is_there = |number: &i32| find(&near, &["GET", &format!("k{number}")], 0).is_some();
        assert!((0..100).filter(is_there).count() >= 99);
        near.evict(200_000);
        let kept = (0..1000).filter(|number| find(&near, &["GET", &format!("k{number}")], 0).is_some());
        let (old, used) = kept.partition::<Vec<_>, _>(|number| *number >= 100);
        assert!(used.len() > 80 && old.len() < 400, "{} used, {} others", used.len(), old.len());
    }

    #[test]
    fn shadows_are_compared_and_refreshes_replace() {
        let near = near();
        fill(&near, &["GET", "k"], b"+a\r\n", 100);
        for (served, mismatches) in [(&b"+b\r\n"[..], 0), (b"+a\r\n", 1)] {
            let filling = with(&["GET", "k"], |request| near.read_again(request, 0, Some(served.into())));
            near.settle(filling.unwrap(), &Ok(b"+b\r\n".as_slice().into()), Some(100), None);
            assert_eq!(near.statistics.mismatches.load(Ordering::Relaxed), mismatches);
        }
        assert_eq!(find(&near, &["GET", "k"], 0).unwrap(), b"+b\r\n");
    }
}
