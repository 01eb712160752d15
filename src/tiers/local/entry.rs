//! One key with its value in one allocation behind an 8-byte pointer.
//!
//! ```text
//! header 16 | deadline 8, if it has one | integer 8 or Value 24, by kind | key | bytes of a short string
//! ```
//! A hash with fields that expire has two deadlines there: when something of it expires first, the whole or a field; and
//! when the whole does, which may be [`NEVER`].
//!
//! The allocation is rounded to the allocator's size class, so a string is overwritten in place whenever the
//! new one falls into the same class. Nothing here knows of shards, commands or clocks.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::memory::size_class;
use super::value::{Value, ValueRef};
use crate::types::hasher::hash_bytes;
use crate::types::listpack::Item;
use crate::types::number::parse_i64;
use crate::types::prefetch::{prefetch, prefetch_two};
use crate::types::relocate::Wants;
use crate::types::table::Element;

/// The whole expires never.
const NEVER: u64 = u64::MAX;

/// Strings up to this length lie in the entry itself.
pub(super) const MAX_INLINE: usize = 1024;

#[repr(C)]
struct Header {
    /// When it was last used: seconds (LRU) or minutes and a logarithmic counter (LFU), by policy.
    access: u32,
    key_len: u32,
    /// Bytes of an inline string.
    value_len: u32,
    kind: Kind,
    /// How many deadlines lie behind the header: 0, 1 or 2.
    deadlines: u8,
    /// The string was edited in place: its encoding is `raw` however short it is.
    edited: bool,
    /// Two bits of frequency and the queue it is in, for S3-FIFO.
    mark: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Integer,
    Inline,
    Object,
}

const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 16 && size_of::<Value>() == 24 && align_of::<Value>() == 8);

/// The deadlines of an entry, in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Deadlines {
    /// That of the key.
    key: Option<u64>,
    /// The earliest of a hash's fields.
    fields: Option<u64>,
}

impl Deadlines {
    const fn of_key(deadline: Option<u64>) -> Self {
        Self { key: deadline, fields: None }
    }

    const fn count(self) -> u8 {
        if self.fields.is_some() { 2 } else { self.key.is_some() as u8 }
    }
}

/// A key, its value, its deadline and its access record.
pub struct Entry(NonNull<Header>);

// SAFETY: an entry owns its allocation alone, and everything in it is Send.
unsafe impl Send for Entry {}
// SAFETY: shared access only reads.
unsafe impl Sync for Entry {}

impl Entry {
    /// A string: kept as an integer if it is the decimal form of one, inline if short, apart if long.
    pub fn string(key: &[u8], value: &[u8], deadline: Option<u64>) -> Self {
        if value.len() <= 20
            && let Some(integer) = parse_i64(value)
        {
            return Self::integer(key, integer, deadline);
        }
        if value.len() <= MAX_INLINE {
            Self::inline(key, value, deadline)
        } else {
            Self::object(key, Value::String(Box::new(value.to_vec())), deadline)
        }
    }

    /// A string that is an integer.
    pub fn integer(key: &[u8], value: i64, deadline: Option<u64>) -> Self {
        let entry = Self::allocate(key, Kind::Integer, 0, Deadlines::of_key(deadline));
        // SAFETY: an integer entry has 8 aligned bytes at `fixed`.
        unsafe { entry.fixed().cast::<i64>().write(value) };
        entry
    }

    /// Any value that lies apart.
    pub fn object(key: &[u8], value: Value, deadline: Option<u64>) -> Self {
        let deadlines = Deadlines { key: deadline, fields: value.earliest_of_fields() };
        let entry = Self::allocate(key, Kind::Object, 0, deadlines);
        // SAFETY: an object entry has 24 aligned bytes at `fixed`, not initialised yet.
        unsafe { entry.fixed().cast::<Value>().write(value) };
        entry
    }

