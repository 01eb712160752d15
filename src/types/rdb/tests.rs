//! Round trips, payloads of the real Redis, and garbage.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::types::listpack::Item;
use crate::types::stream::{Group, NewId, Stream, StreamId};
use crate::types::{hash, list, set, sorted_set, stream};

const LIMITS: Limits = Limits {
    list: -2,
    hash: hash::Limits { entries: 8, value: 20 },
    set: set::Limits { integers: 16, entries: 8, value: 20 },
    sorted_set: sorted_set::Limits { entries: 8, value: 20 },
};

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string().into_bytes()),
        (-300i64..300).prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40),
        prop_oneof![Just(63usize), Just(64), Just(4095), Just(4096), Just(20_000)]
            .prop_map(|len| vec![b'x'; len]),
    ]
}

/// Values of all types and encodings.
fn value() -> impl Strategy<Value = Decoded> {
    let elements = || prop::collection::vec(element(), 1..30);
    prop_oneof![
        element().prop_map(Decoded::String),
        elements().prop_map(|elements| {
            let mut list = list::List::default();
            elements.iter().for_each(|element| list.push_back(element, LIMITS.list));
            Decoded::List(list)
        }),
        elements().prop_map(|elements| {
            let mut hash = hash::Hash::default();
            for element in &elements {
                hash.set(element, &elements[0], &LIMITS.hash);
            }
            Decoded::Hash(hash)
        }),
        prop::collection::vec((element(), prop::option::of(1..=hash::LAST_DEADLINE)), 1..30).prop_map(
            |fields| {
                let mut hash = hash::Hash::default();
                for (field, deadline) in &fields {
                    hash.set(field, &fields[0].0, &LIMITS.hash);
                    deadline.iter().for_each(|deadline| hash.set_deadline(field, *deadline));
                }
                Decoded::Hash(hash)
            }
        ),
        elements().prop_map(|elements| {
            let mut set = set::Set::default();
            for element in &elements {
                set.insert(element, &LIMITS.set);
            }
            Decoded::Set(set)
        }),
        prop::collection::vec(any::<i64>(), 1..20).prop_map(|members| {
            let mut set = set::Set::default();
            for member in members {
                set.insert(member.to_string().as_bytes(), &LIMITS.set);
            }
            Decoded::Set(set)
        }),
        prop::collection::vec((element(), -1e300f64..1e300), 1..30).prop_map(|pairs| {
            let mut sorted = sorted_set::SortedSet::default();
            for (member, score) in pairs {
                sorted.insert(&member, score, &LIMITS.sorted_set);
            }
            Decoded::SortedSet(sorted)
        }),
        (prop::collection::btree_map(0u64..50, element(), 0..20), any::<bool>(), 0usize..9).prop_map(
            |(entries, deletes, given)| Decoded::Stream(Box::new(stream_of(&entries, deletes, given)))
        ),
    ]
}

/// A stream of these entries with a group, of which some are pending.
fn stream_of(entries: &BTreeMap<u64, Vec<u8>>, deletes: bool, given: usize) -> Stream {
    let mut stream = Stream::default();
    for (ms, value) in entries {
        let id = NewId::Exactly(StreamId { ms: *ms, seq: 1 });
        stream.add(id, &[(b"f", value)], stream::Limits { bytes: 100, entries: 3 }).unwrap();
    }
    if deletes && let Some((ms, _)) = entries.first_key_value() {
        stream.delete(&[StreamId { ms: *ms, seq: 1 }]);
    }
    let mut group = Group::new(StreamId { ms: 9, seq: 0 }, Some(3));
    for (index, ms) in entries.keys().take(given).enumerate() {
        let name: &[u8] = if index % 2 == 0 { b"a" } else { b"b" };
        group.create_consumer(name, 7);
        group.give(StreamId { ms: *ms, seq: 1 }, name, 8, 2);
        group.note_active(name, 9);
    }
    group.create_consumer(b"idle", 5);
    stream.create_group(b"g", group);
    stream
}

