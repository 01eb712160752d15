//! A disk that fails or is full.

use super::*;

#[test]
fn the_first_failed_sync_is_the_last() {
    for fsync in [Fsync::Always, Fsync::EverySecond] {
        let disk = Disk::default();
        let (journal, ..) = open(&disk, options(fsync)).unwrap();
        fill(&journal, 5);
        eventually("all is synced", || journal.durable() == 5);
        disk.fail_syncs(1);
        let sequence = append(&journal).unwrap();
        eventually("it is known", || journal.statistics().trouble.is_some());
        if fsync == Fsync::Always {
            let error = journal.wait_for(sequence, LONG).unwrap_err();
            assert_eq!(error.to_string(), "the journal has failed: sync: bad sync");
        }
        let acknowledged = journal.acknowledged();
        for _ in 0..5 {
            assert!(matches!(append(&journal), Err(JournalError::Failed(_))));
            assert!(matches!(journal.reserve(1), Err(JournalError::Failed(_))));
            std::thread::sleep(Duration::from_millis(3));
        }
        assert_eq!((journal.durable(), journal.acknowledged()), (5, acknowledged));
        assert!(matches!(journal.wait_for(sequence + 1, LONG), Err(JournalError::Failed(_))));
        assert!(matches!(journal.close(), Err(JournalError::Failed(_))));
        let (_, _, records) = open(&Disk::of(&disk.after_power_cut(3, true)), options(fsync)).unwrap();
        assert!((1..=5).all(|sequence| records[&sequence] == payload(sequence)));
    }
}

#[test]
fn a_failed_reservation_holder_gets_the_error_too() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    let mut reservation = journal.reserve(10).unwrap();
    disk.fail_writes(1);
    let sequence = append(&journal).unwrap();
    assert!(matches!(journal.wait_for(sequence, LONG), Err(JournalError::Failed(_))));
    assert!(matches!(reservation.append(&[b"late"]), Err(JournalError::Failed(_))));
    drop(reservation);
    drop(journal);
    let (_, report, records) = open(&disk, options(Fsync::Always)).unwrap();
    assert!(records.is_empty() && report.damage.is_empty() && !report.orderly);
}

#[test]
fn on_a_full_disk_it_refuses_and_goes_on_when_there_is_space() {
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let disk = Disk::default();
        let (journal, ..) = open(&disk, options(fsync)).unwrap();
        fill(&journal, 20);
        // So little that a write is cut, or a new segment cannot be begun.
        for extra in (0..260).step_by(13) {
            disk.set_space(Some(disk.used() + extra));
            let mut reservation = journal.reserve(100).unwrap();
            let mut waiting = Vec::new();
            let refused = loop {
                match append(&journal) {
                    Ok(sequence) => waiting.push(sequence),
                    Err(error) => break error,
                }
                if let Err(error) = journal.wait_for(*waiting.last().unwrap(), LONG) {
                    break error;
                }
            };
            assert!(matches!(refused, JournalError::Full(Shortage::Disk)), "{refused}");
            // What was written in part is taken back.
            let image = disk.image();
            assert_eq!(damage::look(&Disk::of(&image), false).0.unwrap().torn, None);
            // Who had reserved is not refused, and gets no promise either.
            let late = reservation.append(&[&payload(journal.last() + 1)]).unwrap();
            assert!(matches!(journal.status(late), Err(JournalError::Full(Shortage::Disk))));
            assert!(matches!(journal.reserve(1), Err(JournalError::Full(Shortage::Disk))));
            disk.set_space(None);
            eventually("there is space again", || append(&journal).is_ok());
            journal.wait_for(late, LONG).unwrap();
        }
        let last = journal.last();
        journal.wait_for(last, LONG).unwrap();
        let (_, report, records) = open(&Disk::of(&disk.image()), options(fsync)).unwrap();
        assert!(records.keys().copied().eq(1..=last));
        assert!(records.iter().all(|record| *record.1 == payload(*record.0)));
        assert!(report.torn.is_none() && report.damage.is_empty(), "{report:?}");
    }
}

#[test]
fn it_starts_on_a_full_disk_and_takes_nothing_until_there_is_space() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    fill(&journal, 30);
    let disk = Disk::of(&disk.image());
    disk.set_space(Some(disk.used()));
    let (journal, report, records) = open(&disk, options(Fsync::Always)).unwrap();
    assert_eq!(records.len(), 30);
    assert!(matches!(append(&journal), Err(JournalError::Full(Shortage::Disk))));
    // The database takes what was there, which makes space: neither checkpoint nor removal needs any.
    journal.complete(1..=30);
    eventually("there is space", || append(&journal).is_ok());
    assert_eq!(journal.last(), report.next);
    journal.wait_for(journal.last(), LONG).unwrap();
}

#[test]
fn what_waits_when_it_is_closed_on_a_full_disk_is_told_of() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    fill(&journal, 5);
    disk.set_space(Some(disk.used()));
    let sequence = append(&journal).unwrap();
    assert!(matches!(journal.wait_for(sequence, LONG), Err(JournalError::Full(_))));
    assert!(matches!(journal.close(), Err(JournalError::Full(Shortage::Disk))));
    disk.set_space(None);
    let (_, report, records) = open(&disk, options(Fsync::Always)).unwrap();
    assert!(records.keys().copied().eq(1..=5) && report.next > sequence && !report.orderly);
}

#[test]
fn a_broken_checkpoint_ends_the_journal() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::No)).unwrap();
    fill(&journal, 2);
    disk.fail_syncs(1);
    journal.complete([1]);
    eventually("it has failed", || matches!(journal.statistics().trouble, Some(JournalError::Failed(_))));
}

#[test]
fn the_buffer_is_bounded_and_one_long_record_passes() {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, Options { buffer_size: 100, ..options(Fsync::No) }).unwrap();
    let long = journal.append(&[&[b'x'; 500]]).unwrap();
    journal.wait_for(long, LONG).unwrap();
    let _first = journal.reserve(90).unwrap();
    assert!(matches!(journal.reserve(90), Err(JournalError::Full(Shortage::Buffer))));
}
