//! Some consecutive entries in one listpack, laid out as Redis does:
//!
//! ```text
//! entries | deleted ones | fields n | n names | 0       the names are those of the first entry
//! flags | ms - first's | seq - first's | values                         | elements before this     with the same names
//! flags | ms - first's | seq - first's | fields n | n names with values | elements before this
//! ```

use smallvec::SmallVec;

use super::id::StreamId;
use crate::types::listpack::{Item, Listpack, Pos};

/// The entry is deleted.
const DELETED: i64 = 1;
/// The entry's names are the node's.
const SAME_NAMES: i64 = 2;

/// A node. Its first id is what it is kept under.
#[derive(Debug, Clone)]
pub(super) struct Node(Listpack);

/// An entry of a stream.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    pack: &'a Listpack,
    flags: Pos,
    is_deleted: bool,
    /// The first of the names: the node's, or those before the values.
    names: Option<Pos>,
    /// The first value, or the first name with the value behind it.
    first: Option<Pos>,
    has_names: bool,
    /// How many fields.
    len: usize,
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<'a> Entry<'a> {
    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none, which no command makes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its fields with their values, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (Item<'a>, Item<'a>)> + use<'a> {
        let (pack, has_names) = (self.pack, self.has_names);
        let (mut name, mut value) = (self.names, self.first);
        (0..self.len).map_while(move |_| {
            let name_at = if has_names { value? } else { name? };
            let value_at = if has_names { pack.next(name_at)? } else { value? };
            name = name.and_then(|name| pack.next(name));
            value = pack.next(value_at);
            Some((pack.get(name_at), pack.get(value_at)))
        })
    }
}

impl Node {
    /// A node whose names are those of its first entry, which is yet to be added.
    pub(super) fn new(fields: &[(&[u8], &[u8])]) -> Self {
        let mut pack = Listpack::new();
        for number in [0, 0, fields.len() as i64] {
            pack.push_back_item(Item::Int(number));
        }
        fields.iter().for_each(|(name, _)| pack.push_back(name));
        pack.push_back_item(Item::Int(0));
        Self(pack)
    }

    /// The node of a listpack that came from outside, if it is one.
    pub(super) fn read(pack: Listpack, first: StreamId) -> Option<Self> {
        let node = Self(pack);
        let head = (node.number_at(0)?, node.number_at(1)?);
        let (mut live, mut deleted, mut last) = (0, 0, None);
        let mut cursor = node.after_head();
        // Whatever it says of itself must be so.
        node.0.seek(node.number_at(2)?.checked_add(3)?).filter(|_| node.number_at(2) >= Some(0))?;
        while let Some(at) = cursor {
            let (entry, next) = node.entry_at(first, at)?;
            if last.is_some_and(|last| entry.id <= last)
                || entry.id < first
                || entry.fields().count() != entry.len
            {
                return None;
            }
            last = Some(entry.id);
            if entry.is_deleted {
                deleted += 1
            } else {
                live += 1
            }
            cursor = next;
        }
        (live > 0 && head == (live, deleted)).then_some(node)
    }

    pub(super) fn pack(&self) -> &Listpack {
        &self.0
    }

    /// Bytes as Redis counts them.
    pub(super) fn byte_len(&self) -> usize {
        self.0.byte_len()
    }

    fn number_at(&self, index: i64) -> Option<i64> {
        match self.0.get(self.0.seek(index)?) {
            Item::Int(number) => Some(number),
            Item::Bytes(_) => None,
        }
    }

    /// How many entries are not deleted.
    pub(super) fn live(&self) -> u64 {
        self.number_at(0).unwrap_or(0) as u64
    }

    /// How many there are with the deleted ones.
    pub(super) fn all(&self) -> u64 {
        self.live() + self.number_at(1).unwrap_or(0) as u64
    }

    fn count(&mut self, live: i64, deleted: i64) {
        for (index, by) in [(0, live), (1, deleted)] {
            let number = self.number_at(index).unwrap_or(0);
            if let Some(pos) = self.0.seek(index).filter(|_| by != 0) {
                self.0.replace_item(pos, Item::Int(number + by));
            }
        }
    }

    fn has_names(&self, fields: &[(&[u8], &[u8])]) -> bool {
        self.number_at(2) == Some(fields.len() as i64)
            && self.0.iter_from(self.0.seek(3)).zip(fields).all(|(name, (other, _))| name.eq_bytes(other))
    }

