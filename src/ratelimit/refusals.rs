//! Who is refused most: a bounded sketch, touched by refusals alone.
//!
//! The space-saving algorithm (Metwally and others, 2005): a newcomer takes the place of the least refused and its count.
//! Counts are never too low; whoever has more than a [`SUBJECTS`]th of the refusals of its part is in it. Split in parts by
//! hash, so that threads which refuse different subjects rarely meet.

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

#[derive(Default)]
struct Part {
    /// Hashes, of which 32 bits tell a few subjects apart well enough to look for the whole one.
    tags: Vec<u32>,
    hashes: Vec<u64>,
    counts: Vec<u64>,
    names: Vec<Vec<u8>>,
    /// Nobody before this place has a count of `least` or less, nobody at all one below it.
    next: usize,
    least: u64,
}

impl Part {
    fn place(&self, hash: u64) -> Option<usize> {
        let tag = hash as u32;
        // Compared in whole chunks: there is no early end that would keep the compiler from doing so at once.
        const CHUNK: usize = 16;
        for (chunk, tags) in self.tags.chunks(CHUNK).enumerate() {
            if tags.iter().fold(false, |found, other| found | (*other == tag)) {
                let at = |within| chunk * CHUNK + within;
                let is_same = |within: &usize| self.hashes[at(*within)] == hash;
                if let Some(within) = (0..tags.len()).find(is_same) {
                    return Some(at(within));
                }
            }
        }
        None
    }

    /// The place of one who was refused least. All are looked at once for each step that the least count takes.
    fn least(&mut self) -> usize {
        loop {
            while self.next < self.counts.len() {
                if self.counts[self.next] <= self.least {
                    return self.next;
                }
                self.next += 1;
            }
            self.next = 0;
            self.least = self.counts.iter().copied().min().unwrap_or(0);
        }
    }
}

impl Refusals {
    /// Counts a refusal of a subject, whose hash that is.
    pub(super) fn note(&self, subject: &[u8], hash: u64) {
        let part = &mut *self.0[(hash >> 32) as usize % PARTS].lock();
        if let Some(at) = part.place(hash) {
            part.counts[at] += 1;
            return;
        }
        let name = &subject[..subject.len().min(MAX_NAME)];
        if part.hashes.len() < SUBJECTS {
            part.tags.push(hash as u32);
            part.hashes.push(hash);
            part.counts.push(1);
            part.names.push(name.to_vec());
            return;
        }
        let least = part.least();
        part.tags[least] = hash as u32;
        part.hashes[least] = hash;
        part.counts[least] += 1;
        // The name's memory is used again.
        name.clone_into(&mut part.names[least]);
    }

    /// The subjects refused most, with their counts.
    pub(super) fn top(&self, count: usize) -> Vec<(Box<[u8]>, u64)> {
        let mut all: Vec<(Box<[u8]>, u64)> = Vec::new();
        for part in &self.0 {
            let part = part.lock();
            let names = part.names.iter().map(|name| name.as_slice().into());
            all.extend(names.zip(part.counts.iter().copied()));
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
        assert_eq!(refusals.top(usize::MAX).len(), PARTS * SUBJECTS);
        refusals.clear();
        note(&[b'x'; 1000]);
        assert_eq!(refusals.top(10), [(vec![b'x'; MAX_NAME].into(), 1)]);
    }
}
