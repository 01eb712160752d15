//! What a key holds: a closed set of types, each with its encodings in a file of its own.

use super::defrag::MOST_ELEMENTS;
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::listpack::Item;
use crate::types::prefetch::Part;
use crate::types::rdb::Source;
use crate::types::relocate::Wants;
use crate::types::set::Set;
use crate::types::sorted_set::SortedSet;
use crate::types::stream::Stream;

/// A value that does not lie in its entry's own allocation.
#[derive(Debug, Clone)]
pub enum Value {
    /// A long string, or one that grew by being edited.
    String(Box<Vec<u8>>),
    /// A list.
    List(List),
    /// A hash.
    Hash(Hash),
    /// A set.
    Set(Set),
    /// A sorted set.
    SortedSet(SortedSet),
    /// A stream: large by itself, and seldom many.
    Stream(Box<Stream>),
}

/// A value as a reader sees it, wherever it lies.
#[derive(Debug, Clone, Copy)]
pub enum ValueRef<'a> {
    /// A string: its bytes, or the integer it is kept as.
    String(Item<'a>),
    /// A list.
    List(&'a List),
    /// A hash.
    Hash(&'a Hash),
    /// A set.
    Set(&'a Set),
    /// A sorted set.
    SortedSet(&'a SortedSet),
    /// A stream.
    Stream(&'a Stream),
}

impl<'a> ValueRef<'a> {
    /// The value as it is written.
    pub fn source(self) -> Source<'a> {
        match self {
            Self::String(item) => Source::String(item),
            Self::List(list) => Source::List(list),
            Self::Hash(hash) => Source::Hash(hash),
            Self::Set(set) => Source::Set(set),
            Self::SortedSet(set) => Source::SortedSet(set),
            Self::Stream(stream) => Source::Stream(stream),
        }
    }

    /// The name that `TYPE` replies.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }
}

impl Value {
    /// When the first of its parts expires that have deadlines of their own: fields of a hash.
    #[inline]
    pub fn earliest_of_fields(&self) -> Option<u64> {
        if let Self::Hash(hash) = self { hash.earliest() } else { None }
    }

    /// Whether freeing it takes long enough to leave it to another thread.
    pub fn is_expensive_to_free(&self) -> bool {
        const MANY: usize = 64;
        match self {
            Self::String(bytes) => bytes.len() > 1 << 20,
            Self::List(list) => list.len() > MANY * 64,
            Self::Hash(hash) => hash.len() > MANY,
            Self::Set(set) => set.len() > MANY,
            Self::SortedSet(set) => set.len() > MANY,
            Self::Stream(stream) => stream.nodes() + stream.groups().len() > MANY / 8,
        }
    }
}

/// A collection type that a key can hold.
pub trait Stored: Default {
    /// Whether parts of it have deadlines of their own.
    const HAS_DEADLINES: bool = false;
    /// The value as this type, if it is one.
    fn of(value: &Value) -> Option<&Self>;
    /// The same, to change it.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;
    /// Wraps it.
    fn into_value(self) -> Value;
    /// Elements; a key whose collection becomes empty is removed.
    fn elements(&self) -> usize;
    /// Bytes allocated.
    fn memory(&self) -> usize;
}

macro_rules! stored {
    ($type:ty, $variant:ident $(, $has_deadlines:ident)?) => {
        impl Stored for $type {
            $(const HAS_DEADLINES: bool = $has_deadlines;)?
            fn of(value: &Value) -> Option<&Self> {
                if let Value::$variant(inner) = value { Some(inner) } else { None }
            }
            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                if let Value::$variant(inner) = value { Some(inner) } else { None }
            }
            fn into_value(self) -> Value {
                Value::$variant(self)
            }
            fn elements(&self) -> usize {
                self.len()
            }
            fn memory(&self) -> usize {
                self.memory()
            }
        }
    };
}

stored!(List, List);
stored!(Hash, Hash, true);
stored!(Set, Set);
stored!(SortedSet, SortedSet);

impl Stored for Box<Stream> {
    fn of(value: &Value) -> Option<&Self> {
        if let Value::Stream(stream) = value { Some(stream) } else { None }
    }
    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Stream(stream) = value { Some(stream) } else { None }
    }
    fn into_value(self) -> Value {
        Value::Stream(self)
    }
    /// A stream without entries stays: it knows the last id, and has groups.
    fn elements(&self) -> usize {
        1
    }
    fn memory(&self) -> usize {
        size_of::<Stream>() + Stream::memory(self)
    }
}

impl Value {
    /// The value as a reader sees it.
    pub fn view(&self) -> ValueRef<'_> {
        match self {
            Self::String(bytes) => ValueRef::String(Item::Bytes(bytes)),
            Self::List(list) => ValueRef::List(list),
            Self::Hash(hash) => ValueRef::Hash(hash),
            Self::Set(set) => ValueRef::Set(set),
            Self::SortedSet(set) => ValueRef::SortedSet(set),
            Self::Stream(stream) => ValueRef::Stream(stream),
        }
    }

    /// Starts a part of a collection on its way into the cache.
    #[inline]
    pub fn prefetch(&self, part: Part) {
        match self {
            Self::String(_) | Self::List(_) | Self::Stream(_) => {}
            Self::Hash(hash) => hash.prefetch(part),
            Self::Set(set) => set.prefetch(part),
            Self::SortedSet(set) => set.prefetch(part),
        }
    }

    /// Moves what `wants` says so of to other allocations, as far as that is quick; how much that was.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> usize {
        match self {
            Self::String(bytes) => {
                // Without room there is no allocation to ask for.
                let moves = bytes.capacity() > 0 && wants(bytes.as_ptr());
                if moves {
                    let mut copy = Vec::with_capacity(bytes.capacity());
                    copy.extend_from_slice(bytes);
                    **bytes = copy;
                }
                usize::from(moves)
            }
            Self::List(list) => list.relocate(wants, MOST_ELEMENTS),
            Self::Hash(hash) => hash.relocate(wants, MOST_ELEMENTS),
            Self::Set(set) => set.relocate(wants, MOST_ELEMENTS),
            Self::SortedSet(set) => set.relocate(wants),
            Self::Stream(_) => 0,
        }
    }

    /// Bytes allocated outside the entry.
    pub fn memory(&self) -> usize {
        match self {
            Self::String(bytes) => size_of::<Vec<u8>>() + bytes.capacity(),
            Self::List(list) => list.memory(),
            Self::Hash(hash) => hash.memory(),
            Self::Set(set) => set.memory(),
            Self::SortedSet(set) => set.memory(),
            Self::Stream(stream) => Stored::memory(stream),
        }
    }
}
