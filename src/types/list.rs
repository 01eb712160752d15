//! The list type: one listpack while it is small, a deque of listpacks beyond that.

use std::collections::VecDeque;

use super::listpack::{Item, Listpack, Pos};
use super::relocate::Wants;

/// Bytes of a node of a large list, as Redis counts them: small, since adding at its front moves what is in it. With
/// what is kept before the elements it fills 4 KiB.
const NODE_BYTES: usize = 4095;

/// A list.
#[derive(Debug, Clone)]
pub struct List(Form);

#[derive(Debug, Clone)]
enum Form {
    Packed(Listpack),
    Nodes(Box<Nodes>),
}

#[derive(Debug, Clone, Default)]
struct Nodes {
    /// None of them is empty.
    deque: VecDeque<Listpack>,
    len: usize,
}

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The left one.
    Head,
    /// The right one.
    Tail,
}

/// Where an element lies: the node, and the place in it.
type Place = (usize, Pos);

impl Default for List {
    fn default() -> Self {
        Self(Form::Packed(Listpack::new()))
    }
}

/// The limits of `list-max-listpack-size`: bytes if it is negative, elements if not.
fn limits(max_listpack: i32) -> (usize, usize) {
    match max_listpack {
        -1 => (4096, usize::MAX),
        -2 => (8192, usize::MAX),
        -3 => (16_384, usize::MAX),
        -4 => (32_768, usize::MAX),
        ..=-5 => (65_536, usize::MAX),
        // Elements are bounded, but a node never grows without end, and holds at least one.
        count => (8192, count.max(1) as usize),
    }
}

impl List {
    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.len(),
            Form::Nodes(nodes) => nodes.len,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves what `wants` says so of to other allocations, unless there is more of it than `most`; how much that was.
    pub fn relocate(&mut self, wants: &Wants<'_>, most: usize) -> usize {
        match &mut self.0 {
            Form::Packed(pack) => usize::from(pack.relocate(wants)),
            Form::Nodes(nodes) if nodes.deque.len() <= most => {
                nodes.deque.iter_mut().map(|pack| usize::from(pack.relocate(wants))).sum()
            }
            Form::Nodes(_) => 0,
        }
    }

    /// The listpacks that it consists of.
    pub(super) fn listpacks(&self) -> impl ExactSizeIterator<Item = &Listpack> {
        (0..self.node_count()).map(|index| self.node(index))
    }