fn payload(value: &Decoded) -> Vec<u8> {
    encode(match value {
        Decoded::String(bytes) => Source::String(Item::of(bytes)),
        Decoded::List(list) => Source::List(list),
        Decoded::Hash(hash) => Source::Hash(hash),
        Decoded::Set(set) => Source::Set(set),
        Decoded::SortedSet(sorted) => Source::SortedSet(sorted),
        Decoded::Stream(stream) => Source::Stream(stream),
    })
}

/// The footer of damaged content, so that it is looked at at all.
fn sign(mut content: Vec<u8>) -> Vec<u8> {
    content.extend_from_slice(&VERSION.to_le_bytes());
    content.extend_from_slice(&crc64(&content).to_le_bytes());
    content
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read(value in value()) {
        let payload = payload(&value);
        let read = decode(&payload, &LIMITS).unwrap();
        // A table has no order of its own.
        let sorted = |value: &Decoded| {
            let mut lines: Vec<String> = match value {
                Decoded::Set(set) => set.iter().map(|item| format!("{:?}", item.to_vec())).collect(),
                Decoded::Hash(hash) => {
                    hash.iter().map(|(field, value)| format!("{:?} {:?}", field.to_vec(), value.to_vec())).collect()
                }
                Decoded::List(list) => vec![format!("{:?}", list.iter().map(|item| item.to_vec()).collect::<Vec<_>>())],
                Decoded::SortedSet(sorted) => {
                    sorted.iter(0, false).map(|(member, score)| format!("{:?} {score:?}", member.to_vec())).collect()
                }
                Decoded::Stream(stream) => {
                    let all = stream.range(StreamId::MIN, StreamId::MAX);
                    let entry = |entry: stream::Entry<'_>| format!("{:?} {:?}", entry.id, entry.fields().collect::<Vec<_>>());
                    let counts = (stream.len(), stream.last_id, stream.max_deleted_id, stream.entries_added);
                    all.map(entry).chain([format!("{counts:?} {:?}", stream.groups())]).collect()
                }
                Decoded::String(bytes) => vec![format!("{bytes:?}")],
            };
            lines.sort();
            lines
        };
        prop_assert_eq!(sorted(&read), sorted(&value));
    }

    #[test]
    fn damage_is_an_error_or_a_value(
        value in value(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut content = payload(&value);
        content.truncate(content.len() - FOOTER);
        for (at, byte) in damage {
            let at = at.index(content.len());
            content[at] = byte;
        }
        if let Some(cut) = cut {
            let len = cut.index(content.len());
            content.truncate(len);
        }
        if let Ok(read) = decode(&sign(content), &LIMITS) {
            decode(&payload(&read), &LIMITS).unwrap();
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_value(kind in 0u8..24, content in prop::collection::vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(decode(&content, &LIMITS).err(), Some(Invalid::Footer));
        let mut signed = vec![kind];
        signed.extend_from_slice(&content);
        drop(decode(&sign(signed), &LIMITS));
    }
}

#[test]
fn claims_take_no_memory() {
    for content in [
        &[kind::STRING, 0x81, 0x7f, 255, 255, 255, 255, 255, 255, 255][..],
        &[kind::STRING, 0xc3, 1, 0x81, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0],
        &[kind::LIST, 0x81, 0x7f, 255, 255, 255, 255, 255, 255, 255],
        &[kind::ZSET, 0x80, 255, 255, 255, 255],
        &[kind::LIST_NODES, 1, 3, 1, b'x'],
        &[kind::LIST_NODES, 0],
        &[kind::SET_INTEGERS, 10, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
        &[kind::SET_INTEGERS, 12, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0],
        &[kind::HASH, 2, 1, b'a', 1, b'x', 1, b'a', 1, b'y'],
        &[9, 0],
        &[],
    ] {
        assert_eq!(decode(&sign(content.to_vec()), &LIMITS).err(), Some(Invalid::Data), "{content:?}");
    }
}
