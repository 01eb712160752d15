//! One key with its value in one allocation behind an 8-byte pointer.
//!
//! ```text
//! header 16 | deadline 8, if it has one | integer 8 or Value 24, by kind | key | bytes of a short string
//! ```
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
use crate::types::table::Element;

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
    has_deadline: bool,
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
        let entry = Self::allocate(key, Kind::Integer, 0, deadline);
        // SAFETY: an integer entry has 8 aligned bytes at `fixed`.
        unsafe { entry.fixed().cast::<i64>().write(value) };
        entry
    }

    /// Any value that lies apart.
    pub fn object(key: &[u8], value: Value, deadline: Option<u64>) -> Self {
        let entry = Self::allocate(key, Kind::Object, 0, deadline);
        // SAFETY: an object entry has 24 aligned bytes at `fixed`, not initialised yet.
        unsafe { entry.fixed().cast::<Value>().write(value) };
        entry
    }

    /// A string that is kept as bytes whatever it spells; at most [`MAX_INLINE`] long.
    pub(super) fn inline(key: &[u8], value: &[u8], deadline: Option<u64>) -> Self {
        let mut entry = Self::allocate(key, Kind::Inline, value.len(), deadline);
        entry.inline_mut().copy_from_slice(value);
        entry
    }

    fn allocate(key: &[u8], kind: Kind, value_len: usize, deadline: Option<u64>) -> Self {
        let size = size_of_entry(key.len(), kind, value_len, deadline.is_some());
        let layout = layout(size);
        // SAFETY: the layout has at least a header's bytes.
        let pointer = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout) };
        let header = Header {
            access: 0,
            key_len: key.len() as u32,
            value_len: value_len as u32,
            kind,
            has_deadline: deadline.is_some(),
            edited: false,
            mark: 0,
        };
        let entry = Self(pointer);
        // SAFETY: the allocation holds the header, the deadline if there is one, and the key at `key_offset`.
        // The value's bytes are zeroed or written by the caller before anything reads them.
        unsafe {
            pointer.write(header);
            if let Some(deadline) = deadline {
                entry.byte(HEADER).cast::<u64>().write(deadline);
            }
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
        if header.has_deadline == deadline.is_some() {
            match (header.kind, integer) {
                (Kind::Integer, Some(integer)) => {
                    // SAFETY: an integer entry has its integer at `fixed`.
                    unsafe { self.fixed().cast::<i64>().write(integer) };
                    self.write_deadline(deadline);
                    return None;
                }
                (Kind::Inline, None) if value.len() <= MAX_INLINE && self.fits(value.len()) => {
                    self.header_mut().value_len = value.len() as u32;
                    self.header_mut().edited = false;
                    self.inline_mut().copy_from_slice(value);
                    self.write_deadline(deadline);
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
            Some(old) => Some(std::mem::replace(old, value)),
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

    /// The deadline in milliseconds since the Unix epoch.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        // SAFETY: an entry with the flag has its deadline behind the header.
        self.header().has_deadline.then(|| unsafe { self.byte(HEADER).cast::<u64>().read() })
    }

    /// Whether the deadline has passed at `now_ms`.
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline().is_some_and(|deadline| deadline < now_ms)
    }

    /// Sets or clears the deadline, which may move the entry.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        if self.header().has_deadline == deadline.is_some() {
            return self.write_deadline(deadline);
        }
        let header = self.header();
        let (kind, edited, key_len) = (header.kind, header.edited, header.key_len as usize);
        let value_len = header.value_len as usize;
        let mut new = Self::allocate(self.key(), kind, value_len, deadline);
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
        let size = size_of_entry(header.key_len as usize, Kind::Inline, value_len, header.has_deadline);
        size_class(size) == size_class(self.size())
    }

    fn write_deadline(&mut self, deadline: Option<u64>) {
        if let Some(deadline) = deadline {
            debug_assert!(self.header().has_deadline);
            // SAFETY: the flag is set, so 8 aligned bytes lie behind the header.
            unsafe { self.byte(HEADER).cast::<u64>().write(deadline) };
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
        self.byte(HEADER + if self.header().has_deadline { 8 } else { 0 })
    }

    #[inline]
    fn key_offset(&self) -> usize {
        let header = self.header();
        HEADER + if header.has_deadline { 8 } else { 0 } + fixed_size(header.kind)
    }

    fn size(&self) -> usize {
        let header = self.header();
        let value_len = header.value_len as usize;
        size_of_entry(header.key_len as usize, header.kind, value_len, header.has_deadline)
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
        Entry::deadline(self)
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
const fn size_of_entry(key_len: usize, kind: Kind, value_len: usize, has_deadline: bool) -> usize {
    HEADER + if has_deadline { 8 } else { 0 } + fixed_size(kind) + key_len + value_len
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
}
