//! Streams against a plain list of entries.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { bytes: 200, entries: 4 };

#[derive(Debug, Clone)]
enum Step {
    Add(u64, u8),
    Delete(Vec<u64>),
    KeepLast(u64, bool),
    KeepFrom(u64, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..3, 0u8..4).prop_map(|(later, fields)| Step::Add(later, fields)),
        2 => prop::collection::vec(0u64..60, 1..4).prop_map(Step::Delete),
        1 => (0u64..12, any::<bool>()).prop_map(|(len, whole)| Step::KeepLast(len, whole)),
        1 => (0u64..60, any::<bool>()).prop_map(|(id, whole)| Step::KeepFrom(id, whole)),
    ];
    prop::collection::vec(step, 0..80)
}

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

/// Fields of four kinds, so that names are those of the node or not.
fn fields(kind: u8, ms: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let value = format!("value-{ms}").into_bytes();
    match kind {
        0 => vec![(b"a".to_vec(), value)],
        1 => vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), value)],
        2 => vec![(b"7".to_vec(), ms.to_string().into_bytes())],
        _ => vec![(b"a".to_vec(), vec![b'x'; 150])],
    }
}

type Plain = Vec<(StreamId, Vec<(Vec<u8>, Vec<u8>)>)>;

fn plain<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Plain {
    let fields =
        |entry: &Entry<'_>| entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    entries.map(|entry| (entry.id, fields(&entry))).collect()
}

fn check(stream: &Stream, model: &Plain) {
    assert_eq!(&plain(stream.range(StreamId::MIN, StreamId::MAX)), model);
    let backwards: Plain = model.iter().rev().cloned().collect();
    assert_eq!(plain(stream.range_back(StreamId::MIN, StreamId::MAX)), backwards);
    assert_eq!(stream.len(), model.len() as u64);
    assert_eq!(stream.first_id(), model.first().map_or(StreamId::MIN, |(id, _)| *id));
    assert_eq!(stream.last_entry_id(), model.last().map(|(id, _)| *id));
    for (from, to) in [(0, 10), (5, 5), (7, 30), (20, 3)] {
        let between = |entry: &&(StreamId, _)| entry.0 >= id(from) && entry.0 <= id(to);
        let expected: Plain = model.iter().filter(between).cloned().collect();
        assert_eq!(plain(stream.range(id(from), id(to))), expected);
        let backwards: Plain = expected.into_iter().rev().collect();
        assert_eq!(plain(stream.range_back(id(from), id(to))), backwards);
    }
    for ms in 0..60 {
        let expected = model.iter().any(|(other, _)| *other == id(ms));
        assert_eq!(stream.get(id(ms)).is_some(), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 200 }, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_is_a_list_of_entries(steps in steps()) {
        let (mut stream, mut model) = (Stream::default(), Plain::new());
        let (mut next, mut added, mut deleted_most) = (1, 0, StreamId::MIN);
        for step in steps {
            match step {
                Step::Add(later, kind) => {
                    next += later;
                    let owned = fields(kind, next);
                    let pairs: Vec<(&[u8], &[u8])> =
                        owned.iter().map(|(name, value)| (&name[..], &value[..])).collect();
                    let expected = if id(next) > stream.last_id { Ok(id(next)) } else { Err(AddError::NotGreater) };
                    prop_assert_eq!(stream.add(NewId::Exactly(id(next)), &pairs, LIMITS), expected);
                    if expected.is_ok() {
                        model.push((id(next), owned));
                        added += 1;
                    }
                }
                Step::Delete(ids) => {
                    let ids: Vec<StreamId> = ids.into_iter().map(id).collect();
                    let before = model.len();
                    let gone = model.iter().map(|(id, _)| *id).filter(|id| ids.contains(id)).max();
                    deleted_most = deleted_most.max(gone.unwrap_or_default());
                    model.retain(|(id, _)| !ids.contains(id));
                    prop_assert_eq!(stream.delete(&ids), (before - model.len()) as u64);
                }
                Step::KeepLast(len, is_approximate) => {
                    let trim = Trim { keep: Keep::Last(len), is_approximate, limit: 0 };
                    let exact = model.len().saturating_sub(len as usize);
                    let trimmed = stream.trim(&trim) as usize;
                    prop_assert!(trimmed == exact || is_approximate && trimmed < exact);
                    model.drain(..trimmed);
                }
                Step::KeepFrom(least, is_approximate) => {
                    let trim = Trim { keep: Keep::From(id(least)), is_approximate, limit: 0 };
                    let exact = model.iter().filter(|(other, _)| *other < id(least)).count();
                    let trimmed = stream.trim(&trim) as usize;
                    prop_assert!(trimmed == exact || is_approximate && trimmed < exact);
                    model.drain(..trimmed);
                }
            }
            check(&stream, &model);
            prop_assert_eq!(stream.entries_added, added);
            prop_assert_eq!(stream.max_deleted_id, deleted_most);
        }
    }

    #[test]
    fn ids_are_in_the_order_of_their_bytes(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
        let [a, b] = [a, b].map(|(ms, seq)| StreamId { ms, seq });
        prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
        prop_assert_eq!(StreamId::from_bytes(a.to_bytes()), a);
        prop_assert_eq!(StreamId::parse(a.to_string().as_bytes(), 0), Some(a));
        prop_assert_eq!(a.next().and_then(StreamId::previous), Some(a).filter(|id| *id != StreamId::MAX));
    }
}

#[test]
fn ids_are_read_as_redis_reads_them() {
    for (text, expected) in [
        ("5", Some((5, 9))),
        ("5-", None),
        ("5-3", Some((5, 3))),
        ("05-3", Some((5, 3))),
        ("-", None),
        ("5-3-1", None),
        ("", None),
        ("18446744073709551615-18446744073709551615", Some((u64::MAX, u64::MAX))),
        ("18446744073709551616", None),
        ("a", None),
    ] {
        let expected = expected.map(|(ms, seq)| StreamId { ms, seq });
        assert_eq!(StreamId::parse(text.as_bytes(), 9), expected, "{text}");
    }
    assert_eq!(StreamId::parse_open(b"5-*"), Some(5));
    assert_eq!(StreamId::parse_open(b"5-1-*"), None);
}

/// As counted by Redis 7.0 for the same keys.
#[test]
fn radix_nodes_are_counted() {
    let mut stream = Stream::default();
    assert_eq!(stream.radix_nodes(), 1);
    let one = Limits { bytes: 0, entries: 1 };
    for (ms, nodes) in [(1, 2), (2, 6), (300, 9)] {
        stream.add(NewId::Exactly(id(ms)), &[(b"f", b"v")], one).unwrap();
        assert_eq!(stream.radix_nodes(), nodes, "{ms}");
    }
}

#[test]
fn what_is_given_is_pending_until_it_is_acknowledged() {
    let mut group = Group::new(StreamId::MIN, None);
    assert!(group.create_consumer(b"a", 1) && !group.create_consumer(b"a", 2));
    group.create_consumer(b"b", 1);
    group.give(id(1), b"a", 5, 1);
    group.give(id(2), b"a", 5, 1);
    group.give(id(1), b"b", 6, 2);
    let held = |group: &Group, name: &[u8]| group.consumer(name).unwrap().pending.len();
    assert_eq!((held(&group, b"a"), held(&group, b"b"), group.pending().len()), (1, 1, 2));
    assert!(group.acknowledge(id(1)) && !group.acknowledge(id(1)));
    assert_eq!(group.remove_consumer(b"a"), Some(1));
    assert!(group.pending().is_empty());
}
