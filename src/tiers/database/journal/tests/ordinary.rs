//! What happens every day.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::super::inspect;
use super::*;

#[test]
fn what_is_not_complete_is_replayed_and_sequences_go_on() {
    let disk = Disk::default();
    for round in 0..3 {
        let (journal, report, records) = open(&disk, options(Fsync::Always)).unwrap();
        assert_eq!(report.next, round * 50 + 1);
        assert_eq!(report.orderly, round > 0);
        let expected: Records =
            (1..=round * 50).filter(|sequence| sequence % 50 > 40).map(|s| (s, payload(s))).collect();
        let from = expected.keys().next().copied().unwrap_or(0);
        // What is complete behind the first that is not may come again.
        let again = records.iter().filter(|record| !expected.contains_key(record.0));
        assert!(again.clone().all(|record| *record.0 > from));
        assert!(expected.iter().all(|record| records.get(record.0) == Some(record.1)));
        fill(&journal, 50);
        assert_eq!(journal.acknowledged(), round * 50 + 50);
        journal.complete((1..=journal.last()).filter(|sequence| !(41..=49).contains(&(sequence % 50))));
        assert_eq!(journal.mark(), 40);
        journal.close().unwrap();
        assert!(matches!(append(&journal), Err(JournalError::Closed)));
    }
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    journal.complete(1..=1000);
    assert_eq!(journal.mark(), 150);
}

#[test]
fn an_empty_journal_stays_one_segment_over_many_starts() {
    let disk = Disk::default();
    for _ in 0..5 {
        let (journal, report, _) = open(&disk, options(Fsync::No)).unwrap();
        assert_eq!((report.next, report.torn, report.damage), (1, None, vec![]));
        assert_eq!(journal.statistics().segments, 1);
    }
    assert_eq!(disk.image().len(), 2);
    let (journal, ..) = open(&disk, Options { first_sequence: 700, ..options(Fsync::No) }).unwrap();
    assert_eq!(append(&journal).unwrap(), 700);
}

#[test]
fn sequences_jump_if_it_was_not_closed() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    fill(&journal, 3);
    let (killed, report, records) = open(&Disk::of(&disk.image()), options(Fsync::Always)).unwrap();
    assert_eq!(records.len(), 3);
    assert!(report.next > 1 << 32 && !report.orderly);
    assert_eq!(append(&killed).unwrap(), report.next);
    killed.complete([1, 2, 3]);
    assert_eq!(killed.mark(), report.next - 1);
}

#[test]
fn threads_get_contiguous_sequences_and_every_record_is_kept() {
    for fsync in [Fsync::Always, Fsync::EverySecond] {
        let scratch = Scratch::new();
        let options = Options { segment_size: 100_000, ..options(fsync) };
        let options = Options { max_size: 64 << 20, ..options };
        let (journal, _) = Journal::open(&scratch.0, options.clone(), |_, _| {}).unwrap();
        let append = |thread: u64| {
            let mut own = Records::new();
            for number in 0..4000u64 {
                let parts = [thread.to_le_bytes(), number.to_le_bytes()];
                let sequence = journal.append(&[&parts[0], &parts[1]]).unwrap();
                assert!(own.last_key_value().is_none_or(|last| *last.0 < sequence));
                own.insert(sequence, parts.concat());
            }
            journal.wait_for(*own.last_key_value().unwrap().0, LONG).unwrap();
            own
        };
        let mut expected = Records::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || append(thread))).collect();
            threads.into_iter().for_each(|thread| expected.extend(thread.join().unwrap()));
        });
        assert!(expected.keys().copied().eq(1..=32_000));
        assert!(matches!(Journal::open(&scratch.0, options.clone(), |_, _| {}), Err(OpenError::Locked)));
        drop(journal);
        let mut found = Records::new();
        let replay = |sequence, payload: &[u8]| drop(found.insert(sequence, payload.to_vec()));
        let (_journal, report) = Journal::open(&scratch.0, options, replay).unwrap();
        assert!(found == expected && report.orderly);
        assert!(report.segments > 5);
    }
}

#[test]
fn segments_that_are_done_are_removed_behind_the_checkpoint() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    fill(&journal, 200);
    let segments = journal.statistics().segments;
    assert!(segments > 10);
    journal.complete(101..=200);
    journal.complete(1..=99);
    eventually("the checkpoint is written", || journal.statistics().checkpoint == 99);
    eventually("segments are removed", || journal.statistics().segments < segments * 2 / 3);
    let (_, report, records) = open(&Disk::of(&disk.image()), options(Fsync::Always)).unwrap();
    assert_eq!((report.mark, records.keys().next()), (99, Some(&100)));
    journal.complete([100]);
    eventually("one segment is left", || journal.statistics().segments == 1);
    let statistics = journal.statistics();
    assert_eq!((statistics.mark, statistics.unfinished, statistics.oldest), (200, 0, None));
    let on_disk: usize =
        disk.image().iter().filter(|file| file.0.ends_with(".log")).map(|file| file.1.len()).sum();
    eventually("the last mark is written", || journal.statistics().disk_bytes >= on_disk as u64);
}

