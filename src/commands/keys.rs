//! Where a command's keys are: Redis 7's key specifications, and the one extractor that reads them.
//!
//! The extractor serves locking, `COMMAND GETKEYS`, ACL and routing alike.

use smallvec::SmallVec;

use super::spec::CommandSpec;
use crate::protocol::Args;

/// What a command does with the keys of a specification; values are ours, names are Redis's.
pub mod access {
    /// Reads the value.
    pub const RO: u16 = 1;
    /// Reads and changes it.
    pub const RW: u16 = 1 << 1;
    /// Overwrites it.
    pub const OW: u16 = 1 << 2;
    /// Removes the key.
    pub const RM: u16 = 1 << 3;
    /// Returns or copies the value.
    pub const ACCESS: u16 = 1 << 4;
    /// Changes the value.
    pub const UPDATE: u16 = 1 << 5;
    /// Adds to the value, unaware of what was there.
    pub const INSERT: u16 = 1 << 6;
    /// Removes of the value.
    pub const DELETE: u16 = 1 << 7;
    /// There may be more keys, or fewer.
    pub const INCOMPLETE: u16 = 1 << 8;
    /// The flags depend on the arguments.
    pub const VARIABLE_FLAGS: u16 = 1 << 9;
    /// Not a key at all (a shard channel).
    pub const NOT_KEY: u16 = 1 << 10;
}

/// Where the search for keys begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// Behind this word, searched from an argument on (from the end if negative).
    Keyword(&'static str, i32),
    /// Nobody can tell.
    Unknown,
}

/// Which arguments are keys from there on.
#[derive(Debug, Clone, Copy)]
pub enum Find {
    /// From the first to `last` (relative to it; from the end of all arguments if negative), every `step`th;
    /// of those to the end only one in `limit`, if that is 2 or more.
    Range {
        /// The last key, relative to the first.
        last: i32,
        /// The distance between keys.
        step: usize,
        /// The fraction of the arguments.
        limit: usize,
    },
    /// An argument says how many.
    Count {
        /// Which, relative to the beginning.
        at: usize,
        /// The first key, relative to the beginning.
        first: usize,
        /// The distance between keys.
        step: usize,
    },
    /// Nobody can tell.
    Unknown,
}

/// One specification: a set of keys that a command treats alike.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    /// Where the search begins.
    pub begin: Begin,
    /// Which arguments are keys.
    pub find: Find,
    /// Bits of [`access`].
    pub flags: u16,
}

/// One key at an argument.
pub const fn key_at(index: usize, flags: u16) -> KeySpec {
    keys_in(index, 0, 1, flags)
}

/// Keys from an argument to another (relative to it; from the end if negative).
pub const fn keys_in(index: usize, last: i32, step: usize, flags: u16) -> KeySpec {
    KeySpec { begin: Begin::Index(index), find: Find::Range { last, step, limit: 0 }, flags }
}

/// As many keys as the argument at `index` says, right behind it.
pub const fn counted_keys(index: usize, flags: u16) -> KeySpec {
    KeySpec { begin: Begin::Index(index), find: Find::Count { at: 0, first: 1, step: 1 }, flags }
}

/// One key behind a word.
pub const fn key_after(word: &'static str, from: i32, flags: u16) -> KeySpec {
    KeySpec { begin: Begin::Keyword(word, from), find: Find::Range { last: 0, step: 1, limit: 0 }, flags }
}

/// Keys that only the command itself can tell.
pub const fn unknown_keys(flags: u16) -> KeySpec {
    KeySpec { begin: Begin::Unknown, find: Find::Unknown, flags }
}

/// The keys of one request: argument indices with what is done to them.
pub type Keys = SmallVec<[(usize, u16); 8]>;

/// A key that is made of the arguments rather than being one.
pub type DerivedKey = SmallVec<[u8; 64]>;

/// Finds the keys of a request; `None` if the arguments make no sense to the specs (a bad count).
pub fn extract(spec: &CommandSpec, args: Args<'_>) -> Option<Keys> {
    let mut keys = Keys::new();
    if let Some(get_keys) = spec.get_keys {
        get_keys(args, &mut keys);
        return Some(keys);
    }
    for key_spec in spec.keys {
        key_spec.extract(args, &mut keys)?;
    }
    Some(keys)
}

impl KeySpec {
    pub(super) fn extract(&self, args: Args<'_>, keys: &mut Keys) -> Option<()> {
        let Some(begin) = self.begin(args) else { return Some(()) };
        let (first, last, step) = match self.find {
            Find::Unknown => return Some(()),
            Find::Range { last, step, limit } => {
                let end = args.len() as i64 - 1;
                let last = match (last, limit) {
                    (0.., _) => begin as i64 + i64::from(last),
                    (-1, 2..) => begin as i64 + (end - begin as i64 + 1) / limit as i64 - 1,
                    _ => end + 1 + i64::from(last),
                };
                (begin, last, step)
            }
            Find::Count { at, first, step } => {
                let count = crate::types::number::parse_i64(args.get(begin + at)?)?;
                if count < 0 || count > args.len() as i64 {
                    return None;
                }
                (begin + first, (begin + first) as i64 + (count - 1) * step as i64, step)
            }
        };
        if last >= args.len() as i64 {
            return None;
        }
        keys.extend((first as i64..=last).step_by(step).map(|index| (index as usize, self.flags)));
        Some(())
    }

    fn begin(&self, args: Args<'_>) -> Option<usize> {
        match self.begin {
            Begin::Index(index) => (index < args.len()).then_some(index),
            Begin::Unknown => None,
            Begin::Keyword(word, from) => {
                let found = if from >= 0 {
                    (from as usize..args.len()).find(|&index| args.is(index, word))
                } else {
                    let start = args.len().checked_sub(from.unsigned_abs() as usize)?;
                    (1..=start).rev().find(|&index| args.is(index, word))
                };
                found.map(|index| index + 1).filter(|&index| index < args.len())
            }
        }
    }
}
