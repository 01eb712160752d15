//! A listpack: a sequence of small elements in one allocation, in the encoding of Redis's listpacks.
//!
//! An element is `encoding + data + back length`, so it can be walked in both directions; strings that spell a 64-bit
//! integer are kept as integers. What Redis keeps in its own header (total bytes, count) lies in that of the bytes.
//! Thin: one pointer wide.

use super::number::parse_i64;
use super::relocate::Wants;
use super::thin_bytes::{MAX_NUMBER, ThinBytes};

/// Bytes of Redis's own header and end mark, which its limits count.
const REDIS_OVERHEAD: usize = 7;

/// A sequence of strings and integers.
///
/// The number beside the bytes is that of the elements; from [`MAX_NUMBER`] on they are counted by walking.
#[derive(Clone)]
pub struct Listpack(ThinBytes);

/// The place of an element: valid until the listpack changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pos(u32);

/// An element, or any string that may be kept as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item<'a> {
    /// A string that is the decimal form of this integer.
    Int(i64),
    /// Any other string.
    Bytes(&'a [u8]),
}

/// Room for an integer's text.
#[derive(Default)]
pub struct NumBuf(itoa::Buffer);

impl NumBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        Self(itoa::Buffer::new())
    }

    /// The text of an integer.
    pub fn format(&mut self, value: i64) -> &[u8] {
        self.0.format(value).as_bytes()
    }
}

impl<'a> Item<'a> {
    /// The string as the shortest element that holds it.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Self {
        if bytes.len() <= 20
            && let Some(integer) = parse_i64(bytes)
        {
            return Self::Int(integer);
        }
        Self::Bytes(bytes)
    }

    /// The same string as the same item, wherever it is from: an integer, if it spells one.
    #[inline]
    pub fn canonical(self) -> Self {
        match self {
            Self::Int(_) => self,
            Self::Bytes(bytes) => Self::of(bytes),
        }
    }

    /// The string.
    #[inline]
    pub fn to_bytes<'b>(&'b self, buffer: &'b mut NumBuf) -> &'b [u8] {
        match self {
            Self::Int(integer) => buffer.format(*integer),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The string, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self.to_bytes(&mut NumBuf::new()).to_vec()
    }

    /// The string's length in bytes.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Int(integer) => NumBuf::new().format(*integer).len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it is this string.
    #[inline]
    pub fn eq_bytes(&self, other: &[u8]) -> bool {
        match self {
            Self::Int(integer) => other.len() <= 20 && parse_i64(other) == Some(*integer),
            Self::Bytes(bytes) => *bytes == other,
        }
    }
}

/// An element as it lies in the listpack.
enum Encoded<'a> {
    Small(u8),
    Head([u8; 9], usize),
    Text([u8; 5], usize, &'a [u8]),
}

impl<'a> Encoded<'a> {
    fn of(item: Item<'a>) -> Self {
        match item {
            Item::Int(value) => Self::integer(value),
            Item::Bytes(text) => Self::text(text),
        }
    }

