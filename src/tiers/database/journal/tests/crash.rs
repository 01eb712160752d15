//! Random work, and the power cut at any change of the disk, again and again.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Append so many records.
    Append(u8),
    /// Wait for the last.
    Wait,
    /// Complete some: by this number, from the oldest or anywhere.
    Complete(u8, bool),
    /// Close and open.
    Restart,
    /// Let the power go after so many changes, during the following steps.
    Cut(u8),
}

#[derive(Debug, Clone)]
struct Life {
    steps: Vec<Step>,
    seed: u64,
    in_order: bool,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..30).prop_map(Step::Append),
        3 => Just(Step::Wait),
        2 => (1u8..40, any::<bool>()).prop_map(|(count, oldest)| Step::Complete(count, oldest)),
        1 => Just(Step::Restart),
        2 => (0u8..40).prop_map(Step::Cut),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    (prop::collection::vec(step(), 1..12), any::<u64>(), any::<bool>())
        .prop_map(|(steps, seed, in_order)| Life { steps, seed, in_order })
}

/// What must be there, and what may.
#[derive(Default)]
struct Model {
    payloads: Records,
    /// Not complete.
    open: BTreeSet<Sequence>,
    /// Of the last run: up to here it must be there.
    safe: Sequence,
    highest: Sequence,
    /// What the checkpoint said at last.
    checkpoint: Sequence,
    /// Whether the power ever went with sectors missing in between.
    out_of_order: bool,
}

impl Model {
    fn check(&mut self, report: &Report, records: &Records) {
        // A mark that did not reach the disk is a place that cannot be read.
        assert!(!report.has_losses(), "{report:?}");
        assert!(report.mark >= self.checkpoint, "{report:?}");
        assert!(self.out_of_order || report.damage.is_empty(), "{report:?}");
        assert!(report.next > self.highest, "{} handed out twice", report.next);
        for sequence in self.open.range(..=self.safe) {
            assert!(records.contains_key(sequence), "{sequence} is lost, safe was {}", self.safe);
        }
        let last = records.keys().last().copied().unwrap_or(0);
        for (sequence, payload) in records {
            assert_eq!(self.payloads.get(sequence), Some(payload));
        }
        // A prefix: nothing is missing before something that is there.
        for sequence in self.open.range(..=last) {
            assert!(records.contains_key(sequence), "{sequence} is missing before {last}");
        }
        // What a crash took was not acknowledged.
        let survives = self.safe.max(last);
        self.open.retain(|sequence| *sequence <= survives);
        self.safe = survives;
    }

    fn append(&mut self, journal: &Journal, count: u8) {
        for _ in 0..count {
            if let Ok(sequence) = append(journal) {
                assert!(sequence > self.highest);
                self.highest = sequence;
                self.payloads.insert(sequence, payload(sequence));
                self.open.insert(sequence);
            }
        }
    }

    fn complete(&mut self, journal: &Journal, count: u8, oldest: bool) {
        // The flusher takes only what is acknowledged.
        let acknowledged = self.open.range(..=journal.acknowledged());
        let chosen: Vec<_> = if oldest {
            acknowledged.take(usize::from(count)).copied().collect()
        } else {
            acknowledged.filter(|sequence| *sequence % 3 == u64::from(count % 3)).copied().collect()
        };
        journal.complete(chosen.iter().copied());
        chosen.iter().for_each(|sequence| {
            self.open.remove(sequence);
        });
        // The next tick of the keeper writes it.
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn live(fsync: Fsync, lives: &[Life]) {
    let mut model = Model::default();
    let mut disk = Disk::default();
    for Life { steps, seed, in_order } in lives {
        let options = Options { segment_size: 300, interval: Duration::from_micros(300), ..options(fsync) };
        let (mut journal, report, records) = open(&disk, options.clone()).unwrap();
        model.check(&report, &records);
        for step in steps {
            match step {
                Step::Append(count) => model.append(&journal, *count),
                Step::Wait => drop(journal.wait_for(journal.last(), LONG)),
                Step::Complete(count, oldest) => model.complete(&journal, *count, *oldest),
                Step::Cut(changes) => disk.cut_power_after(usize::from(*changes)),
                Step::Restart => {
                    if journal.close().is_err() {
                        break;
                    }
                    model.safe = model.safe.max(journal.last());
                    drop(journal);
                    let Ok((again, report, records)) = open(&disk, options.clone()) else {
                        // Without power; the next life finds what there is.
                        let image = disk.after_power_cut(*seed, *in_order);
                        model.out_of_order |= !in_order;
                        disk = Disk::of(&image);
                        let (again, report, records) = open(&disk, options.clone()).unwrap();
                        model.check(&report, &records);
                        journal = again;
                        continue;
                    };
                    model.check(&report, &records);
                    journal = again;
                }
            }
        }
        let image = disk.after_power_cut(*seed, *in_order);
        model.safe = model.safe.max(match fsync {
            Fsync::Always => journal.acknowledged(),
            Fsync::EverySecond | Fsync::No => journal.durable(),
        });
        model.checkpoint = journal.statistics().checkpoint;
        model.out_of_order |= !in_order;
        drop(journal);
        disk = Disk::of(&image);
    }
    let (_journal, report, records) = open(&disk, options(fsync)).unwrap();
    model.check(&report, &records);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn always_loses_nothing_acknowledged(lives in prop::collection::vec(life(), 1..8)) {
        live(Fsync::Always, &lives);
    }

    #[test]
    fn everysec_loses_nothing_synced(lives in prop::collection::vec(life(), 1..8)) {
        live(Fsync::EverySecond, &lives);
    }

    #[test]
    fn without_syncs_what_is_left_is_a_prefix(lives in prop::collection::vec(life(), 1..8)) {
        live(Fsync::No, &lives);
    }
}
