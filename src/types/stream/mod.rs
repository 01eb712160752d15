//! Streams: entries that are only added at the end, each with an id greater than those before, and groups of consumers
//! that share them out.
//!
//! Entries lie in nodes of some hundred, in Redis's layout: how many there are in one decides on what `XTRIM ~` removes.

mod group;
mod id;
mod node;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;

pub use self::group::{Consumer, Group, Pending};
pub use self::id::StreamId;
pub use self::node::Entry;
use self::node::Node;
use super::listpack::Listpack;

/// The most bytes of a node, and of an entry.
const MAX_NODE: usize = 1 << 30;
/// What a node costs beside its listpack, about.
const NODE_BYTES: usize = 40;

/// How much goes into a node, as the settings say.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `stream-node-max-bytes`; 0 for no limit.
    pub bytes: usize,
    /// `stream-node-max-entries`; 0 for no limit.
    pub entries: u64,
}

/// The id that an entry is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewId {
    /// `*`: by the time in milliseconds.
    Auto(u64),
    /// `5-*`: the next of this millisecond.
    Open(u64),
    /// This one.
    Exactly(StreamId),
}

/// Why an entry is not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// There is no greater id than the last.
    #[error("no ids are left")]
    Exhausted,
    /// The id is not greater than the last.
    #[error("the id is not greater than the last")]
    NotGreater,
    /// The entry is larger than a node may be.
    #[error("the entry is too large")]
    TooLarge,
}

/// What entries a trim keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many.
    Last(u64),
    /// Those from an id on.
    From(StreamId),
}

/// A trim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    /// What to keep.
    pub keep: Keep,
    /// Only whole nodes go.
    pub is_approximate: bool,
    /// No more entries than so many go; 0 for no limit.
    pub limit: u64,
}

/// A stream.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    nodes: BTreeMap<StreamId, Node>,
    len: u64,
    /// The first entry's id; the least id if there is none.
    first_id: StreamId,
    /// The greatest id that was ever given.
    pub last_id: StreamId,
    /// The greatest id of an entry that was deleted by itself.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
    groups: BTreeMap<Box<[u8]>, Group>,
}

impl Stream {
    /// How many entries it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first entry's id; the least id if there is none.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The id of its last entry, if it has one.
    pub fn last_entry_id(&self) -> Option<StreamId> {
        self.range_back(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id)
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many nodes the radix tree has in which Redis would keep it.
    pub fn radix_nodes(&self) -> usize {
        let keys: Vec<[u8; 16]> = self.nodes.keys().map(|id| id.to_bytes()).collect();
        radix_nodes(&keys, 0)
    }

    /// Adds an entry; its id.
    ///
    /// # Errors
    /// Why it is not added.
    pub fn add(
        &mut self,
        id: NewId,
        fields: &[(&[u8], &[u8])],
        limits: Limits,
    ) -> Result<StreamId, AddError> {
        let id = self.choose(id)?;
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_NODE {
            return Err(AddError::TooLarge);
        }
        let most = if limits.bytes == 0 { MAX_NODE } else { limits.bytes.min(MAX_NODE) };
        let has_room = |node: &Node| {
            node.byte_len() + bytes < most && (limits.entries == 0 || node.all() < limits.entries)
        };
        match self.nodes.last_entry().filter(|last| has_room(last.get())) {
            Some(mut last) => {
                let first = *last.key();
                last.get_mut().push(first, id, fields);
            }
            None => self.nodes.entry(id).or_insert_with(|| Node::new(fields)).push(id, id, fields),
        }
        self.last_id = id;
        self.entries_added = self.entries_added.wrapping_add(1);
        self.len += 1;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(id)
    }

    fn choose(&self, id: NewId) -> Result<StreamId, AddError> {
        let next = self.last_id.next().ok_or(AddError::Exhausted)?;
        let id = match id {
            NewId::Auto(ms) if ms > self.last_id.ms => StreamId { ms, seq: 0 },
            NewId::Auto(_) => next,
            NewId::Open(ms) if ms == self.last_id.ms => {
                let seq = self.last_id.seq.checked_add(1).ok_or(AddError::NotGreater)?;
                StreamId { ms, seq }
            }
            NewId::Open(ms) => StreamId { ms, seq: 0 },
            NewId::Exactly(id) => id,
        };
        if id > self.last_id { Ok(id) } else { Err(AddError::NotGreater) }
    }

    /// The entries between two ids.
    pub fn range(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        self.nodes_between(from, to)
            .flat_map(|(first, node)| node.entries(*first))
            .skip_while(move |entry| entry.id < from)
            .take_while(move |entry| entry.id <= to)
    }

    /// The same, the last first.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        self.nodes_between(from, to)
            .rev()
            .flat_map(|(first, node)| {
                // A node is only read forwards.
                let entries: Vec<Entry<'_>> = node.entries(*first).collect();
                entries.into_iter().rev()
            })
            .skip_while(move |entry| entry.id > to)
            .take_while(move |entry| entry.id >= from)
    }

    /// The nodes in which the entries between two ids are.
    fn nodes_between(
        &self,
        from: StreamId,
        to: StreamId,
    ) -> impl DoubleEndedIterator<Item = (&StreamId, &Node)> {
        let first = self.nodes.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let bounds = (Bound::Included(first), Bound::Included(to.max(first)));
        self.nodes.range(bounds)
    }

