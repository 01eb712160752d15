//! Permits that this host has taken of shared limits and not used yet.
//!
//! A lease is used within its *hold*, a time so short that keeping to the limit does not suffer: what `log` takes is counted
//! for that much longer than its window, what `gcra` takes is counted as if all of it came at the hold's end, and what
//! `counter` takes is used before its window ends. So in all hosts together no more is ever admitted than the limits
//! allow. The nearer a limit is, the smaller the leases are, down to one permit; what is left of a lease goes back.
//!
//! One request for a lease is under way at a time for each key: a *flight*, with a number. A call that finds no permit waits
//! for the flight; it is refused only by one that began after the call came.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;

use super::Verdict;
use super::remote::Answer;
use crate::config::{Algorithm, Rule, Rules};
use crate::types::hasher::hash_bytes;

const SHARDS: usize = 16;
/// What upstream said last is remembered for so long when nobody asks.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);
/// The longest hold, in microseconds.
const MAX_HOLD: u64 = 1_000_000;

/// What is leased: limits at a key of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// How they count.
    pub algorithm: Algorithm,
    /// The limits.
    pub rules: Rules,
}

/// A lease that is over, of which permits are left.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// Its terms.
    pub terms: Terms,
    /// The name under which a log has its permits.
    pub id: Vec<u8>,
    /// Permits of it.
    pub taken: u64,
    /// Of those, how many were used; the first ones.
    pub used: u64,
    /// When it was taken, by upstream's clock.
    pub since_us: u64,
}

/// How a flight ended.
#[derive(Debug, Clone)]
pub enum Landed<E> {
    /// With a lease: its name, its permits, and until when they may be used.
    Granted(Vec<u8>, u64, Instant, Answer),
    /// There is no permit.
    Refused(Verdict),
    /// With an error, or with nothing at all.
    Failed(Option<E>),
}

/// What a call is to do.
#[derive(Debug)]
pub enum Attend<E> {
    /// It is admitted.
    Admitted(Verdict),
    /// It is refused.
    Refused(Verdict),
    /// It is not decided on.
    Failed(Option<E>),
    /// It is to wait until this changes, and to try again.
    Wait(watch::Receiver<bool>),
    /// The same, and to see to it that this flight is made.
    Lead(Flight),
    /// Other limits are leased at this key: upstream is to be asked for this call alone.
    Apart,
}

/// A request for a lease. If it is dropped, it has failed.
#[derive(Debug)]
pub struct Flight {
    /// How many permits are worth having.
    pub want: u64,
    /// What is to go back first.
    pub leftover: Option<Leftover>,
    number: u64,
    done: watch::Sender<bool>,
}

/// All leases.
#[derive(Debug)]
pub struct Leases<E> {
    shards: [Mutex<Entries<E>>; SHARDS],
}

/// What a call remembers from one attempt to the next.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The last flight that had begun when it came,
    begun: u64,
    /// and whether that was under way still.
    joined: bool,
}

/// A key in its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(SmallVec<[u8; 64]>);

type Entries<E> = HashMap<Box<[u8]>, Entry<E>>;

#[derive(Debug)]
struct Entry<E> {
    terms: Terms,
    lease: Option<Lease>,
    /// The last flight that began.
    begun: u64,
    under_way: Option<watch::Receiver<bool>>,
    /// How the last flight ended that ended without a lease.
    ended: Option<(u64, Landed<E>)>,
    /// What upstream had left when it was last heard.
    remaining: u64,
    seen: Instant,
}

#[derive(Debug)]
struct Lease {
    rest: Leftover,
    since: Instant,
    until: Instant,
    verdict: Verdict,
}

impl Terms {
    /// For how long permits may be held.
    pub fn hold_us(&self) -> u64 {
        self.rules.iter().map(hold_of).min().unwrap_or(0)
    }

    /// Whether upstream knows its permits by a name.
    pub fn is_named(&self) -> bool {
        self.algorithm == Algorithm::Log
    }

    /// A limit as it is to be asked for while permits of it may be held.
    pub fn shared(&self, rule: &Rule) -> Rule {
        match self.algorithm {
            Algorithm::Log => Rule { window_us: rule.window_us + hold_of(rule), ..*rule },
            Algorithm::Counter | Algorithm::Gcra => *rule,
        }
    }

    /// For how long what was taken at a time of upstream's may be used.
    pub fn usable_us(&self, now_us: u64) -> u64 {
        let rest = self.rules.iter().map(|rule| rule.window_us - now_us % rule.window_us).min().unwrap_or(0);
        if self.algorithm == Algorithm::Counter { self.hold_us().min(rest) } else { self.hold_us() }
    }
}

