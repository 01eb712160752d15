//! Choosing several different elements of a collection at random.

use std::collections::HashSet;

/// Ascending indices of `count` different elements out of `len`, every choice as likely as any other.
///
/// Floyd's algorithm (Bentley, "Programming pearls", CACM 30(9), 1987).
pub fn distinct(len: usize, count: usize, rng: &mut fastrand::Rng) -> Vec<usize> {
    if count >= len {
        return (0..len).collect();
    }
    let mut chosen = HashSet::with_capacity(count);
    for last in len - count..len {
        if !chosen.insert(rng.usize(..=last)) {
            chosen.insert(last);
        }
    }
    let mut chosen: Vec<usize> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

/// The elements at these ascending indices.
pub fn pick<'a, T>(
    elements: impl Iterator<Item = T> + 'a,
    chosen: &'a [usize],
) -> impl Iterator<Item = T> + 'a {
    let mut next = 0;
    elements.enumerate().filter_map(move |(index, element)| {
        let wanted = chosen.get(next) == Some(&index);
        next += usize::from(wanted);
        wanted.then_some(element)
    })
}