    /// The entry with an id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        let (first, node) = self.nodes.range(..=id).next_back()?;
        node.entries(*first).find(|entry| entry.id == id)
    }

    /// Deletes entries; how many there were.
    pub fn delete(&mut self, ids: &[StreamId]) -> u64 {
        let mut deleted = 0;
        for id in ids {
            let Some((first, node)) = self.nodes.range_mut(..=*id).next_back() else { continue };
            if !node.delete(*first, *id) {
                continue;
            }
            deleted += 1;
            if node.live() == 0 {
                let first = *first;
                self.nodes.remove(&first);
            }
            self.len -= 1;
            self.max_deleted_id = self.max_deleted_id.max(*id);
        }
        if deleted > 0 {
            self.find_first();
        }
        deleted
    }

    fn find_first(&mut self) {
        let first = self.nodes.iter().flat_map(|(first, node)| node.entries(*first)).next();
        self.first_id = first.map_or(StreamId::MIN, |entry| entry.id);
    }

    /// Removes the entries that are not to be kept; how many those were.
    pub fn trim(&mut self, trim: &Trim) -> u64 {
        let (mut removed, mut first_kept) = (0, None);
        while let Some(mut place) = self.nodes.first_entry() {
            let (first, node) = (*place.key(), place.get_mut());
            let live = node.live();
            let goes_whole = match trim.keep {
                Keep::Last(len) if self.len <= len => break,
                Keep::Last(len) => self.len - live >= len,
                Keep::From(id) if first >= id => break,
                Keep::From(id) => node.last_id(first) < id,
            };
            if trim.limit > 0 && removed + live > trim.limit {
                break;
            }
            if goes_whole {
                place.remove();
                self.len -= live;
                removed += live;
                continue;
            }
            if !trim.is_approximate {
                let mut left = self.len;
                let (gone, kept) = node.delete_while(first, |id| match trim.keep {
                    Keep::Last(len) if left <= len => false,
                    Keep::Last(_) => {
                        left -= 1;
                        true
                    }
                    Keep::From(least) => id < least,
                });
                self.len -= gone;
                removed += gone;
                first_kept = kept;
            }
            break;
        }
        match first_kept {
            _ if removed == 0 => {}
            Some(first) => self.first_id = first,
            None => self.find_first(),
        }
        removed
    }

    /// Its groups, by name.
    pub fn groups(&self) -> &BTreeMap<Box<[u8]>, Group> {
        &self.groups
    }

    /// A group.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// A group, to be changed.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.groups.get_mut(name)
    }

    /// Creates a group; says whether it is new.
    pub fn create_group(&mut self, name: &[u8], group: Group) -> bool {
        let is_new = !self.groups.contains_key(name);
        if is_new {
            self.groups.insert(name.into(), group);
        }
        is_new
    }

    /// Removes a group; says whether there was one.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    /// Whether entries from an id on were deleted by themselves, so that those behind it cannot be counted.
    fn has_gaps_from(&self, id: StreamId) -> bool {
        self.len > 0
            && self.max_deleted_id != StreamId::MIN
            && self.first_id <= self.max_deleted_id
            && id <= self.max_deleted_id
    }

    /// Which of all entries that ever were added one is, if that can be told.
    pub fn place_of(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        if id != StreamId::MIN && id < self.max_deleted_id {
            return None;
        }
        if id == self.last_id {
            return Some(self.entries_added);
        }
        let is_whole = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id;
        match id.cmp(&self.first_id) {
            _ if id > self.last_id || !is_whole => None,
            std::cmp::Ordering::Less => Some(self.entries_added - self.len),
            std::cmp::Ordering::Equal => Some(self.entries_added - self.len + 1),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// How many entries a group has yet to be given, if that can be told.
    pub fn lag(&self, group: &Group) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        let read = group.entries_read.filter(|_| !self.has_gaps_from(group.last_id));
        read.or_else(|| self.place_of(group.last_id)).map(|read| self.entries_added.wrapping_sub(read))
    }

    /// Which of all entries the next one is that a group is given.
    pub fn place_after(&self, group: &Group, id: StreamId) -> Option<u64> {
        match group.entries_read.filter(|_| !self.has_gaps_from(id)) {
            Some(read) => Some(read.wrapping_add(1)),
            None if self.entries_added > 0 => self.place_of(id),
            None => None,
        }
    }

    /// Bytes allocated, about: what trees keep for an entry is not told.
    pub fn memory(&self) -> usize {
        let nodes: usize = self.nodes.values().map(|node| node.pack().allocated() + NODE_BYTES).sum();
        let groups: usize = self.groups.iter().map(|(name, group)| name.len() + group.memory()).sum();
        nodes + groups
    }

    /// Its nodes as they are written.
    pub(super) fn packs(&self) -> impl ExactSizeIterator<Item = (StreamId, &Listpack)> {
        self.nodes.iter().map(|(first, node)| (*first, node.pack()))
    }

    /// Adds a node that was read; says whether it makes sense.
    pub(super) fn add_read_node(&mut self, first: StreamId, pack: Listpack) -> bool {
        let Some(node) = Node::read(pack, first) else { return false };
        let is_behind =
            self.nodes.last_key_value().is_none_or(|(before, last)| last.last_id(*before) < first);
        if is_behind {
            self.len += node.live();
            self.last_id = node.last_id(first);
            self.nodes.insert(first, node);
            self.find_first();
        }
        is_behind
    }
}

/// How many nodes a radix tree has for sorted keys that agree in their first bytes.
fn radix_nodes(keys: &[[u8; 16]], agree: usize) -> usize {
    match keys {
        [] => 1,
        // What is left of the key in one node, and its end.
        [_] => 1 + usize::from(agree < 16),
        [first, .., last] => {
            let common = (agree..16).take_while(|&at| first[at] == last[at]).count();
            let fork = agree + common;
            let branches = keys.chunk_by(|a, b| a[fork] == b[fork]);
            usize::from(common > 0) + 1 + branches.map(|keys| radix_nodes(keys, fork + 1)).sum::<usize>()
        }
    }
}