/// For how long permits of a limit may be held; those of several limits, for the shortest of these times.
fn hold_of(rule: &Rule) -> u64 {
    (rule.window_us / 10).min(MAX_HOLD)
}

impl Place {
    /// A key in its database.
    pub fn new(db: usize, key: &[u8]) -> Self {
        let mut bytes = SmallVec::from_slice(&(db as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        Self(bytes)
    }

    /// As one text.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The database, and the key.
    pub fn parts(bytes: &[u8]) -> (usize, &[u8]) {
        let (db, key) = bytes.split_at(4);
        (u32::from_le_bytes([db[0], db[1], db[2], db[3]]) as usize, key)
    }
}

impl Flight {
    /// What changes when it is over.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.done.subscribe()
    }
}

impl Lease {
    fn left(&self) -> u64 {
        self.rest.taken - self.rest.used
    }

    fn take(&mut self, cost: u64, now: Instant) -> Option<Verdict> {
        if now >= self.until || self.left() < cost {
            return None;
        }
        self.rest.used += cost;
        let elapsed = (now - self.since).as_micros() as u64;
        Some(Verdict {
            remaining: self.verdict.remaining.saturating_add(self.left()),
            reset_after: self.verdict.reset_after.saturating_sub(elapsed),
            ..self.verdict
        })
    }
}

impl<E> Default for Leases<E> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<E: Clone> Leases<E> {
    fn shard(&self, place: &[u8]) -> &Mutex<Entries<E>> {
        &self.shards[(hash_bytes(place) >> 40) as usize % SHARDS]
    }

    /// Takes permits that are here, if there are so many.
    pub fn take(&self, place: &Place, terms: &Terms, cost: u64, now: Instant) -> Option<Verdict> {
        let mut entries = self.shard(&place.0).lock();
        let entry = entries.get_mut(&place.0[..]).filter(|entry| entry.terms == *terms)?;
        entry.lease.as_mut()?.take(cost, now)
    }

    /// What a call for one permit is to do.
    pub fn attend(
        &self,
        place: &Place,
        terms: &Terms,
        lease: u64,
        arrival: &mut Option<Arrival>,
        now: Instant,
    ) -> Attend<E> {
        let mut entries = self.shard(&place.0).lock();
        let entry = entries.entry(place.0[..].into()).or_insert_with(|| Entry {
            terms: terms.clone(),
            lease: None,
            begun: 0,
            under_way: None,
            ended: None,
            remaining: terms.rules.iter().map(|rule| rule.capacity).min().unwrap_or(1),
            seen: now,
        });
        entry.seen = now;
        if entry.terms != *terms {
            return Attend::Apart;
        }
        if let Some(verdict) = entry.lease.as_mut().and_then(|lease| lease.take(1, now)) {
            return Attend::Admitted(verdict);
        }
        // Closed without a word: whoever made it is gone.
        entry.under_way.take_if(|done| done.has_changed().is_err());
        let joined = entry.under_way.is_some();
        let before = *arrival.get_or_insert(Arrival { begun: entry.begun, joined });
        if let Some(done) = &entry.under_way {
            return Attend::Wait(done.clone());
        }
        match &entry.ended {
            Some((number, Landed::Refused(verdict))) if *number > before.begun => {
                return Attend::Refused(*verdict);
            }
            // That upstream does not decide is as true for whoever came meanwhile.
            Some((number, Landed::Failed(error)))
                if *number > before.begun || before.joined && *number == before.begun =>
            {
                return Attend::Failed(error.clone());
            }
            _ => {}
        }
        entry.begun += 1;
        let (sender, receiver) = watch::channel(false);
        entry.under_way = Some(receiver);
        Attend::Lead(Flight {
            want: lease.min(entry.remaining / 4).max(1),
            leftover: entry.lease.take().filter(|lease| lease.left() > 0).map(|lease| lease.rest),
            number: entry.begun,
            done: sender,
        })
    }

    /// A flight has ended.
    pub fn land(&self, place: &[u8], terms: &Terms, flight: &Flight, landed: Landed<E>, now: Instant) {
        let mut entries = self.shard(place).lock();
        if let Some(entry) = entries.get_mut(place).filter(|entry| entry.begun == flight.number) {
            entry.under_way = None;
            entry.seen = now;
            match landed {
                Landed::Granted(id, taken, until, answer) => {
                    let rest = Leftover { terms: terms.clone(), id, taken, used: 0, since_us: answer.now };
                    entry.remaining = answer.verdict.remaining;
                    entry.lease = Some(Lease { rest, since: now, until, verdict: answer.verdict });
                }
                other => {
                    if let Landed::Refused(verdict) = &other {
                        entry.remaining = verdict.remaining;
                    }
                    entry.ended = Some((flight.number, other));
                }
            }
        }
        drop(entries);
        flight.done.send_replace(true);
    }