    /// The name of the encoding, as `OBJECT ENCODING` replies it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Packed(_) => "listpack",
            Form::Nodes(_) => "quicklist",
        }
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.allocated(),
            Form::Nodes(nodes) => {
                let deque = &nodes.deque;
                size_of::<Nodes>()
                    + deque.capacity() * 8
                    + deque.iter().map(Listpack::allocated).sum::<usize>()
            }
        }
    }

    /// Makes room in the right form for what is about to be added.
    pub fn prepare<'a>(&mut self, added: impl Iterator<Item = &'a [u8]>, max_listpack: i32) {
        let Form::Packed(pack) = &mut self.0 else { return };
        let (max_bytes, max_count) = limits(max_listpack);
        let (mut bytes, mut count) = (pack.byte_len(), pack.len());
        for element in added {
            bytes += element.len();
            count += 1;
        }
        if bytes > max_bytes || count > max_count {
            let len = pack.len();
            let pack = std::mem::take(pack);
            let deque = if len == 0 { VecDeque::new() } else { VecDeque::from([pack]) };
            self.0 = Form::Nodes(Box::new(Nodes { deque, len }));
        }
    }

    /// Goes back to one listpack if the list has become much smaller than its limit.
    pub fn shrink(&mut self, max_listpack: i32) {
        let Form::Nodes(nodes) = &mut self.0 else { return };
        let (max_bytes, max_count) = limits(max_listpack);
        let bytes: usize = nodes.deque.iter().map(Listpack::byte_len).sum();
        if nodes.deque.len() > 2 || bytes > max_bytes / 2 || nodes.len > max_count / 2 {
            return;
        }
        let mut pack = nodes.deque.pop_front().unwrap_or_default();
        for node in &nodes.deque {
            node.iter().for_each(|item| pack.push_back_item(item));
        }
        self.0 = Form::Packed(pack);
    }

    /// Adds an element at an end.
    pub fn push(&mut self, end: End, element: &[u8], max_listpack: i32) {
        self.prepare(std::iter::once(element), max_listpack);
        let pack = match &mut self.0 {
            Form::Packed(pack) => pack,
            Form::Nodes(nodes) => {
                nodes.len += 1;
                nodes.end_with_room(end, element)
            }
        };
        match end {
            End::Head => pack.push_front(element),
            End::Tail => pack.push_back(element),
        }
    }

    /// Adds an element at the left end.
    pub fn push_front(&mut self, element: &[u8], max_listpack: i32) {
        self.push(End::Head, element, max_listpack);
    }

    /// Adds an element at the right end.
    pub fn push_back(&mut self, element: &[u8], max_listpack: i32) {
        self.push(End::Tail, element, max_listpack);
    }

    /// Takes the element at an end, handing it to `visit`.
    pub fn pop<R>(&mut self, end: End, visit: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let pack = match &mut self.0 {
            Form::Packed(pack) => pack,
            Form::Nodes(nodes) => match end {
                End::Head => nodes.deque.front_mut()?,
                End::Tail => nodes.deque.back_mut()?,
            },
        };
        let pos = match end {
            End::Head => pack.first()?,
            End::Tail => pack.last()?,
        };
        let result = visit(pack.get(pos));
        pack.remove(pos);
        if let Form::Nodes(nodes) = &mut self.0 {
            nodes.len -= 1;
            nodes.drop_empty(if end == End::Head { 0 } else { nodes.deque.len() - 1 });
        }
        Some(result)
    }

    /// The element at an index, from the end if it is negative.
    pub fn get(&self, index: i64) -> Option<Item<'_>> {
        let (node, pos) = self.place(index)?;
        Some(self.node(node).get(pos))
    }

    /// Replaces the element at an index; says whether there is one.
    pub fn set(&mut self, index: i64, element: &[u8], max_listpack: i32) -> bool {
        // As in Redis the new element counts as one more, whether the place exists or not.
        self.prepare(std::iter::once(element), max_listpack);
        let Some((node, pos)) = self.place(index) else { return false };
        self.node_mut(node).replace(pos, element);
        if let Form::Nodes(nodes) = &mut self.0 {
            nodes.split_if_large(node);
        }
        true
    }

    /// Adds an element before or behind the first one that is `pivot`; says whether there is one.
    pub fn insert(&mut self, pivot: &[u8], before: bool, element: &[u8], max_listpack: i32) -> bool {
        self.prepare(std::iter::once(element), max_listpack);
        let found = (0..self.node_count()).find_map(|index| {
            let node = self.node(index);
            Some((index, node.find(node.first()?, pivot, 0)?))
        });
        let Some((index, pos)) = found else { return false };
        let node = self.node_mut(index);
        if before {
            node.insert_before(pos, element);
        } else {
            node.insert_after(pos, element);
        }
        if let Form::Nodes(nodes) = &mut self.0 {
            nodes.len += 1;
            nodes.split_if_large(index);
        }
        true
    }

    /// Removes elements that are `element`: all if `count` is 0, else so many, from the right if it is negative.
    pub fn remove(&mut self, count: i64, element: &[u8]) -> usize {
        let wanted = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
        let mut removed = 0;
        let nodes = self.node_count();
        for step in 0..nodes {
            let index = if count < 0 { nodes - 1 - step } else { step };
            if removed < wanted {
                removed += remove_from(self.node_mut(index), element, wanted - removed, count < 0);
            }
        }
        if let Form::Nodes(nodes) = &mut self.0 {
            nodes.len -= removed;
            nodes.deque.retain(|node| !node.is_empty());
        }
        removed
    }

    /// Keeps the elements from `start` on, `count` of them.
    pub fn trim(&mut self, start: usize, count: usize) {
        let end = self.len() - start - count;
        self.cut(End::Tail, end);
        self.cut(End::Head, start);
    }

    fn cut(&mut self, end: End, mut count: usize) {
        if let Form::Nodes(nodes) = &mut self.0 {
            nodes.len -= count;
            while let Some(node) = if end == End::Head { nodes.deque.front() } else { nodes.deque.back() } {
                if node.len() > count {
                    break;
                }
                count -= node.len();
                if end == End::Head {
                    nodes.deque.pop_front()
                } else {
                    nodes.deque.pop_back()
                };
            }
        }
        let pack = match &mut self.0 {
            Form::Packed(pack) => Some(pack),
            Form::Nodes(nodes) if end == End::Head => nodes.deque.front_mut(),
            Form::Nodes(nodes) => nodes.deque.back_mut(),
        };
        if let Some(pack) = pack
            && count > 0
            && let Some(first) = pack.seek(if end == End::Head { 0 } else { -(count as i64) })
        {
            pack.remove_range(first, count);
        }
    }

    /// The elements from an index on.
    pub fn iter_from(&self, start: usize) -> impl Iterator<Item = Item<'_>> {
        let place = self.place(start as i64);
        let first = place.map_or(self.node_count(), |(node, _)| node);
        (first..self.node_count()).flat_map(move |index| {
            let node = self.node(index);
            node.iter_from(if index == first { place.map(|(_, pos)| pos) } else { node.first() })
        })
    }

    /// The elements from an index backwards.
    pub fn iter_back_from(&self, start: usize) -> impl Iterator<Item = Item<'_>> {
        let place = self.place(start as i64);
        let end = place.map_or(0, |(node, _)| node + 1);
        (0..end).rev().flat_map(move |index| {
            let node = self.node(index);
            node.iter_back_from(if index + 1 == end { place.map(|(_, pos)| pos) } else { node.last() })
        })
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        self.iter_from(0)
    }

    fn node_count(&self) -> usize {
        match &self.0 {
            Form::Packed(_) => 1,
            Form::Nodes(nodes) => nodes.deque.len(),
        }
    }

    fn node(&self, index: usize) -> &Listpack {
        match &self.0 {
            Form::Packed(pack) => pack,
            Form::Nodes(nodes) => &nodes.deque[index],
        }
    }

    fn node_mut(&mut self, index: usize) -> &mut Listpack {
        match &mut self.0 {
            Form::Packed(pack) => pack,
            Form::Nodes(nodes) => &mut nodes.deque[index],
        }
    }

    /// Finds an index from the nearer end.
    fn place(&self, index: i64) -> Option<Place> {
        let len = self.len() as i64;
        let mut index = if index < 0 { index + len } else { index };
        if index < 0 || index >= len {
            return None;
        }
        let Form::Nodes(nodes) = &self.0 else { return Some((0, self.node(0).seek(index)?)) };
        if index <= len / 2 {
            for (number, node) in nodes.deque.iter().enumerate() {
                if index < node.len() as i64 {
                    return Some((number, node.seek(index)?));
                }
                index -= node.len() as i64;
            }
        } else {
            let mut from_end = len - index;
            for (number, node) in nodes.deque.iter().enumerate().rev() {
                if from_end <= node.len() as i64 {
                    return Some((number, node.seek(-from_end)?));
                }
                from_end -= node.len() as i64;
            }
        }
        None
    }
}

