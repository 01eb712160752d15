//! Whole values, type by type.

use smallvec::SmallVec;

use super::packed;
use super::read::{Reader, score_of};
use super::write::Writer;
use super::{Invalid, kind, node, sealed, unsealed};
use crate::types::listpack::{Item, NumBuf};
use crate::types::{hash, list, set, sorted_set, stream};

/// A value to be written.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A string.
    String(Item<'a>),
    /// A list.
    List(&'a list::List),
    /// A hash.
    Hash(&'a hash::Hash),
    /// A set.
    Set(&'a set::Set),
    /// A sorted set.
    SortedSet(&'a sorted_set::SortedSet),
    /// A stream.
    Stream(&'a stream::Stream),
}

/// A value that was read.
#[derive(Debug, Clone)]
pub enum Decoded {
    /// A string.
    String(Vec<u8>),
    /// A list.
    List(list::List),
    /// A hash.
    Hash(hash::Hash),
    /// A set.
    Set(set::Set),
    /// A sorted set.
    SortedSet(sorted_set::SortedSet),
    /// A stream.
    Stream(Box<stream::Stream>),
}

/// When values that are read leave their compact encodings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `list-max-listpack-size`
    pub list: i32,
    /// Those of hashes.
    pub hash: hash::Limits,
    /// Those of sets.
    pub set: set::Limits,
    /// Those of sorted sets.
    pub sorted_set: sorted_set::Limits,
}

/// A value's payload.
pub fn encode(source: Source<'_>) -> Vec<u8> {
    sealed(encode_content(source))
}

/// A value's type and the value.
pub(super) fn encode_content(source: Source<'_>) -> Vec<u8> {
    // Most strings are not long: one allocation holds mark, length, bytes and footer.
    let room = if let Source::String(Item::Bytes(bytes)) = source { bytes.len() } else { 0 };
    let mut writer = Writer(Vec::with_capacity(room + 16 + super::FOOTER));
    match source {
        Source::String(item) => {
            writer.byte(kind::STRING);
            writer.string(item);
        }
        Source::List(list) => {
            let nodes = list.listpacks();
            writer.byte(kind::LIST_NODES);
            writer.length(nodes.len());
            for pack in nodes {
                writer.length(node::PACKED as usize);
                writer.bytes(&packed::listpack(pack));
            }
        }
        Source::Hash(hash) => match (hash.earliest(), hash.listpack()) {
            (Some(earliest), _) => encode_deadlines(&mut writer, hash, earliest),
            (None, Some(pack)) => {
                writer.byte(kind::HASH_LISTPACK);
                writer.bytes(&packed::listpack(pack));
            }
            (None, None) => {
                writer.byte(kind::HASH);
                writer.length(hash.len());
                for (field, value) in hash.iter() {
                    writer.string(field);
                    writer.string(value);
                }
            }
        },
        Source::Set(set) => encode_set(&mut writer, set),
        Source::Stream(stream) => super::stream::write(&mut writer, stream),
        Source::SortedSet(sorted) => match sorted.listpack() {
            Some(pack) => {
                writer.byte(kind::ZSET_LISTPACK);
                writer.bytes(&packed::listpack(pack));
            }
            None => {
                writer.byte(kind::ZSET);
                writer.length(sorted.len());
                // From the greatest down, which Redis reads fastest.
                for (member, score) in sorted.iter(sorted.len() - 1, true) {
                    writer.string(member);
                    writer.0.extend_from_slice(&score.to_le_bytes());
                }
            }
        },
    }
    writer.0
}

/// A hash with deadlines: each is written as its distance from one millisecond before the earliest, or 0 if there is none.
fn encode_deadlines(writer: &mut Writer, hash: &hash::Hash, earliest: u64) {
    writer.byte(kind::HASH_DEADLINES);
    writer.0.extend_from_slice(&earliest.to_le_bytes());
    writer.length(hash.len());
    for (field, value) in hash.iter() {
        let deadline = hash.deadline(field.to_bytes(&mut NumBuf::new()));
        writer.length(deadline.map_or(0, |deadline| (deadline - earliest + 1) as usize));
        writer.string(field);
        writer.string(value);
    }
}

fn encode_set(writer: &mut Writer, set: &set::Set) {
    if let Some(width) = set.integer_width() {
        let members: Vec<i64> = set
            .iter()
            .filter_map(|item| if let Item::Int(member) = item { Some(member) } else { None })
            .collect();
        writer.byte(kind::SET_INTEGERS);
        writer.bytes(&packed::integers(members.into_iter(), width));
    } else if let Some(pack) = set.listpack() {
        writer.byte(kind::SET_LISTPACK);
        writer.bytes(&packed::listpack(pack));
    } else {
        writer.byte(kind::SET);
        writer.length(set.len());
        set.iter().for_each(|member| writer.string(member));
    }
}

/// The value in a payload.
///
/// # Errors
/// What is wrong with it.
pub fn decode(payload: &[u8], limits: &Limits) -> Result<Decoded, Invalid> {
    let mut reader = Reader::new(unsealed(payload)?);
    let kind = reader.byte()?;
    read_value(&mut reader, kind, limits)
}

/// The value of a type.
pub(super) fn read_value(reader: &mut Reader<'_>, kind: u8, limits: &Limits) -> Result<Decoded, Invalid> {
    match kind {
        kind::STRING => Ok(Decoded::String(reader.string()?.into_owned())),
        kind @ (kind::LIST | kind::LIST_NODES) => read_list(reader, kind, limits.list).map(Decoded::List),
        kind @ (kind::HASH | kind::HASH_LISTPACK) => read_hash(reader, kind, &limits.hash).map(Decoded::Hash),
        kind @ (kind::HASH_TIMES | kind::HASH_DEADLINES) => {
            read_deadlines(reader, kind, &limits.hash).map(Decoded::Hash)
        }
        kind @ (kind::HASH_TIMES_LISTPACK | kind::HASH_DEADLINES_LISTPACK) => {
            read_packed_deadlines(reader, kind, &limits.hash).map(Decoded::Hash)
        }
        kind @ (kind::SET | kind::SET_INTEGERS | kind::SET_LISTPACK) => {
            read_set(reader, kind, &limits.set).map(Decoded::Set)
        }
        kind @ (kind::ZSET | kind::ZSET_TEXT | kind::ZSET_LISTPACK) => {
            read_sorted_set(reader, kind, &limits.sorted_set).map(Decoded::SortedSet)
        }
        kind @ (kind::STREAM_WITHOUT_COUNTS | kind::STREAM_WITHOUT_ACTIVITY | kind::STREAM) => {
            super::stream::read(reader, kind).map(|stream| Decoded::Stream(Box::new(stream)))
        }
        _ => Err(Invalid::Data),
    }
}

fn read_list(reader: &mut Reader<'_>, kind: u8, max_listpack: i32) -> Result<list::List, Invalid> {
    let mut list = list::List::default();
    for _ in 0..reader.length()? {
        let container = if kind == kind::LIST { node::PLAIN } else { reader.length()? };
        let bytes = reader.string()?;
        match container {
            node::PLAIN => list.push_back(&bytes, max_listpack),
            node::PACKED => packed::read_listpack(&bytes, |item| {
                list.push_back(item.to_bytes(&mut NumBuf::new()), max_listpack);
                Ok(())
            })?,
            _ => return Err(Invalid::Data),
        }
    }
    if list.is_empty() { Err(Invalid::Data) } else { Ok(list) }
}

fn read_hash(reader: &mut Reader<'_>, kind: u8, limits: &hash::Limits) -> Result<hash::Hash, Invalid> {
    let mut hash = hash::Hash::default();
    let mut add = |field: &[u8], value: &[u8]| new(hash.set(field, value, limits));
    if kind == kind::HASH {
        for _ in 0..reader.length()? {
            let (field, value) = (reader.string()?, reader.string()?);
            add(&field, &value)?;
        }
    } else {
        read_pairs(&reader.string()?, |field, value| {
            add(field.to_bytes(&mut NumBuf::new()), value.to_bytes(&mut NumBuf::new()))
        })?;
    }
    if hash.is_empty() { Err(Invalid::Data) } else { Ok(hash) }
}

fn add_with_deadline(
    hash: &mut hash::Hash,
    field: &[u8],
    value: &[u8],
    deadline: Option<u64>,
    limits: &hash::Limits,
) -> Result<(), Invalid> {
    new(hash.set(field, value, limits))?;
    match deadline {
        Some(deadline) if deadline > hash::LAST_DEADLINE => return Err(Invalid::Data),
        Some(deadline) => hash.set_deadline(field, deadline),
        None => {}
    }
    Ok(())
}

fn read_deadlines(reader: &mut Reader<'_>, kind: u8, limits: &hash::Limits) -> Result<hash::Hash, Invalid> {
    let mut hash = hash::Hash::default();
    // That many milliseconds are what a distance of 0 would mean.
    let zero = match kind {
        kind::HASH_TIMES => 0,
        _ => u64::from_le_bytes(reader.array()?).wrapping_sub(1),
    };
    for _ in 0..reader.length()? {
        let distance = reader.length()?;
        let deadline = (distance > 0).then(|| distance.wrapping_add(zero));
        let (field, value) = (reader.string()?, reader.string()?);
        add_with_deadline(&mut hash, &field, &value, deadline, limits)?;
    }
    if hash.is_empty() { Err(Invalid::Data) } else { Ok(hash) }
}

/// A listpack of fields, values and deadlines, 0 where there is none.
fn read_packed_deadlines(
    reader: &mut Reader<'_>,
    kind: u8,
    limits: &hash::Limits,
) -> Result<hash::Hash, Invalid> {
    if kind == kind::HASH_DEADLINES_LISTPACK {
        reader.array::<8>()?;
    }
    let mut hash = hash::Hash::default();
    let bytes = reader.string()?;
    let mut waiting: SmallVec<[Item<'_>; 2]> = SmallVec::new();
    packed::read_listpack(&bytes, |item| {
        let &[field, value] = waiting.as_slice() else {
            waiting.push(item);
            return Ok(());
        };
        waiting.clear();
        let Item::Int(deadline) = item else { return Err(Invalid::Data) };
        let deadline = (deadline != 0).then_some(deadline as u64);
        let (mut first, mut second) = (NumBuf::new(), NumBuf::new());
        let (field, value) = (field.to_bytes(&mut first), value.to_bytes(&mut second));
        add_with_deadline(&mut hash, field, value, deadline, limits)
    })?;
    if hash.is_empty() || !waiting.is_empty() { Err(Invalid::Data) } else { Ok(hash) }
}

fn read_set(reader: &mut Reader<'_>, kind: u8, limits: &set::Limits) -> Result<set::Set, Invalid> {
    let mut set = set::Set::default();
    let mut add = |member: &[u8]| new(set.insert(member, limits));
    match kind {
        kind::SET => {
            for _ in 0..reader.length()? {
                add(&reader.string()?)?;
            }
        }
        kind::SET_INTEGERS => {
            for member in packed::read_integers(&reader.string()?)? {
                add(NumBuf::new().format(member))?;
            }
        }
        _ => packed::read_listpack(&reader.string()?, |item| add(item.to_bytes(&mut NumBuf::new())))?,
    }
    if set.is_empty() { Err(Invalid::Data) } else { Ok(set) }
}

fn read_sorted_set(
    reader: &mut Reader<'_>,
    kind: u8,
    limits: &sorted_set::Limits,
) -> Result<sorted_set::SortedSet, Invalid> {
    let mut sorted = sorted_set::SortedSet::default();
    let mut add = |member: &[u8], score: f64| new(sorted.insert(member, score, limits).is_none());
    if kind == kind::ZSET_LISTPACK {
        read_pairs(&reader.string()?, |member, score| {
            let score = score_of(score.to_bytes(&mut NumBuf::new()))?;
            add(member.to_bytes(&mut NumBuf::new()), score)
        })?;
    } else {
        for _ in 0..reader.length()? {
            let member = reader.string()?;
            let score = if kind == kind::ZSET { reader.score()? } else { reader.score_text()? };
            add(&member, score)?;
        }
    }
    if sorted.is_empty() { Err(Invalid::Data) } else { Ok(sorted) }
}

/// The elements of a listpack two by two.
fn read_pairs<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(Item<'a>, Item<'a>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut first = None;
    packed::read_listpack(bytes, |item| match first.take() {
        None => {
            first = Some(item);
            Ok(())
        }
        Some(name) => visit(name, item),
    })?;
    if first.is_none() { Ok(()) } else { Err(Invalid::Data) }
}

/// No member is there twice.
fn new(is_new: bool) -> Result<(), Invalid> {
    if is_new { Ok(()) } else { Err(Invalid::Data) }
}