    /// Adds an entry at the end.
    pub(super) fn push(&mut self, first: StreamId, id: StreamId, fields: &[(&[u8], &[u8])]) {
        let is_same = self.has_names(fields);
        self.count(1, 0);
        let flags = if is_same { SAME_NAMES } else { 0 };
        for number in [flags, id.ms.wrapping_sub(first.ms) as i64, id.seq.wrapping_sub(first.seq) as i64] {
            self.0.push_back_item(Item::Int(number));
        }
        if !is_same {
            self.0.push_back_item(Item::Int(fields.len() as i64));
        }
        for (name, value) in fields {
            if !is_same {
                self.0.push_back(name);
            }
            self.0.push_back(value);
        }
        let elements = if is_same { fields.len() + 3 } else { 2 * fields.len() + 4 };
        self.0.push_back_item(Item::Int(elements as i64));
    }

    fn after_head(&self) -> Option<Pos> {
        self.0.next(self.0.seek(self.number_at(2)?.checked_add(3)?)?)
    }

    /// The entry whose flags are at a place, and the place behind it; `None` if there is no whole entry.
    fn entry_at(&self, first: StreamId, flags: Pos) -> Option<(Entry<'_>, Option<Pos>)> {
        let pack = &self.0;
        let mut at = flags;
        let number = |at: Pos| if let Item::Int(number) = pack.get(at) { Some(number) } else { None };
        let bits = number(at)?;
        at = pack.next(at)?;
        let ms = number(at)?;
        at = pack.next(at)?;
        let seq = number(at)?;
        at = pack.next(at)?;
        let has_names = bits & SAME_NAMES == 0;
        let len = if has_names {
            let len = number(at)?;
            at = pack.next(at)?;
            len
        } else {
            self.number_at(2)?
        };
        let len = usize::try_from(len).ok()?;
        let start = at;
        for _ in 0..len.checked_mul(1 + usize::from(has_names))? {
            at = pack.next(at)?;
        }
        // The count of elements, for those who walk backwards.
        let elements = if has_names { 2 * len + 4 } else { len + 3 };
        number(at).filter(|number| *number == elements as i64)?;
        let id = StreamId { ms: first.ms.wrapping_add(ms as u64), seq: first.seq.wrapping_add(seq as u64) };
        let entry = Entry {
            id,
            pack,
            flags,
            is_deleted: bits & DELETED != 0,
            names: if has_names { None } else { pack.seek(3) },
            first: Some(start),
            has_names,
            len,
        };
        Some((entry, pack.next(at)))
    }

    /// All entries, with the deleted ones.
    fn with_deleted(&self, first: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let mut cursor = self.after_head();
        std::iter::from_fn(move || {
            let (entry, next) = self.entry_at(first, cursor?)?;
            cursor = next;
            Some(entry)
        })
    }

    /// The entries.
    pub(super) fn entries(&self, first: StreamId) -> impl Iterator<Item = Entry<'_>> {
        self.with_deleted(first).filter(|entry| !entry.is_deleted)
    }

    /// The id of the last entry, deleted or not.
    pub(super) fn last_id(&self, first: StreamId) -> StreamId {
        self.with_deleted(first).last().map_or(first, |entry| entry.id)
    }

    /// Deletes the entries from the first on for as long as `is_wanted` says; how many those were, and which is the first now.
    pub(super) fn delete_while(
        &mut self,
        first: StreamId,
        mut is_wanted: impl FnMut(StreamId) -> bool,
    ) -> (u64, Option<StreamId>) {
        let mut marks: SmallVec<[(Pos, bool); 4]> = SmallVec::new();
        let mut kept = None;
        for entry in self.entries(first) {
            if !is_wanted(entry.id) {
                kept = Some(entry.id);
                break;
            }
            marks.push((entry.flags, entry.has_names));
        }
        for (flags, has_names) in &marks {
            self.mark_deleted(*flags, *has_names);
        }
        let gone = marks.len() as i64;
        self.count(-gone, gone);
        (gone as u64, kept)
    }

    /// Marks an entry as deleted. The mark is as long as what was there, so no other entry moves.
    fn mark_deleted(&mut self, flags: Pos, has_names: bool) {
        let same = if has_names { 0 } else { SAME_NAMES };
        self.0.replace_item(flags, Item::Int(DELETED | same));
    }

    /// Deletes an entry; says whether there was one.
    pub(super) fn delete(&mut self, first: StreamId, id: StreamId) -> bool {
        let found = self.with_deleted(first).find(|entry| entry.id >= id).filter(|entry| entry.id == id);
        let Some((flags, has_names)) =
            found.filter(|entry| !entry.is_deleted).map(|it| (it.flags, it.has_names))
        else {
            return false;
        };
        self.mark_deleted(flags, has_names);
        self.count(-1, 1);
        true
    }
}
