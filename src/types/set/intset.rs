//! A sorted array of integers, as wide as the widest of them: the smallest encoding of a set.

use thin_vec::ThinVec;

/// Sorted integers of 2, 4 or 8 bytes each, little-endian, behind a byte that says which.
#[derive(Clone)]
pub struct IntSet(ThinVec<u8>);

const PREFIX: usize = 1;

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

impl IntSet {
    /// An empty set.
    pub fn new() -> Self {
        let mut bytes = ThinVec::new();
        bytes.reserve_exact(PREFIX + 14);
        bytes.push(2);
        Self(bytes)
    }

    /// Bytes of a member.
    pub fn width(&self) -> usize {
        usize::from(self.0[0])
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        // A width is a power of two, which the compiler cannot know.
        (self.0.len() - PREFIX) >> self.width().trailing_zeros()
    }

    /// The member at an index, in ascending order.
    pub fn get(&self, index: usize) -> i64 {
        let members = &self.0[PREFIX..];
        match self.width() {
            2 => i16::from_le_bytes(members.as_chunks().0[index]).into(),
            4 => i32::from_le_bytes(members.as_chunks().0[index]).into(),
            _ => i64::from_le_bytes(members.as_chunks().0[index]),
        }
    }

    /// Where a value is, or where it would be.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Whether it is a member.
    pub fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// Adds a member; says whether it is new.
    pub fn insert(&mut self, value: i64) -> bool {
        let Err(at) = self.search(value) else { return false };
        if width_of(value) > self.width() {
            self.widen(width_of(value));
        }
        let (width, old_len) = (self.width(), self.0.len());
        if old_len + width > self.0.capacity() {
            self.0.reserve_exact((old_len / 4).max(16));
        }
        let offset = PREFIX + at * width;
        self.0.resize(old_len + width, 0);
        self.0.copy_within(offset..old_len, offset + width);
        self.0[offset..offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
        true
    }

    fn widen(&mut self, width: usize) {
        let mut wide = ThinVec::new();
        wide.reserve_exact(PREFIX + (self.len() + 1) * width);
        wide.push(width as u8);
        for value in self.iter() {
            wide.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        self.0 = wide;
    }

    /// Removes a member; says whether it was one.
    pub fn remove(&mut self, value: i64) -> bool {
        let Ok(at) = self.search(value) else { return false };
        let width = self.width();
        let offset = PREFIX + at * width;
        self.0.copy_within(offset + width.., offset);
        self.0.truncate(self.0.len() - width);
        true
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        16 + self.0.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_set(values in prop::collection::vec((any::<bool>(), prop_oneof![
            (-20i64..20), any::<i16>().prop_map(i64::from), any::<i32>().prop_map(i64::from), any::<i64>(),
            Just(i64::MIN), Just(i64::MAX)]), 0..120)) {
            let (mut set, mut model) = (IntSet::new(), BTreeSet::new());
            for (add, value) in values {
                if add {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
        }
    }
}
