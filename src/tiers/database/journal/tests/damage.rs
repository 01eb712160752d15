//! Files that are not as they were written.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::super::recover::recover;
use super::*;

/// Three segments and a bit; complete up to 4.
fn closed_journal(count: u64) -> Image {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    for _ in 0..count {
        fill(&journal, 1);
    }
    journal.complete(1..=4);
    journal.close().unwrap();
    disk.image()
}

fn killed_journal(count: u64) -> Image {
    let disk = Disk::default();
    let (journal, ..) = open(&disk, options(Fsync::Always)).unwrap();
    fill(&journal, count);
    disk.image()
}

fn last_segment(image: &Image) -> String {
    image.keys().rfind(|name| name.ends_with(".log")).unwrap().clone()
}

/// Opens without threads.
pub fn look(disk: &Disk, repair: bool) -> (Result<Report, Box<Report>>, Records) {
    let mut records = Records::new();
    let options = Options { repair, ..options(Fsync::Always) };
    let storage: Arc<dyn super::super::Storage> = disk.storage();
    let result = recover(&*storage, &options, &mut |sequence, bytes| {
        assert_eq!(bytes, payload(sequence));
        assert!(records.last_key_value().is_none_or(|last| *last.0 < sequence));
        records.insert(sequence, bytes.to_vec());
    });
    match result {
        Ok(recovered) => (Ok(recovered.report), records),
        Err(OpenError::Damaged(report)) => (Err(report), records),
        Err(error) => panic!("{error}"),
    }
}

fn is_prefix(records: &Records, from: Sequence) -> bool {
    records.keys().copied().eq(from..from + records.len() as u64)
}

#[test]
fn a_tail_cut_at_any_byte_leaves_the_longest_prefix() {
    for (image, orderly) in [(closed_journal(30), true), (killed_journal(30), false)] {
        let name = last_segment(&image);
        let whole = look(&Disk::of(&image), false).1;
        let (from, last) = (*whole.keys().next().unwrap(), *whole.keys().last().unwrap());
        let mut shortest = last;
        for len in (0..image[&name].len()).rev() {
            let mut cut = image.clone();
            cut.get_mut(&name).unwrap().truncate(len);
            let disk = Disk::of(&cut);
            let (journal, report, records) = open(&disk, options(Fsync::Always)).unwrap();
            assert!(is_prefix(&records, from), "{len}");
            let end = *records.keys().last().unwrap();
            assert!(end <= shortest && end + 1 >= shortest, "{len}");
            shortest = end;
            let missing = report.torn.as_ref().map_or(0, |torn| torn.missing);
            // What an orderly end had left is known.
            assert_eq!(missing, if orderly { last - end } else { 0 }, "{len} {report:?}");
            assert!(report.next > last && report.damage.is_empty());
            // It goes on from there.
            fill(&journal, 1);
            drop(journal);
            assert_eq!(look(&disk, false).1.len(), records.len() + 1, "{len}");
        }
        assert!(shortest < last);
    }
}

/// Sequences that a report says are lost.
fn lost(report: &Report) -> Vec<RangeInclusive<Sequence>> {
    report.damage.iter().filter_map(|damage| damage.lost.clone()).collect()
}

#[test]
fn every_bit_flipped_is_noticed_and_nothing_skipped_in_silence() {
    let image = closed_journal(34);
    let (result, whole) = look(&Disk::of(&image), false);
    assert_eq!((result.unwrap().damage.len(), whole.len()), (0, 30));
    let mut cases = 0;
    for (name, content) in image.iter().filter(|file| file.0.ends_with(".log")) {
        for place in 0..content.len() * 8 {
            let mut flipped = image.clone();
            flipped.get_mut(name).unwrap()[place / 8] ^= 1 << (place % 8);
            flip(&flipped, &whole, name, place);
            cases += 1;
        }
    }
    assert!(cases > 10_000, "{cases}");
}

fn flip(image: &Image, whole: &Records, name: &str, place: usize) {
    let context = format!("{name} bit {place}");
    let disk = Disk::of(image);
    let (result, records) = look(&disk, false);
    assert!(is_prefix(&records, 5), "{context}");
    let complete = records.len() == whole.len();
    match &result {
        Ok(report) => {
            assert!(complete, "{context}: {report:?}");
            let first = name.ends_with("1.log");
            // Damage to what is done may not be looked at.
            assert!(!report.damage.is_empty() || report.torn.is_some() || first, "{context}: {report:?}");
            return;
        }
        Err(report) => {
            assert!(report.has_losses());
            assert_eq!(disk.image(), *image, "{context}: nothing is changed");
        }
    }
    let (repaired, records) = look(&disk, true);
    let report = repaired.unwrap();
    let ranges = lost(&report);
    for sequence in whole.keys() {
        let is_lost = ranges.iter().any(|range| range.contains(sequence));
        assert_ne!(is_lost, records.contains_key(sequence), "{context}: {sequence} {report:?}");
    }
    // In the segment that lost its header everything is lost, otherwise one record.
    let lost = whole.len() - records.len();
    assert!(lost == 1, "{context}: {report:?}");
    assert!(disk.image().keys().any(|file| file.contains(".damaged-1")));
    let (again, same) = look(&disk, false);
    assert!(same == records && !again.unwrap().has_losses(), "{context}");
}