    /// Forgets what is leased at a key.
    pub fn forget(&self, place: &Place) {
        if let Some(entry) = self.shard(&place.0).lock().get_mut(&place.0[..]) {
            entry.lease = None;
        }
    }

    /// Ends leases whose time is over, or all; what is left of them is to go back.
    pub fn end(&self, all: bool, now: Instant) -> Vec<(Box<[u8]>, Leftover)> {
        let mut over = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|place, entry| {
                if let Some(lease) = entry.lease.take_if(|lease| all || now >= lease.until)
                    && lease.left() > 0
                {
                    over.push((place.clone(), lease.rest));
                }
                let is_idle = entry.lease.is_none() && entry.under_way.is_none();
                !is_idle || now.saturating_duration_since(entry.seen) < FORGOTTEN_AFTER
            });
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let rule = Rule::new(Algorithm::Log, 8, 1000, None).unwrap();
        Terms { algorithm: Algorithm::Log, rules: [rule].into_iter().collect() }
    }

    fn verdict(limited: bool, remaining: u64) -> Verdict {
        Verdict { limited, limit: 8, remaining, retry_after: limited.then_some(5), reset_after: 1_000_000 }
    }

    fn granted(taken: u64, now: Instant) -> Landed<()> {
        let answer = Answer { verdict: verdict(false, 8 - taken), limit: 0, now: 1 };
        Landed::Granted(b"x".to_vec(), taken, now + Duration::from_millis(100), answer)
    }

    fn lead(leases: &Leases<()>, arrival: &mut Option<Arrival>, now: Instant) -> Flight {
        match leases.attend(&Place::new(0, b"k"), &terms(), 100, arrival, now) {
            Attend::Lead(flight) => flight,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn permits_are_used_within_their_time_and_what_is_left_goes_back() {
        let (leases, place, now) = (Leases::<()>::default(), Place::new(0, b"k"), crate::clock::monotonic());
        let flight = lead(&leases, &mut None, now);
        assert_eq!(flight.want, 2);
        leases.land(&place.0, &terms(), &flight, granted(2, now), now);
        let later = now + Duration::from_millis(99);
        assert_eq!(leases.take(&place, &terms(), 1, later).unwrap().remaining, 7);
        assert!(leases.take(&place, &terms(), 2, later).is_none());
        let over = now + Duration::from_millis(100);
        assert!(leases.take(&place, &terms(), 1, over).is_none());
        assert!(leases.end(false, later).is_empty());
        let back = leases.end(false, over);
        assert_eq!((back.len(), back[0].1.taken, back[0].1.used), (1, 2, 1));
        assert_eq!(Place::parts(&back[0].0), (0, &b"k"[..]));
        leases.end(false, over + FORGOTTEN_AFTER);
        assert!(leases.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn only_a_flight_that_began_later_refuses() {
        let (leases, place, now) = (Leases::<()>::default(), Place::new(0, b"k"), crate::clock::monotonic());
        let attend = |arrival: &mut _| leases.attend(&place, &terms(), 100, arrival, now);
        let (mut first, mut second, mut third) = (None, None, None);
        let flight = lead(&leases, &mut first, now);
        assert!(matches!(attend(&mut second), Attend::Wait(_)));
        leases.land(&place.0, &terms(), &flight, Landed::Refused(verdict(true, 0)), now);
        assert!(matches!(attend(&mut first), Attend::Refused(_)));
        // It came when the flight was under way, so it may have come after the decision.
        let flight = lead(&leases, &mut second, now);
        assert!(matches!(attend(&mut third), Attend::Wait(_)));
        leases.land(&place.0, &terms(), &flight, Landed::Failed(None), now);
        assert!(matches!(attend(&mut second), Attend::Failed(None)));
        assert!(matches!(attend(&mut third), Attend::Failed(None)));
        // Whoever comes now has it tried again; a flight that vanishes is no flight.
        drop(lead(&leases, &mut None, now));
        let flight = lead(&leases, &mut None, now);
        leases.land(&place.0, &terms(), &flight, granted(1, now), now);
        assert!(matches!(attend(&mut None), Attend::Admitted(_)));
        let other = Rule::new(Algorithm::Log, 9, 1000, None).unwrap();
        let other = Terms { rules: [other].into_iter().collect(), ..terms() };
        assert!(matches!(leases.attend(&place, &other, 100, &mut None, now), Attend::Apart));
    }
}