    fn integer(value: i64) -> Self {
        let wide = |mark: u8, bytes: usize| {
            let mut head = [0; 9];
            head[0] = mark;
            head[1..=bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            Self::Head(head, bytes + 1)
        };
        match value {
            0..=127 => Self::Small(value as u8),
            -4096..=4095 => {
                let bits = value as u16 & 0x1fff;
                let mut head = [0; 9];
                head[..2].copy_from_slice(&[0xc0 | (bits >> 8) as u8, bits as u8]);
                Self::Head(head, 2)
            }
            -32_768..=32_767 => wide(0xf1, 2),
            -8_388_608..=8_388_607 => wide(0xf2, 3),
            -2_147_483_648..=2_147_483_647 => wide(0xf3, 4),
            _ => wide(0xf4, 8),
        }
    }

    fn text(text: &'a [u8]) -> Self {
        let mut head = [0; 5];
        let len = match text.len() {
            len @ 0..=63 => {
                head[0] = 0x80 | len as u8;
                1
            }
            len @ 64..=4095 => {
                head[..2].copy_from_slice(&[0xe0 | (len >> 8) as u8, len as u8]);
                2
            }
            len => {
                head[0] = 0xf0;
                head[1..5].copy_from_slice(&(len as u32).to_le_bytes());
                5
            }
        };
        Self::Text(head, len, text)
    }

    fn len(&self) -> usize {
        match self {
            Self::Small(_) => 1,
            Self::Head(_, len) => *len,
            Self::Text(_, head, text) => head + text.len(),
        }
    }

    fn write(&self, to: &mut [u8]) {
        match self {
            Self::Small(byte) => to[0] = *byte,
            Self::Head(head, len) => to[..*len].copy_from_slice(&head[..*len]),
            Self::Text(head, len, text) => {
                to[..*len].copy_from_slice(&head[..*len]);
                to[*len..*len + text.len()].copy_from_slice(text);
            }
        }
    }
}

/// Bytes that a back length takes.
fn back_len(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// Writes a back length: seven bits a byte, most significant first, all but the first marked.
fn write_back_len(len: usize, to: &mut [u8]) {
    let bytes = to.len();
    for (index, byte) in to.iter_mut().enumerate() {
        let shift = 7 * (bytes - 1 - index);
        *byte = (len >> shift) as u8 & 127 | if index == 0 { 0 } else { 128 };
    }
}

/// A back length as it lies behind an element of so many bytes.
pub(super) fn back_length(len: usize, room: &mut [u8; 5]) -> &[u8] {
    let bytes = &mut room[..back_len(len)];
    write_back_len(len, bytes);
    bytes
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// An empty listpack.
    pub fn new() -> Self {
        Self::with_capacity(20)
    }

    /// An empty listpack with room for so many bytes of elements.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(ThinBytes::with_capacity(bytes))
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.number() {
            MAX_NUMBER => self.count(),
            number => number as usize,
        }
    }

    #[cold]
    fn count(&self) -> usize {
        std::iter::successors(self.first(), |pos| self.next(*pos)).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Bytes as Redis counts them, its header and end mark included.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.0.len() + REDIS_OVERHEAD
    }

    /// The elements as they lie there, without a header.
    pub(super) fn elements(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Moves to another allocation if `wants` says so; says whether it did.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> bool {
        self.0.relocate(wants)
    }

    /// Bytes allocated.
    pub fn allocated(&self) -> usize {
        self.0.allocated()
    }

    /// The bytes an element of this string would add.
    pub fn encoded_len(item: Item<'_>) -> usize {
        let len = Encoded::of(item).len();
        len + back_len(len)
    }

    /// Notes that there are so many elements more, once they are there.
    fn grew_by(&mut self, elements: isize) {
        let number = match self.0.number() {
            MAX_NUMBER => self.count(),
            number => (number as usize).saturating_add_signed(elements),
        };
        self.0.set_number(number.min(MAX_NUMBER as usize) as u32);
    }

    /// Replaces the bytes in a range by an encoded element.
    fn put(&mut self, at: usize, removed: usize, item: Item<'_>) {
        let encoded = Encoded::of(item);
        let mut room = [0; 5];
        let back = back_length(encoded.len(), &mut room);
        match &encoded {
            Encoded::Small(byte) => self.0.splice(at, removed, [std::slice::from_ref(byte), back, &[]]),
            Encoded::Head(head, len) => self.0.splice(at, removed, [&head[..*len], back, &[]]),
            Encoded::Text(head, len, text) => self.0.splice(at, removed, [&head[..*len], text, back]),
        }
    }

    /// Adds an element at the end.
    pub fn push_back(&mut self, bytes: &[u8]) {
        self.push_back_item(Item::of(bytes));
    }

    /// Adds an element at the end.
    pub fn push_back_item(&mut self, item: Item<'_>) {
        self.insert_at(self.0.len(), item);
    }

    /// Adds an element at the beginning.
    pub fn push_front(&mut self, bytes: &[u8]) {
        self.insert_at(0, Item::of(bytes));
    }

    /// Adds an element before another.
    pub fn insert_before(&mut self, pos: Pos, bytes: &[u8]) -> Pos {
        self.insert_at(pos.0 as usize, Item::of(bytes));
        pos
    }

    /// Adds an element before another.
    pub fn insert_item_before(&mut self, pos: Pos, item: Item<'_>) -> Pos {
        self.insert_at(pos.0 as usize, item);
        pos
    }

    /// Adds an element behind another.
    pub fn insert_after(&mut self, pos: Pos, bytes: &[u8]) -> Pos {
        let at = pos.0 as usize + self.size_at(pos.0 as usize);
        self.insert_at(at, Item::of(bytes));
        Pos(at as u32)
    }

    fn insert_at(&mut self, at: usize, item: Item<'_>) {
        self.put(at, 0, item);
        self.grew_by(1);
    }

    /// Puts another string in an element's place.
    pub fn replace(&mut self, pos: Pos, bytes: &[u8]) -> Pos {
        self.replace_item(pos, Item::of(bytes))
    }

    /// Puts another element in an element's place.
    pub fn replace_item(&mut self, pos: Pos, item: Item<'_>) -> Pos {
        let at = pos.0 as usize;
        self.put(at, self.size_at(at), item);
        pos
    }

    /// Removes an element; returns the place of the one behind it.
    pub fn remove(&mut self, pos: Pos) -> Option<Pos> {
        self.remove_range(pos, 1)
    }

    /// Removes up to so many elements from this one on; returns the place of the one behind them.
    pub fn remove_range(&mut self, pos: Pos, count: usize) -> Option<Pos> {
        let (start, mut end, mut removed) = (pos.0 as usize, pos.0 as usize, 0);
        while removed < count && end < self.0.len() {
            end += self.size_at(end);
            removed += 1;
        }
        self.0.splice(start, end - start, [&[]; 3]);
        self.grew_by(-(removed as isize));
        self.existing(start)
    }

    fn existing(&self, at: usize) -> Option<Pos> {
        (at < self.0.len()).then_some(Pos(at as u32))
    }

    /// The first element.
    pub fn first(&self) -> Option<Pos> {
        self.existing(0)
    }

    /// The last element.
    pub fn last(&self) -> Option<Pos> {
        self.before(self.0.len())
    }

    /// The element behind this one.
    #[inline]
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        self.existing(pos.0 as usize + self.size_at(pos.0 as usize))
    }

    /// The element before this one.
    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        self.before(pos.0 as usize)
    }