#[test]
fn what_was_synced_is_known_without_an_orderly_end() {
    let disk = Disk::default();
    let interval = LONG;
    let (journal, ..) =
        open(&disk, Options { interval, segment_size: 4096, ..options(Fsync::Always) }).unwrap();
    for _ in 0..20 {
        fill(&journal, 1);
    }
    let image = disk.image();
    let name = last_segment(&image);
    // The last group has nothing behind it.
    let proven = image[&name].len() - 90;
    for place in 128..proven {
        let mut flipped = image.clone();
        flipped.get_mut(&name).unwrap()[place] ^= 0x20;
        let (result, records) = look(&Disk::of(&flipped), false);
        let no_loss = result.as_ref().is_ok_and(|report| report.damage.len() == 1 && records.len() == 20);
        assert!(result.is_err() || no_loss, "{place}: {result:?}");
    }
}

#[test]
fn a_segment_without_header_is_lost_as_a_whole() {
    let image = closed_journal(34);
    let names: Vec<_> = image.keys().filter(|name| name.ends_with(".log")).cloned().collect();
    for name in &names[1..] {
        let mut broken = image.clone();
        broken.get_mut(name).unwrap()[..128].fill(7);
        let disk = Disk::of(&broken);
        let (result, _) = look(&disk, false);
        let losses = lost(&result.unwrap_err());
        assert_eq!(losses.len(), 1, "{name}: {losses:?}");
        let (result, records) = look(&disk, true);
        let report = result.unwrap();
        assert!((5..=34).all(|s| losses[0].contains(&s) != records.contains_key(&s)), "{losses:?}");
        assert!(report.next > 34);
        let (again, same) = look(&disk, false);
        assert!(again.unwrap().damage.is_empty());
        assert_eq!(same, records);
    }
}

#[test]
fn a_segment_that_is_missing_is_noticed_but_for_the_last() {
    let image = closed_journal(34);
    let names: Vec<_> = image.keys().filter(|name| name.ends_with(".log")).cloned().collect();
    for name in &names[..names.len() - 1] {
        let mut fewer = image.clone();
        fewer.remove(name);
        let disk = Disk::of(&fewer);
        let losses = lost(&look(&disk, false).0.unwrap_err());
        assert_eq!(losses.len(), 1);
        let records = look(&disk, true).1;
        assert!((5..=34).all(|s| losses[0].contains(&s) != records.contains_key(&s)), "{losses:?}");
    }
}

#[test]
fn a_checkpoint_that_is_damaged_only_lags() {
    let image = closed_journal(34);
    for place in (0..48).chain(4096..4144).chain([9999]) {
        let mut broken = image.clone();
        match broken.get_mut("checkpoint").unwrap().get_mut(place) {
            Some(byte) => *byte ^= 0x10,
            None => drop(broken.remove("checkpoint")),
        }
        let (result, records) = look(&Disk::of(&broken), false);
        let report = result.unwrap();
        assert!(report.checkpoint_damaged && report.mark <= 4 && report.next > 34);
        assert!(is_prefix(&records, 35 - records.len() as u64) && records.len() >= 30);
    }
}

#[test]
fn pages_written_out_of_order_are_a_tear_and_keep_a_copy() {
    // One batch, not synced, of which the middle never came to the disk.
    let disk = Disk::default();
    let (journal, ..) = open(&disk, Options { segment_size: 1 << 20, ..options(Fsync::No) }).unwrap();
    fill(&journal, 100);
    let mut image = disk.image();
    let name = last_segment(&image);
    image.get_mut(&name).unwrap()[1000..1512].fill(0);
    let disk = Disk::of(&image);
    let (result, records) = look(&disk, false);
    let torn = result.unwrap().torn.unwrap();
    assert!(is_prefix(&records, 1) && records.len() < 30);
    assert!(torn.records_after > 50 && torn.offset < 1000);
    assert_eq!(disk.image()[&format!("{name}.damaged-1")], image[&name]);
    assert_eq!(look(&disk, false).0.unwrap().torn, None);
}

#[test]
fn another_version_is_not_touched() {
    let image = closed_journal(34);
    let name = last_segment(&image);
    let mut newer = image;
    let content = newer.get_mut(&name).unwrap();
    for copy in [0, 64] {
        content[copy + 8] = 2;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&content[copy..copy + 12]);
        hasher.update(&content[copy + 16..copy + 64]);
        content[copy + 12..copy + 16].copy_from_slice(&hasher.finalize().to_le_bytes());
    }
    let disk = Disk::of(&newer);
    let error = open(&disk, Options { repair: true, ..options(Fsync::No) }).err().unwrap();
    assert!(matches!(error, OpenError::Version { version: 2, .. }), "{error}");
    assert_eq!(disk.image(), newer);
}
