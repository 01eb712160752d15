//! Who is refused most: a bounded sketch, touched by refusals alone.
//!
//! A newcomer takes the place of the least refused and its count, but only once in as many times as that count: randomized
//! admission (Ben Basat and others, 2017), so that a crowd of which each is refused a few times does not wash out those who
//! are refused often, and mostly costs no more than a look. Split in parts by hash, so that threads which refuse different
//! subjects rarely meet.

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

const PARTS: usize = 64;
/// Subjects counted in each part.
const SUBJECTS: usize = 16;
/// Longer names are cut.
const MAX_NAME: usize = 256;

/// The sketch.
pub(super) struct Refusals([CachePadded<Mutex<Part>>; PARTS]);

impl Default for Refusals {
    fn default() -> Self {
        Self(std::array::from_fn(|_| CachePadded::default()))
    }
}

/// What a newcomer that is not let in looks at comes first.
#[derive(Default)]
#[repr(C)]
struct Part {
    /// How many subjects there are.
    len: usize,
    /// The place of one who was refused least.
    least: usize,
    rng: fastrand::Rng,
    /// Hashes, of which 32 bits tell a few subjects apart well enough to look for the whole one.
    tags: [u32; SUBJECTS],
    counts: [u64; SUBJECTS],
    hashes: [u64; SUBJECTS],
    names: [Vec<u8>; SUBJECTS],
}

impl Part {
    #[inline]
    fn place(&self, hash: u64) -> Option<usize> {
        let tag = hash as u32;
        // All are compared: there is no early end that would keep the compiler from doing so at once.
        if !self.tags.iter().fold(false, |found, other| found | (*other == tag)) {
            return None;
        }
        self.hashes[..self.len].iter().position(|other| *other == hash)
    }

    /// Whether a newcomer is let in: with the odds of one to the least count.
    #[inline]
    fn admits(&mut self) -> bool {
        let odds = self.counts[self.least] + 1;
        self.rng.u64(..odds) == 0
    }

    fn find_least(&mut self) {
        let least = (0..self.len).min_by_key(|at| self.counts[*at]);
        self.least = least.unwrap_or(0);
    }

    fn put(&mut self, at: usize, subject: &[u8], hash: u64) {
        self.tags[at] = hash as u32;
        self.hashes[at] = hash;
        // The name's memory is used again.
        subject[..subject.len().min(MAX_NAME)].clone_into(&mut self.names[at]);
    }
}

impl Refusals {
    /// Counts a refusal of a subject, whose hash that is.
    pub(super) fn note(&self, subject: &[u8], hash: u64) {
        let part = &mut *self.0[(hash >> 32) as usize % PARTS].lock();
        let at = match part.place(hash) {
            Some(at) => at,
            None if part.len < SUBJECTS => {
                let at = part.len;
                part.len += 1;
                part.put(at, subject, hash);
                at
            }
            None if part.admits() => {
                part.put(part.least, subject, hash);
                part.least
            }
            None => return,
        };
        part.counts[at] += 1;
        if at == part.least || part.counts[at] == 1 {
            part.find_least();
        }
    }

    /// The subjects refused most, with their counts.
    pub(super) fn top(&self, count: usize) -> Vec<(Box<[u8]>, u64)> {
        let mut all: Vec<(Box<[u8]>, u64)> = Vec::new();
        for part in &self.0 {
            let part = part.lock();
            let names = part.names.iter().map(|name| name.as_slice().into());
            all.extend(names.zip(part.counts.iter().copied()).take(part.len));
        }
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(count);
        all
    }

    /// Counts from nothing again.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|part| *part.lock() = Part::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hasher::hash_bytes;

    #[test]
    fn the_most_refused_stay_and_the_rest_is_bounded() {
        let refusals = Refusals::default();
        let note = |subject: &[u8]| refusals.note(subject, hash_bytes(subject));
        for number in 0..50_000u32 {
            note(format!("passer{number}").as_bytes());
            if number % 20 == 0 {
                note(b"greedy");
            }
            if number % 40 == 0 {
                note(b"second");
            }
        }
        let top = refusals.top(2);
        assert_eq!((&*top[0].0, &*top[1].0), (&b"greedy"[..], &b"second"[..]));
        assert!(top[0].1 >= 2500, "{top:?}");
        let crowd = refusals.top(3)[2].1;
        assert!(crowd < 40, "each of the crowd was refused once, not {crowd} times");
        assert_eq!(refusals.top(usize::MAX).len(), PARTS * SUBJECTS);
        refusals.clear();
        note(&[b'x'; 1000]);
        assert_eq!(refusals.top(10), [(vec![b'x'; MAX_NAME].into(), 1)]);
    }
}