impl Nodes {
    /// The node at an end, a new one if the element does not fit into the last.
    fn end_with_room(&mut self, end: End, element: &[u8]) -> &mut Listpack {
        let node = if end == End::Head { self.deque.front() } else { self.deque.back() };
        let added = Listpack::encoded_len(Item::of(element));
        let fits = node.is_some_and(|node| node.byte_len() + added <= NODE_BYTES);
        if !fits {
            // It will be filled: growing step by step would copy it again and again.
            let node = Listpack::with_capacity(NODE_BYTES - Listpack::new().byte_len());
            match end {
                End::Head => self.deque.push_front(node),
                End::Tail => self.deque.push_back(node),
            }
        }
        let index = if end == End::Head { 0 } else { self.deque.len() - 1 };
        &mut self.deque[index]
    }

    fn drop_empty(&mut self, index: usize) {
        if self.deque.get(index).is_some_and(Listpack::is_empty) {
            self.deque.remove(index);
        }
    }

    fn split_if_large(&mut self, index: usize) {
        let node = &mut self.deque[index];
        if node.byte_len() > NODE_BYTES * 2
            && node.len() > 1
            && let Some(middle) = node.seek(node.len() as i64 / 2)
        {
            let tail = node.split_off(middle);
            self.deque.insert(index + 1, tail);
        }
    }
}

