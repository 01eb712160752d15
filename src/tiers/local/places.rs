//! Where keys stand in a list of them: looked through while it is short, by their hashes once it is long, so that a
//! command on very many keys is not slower for each of them.

use hashbrown::HashTable;

/// A list up to this length is looked through.
const SHORT: usize = 16;

/// What stands in such a list.
pub(super) trait Keyed {
    /// The key's database, hash and name.
    fn key(&self) -> (usize, u64, &[u8]);
}

/// The places of a list that only grows.
#[derive(Debug, Default)]
pub(super) struct Places(HashTable<usize>);

impl Places {
    /// Where a key stands.
    #[inline]
    pub(super) fn find<T: Keyed>(&self, list: &[T], db: usize, hash: u64, key: &[u8]) -> Option<usize> {
        let is_same = |other: &T| other.key() == (db, hash, key);
        if list.len() <= SHORT {
            return list.iter().position(is_same);
        }
        self.0.find(hash, |place| is_same(&list[*place])).copied()
    }

    /// The last of the list is new.
    #[inline]
    pub(super) fn added<T: Keyed>(&mut self, list: &[T]) {
        let Some(last) = list.len().checked_sub(1).filter(|last| *last >= SHORT) else { return };
        let first = if last == SHORT { 0 } else { last };
        for place in first..list.len() {
            self.0.insert_unique(list[place].key().1, place, |other| list[*other].key().1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(usize, Vec<u8>);

    /// Many share a hash.
    fn hash(key: &[u8]) -> u64 {
        u64::from(key[0] % 7)
    }

    impl Keyed for Named {
        fn key(&self) -> (usize, u64, &[u8]) {
            (self.0, hash(&self.1), &self.1)
        }
    }

    #[test]
    fn keys_are_found_however_long_the_list_is() {
        let (mut list, mut places) = (Vec::new(), Places::default());
        for number in 0..100u8 {
            for db in 0..2 {
                let key = [number, number];
                assert_eq!(places.find(&list, db, hash(&key), &key), None);
                list.push(Named(db, key.to_vec()));
                places.added(&list);
            }
            for (place, Named(db, key)) in list.iter().enumerate() {
                assert_eq!(places.find(&list, *db, hash(key), key), Some(place));
            }
        }
    }
}