    fn before(&self, end: usize) -> Option<Pos> {
        if end == 0 {
            return None;
        }
        let bytes = self.0.bytes();
        let (mut len, mut shift, mut at) = (0, 0, end - 1);
        loop {
            len |= usize::from(bytes[at] & 127) << shift;
            if bytes[at] & 128 == 0 {
                break;
            }
            shift += 7;
            at -= 1;
        }
        Some(Pos((at - len) as u32))
    }

    /// Length of an element's encoding and data, without the back length.
    #[inline]
    fn data_len(&self, at: usize) -> usize {
        let bytes = &self.0.bytes()[at..];
        match bytes[0] {
            0..=0x7f => 1,
            mark @ 0x80..=0xbf => 1 + (mark & 0x3f) as usize,
            0xc0..=0xdf => 2,
            mark @ 0xe0..=0xef => 2 + (usize::from(mark & 15) << 8 | usize::from(bytes[1])),
            0xf0 => 5 + u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize,
            0xf1 => 3,
            0xf2 => 4,
            0xf3 => 5,
            _ => 9,
        }
    }

    #[inline]
    fn size_at(&self, at: usize) -> usize {
        let len = self.data_len(at);
        len + back_len(len)
    }

    /// The element at a place.
    #[inline]
    pub fn get(&self, pos: Pos) -> Item<'_> {
        let bytes = &self.0.bytes()[pos.0 as usize..];
        let wide = |count: usize| {
            let mut value = [0; 8];
            value[..count].copy_from_slice(&bytes[1..=count]);
            let unused = 64 - 8 * count as u32;
            i64::from_le_bytes(value) << unused >> unused
        };
        match bytes[0] {
            small @ 0..=0x7f => Item::Int(i64::from(small)),
            mark @ 0x80..=0xbf => Item::Bytes(&bytes[1..][..(mark & 0x3f) as usize]),
            mark @ 0xc0..=0xdf => {
                let bits = u16::from(mark & 0x1f) << 8 | u16::from(bytes[1]);
                Item::Int(i64::from((bits << 3) as i16 >> 3))
            }
            0xe0..=0xef => Item::Bytes(&bytes[2..self.data_len(pos.0 as usize)]),
            0xf0 => Item::Bytes(&bytes[5..self.data_len(pos.0 as usize)]),
            0xf1 => Item::Int(wide(2)),
            0xf2 => Item::Int(wide(3)),
            0xf3 => Item::Int(wide(4)),
            _ => Item::Int(wide(8)),
        }
    }

    /// The element at an index, from the end if it is negative.
    pub fn seek(&self, index: i64) -> Option<Pos> {
        let len = self.len() as i64;
        let index = if index < 0 { index + len } else { index };
        if index < 0 || index >= len {
            return None;
        }
        if index <= len / 2 {
            let mut pos = self.first()?;
            for _ in 0..index {
                pos = self.next(pos)?;
            }
            return Some(pos);
        }
        let mut pos = self.last()?;
        for _ in index..len - 1 {
            pos = self.prev(pos)?;
        }
        Some(pos)
    }

    /// The first element from `start` on that is this string, skipping `skip` elements between two looks.
    pub fn find(&self, start: Pos, needle: &[u8], skip: usize) -> Option<Pos> {
        // Equal strings have equal encodings, so bytes can be compared.
        let encoded = Encoded::of(Item::of(needle));
        let len = encoded.len();
        let mut stack = [0; 80];
        let mut heap = Vec::new();
        let wanted: &[u8] = if len <= stack.len() {
            encoded.write(&mut stack);
            &stack[..len]
        } else {
            heap.resize(len, 0);
            encoded.write(&mut heap);
            &heap
        };
        let (mut at, bytes) = (start.0 as usize, self.0.bytes());
        while at < bytes.len() {
            if bytes[at..].starts_with(wanted) {
                return Some(Pos(at as u32));
            }
            for _ in 0..=skip {
                if at < bytes.len() {
                    at += self.size_at(at);
                }
            }
        }
        None
    }

    /// The elements from the beginning.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> + Clone {
        self.iter_from(self.first())
    }

    /// The elements from a place on.
    pub fn iter_from(&self, start: Option<Pos>) -> impl Iterator<Item = Item<'_>> + Clone {
        std::iter::successors(start, |pos| self.next(*pos)).map(|pos| self.get(pos))
    }

    /// The elements from a place backwards.
    pub fn iter_back_from(&self, start: Option<Pos>) -> impl Iterator<Item = Item<'_>> + Clone {
        std::iter::successors(start, |pos| self.prev(*pos)).map(|pos| self.get(pos))
    }

    /// The elements two by two.
    pub fn pairs(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> + Clone {
        let second = |pos| self.next(pos);
        let pairs = std::iter::successors(self.first(), move |pos| self.next(second(*pos)?));
        pairs.filter_map(move |pos| Some((self.get(pos), self.get(second(pos)?))))
    }

    /// Cuts off everything from a place on and returns it.
    pub fn split_off(&mut self, pos: Pos) -> Self {
        let mut tail = Self::new();
        for item in self.iter_from(Some(pos)) {
            tail.push_back_item(item);
        }
        self.0.truncate(pos.0 as usize);
        self.grew_by(-(tail.len() as isize));
        tail
    }
}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|value| value.to_string().into_bytes()),
            (-5000i64..5000).prop_map(|value| value.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..5),
            (prop_oneof![Just(63usize), Just(64), Just(127), Just(128), Just(4095), Just(4096)], any::<u8>())
                .prop_map(|(len, byte)| vec![byte; len]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn behaves_like_a_vector(steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>(), element()), 1..80)) {
            let (mut pack, mut model): (Listpack, Vec<Vec<u8>>) = (Listpack::new(), Vec::new());
            for (kind, index, bytes) in steps {
                let at = if model.is_empty() { 0 } else { index.index(model.len()) };
                match (kind, pack.seek(at as i64)) {
                    (0, _) => { pack.push_back(&bytes); model.push(bytes); }
                    (1, _) => { pack.push_front(&bytes); model.insert(0, bytes); }
                    (2, Some(pos)) => { pack.insert_before(pos, &bytes); model.insert(at, bytes); }
                    (3, Some(pos)) => { pack.replace(pos, &bytes); model[at] = bytes; }
                    (4, Some(pos)) => { pack.remove(pos); model.remove(at); }
                    (5, Some(pos)) => { pack.insert_after(pos, &bytes); model.insert(at + 1, bytes); }
                    _ => {}
                }
                let forward: Vec<_> = pack.iter().map(|item| item.to_vec()).collect();
                let mut backward: Vec<_> = pack.iter_back_from(pack.last()).map(|item| item.to_vec()).collect();
                backward.reverse();
                prop_assert_eq!(&forward, &model);
                prop_assert_eq!(&backward, &model);
                prop_assert_eq!(pack.len(), model.len());
                for needle in &model {
                    let found = pack.first().and_then(|first| pack.find(first, needle, 0));
                    prop_assert!(found.is_some_and(|pos| pack.get(pos).eq_bytes(needle)));
                }
            }
        }
    }
}
