//! What is counted of keys by their prefix, up to the first colon: hits, misses and fills.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Prefixes that are counted by themselves; the rest is summed up, in the first place.
const MAX_PREFIXES: usize = 100;
/// What is longer is no prefix.
const MAX_LENGTH: usize = 128;

/// What was counted of a prefix.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Reads answered from here.
    pub hits: AtomicU64,
    /// Reads that were not.
    pub misses: AtomicU64,
    /// Replies kept.
    pub fills: AtomicU64,
}

/// The prefixes of one shard's keys.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    places: HashMap<Box<[u8]>, u16>,
    counts: Vec<Counts>,
}

/// The prefix of a key: to its first colon, that included; nothing if there is none.
pub fn prefix_of(key: &[u8]) -> &[u8] {
    memchr::memchr(b':', key).filter(|at| *at < MAX_LENGTH).map_or(b"", |at| &key[..=at])
}

impl Prefixes {
    /// Where a key's prefix is counted.
    pub fn place(&mut self, key: &[u8]) -> u16 {
        let prefix = prefix_of(key);
        if let Some(place) = self.places.get(prefix) {
            return *place;
        }
        if self.counts.is_empty() {
            self.counts.push(Counts::default());
        }
        if self.counts.len() > MAX_PREFIXES {
            return 0;
        }
        let place = self.counts.len() as u16;
        self.counts.push(Counts::default());
        self.places.insert(prefix.into(), place);
        place
    }

    /// What is counted at a place.
    #[inline]
    pub fn at(&self, place: u16) -> Option<&Counts> {
        self.counts.get(usize::from(place))
    }

    /// Calls `visit` with each prefix, its hits, misses and fills; `None` for the rest.
    pub fn each(&self, visit: &mut impl FnMut(Option<&[u8]>, [u64; 3])) {
        let of = |place: u16| {
            self.at(place).map_or([0; 3], |counts| {
                [counts.hits.load(Relaxed), counts.misses.load(Relaxed), counts.fills.load(Relaxed)]
            })
        };
        for (prefix, place) in &self.places {
            visit(Some(prefix), of(*place));
        }
        let rest = of(0);
        if rest != [0; 3] {
            visit(None, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_prefixes_are_summed_up() {
        let mut prefixes = Prefixes::default();
        let user = prefixes.place(b"user:1:x");
        assert_eq!((prefixes.place(b"user:2"), user), (user, 1));
        for number in 0..500 {
            let place = prefixes.place(format!("p{number}:x").as_bytes());
            prefixes.at(place).unwrap().misses.fetch_add(1, Relaxed);
        }
        let (mut known, mut rest) = (0, 0);
        prefixes.each(&mut |prefix, [_, misses, _]| match prefix {
            Some(_) => known += misses,
            None => rest = misses,
        });
        assert_eq!((known, rest), (99, 401));
        assert_eq!((prefix_of(b"plain"), prefix_of(b":x")), (&b""[..], &b":"[..]));
    }
}
