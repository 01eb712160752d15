//! What `counter` and `gcra` keep at a key: a string.
//!
//! ```text
//! 'c' or 'g' | number of rules, 1 byte | the newest time of a change, 8
//!            | for each rule: its window in microseconds, 8, and two numbers, 8 each:
//!              counter: permits of the current window and of the one before; gcra: when the key is idle, and the
//!              interval, both in nanoseconds
//!            | for each identifier of late: when it was admitted, 8, and its hash, 8
//! ```
//! All numbers are little-endian, all times but those of gcra in microseconds since the Unix epoch. Identifiers are kept
//! for the longest window, the newest 4096 of them: each was admitted, so a limit up to that forgets none too early.

use smallvec::SmallVec;

use super::counter::{self, Counts};
use super::{Call, Verdict, gcra, longest};
use crate::config::{Algorithm, Rule};

/// A state as it is stored.
pub type Encoded = SmallVec<[u8; 64]>;

/// What was decided, and what to store.
#[derive(Debug)]
pub struct Decision {
    /// The verdict that counts.
    pub verdict: Verdict,
    /// The state after the call, if that changed it.
    pub change: Option<Change>,
}

/// A state to store.
#[derive(Debug)]
pub struct Change {
    /// The string.
    pub state: Encoded,
    /// When it may be forgotten, in microseconds.
    pub until: u64,
}

/// A state as it was stored.
#[derive(Debug, Clone)]
pub struct State<'a> {
    algorithm: Algorithm,
    newest: u64,
    records: &'a [u8],
    ids: &'a [u8],
}

/// One rule's numbers.
#[derive(Debug, Clone, Copy)]
struct Record {
    window: u64,
    first: u64,
    second: u64,
}

type Records = SmallVec<[Record; 1]>;

impl Record {
    #[inline]
    fn decode(bytes: &[u8; RECORD]) -> Self {
        let number = |at| number(bytes, at).unwrap_or(0); // a record has all three
        Self { window: number(0), first: number(8), second: number(16) }
    }

    #[inline]
    fn encode(&self, bytes: &mut [u8; RECORD]) {
        bytes[..8].copy_from_slice(&self.window.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..].copy_from_slice(&self.second.to_le_bytes());
    }
}

const HEAD: usize = 10;
const RECORD: usize = 24;
const IDENTIFIER: usize = 16;
const MAX_IDENTIFIERS: usize = 4096;

impl<'a> State<'a> {
    /// The state in a string; `None` if it is none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let algorithm = match bytes.first()? {
            b'c' => Algorithm::Counter,
            b'g' => Algorithm::Gcra,
            _ => return None,
        };
        let rules = usize::from(*bytes.get(1)?);
        let newest = number(bytes, 2)?;
        let (records, ids) = bytes.get(HEAD..)?.split_at_checked(rules * RECORD)?;
        if rules == 0 || !ids.len().is_multiple_of(IDENTIFIER) {
            return None;
        }
        let state = Self { algorithm, newest, records, ids };
        state.records().all(|record| record.window > 0).then_some(state)
    }

    #[inline]
    fn records(&self) -> impl ExactSizeIterator<Item = Record> + use<'a> {
        let (records, _) = self.records.as_chunks::<RECORD>();
        records.iter().map(Record::decode)
    }

    /// Whose state it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The numbers of the rule at a place: those of its window, or what stood there when the rule was another.
    fn record(&self, place: usize, rules: &[Rule]) -> Option<Record> {
        let window = rules[place].window_us;
        let same = self.records().find(|record| record.window == window);
        same.or_else(|| self.records().nth(place).filter(|_| self.records().len() == rules.len()))
    }

    /// Whether an identifier was admitted after a time.
    fn knows(&self, hash: u64, after: Option<u64>) -> bool {
        self.ids.chunks_exact(IDENTIFIER).rev().any(|id| {
            number(id, 8) == Some(hash)
                && after.is_none_or(|after| number(id, 0).is_some_and(|at| at > after))
        })
    }

    /// Gives permits back, as of a time; returns how many there were to give, and the state after it.
    pub fn refund(&self, now: u64, count: u64) -> (u64, Encoded) {
        let time = self.newest.max(now);
        let mut given = 0;
        let mut records: Records = self.records().collect();
        for record in &mut records {
            let back = if self.algorithm == Algorithm::Gcra {
                let (idle, back) = gcra::refund(record.first, record.second, time, count);
                record.first = idle;
                back
            } else {
                let counts = Counts { current: record.first, previous: record.second };
                let mut counts = counts.rolled(record.window, self.newest, time);
                let back = counter::refund(&mut counts, count);
                (record.first, record.second) = (counts.current, counts.previous);
                back
            };
            given = given.max(back);
        }
        (given, encode(self.algorithm, time, &records, self.ids, None))
    }
}