#[test]
fn beyond_the_maximum_it_refuses_until_something_is_complete() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, Options { max_size: 20_000, ..options(Fsync::EverySecond) }).unwrap();
    let refused = loop {
        match append(&journal) {
            Ok(sequence) => journal.wait_for(sequence, LONG).unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full(Shortage::Size { limit: 20_000 })));
    // Beyond it: a frame without payload, a header, two marks.
    assert!(journal.statistics().disk_bytes <= 20_000 + 16 + 128 + 32);
    journal.complete(1..=journal.last() / 2);
    eventually("there is room again", || append(&journal).is_ok());
    assert!(matches!(journal.reserve(20_001), Err(JournalError::TooLarge(_))));
    // What is set aside counts, until it is given back.
    journal.complete(1..=journal.last());
    eventually("all is removed", || journal.statistics().segments == 1);
    let reservation = journal.reserve(15_000).unwrap();
    assert!(matches!(journal.reserve(5_000), Err(JournalError::Full(_))));
    drop(reservation);
    drop(journal.reserve(5_000).unwrap());
}

#[test]
fn who_waits_is_told() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    journal.on_progress(Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let sequence = append(&journal).unwrap();
    journal.wait_for(sequence, LONG).unwrap();
    eventually("the callback is called", || told.load(Ordering::SeqCst) > 0);
    assert!(matches!(journal.status(sequence + 1), Ok(false)));
    let soon = Duration::from_millis(5);
    assert!(matches!(journal.wait_for(sequence + 1, soon), Err(JournalError::TimedOut)));
    let statistics = journal.statistics();
    assert_eq!((statistics.oldest, statistics.unfinished), (Some(1), 1));
    assert!(statistics.oldest_age > Duration::ZERO && statistics.syncs > 0 && statistics.trouble.is_none());
    journal.close().unwrap();
    assert!(matches!(journal.wait_for(sequence, LONG), Ok(())));
    assert!(matches!(journal.wait_for(sequence + 1, LONG), Err(JournalError::Closed)));
}

#[test]
fn everysec_syncs_beside_the_writing() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::EverySecond)).unwrap();
    fill(&journal, 5);
    eventually("it is synced", || journal.durable() == 5);
    eventually("the next start knows", || {
        disk.after_power_cut(1, true).values().any(|file| file.len() > 200)
    });
}

#[test]
fn a_record_may_be_longer_than_a_segment() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    for len in [0, 5000, 1, 600, 0] {
        journal.append(&[&vec![b'x'; len]]).unwrap();
    }
    drop(journal);
    let (_, _, records) = open(&disk, options(Fsync::Always)).unwrap();
    assert!(records.values().map(Vec::len).eq([0, 5000, 1, 600, 0]));
}

#[test]
fn the_contents_can_be_printed() {
    let scratch = Scratch::new();
    let (journal, _) = Journal::open(&scratch.0, options(Fsync::Always), |_, _| {}).unwrap();
    fill(&journal, 30);
    journal.complete(1..=10);
    journal.close().unwrap();
    let mut text = Vec::new();
    let mut describe =
        |_, payload: &[u8]| Some(String::from_utf8_lossy(payload).split(' ').nth(1).unwrap().to_owned());
    let contents = inspect(&scratch.0, &mut text, &mut describe).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(contents.records >= 20 && contents.unfinished == 20 && contents.unreadable == 0, "{text}");
    assert!(text.starts_with("checkpoint: done up to 10, closed in order\njournal-0"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("  11 at ") && line.ends_with(" 11")), "{text}");
    assert!(text.ends_with("next 31\n"), "{text}");
}

#[test]
fn who_waits_has_it_written_whoever_else_does_and_nobody_is_forgotten() {
    let disk = Disk::default();
    // The thread would come by itself only long after.
    let slow = Options { interval: Duration::from_secs(3600), ..options(Fsync::EverySecond) };
    let (journal, ..) = open(&disk, slow).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let sequence = journal.append_regardless(&[&[b'x'; 40]]).unwrap();
                    journal.write_out();
                    eventually("it is written", || journal.status(sequence).unwrap());
                }
            });
        }
    });
    assert_eq!(journal.acknowledged(), 1200);
    assert!(journal.statistics().segments > 10, "the thread began segments meanwhile");
    drop(journal);
    let (_, report, records) = open(&disk, options(Fsync::No)).unwrap();
    assert_eq!((records.len(), report.orderly), (1200, true));
}

#[test]
fn what_nobody_waits_for_is_written_in_its_time() {
    let (journal, ..) = open(&Disk::default(), options(Fsync::No)).unwrap();
    let sequence = append(&journal).unwrap();
    eventually("it is written", || journal.status(sequence).unwrap());
}
