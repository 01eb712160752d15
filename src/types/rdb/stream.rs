//! Streams in payloads.

use std::collections::BTreeSet;

use super::read::Reader;
use super::write::Writer;
use super::{Invalid, kind, packed};
use crate::types::listpack::{Item, Listpack};
use crate::types::stream::{Consumer, Group, Pending, Stream, StreamId};

/// A counter that is not known.
const UNKNOWN: u64 = u64::MAX;
/// A time that never was.
const NEVER: u64 = u64::MAX;

impl Writer {
    fn number(&mut self, number: u64) {
        self.length(number as usize);
    }

    fn id(&mut self, id: StreamId) {
        self.number(id.ms);
        self.number(id.seq);
    }
}

/// Writes a stream.
pub(super) fn write(writer: &mut Writer, stream: &Stream) {
    writer.byte(kind::STREAM);
    let packs = stream.packs();
    writer.length(packs.len());
    for (first, pack) in packs {
        writer.bytes(&first.to_bytes());
        writer.bytes(&packed::listpack(pack));
    }
    writer.number(stream.len());
    for id in [stream.last_id, stream.first_id(), stream.max_deleted_id] {
        writer.id(id);
    }
    writer.number(stream.entries_added);
    writer.length(stream.groups().len());
    for (name, group) in stream.groups() {
        writer.bytes(name);
        writer.id(group.last_id);
        writer.number(group.entries_read.unwrap_or(UNKNOWN));
        writer.length(group.pending().len());
        for (id, pending) in group.pending() {
            writer.0.extend_from_slice(&id.to_bytes());
            writer.0.extend_from_slice(&pending.delivered_ms.to_le_bytes());
            writer.number(pending.deliveries);
        }
        writer.length(group.consumers().len());
        for consumer in group.consumers() {
            writer.bytes(&consumer.name);
            writer.0.extend_from_slice(&consumer.seen_ms.to_le_bytes());
            writer.0.extend_from_slice(&consumer.active_ms.unwrap_or(NEVER).to_le_bytes());
            writer.length(consumer.pending.len());
            consumer.pending.iter().for_each(|id| writer.0.extend_from_slice(&id.to_bytes()));
        }
    }
}

impl Reader<'_> {
    fn id(&mut self) -> Result<StreamId, Invalid> {
        Ok(StreamId { ms: self.length()?, seq: self.length()? })
    }

    fn raw_id(&mut self) -> Result<StreamId, Invalid> {
        self.array().map(StreamId::from_bytes)
    }

    fn millis(&mut self) -> Result<u64, Invalid> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Reads a stream of one of the three types that Redis has written.
pub(super) fn read(reader: &mut Reader<'_>, kind: u8) -> Result<Stream, Invalid> {
    let mut stream = Stream::default();
    for _ in 0..reader.length()? {
        let first = reader.string()?;
        let first = StreamId::from_bytes(first[..].try_into().map_err(|_| Invalid::Data)?);
        let mut pack = Listpack::new();
        packed::read_listpack(&reader.string()?, |item| {
            pack.push_back_item(match item {
                Item::Int(number) => Item::Int(number),
                Item::Bytes(bytes) => Item::of(bytes),
            });
            Ok(())
        })?;
        check(stream.add_read_node(first, pack))?;
    }
    let (length, last_id) = (reader.length()?, reader.id()?);
    check(length == stream.len() && last_id >= stream.last_id)?;
    stream.last_id = last_id;
    stream.entries_added = length;
    if kind != kind::STREAM_WITHOUT_COUNTS {
        let first_id = reader.id()?;
        check(first_id == stream.first_id())?;
        stream.max_deleted_id = reader.id()?;
        stream.entries_added = reader.length()?;
    }
    for _ in 0..reader.length()? {
        let name = reader.string()?;
        let last_id = reader.id()?;
        let entries_read = match kind {
            kind::STREAM_WITHOUT_COUNTS => stream.place_of(last_id),
            _ => Some(reader.length()?).filter(|read| *read != UNKNOWN),
        };
        let group = read_group(reader, Group::new(last_id, entries_read), kind)?;
        check(stream.create_group(&name, group))?;
    }
    Ok(stream)
}

fn read_group(reader: &mut Reader<'_>, mut group: Group, kind: u8) -> Result<Group, Invalid> {
    for _ in 0..reader.length()? {
        let (id, delivered_ms, deliveries) = (reader.raw_id()?, reader.millis()?, reader.length()?);
        // Whose it is comes with the consumers.
        let pending = Pending { consumer: [].into(), delivered_ms, deliveries };
        check(group.add_read_pending(id, pending))?;
    }
    let mut owned = 0;
    for _ in 0..reader.length()? {
        let name = reader.string()?;
        let seen_ms = reader.millis()?;
        let active_ms = if kind == kind::STREAM { reader.millis()? } else { seen_ms };
        let mut pending = BTreeSet::new();
        for _ in 0..reader.length()? {
            check(pending.insert(reader.raw_id()?))?;
        }
        owned += pending.len();
        let active_ms = Some(active_ms).filter(|millis| *millis != NEVER);
        check(group.add_read(Consumer { name: name[..].into(), seen_ms, active_ms, pending }))?;
    }
    check(owned == group.pending().len())?;
    Ok(group)
}

fn check(is_sound: bool) -> Result<(), Invalid> {
    if is_sound { Ok(()) } else { Err(Invalid::Data) }
}