/// Decides on a call with `counter` or `gcra`.
pub fn decide(state: Option<&State<'_>>, algorithm: Algorithm, rules: &[Rule], call: &Call<'_>) -> Decision {
    let newest = state.map_or(0, |state| state.newest);
    let time = newest.max(call.now);
    let hash = call.id.map(hash_of);
    let outdated = time.checked_sub(longest(rules));
    let is_repeated = hash.is_some_and(|hash| state.is_some_and(|state| state.knows(hash, outdated)));
    let cost = if is_repeated { 0 } else { call.cost };
    let mut records = Records::new();
    let mut until = 0;
    let verdicts = rules.iter().enumerate().map(|(place, rule)| {
        let record = state.and_then(|state| state.record(place, rules));
        let (verdict, record, end) = if algorithm == Algorithm::Gcra {
            let idle = record.map_or(0, |record| record.first);
            let (verdict, idle) = gcra::decide(idle, rule, time, call.now, cost);
            let record = Record { window: rule.window_us, first: idle, second: rule.interval_ns };
            (verdict, record, idle.div_ceil(1000))
        } else {
            let counts = counts_of(record, rule.window_us, newest, time);
            let (verdict, counts) = counter::decide(counts, rule, time, call.now, cost);
            let record = Record { window: rule.window_us, first: counts.current, second: counts.previous };
            (verdict, record, counter::forgotten(rule.window_us, time))
        };
        records.push(record);
        until = until.max(end);
        verdict
    });
    let Some((_, verdict)) = Verdict::strongest(verdicts) else {
        unreachable!("a limit has at least one rule")
    };
    if verdict.limited || cost == 0 {
        return Decision { verdict, change: None };
    }
    let mut ids = state.map_or(&[][..], |state| state.ids);
    let added = hash.map(|hash| (time, hash));
    // Sorted by time: what is too old is at the beginning.
    while let Some((oldest, rest)) = ids.split_at_checked(IDENTIFIER) {
        let is_full = ids.len() >= MAX_IDENTIFIERS * IDENTIFIER && added.is_some();
        let is_outdated = outdated.is_some_and(|outdated| number(oldest, 0).is_none_or(|at| at <= outdated));
        if !is_full && !is_outdated {
            break;
        }
        ids = rest;
    }
    if let Some(last) = added.map(|(at, _)| at).or_else(|| number(ids, ids.len().checked_sub(IDENTIFIER)?)) {
        until = until.max(last.saturating_add(longest(rules)));
    }
    Decision { verdict, change: Some(Change { state: encode(algorithm, time, &records, ids, added), until }) }
}

/// A state of one rule without identifiers, as it is stored.
type Single = [u8; HEAD + RECORD];

/// Decides as [`decide`] does on a call without an identifier, for one rule, tells the verdict and changes the state where it
/// is stored; returns when it may be forgotten, if it changed. `None` if the state is of another kind, of which nothing is
/// told.
#[inline(always)]
pub fn take_single(
    stored: &mut [u8],
    algorithm: Algorithm,
    rule: &Rule,
    now: u64,
    cost: u64,
    tell: &mut impl FnMut(&Verdict),
) -> Option<Option<u64>> {
    let state: &mut Single = stored.try_into().ok()?;
    let (head, place) = state.split_first_chunk_mut::<HEAD>()?;
    let place: &mut [u8; RECORD] = place.try_into().ok()?;
    let record = Record::decode(place);
    if head[..2] != [tag(algorithm), 1] || record.window == 0 {
        return None;
    }
    let newest = number(head, 2)?;
    let time = newest.max(now);
    let (verdict, first, second, until) = if algorithm == Algorithm::Gcra {
        let (verdict, idle) = gcra::decide(record.first, rule, time, now, cost);
        (verdict, idle, rule.interval_ns, idle.div_ceil(1000))
    } else {
        let counts = counts_of(Some(record), rule.window_us, newest, time);
        let (verdict, counts) = counter::decide(counts, rule, time, now, cost);
        (verdict, counts.current, counts.previous, counter::forgotten(rule.window_us, time))
    };
    tell(&verdict);
    if verdict.limited || cost == 0 {
        return Some(None);
    }
    head[2..].copy_from_slice(&time.to_le_bytes());
    Record { window: rule.window_us, first, second }.encode(place);
    Some(Some(until))
}

/// The first byte of a state.
#[inline]
fn tag(algorithm: Algorithm) -> u8 {
    if algorithm == Algorithm::Gcra { b'g' } else { b'c' }
}

/// The counters of a rule as of `time`.
fn counts_of(record: Option<Record>, window: u64, newest: u64, time: u64) -> Counts {
    let Some(record) = record else { return Counts::default() };
    let counts = Counts { current: record.first, previous: record.second };
    if record.window == window {
        return counts.rolled(window, newest, time);
    }
    // The window was another: all that counted then counts as of the newest change.
    let counts = counts.rolled(record.window, newest, time);
    Counts { current: counts.current.saturating_add(counts.previous), previous: 0 }
}

#[inline]
fn encode(
    algorithm: Algorithm,
    newest: u64,
    records: &[Record],
    ids: &[u8],
    added: Option<(u64, u64)>,
) -> Encoded {
    const ROOM: usize = 64;
    let mut head = [0; HEAD];
    (head[0], head[1]) = (tag(algorithm), records.len() as u8);
    head[2..].copy_from_slice(&newest.to_le_bytes());
    let mut bytes = match records {
        // The common case, without a call for each part.
        [record] => {
            let mut text = [0; ROOM];
            text[..HEAD].copy_from_slice(&head);
            if let Some(place) = text[HEAD..].first_chunk_mut() {
                record.encode(place);
            }
            Encoded::from_buf_and_len(text, HEAD + RECORD)
        }
        _ => {
            let mut bytes = Encoded::from_slice(&head);
            for record in records {
                let mut place = [0; RECORD];
                record.encode(&mut place);
                bytes.extend_from_slice(&place);
            }
            bytes
        }
    };
    if ids.is_empty() && added.is_none() {
        return bytes;
    }
    bytes.extend_from_slice(ids);
    if let Some((at, hash)) = added {
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&hash.to_le_bytes());
    }
    bytes
}

#[inline]
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// A hash that is the same in every process, since states outlive theirs: FNV-1a, with its bits mixed.
pub(super) fn hash_of(id: &[u8]) -> u64 {
    let sum = id
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (sum ^ sum >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 33
}