    /// A string that is kept as bytes whatever it spells; at most [`MAX_INLINE`] long.
    pub(super) fn inline(key: &[u8], value: &[u8], deadline: Option<u64>) -> Self {
        let mut entry = Self::allocate(key, Kind::Inline, value.len(), Deadlines::of_key(deadline));
        entry.inline_mut().copy_from_slice(value);
        entry
    }

    fn allocate(key: &[u8], kind: Kind, value_len: usize, deadlines: Deadlines) -> Self {
        let size = size_of_entry(key.len(), kind, value_len, deadlines.count());
        let layout = layout(size);
        // SAFETY: the layout has at least a header's bytes.
        let pointer = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout) };
        let header = Header {
            access: 0,
            key_len: key.len() as u32,
            value_len: value_len as u32,
            kind,
            deadlines: deadlines.count(),
            edited: false,
            mark: 0,
        };
        // SAFETY: the allocation has room for a header.
        unsafe { pointer.write(header) };
        let mut entry = Self(pointer);
        entry.write_deadlines(deadlines);
        // SAFETY: the allocation holds the header, its deadlines, and the key at `key_offset`.
        // The value's bytes are zeroed or written by the caller before anything reads them.
        unsafe {
            let offset = entry.key_offset();
            entry.byte(offset).copy_from_nonoverlapping(key.as_ptr(), key.len());
            if kind == Kind::Inline {
                entry.byte(offset + key.len()).write_bytes(0, value_len);
            }
        }
        entry
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        // SAFETY: `key_len` initialised bytes lie at `key_offset`.
        unsafe { std::slice::from_raw_parts(self.byte(self.key_offset()), self.header().key_len as usize) }
    }

    /// Starts its header, deadline and fixed part on their way into the cache.
    #[inline]
    pub(super) fn prefetch_head(&self) {
        prefetch(self.0.as_ptr());
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        match self.header().kind {
            // SAFETY: an integer entry has its integer at `fixed`.
            Kind::Integer => ValueRef::String(Item::Int(unsafe { self.fixed().cast::<i64>().read() })),
            Kind::Inline => ValueRef::String(Item::Bytes(self.inline_bytes())),
            Kind::Object => self.object_ref().view(),
        }
    }

    /// The value, if it lies apart (everything but a short string).
    #[inline]
    pub fn as_object(&self) -> Option<&Value> {
        (self.header().kind == Kind::Object).then(|| self.object_ref())
    }

    /// The same, to change it.
    #[inline]
    pub fn as_object_mut(&mut self) -> Option<&mut Value> {
        // SAFETY: an object entry has an initialised Value at `fixed`, and `self` is borrowed for as long.
        (self.header().kind == Kind::Object).then(|| unsafe { &mut *self.fixed().cast::<Value>() })
    }

    /// The integer, if the string is kept as one, to change it.
    #[inline]
    pub fn as_integer_mut(&mut self) -> Option<&mut i64> {
        // SAFETY: an integer entry has its integer at `fixed`, and `self` is borrowed for as long.
        (self.header().kind == Kind::Integer).then(|| unsafe { &mut *self.fixed().cast::<i64>() })
    }

    /// The bytes of a string that lies in the entry, to change them without changing their number.
    pub fn as_inline_mut(&mut self) -> Option<&mut [u8]> {
        (self.header().kind == Kind::Inline).then(|| self.inline_mut())
    }

    /// Makes the value a string, in place where it fits, and sets or clears the deadline.
    ///
    /// Returns the value it replaced if that lay apart, so that the caller may free it elsewhere.
    #[inline]
    pub fn set_string(&mut self, value: &[u8], deadline: Option<u64>) -> Option<Value> {
        let integer = if value.len() <= 20 { parse_i64(value) } else { None };
        let header = self.header();
        let deadlines = Deadlines::of_key(deadline);
        if header.deadlines == deadlines.count() {
            match (header.kind, integer) {
                (Kind::Integer, Some(integer)) => {
                    // SAFETY: an integer entry has its integer at `fixed`.
                    unsafe { self.fixed().cast::<i64>().write(integer) };
                    self.write_deadlines(deadlines);
                    return None;
                }
                (Kind::Inline, None) if value.len() <= MAX_INLINE && self.fits(value.len()) => {
                    self.header_mut().value_len = value.len() as u32;
                    self.header_mut().edited = false;
                    self.inline_mut().copy_from_slice(value);
                    self.write_deadlines(deadlines);
                    return None;
                }
                _ => {}
            }
        }
        let new = Self::string(self.key(), value, deadline);
        self.replace(new)
    }

    /// Makes the value an integer string, keeping the deadline.
    pub fn set_integer(&mut self, value: i64) -> Option<Value> {
        if let Some(integer) = self.as_integer_mut() {
            *integer = value;
            return None;
        }
        let new = Self::integer(self.key(), value, self.deadline());
        self.replace(new)
    }

    /// Makes the value one that lies apart, keeping the deadline; returns the old one if it lay apart.
    pub fn set_object(&mut self, value: Value) -> Option<Value> {
        match self.as_object_mut() {
            Some(old) => {
                let old = std::mem::replace(old, value);
                self.note_fields();
                Some(old)
            }
            None => {
                let new = Self::object(self.key(), value, self.deadline());
                self.replace(new)
            }
        }
    }

    /// Puts a new allocation in place of this one, keeping the access record.
    fn replace(&mut self, mut new: Self) -> Option<Value> {
        new.header_mut().access = self.header().access;
        new.header_mut().mark = self.header().mark;
        std::mem::replace(self, new).into_object()
    }

    /// The value, if it lies apart; the entry is gone.
    pub fn into_object(self) -> Option<Value> {
        let value = (self.header().kind == Kind::Object).then(|| {
            // SAFETY: an object entry has an initialised Value at `fixed`; `free` below does not drop it again.
            unsafe { self.fixed().cast::<Value>().read() }
        });
        self.free();
        value
    }

    /// When the key expires, in milliseconds since the Unix epoch.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        match self.header().deadlines {
            0 => None,
            1 => Some(self.deadline_at(0)),
            _ => Some(self.deadline_at(1)).filter(|deadline| *deadline != NEVER),
        }
    }

    /// When something of it expires first: the key, or a field of a hash.
    #[inline]
    pub fn due(&self) -> Option<u64> {
        (self.header().deadlines > 0).then(|| self.deadline_at(0))
    }

    /// Whether something of it has expired at `now_ms`.
    #[inline]
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.due().is_some_and(|due| due < now_ms)
    }

    /// Whether nothing is left of it at `now_ms`: the key's deadline has passed, or that of all fields.
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.is_due(now_ms) && (self.header().deadlines == 1 || self.is_wholly_past(now_ms))
    }

    #[cold]
    fn is_wholly_past(&self, now_ms: u64) -> bool {
        self.deadline().is_some_and(|deadline| deadline < now_ms)
            || matches!(self.value(), ValueRef::Hash(hash) if hash.is_past(now_ms))
    }

    /// Whether it is a hash with fields that expire.
    #[inline]
    pub fn has_deadlines_of_fields(&self) -> bool {
        self.header().deadlines == 2
    }

    /// Sets or clears the key's deadline, which may move the entry.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        let fields = if self.has_deadlines_of_fields() { self.earliest_of_fields() } else { None };
        self.set_deadlines(Deadlines { key: deadline, fields });
    }

    /// Takes note of what the fields' deadlines are now, which may move the entry; when something of it expires first, if
    /// fields do.
    pub(super) fn note_fields(&mut self) -> Option<u64> {
        let fields = self.earliest_of_fields();
        if fields.is_some() || self.has_deadlines_of_fields() {
            self.set_deadlines(Deadlines { key: self.deadline(), fields });
        }
        self.due().filter(|_| fields.is_some())
    }

    fn earliest_of_fields(&self) -> Option<u64> {
        self.as_object().and_then(Value::earliest_of_fields)
    }

    fn set_deadlines(&mut self, deadlines: Deadlines) {
        if self.header().deadlines == deadlines.count() {
            return self.write_deadlines(deadlines);
        }
        let header = self.header();
        let (kind, edited, key_len) = (header.kind, header.edited, header.key_len as usize);
        let value_len = header.value_len as usize;
        let mut new = Self::allocate(self.key(), kind, value_len, deadlines);
        new.header_mut().edited = edited;
        new.header_mut().access = self.header().access;
        new.header_mut().mark = self.header().mark;
        // SAFETY: both entries are of one kind and length, so the fixed part and the inline bytes have the same
        // size in both; a Value moves bitwise and the old one is freed without being dropped.
        unsafe {
            new.fixed().copy_from_nonoverlapping(self.fixed(), fixed_size(kind));
            let from = self.byte(self.key_offset() + key_len);
            new.byte(new.key_offset() + key_len).copy_from_nonoverlapping(from, value_len);
        }
        std::mem::replace(self, new).free();
    }

    /// The same value under another name.
    pub fn renamed(self, key: &[u8]) -> Self {
        let (deadline, access, edited) = (self.deadline(), self.access(), self.header().edited);
        let mut new = match self.value() {
            ValueRef::String(Item::Int(integer)) => Self::integer(key, integer, deadline),
            ValueRef::String(Item::Bytes(bytes)) if self.header().kind == Kind::Inline => {
                Self::inline(key, bytes, deadline)
            }
            _ => match self.into_object() {
                Some(value) => Self::object(key, value, deadline),
                None => unreachable!("neither integer nor inline: it lies apart"),
            },
        };
        new.header_mut().edited = edited;
        new.set_access(access);
        new
    }

    /// The access record; what it means is the eviction policy's business.
    #[inline]
    pub fn access(&self) -> u32 {
        self.header().access
    }

    /// Writes the access record.
    #[inline]
    pub fn set_access(&mut self, access: u32) {
        self.header_mut().access = access;
    }

    /// The queue mark of S3-FIFO.
    pub fn mark(&self) -> u8 {
        self.header().mark
    }

    /// Writes the queue mark.
    pub fn set_mark(&mut self, mark: u8) {
        self.header_mut().mark = mark;
    }

    /// Whether the string was edited in place.
    pub fn is_edited(&self) -> bool {
        self.header().edited
    }

    /// Notes that the string was edited in place.
    pub fn set_edited(&mut self) {
        self.header_mut().edited = true;
    }

    /// Moves what `wants` says so of to other allocations: the entry, and its value as far as that is quick. How much that
    /// was.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> usize {
        let moved = self.as_object_mut().map_or(0, |value| value.relocate(wants));
        if !wants(self.0.as_ptr().cast()) {
            return moved;
        }
        let (size, layout) = (self.size(), layout(self.size()));
        // SAFETY: the layout is that of the old allocation, of which `size` bytes are in use.
        let pointer = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout) };
        // SAFETY: both are that large and apart from each other; a Value moves bitwise, and the old one is freed without
        // being dropped.
        unsafe { pointer.cast::<u8>().copy_from_nonoverlapping(self.0.cast::<u8>(), size) };
        std::mem::replace(self, Self(pointer)).free();
        moved + 1
    }

    /// Bytes allocated for the entry, the value apart included.
    pub fn memory(&self) -> usize {
        size_class(self.size()) + self.as_object().map_or(0, Value::memory)
    }

    fn object_ref(&self) -> &Value {
        debug_assert_eq!(self.header().kind, Kind::Object);
        // SAFETY: only called for object entries, which have an initialised Value at `fixed`.
        unsafe { &*self.fixed().cast::<Value>() }
    }

    fn inline_bytes(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: `value_len` initialised bytes lie behind the key of an inline entry.
        unsafe {
            let start = self.byte(self.key_offset() + header.key_len as usize);
            std::slice::from_raw_parts(start, header.value_len as usize)
        }
    }

    fn inline_mut(&mut self) -> &mut [u8] {
        let header = self.header();
        // SAFETY: as in `inline_bytes`, and `self` is borrowed mutably.
        unsafe {
            let start = self.byte(self.key_offset() + header.key_len as usize);
            std::slice::from_raw_parts_mut(start, header.value_len as usize)
        }
    }

    /// Whether an inline string of that length needs an allocation of the same class.
    fn fits(&self, value_len: usize) -> bool {
        let header = self.header();
        let size = size_of_entry(header.key_len as usize, Kind::Inline, value_len, header.deadlines);
        size_class(size) == size_class(self.size())
    }

    #[inline]
    fn deadline_at(&self, index: u8) -> u64 {
        debug_assert!(index < self.header().deadlines);
        // SAFETY: so many initialised and aligned numbers lie behind the header.
        unsafe { self.byte(HEADER + usize::from(index) * 8).cast::<u64>().read() }
    }

    /// Writes deadlines, of the number that there is room for.
    #[inline]
    fn write_deadlines(&mut self, deadlines: Deadlines) {
        debug_assert_eq!(self.header().deadlines, deadlines.count());
        let key = deadlines.key.unwrap_or(NEVER);
        // SAFETY: as many aligned numbers lie behind the header as the deadlines are.
        unsafe {
            match deadlines.fields {
                None if deadlines.key.is_none() => {}
                None => self.byte(HEADER).cast::<u64>().write(key),
                Some(fields) => self.byte(HEADER).cast::<[u64; 2]>().write([key.min(fields), key]),
            }
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the pointer is to an initialised header for as long as the entry lives.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as above, borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    /// A pointer into the allocation.
    #[inline]
    fn byte(&self, offset: usize) -> *mut u8 {
        // SAFETY: callers stay within the allocation's size.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset) }
    }

    /// Where the integer or the Value lies.
    #[inline]
    fn fixed(&self) -> *mut u8 {
        self.byte(HEADER + usize::from(self.header().deadlines) * 8)
    }

    #[inline]
    fn key_offset(&self) -> usize {
        let header = self.header();
        HEADER + usize::from(header.deadlines) * 8 + fixed_size(header.kind)
    }

    fn size(&self) -> usize {
        let header = self.header();
        let value_len = header.value_len as usize;
        size_of_entry(header.key_len as usize, header.kind, value_len, header.deadlines)
    }

    /// Gives the allocation back without dropping the value.
    fn free(self) {
        let layout = layout(self.size());
        let pointer = self.0;
        std::mem::forget(self);
        // SAFETY: allocated with the same layout, which follows from the header; `self` is forgotten.
        unsafe { dealloc(pointer.as_ptr().cast(), layout) };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = layout(self.size());
        if let Some(value) = self.as_object_mut() {
            // SAFETY: an initialised Value, dropped once: the allocation goes right after.
            unsafe { std::ptr::drop_in_place(value) };
        }
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
    }
}

impl Element for Entry {
    fn hash(&self) -> u64 {
        hash_bytes(self.key())
    }

    fn deadline(&self) -> Option<u64> {
        self.due()
    }

    #[inline]
    fn prefetch(&self) {
        // Header, key and a short value lie in the first two lines.
        prefetch_two(self.0.as_ptr());
    }
}

#[inline]
const fn fixed_size(kind: Kind) -> usize {
    match kind {
        Kind::Integer => size_of::<i64>(),
        Kind::Inline => 0,
        Kind::Object => size_of::<Value>(),
    }
}

#[inline]
const fn size_of_entry(key_len: usize, kind: Kind, value_len: usize, deadlines: u8) -> usize {
    HEADER + deadlines as usize * 8 + fixed_size(kind) + key_len + value_len
}

fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size_class(size), align_of::<Header>().max(align_of::<Value>())) {
        Ok(layout) => layout,
        Err(_) => unreachable!("lengths are bounded by the protocol's limits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hash::{Hash, Limits};
    use crate::types::list::List;

    fn text(entry: &Entry) -> Vec<u8> {
        match entry.value() {
            ValueRef::String(Item::Int(integer)) => integer.to_string().into_bytes(),
            ValueRef::String(Item::Bytes(bytes)) => bytes.to_vec(),
            other => panic!("not a string: {other:?}"),
        }
    }

    #[test]
    fn strings_take_every_form_and_change_between_them() {
        let long = vec![7; MAX_INLINE + 1];
        let values: [&[u8]; 6] = [b"", b"12", b"hello", &[9; 64], &[8; 65], &long];
        for deadline in [None, Some(5)] {
            for from in values {
                for to in values {
                    let mut entry = Entry::string(b"key", from, deadline);
                    assert_eq!(text(&entry), from);
                    entry.set_string(to, Some(77));
                    assert_eq!((text(&entry).as_slice(), entry.deadline()), (to, Some(77)));
                    entry.set_deadline(None);
                    entry.set_deadline(None);
                    entry.set_deadline(Some(78));
                    assert_eq!((text(&entry).as_slice(), entry.deadline()), (to, Some(78)));
                    let entry = entry.renamed(b"another key");
                    assert_eq!((entry.key(), text(&entry).as_slice()), (b"another key".as_slice(), to));
                }
            }
        }
    }

    #[test]
    fn collections_move_and_drop_once() {
        let mut list = List::default();
        list.push_back(b"a", -2);
        let mut entry = Entry::object(b"k", Value::List(list), None);
        entry.set_deadline(Some(1));
        let mut entry = entry.renamed(b"longer name");
        assert!(matches!(entry.value(), ValueRef::List(list) if list.len() == 1));
        assert!(entry.set_string(b"x", None).is_some());
        assert!(entry.set_object(Value::List(List::default())).is_none());
        assert!(matches!(entry.into_object(), Some(Value::List(_))));
    }

    #[test]
    fn a_deadline_is_passed_only_after_its_millisecond() {
        let entry = Entry::string(b"k", b"v", Some(100));
        assert!(!entry.is_expired(99) && !entry.is_expired(100) && entry.is_expired(101));
    }

    #[test]
    fn a_hash_is_due_when_the_first_of_its_fields_is_and_expired_with_the_last() {
        let mut hash = Hash::default();
        let limits = Limits { entries: 9, value: 9 };
        for (field, deadline) in [(b"a", 10), (b"b", 20)] {
            hash.set(field, b"v", &limits);
            hash.set_deadline(field, deadline);
        }
        let mut entry = Entry::object(b"key", Value::Hash(hash), None);
        for own in [None, Some(15), Some(5), None, Some(40)] {
            entry.set_deadline(own);
            assert_eq!((entry.deadline(), entry.due()), (own, Some(own.unwrap_or(40).min(10))));
            assert_eq!(entry.is_due(11), own.is_none_or(|own| own.min(10) < 11));
            assert_eq!(entry.is_expired(16), own.is_some_and(|own| own < 16));
            assert!(entry.is_expired(21) && !entry.is_expired(5));
            entry = entry.renamed(b"another key");
        }
        for (now, due) in [(11, Some(20)), (21, Some(40))] {
            let Some(Value::Hash(hash)) = entry.as_object_mut() else { panic!("a hash") };
            hash.remove_due(now);
            entry.note_fields();
            assert_eq!((entry.due(), entry.deadline()), (due, Some(40)));
        }
        assert!(!entry.has_deadlines_of_fields());
    }
}
