//! A first-in-first-out queue of 8-byte elements in segments of a kilobyte.
//!
//! Segments, so that it neither copies nor keeps twice its size when it grows, gives memory back as it drains, and
//! can be swept piece by piece. The order never changes.

use std::collections::VecDeque;

/// Elements in a full segment.
const SEGMENT: usize = 128;

/// The queue. Invariant: no segment is empty, and `head` elements of the first one are already taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    segments: VecDeque<Vec<u64>>,
    head: usize,
    len: usize,
    /// The segment that the next sweep looks at.
    cursor: usize,
}

impl Queue {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn push(&mut self, element: u64) {
        self.len += 1;
        match self.segments.back_mut() {
            Some(segment) if segment.len() < SEGMENT => segment.push(element),
            _ => {
                // The first one grows as it needs to: most shards of most databases hold few keys.
                let mut segment = Vec::with_capacity(if self.segments.is_empty() { 4 } else { SEGMENT });
                segment.push(element);
                self.segments.push_back(segment);
            }
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u64> {
        let first = self.segments.front_mut()?;
        let element = first[self.head];
        self.head += 1;
        self.len -= 1;
        if self.head == first.len() {
            self.head = 0;
            self.segments.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
        Some(element)
    }

    /// Keeps only the wanted elements of one segment, and joins it with the one before it if both fit into one.
    /// Goes on from segment to segment; false, and back to the start, when it has been through all of them.
    pub(super) fn sweep(&mut self, keep: &mut impl FnMut(u64) -> bool) -> bool {
        if self.cursor >= self.segments.len() {
            self.cursor = 0;
            return false;
        }
        if self.cursor == 0 {
            self.segments[0].drain(..self.head);
            self.head = 0;
        }
        let segment = &mut self.segments[self.cursor];
        let before = segment.len();
        segment.retain(|&element| keep(element));
        self.len -= before - segment.len();
        self.join();
        true
    }

    /// Removes the segment at the cursor if it is empty or fits into the one before it; else steps on.
    fn join(&mut self) {
        let at = self.cursor;
        let length = self.segments[at].len();
        let taken = if at == 1 { self.head } else { 0 };
        if length == 0 {
            self.segments.remove(at);
        } else if at > 0 && self.segments[at - 1].len() + length <= SEGMENT + taken {
            if taken > 0 {
                self.segments[0].drain(..taken);
                self.head = 0;
            }
            if let Some(segment) = self.segments.remove(at) {
                self.segments[at - 1].extend(segment);
            }
        } else {
            self.segments[at].shrink_to_fit();
            self.cursor += 1;
        }
    }

    pub(super) fn memory(&self) -> usize {
        let segments: usize = self.segments.iter().map(|segment| segment.capacity() * size_of::<u64>()).sum();
        segments + self.segments.capacity() * size_of::<Vec<u64>>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Pop(usize),
        /// Sweeps everything, dropping the multiples.
        Sweep(u64),
        /// Sweeps one segment only.
        SweepOne(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..400usize).prop_map(Step::Push),
            (0..300usize).prop_map(Step::Pop),
            (2..6u64).prop_map(Step::Sweep),
            (2..6u64).prop_map(Step::SweepOne),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 200 }, ..ProptestConfig::default() })]

        /// Whatever is done, what comes out is in order, and only what sweeps refused is missing.
        #[test]
        fn behaves_as_a_list_in_order(steps in prop::collection::vec(step(), 1..30)) {
            let (mut queue, mut model, mut next) = (Queue::default(), VecDeque::new(), 0u64);
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        next += 1;
                        queue.push(next);
                        model.push_back(next);
                    },
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(queue.pop(), model.pop_front());
                    },
                    Step::Sweep(factor) => {
                        while queue.sweep(&mut |element| element % factor != 0) {}
                        while queue.sweep(&mut |element| element % factor != 0) {}
                        model.retain(|element| element % factor != 0);
                    }
                    Step::SweepOne(factor) => {
                        let mut dropped = Vec::new();
                        queue.sweep(&mut |element| {
                            if element % factor == 0 {
                                dropped.push(element);
                            }
                            element % factor != 0
                        });
                        model.retain(|element| !dropped.contains(element));
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            while let Some(element) = queue.pop() {
                prop_assert_eq!(Some(element), model.pop_front());
            }
            prop_assert!(model.is_empty());
            prop_assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn memory_follows_the_length() {
        let mut queue = Queue::default();
        (0..100_000).for_each(|n| queue.push(n));
        assert!(queue.memory() < 100_000 * 9);
        while queue.sweep(&mut |element| element % 10 == 0) {}
        assert_eq!(queue.len(), 10_000);
        assert!(queue.memory() < 10_000 * 16, "{}", queue.memory());
        while queue.pop().is_some() {}
        assert!(queue.memory() < 32 * 1024, "{}", queue.memory());
    }
}