/// Removes up to so many elements of one node that are `element`.
fn remove_from(node: &mut Listpack, element: &[u8], wanted: usize, backwards: bool) -> usize {
    let mut removed = 0;
    let mut pos = if backwards { node.last() } else { node.first() };
    while let Some(at) = pos {
        if removed == wanted {
            break;
        }
        if !node.get(at).eq_bytes(element) {
            pos = if backwards { node.prev(at) } else { node.next(at) };
            continue;
        }
        removed += 1;
        let before = node.prev(at);
        let after = node.remove(at);
        pos = if backwards { before } else { after };
    }
    removed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(list: &List) -> Vec<Vec<u8>> {
        list.iter().map(|item| item.to_vec()).collect()
    }

    #[test]
    fn grows_out_of_its_listpack_where_redis_says() {
        let of_three = || {
            let mut list = List::default();
            (0..3).for_each(|_| list.push_back(b"a", 3));
            list
        };
        let mut list = of_three();
        assert_eq!(list.encoding(), "listpack");
        list.set(0, b"b", 3);
        assert_eq!(list.encoding(), "quicklist", "a replaced element counts as one more");
        let mut list = List::default();
        list.push_back(b"a", 0);
        assert_eq!(list.encoding(), "listpack", "a limit of none still holds one");
        list.push_back(b"a", 0);
        assert_eq!(list.encoding(), "quicklist");
        let mut list = List::default();
        list.push_back(&[b'x'; 60_000], -6);
        assert_eq!(list.encoding(), "listpack", "below -5 is -5");
        list.push_back(&[b'x'; 5536], -6);
        assert_eq!(list.encoding(), "quicklist");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn behaves_like_a_vector(
            limit in prop_oneof![Just(-2), Just(4)],
            steps in prop::collection::vec((0u8..9, any::<prop::sample::Index>(), 0u8..6, 0usize..3), 1..250),
        ) {
            let (mut list, mut model): (List, Vec<Vec<u8>>) = (List::default(), Vec::new());
            for (kind, index, value, size) in steps {
                let element = match size {
                    0 => value.to_string().into_bytes(),
                    1 => vec![b'a' + value; 10],
                    _ => vec![b'a' + value; 1500],
                };
                let at = if model.is_empty() { 0 } else { index.index(model.len()) };
                match kind {
                    0 | 1 => { list.push_back(&element, limit); model.push(element); }
                    2 | 3 => { list.push_front(&element, limit); model.insert(0, element); }
                    4 => {
                        let popped = list.pop(End::Head, |item| item.to_vec());
                        prop_assert_eq!(popped, (!model.is_empty()).then(|| model.remove(0)));
                        list.shrink(limit);
                    }
                    5 => prop_assert_eq!(list.pop(End::Tail, |item| item.to_vec()), model.pop()),
                    6 => {
                        prop_assert_eq!(list.set(at as i64, &element, limit), !model.is_empty());
                        if let Some(place) = model.get_mut(at) { *place = element; }
                    }
                    7 if !model.is_empty() => {
                        let pivot = model[at].clone();
                        prop_assert!(list.insert(&pivot, value % 2 == 0, &element, limit));
                        let first = model.iter().position(|other| *other == pivot).unwrap();
                        model.insert(first + usize::from(value % 2 != 0), element);
                    }
                    8 => {
                        let (mut kept, mut left) = (Vec::new(), 2);
                        for other in model.iter().rev() {
                            if left > 0 && *other == element { left -= 1 } else { kept.push(other.clone()) }
                        }
                        kept.reverse();
                        prop_assert_eq!(list.remove(-2, &element), model.len() - kept.len());
                        model = kept;
                    }
                    _ => {}
                }
                prop_assert_eq!(list.len(), model.len());
            }
            prop_assert_eq!(contents(&list), model.clone());
            for index in 0..model.len() {
                prop_assert_eq!(list.get(index as i64).map(|item| item.to_vec()), Some(model[index].clone()));
                let back: Vec<_> = list.iter_back_from(index).map(|item| item.to_vec()).collect();
                prop_assert_eq!(back, model[..=index].iter().rev().cloned().collect::<Vec<_>>());
            }
            let (start, count) = (model.len() / 3, model.len() / 3);
            list.trim(start, count);
            prop_assert_eq!(contents(&list), model[start..start + count].to_vec());
        }
    }
}
