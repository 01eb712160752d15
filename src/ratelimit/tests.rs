//! Each algorithm against a model that remembers every call, on random times (backwards too), costs and limits.

use proptest::prelude::*;

use super::{Call, Verdict, log, state};
use crate::config::{Algorithm, Rule};
use crate::types::sorted_set::{Limits, SortedSet};

const LIMITS: Limits = Limits { entries: 128, value: 64 };

/// A limiter of any kind, and what it was asked.
#[derive(Clone)]
struct Subject {
    algorithm: Algorithm,
    rules: Vec<Rule>,
    permits: SortedSet,
    state: Option<Vec<u8>>,
    /// Admitted permits with the newest time that had been seen then.
    admitted: Vec<(u64, u64)>,
    newest: u64,
}

impl Subject {
    fn new(algorithm: Algorithm, rules: Vec<Rule>) -> Self {
        let (permits, state, admitted) = (SortedSet::default(), None, Vec::new());
        Self { algorithm, rules, permits, state, admitted, newest: 0 }
    }

    fn take(&mut self, now: u64, cost: u64, id: Option<&[u8]>) -> Verdict {
        let call = Call { now, cost, id };
        let (verdict, until) = if self.algorithm == Algorithm::Log {
            let before: Vec<_> =
                self.permits.iter(0, false).map(|(member, at)| (member.to_vec(), at)).collect();
            let mut told = None;
            let mut tell = |verdict: &Verdict| told = Some(*verdict);
            let until = log::take(&mut self.permits, &self.rules, &call, &LIMITS, &mut tell);
            let after: Vec<_> =
                self.permits.iter(0, false).map(|(member, at)| (member.to_vec(), at)).collect();
            assert_eq!(until.is_none(), before == after, "what changes nothing leaves nothing behind");
            (told.unwrap(), until)
        } else {
            let old = self.state.as_deref().map(|bytes| state::State::parse(bytes).unwrap());
            let decision = state::decide(old.as_ref(), self.algorithm, &self.rules, &call);
            let until = decision.change.as_ref().map(|change| change.until);
            if let Some(change) = decision.change {
                self.state = Some(change.state.to_vec());
            }
            (decision.verdict, until)
        };
        if let Some(until) = until {
            assert!(!verdict.limited && cost > 0);
            self.newest = self.newest.max(now);
            self.admitted.push((self.newest, cost));
            assert!(until > self.newest);
        }
        verdict
    }

    fn admitted_within(&self, window: u64, time: u64) -> u64 {
        self.admitted.iter().filter(|(at, _)| at + window > time).map(|(_, cost)| cost).sum()
    }
}

/// What the model of an algorithm says: whether a call of this cost is admitted, and how many more would be after it.
fn model(subject: &Subject, rule: &Rule, now: u64, cost: u64) -> (bool, u64) {
    let time = subject.newest.max(now);
    match subject.algorithm {
        Algorithm::Log => {
            let used = subject.admitted_within(rule.window_us, time);
            let admits = used + cost <= rule.limit;
            (admits, rule.limit.saturating_sub(used + if admits { cost } else { 0 }))
        }
        Algorithm::Counter => {
            let window = rule.window_us;
            let of = |index: u64| -> u64 {
                subject.admitted.iter().filter(|(at, _)| at / window == index).map(|(_, cost)| cost).sum()
            };
            let (index, elapsed) = (time / window, time % window);
            let previous = if index > 0 { of(index - 1) } else { 0 };
            let exact = |current: u64| previous * (window - elapsed) + current * window;
            let admits = exact(of(index) + cost) <= rule.limit * window;
            let used = exact(of(index) + if admits { cost } else { 0 });
            (admits, (rule.limit * window).saturating_sub(used) / window)
        }
        Algorithm::Gcra => {
            // A bucket that leaks by one permit an interval, in nanoseconds of work.
            let interval = rule.interval_ns;
            let mut level = 0u64;
            let mut last = 0;
            for (at, taken) in &subject.admitted {
                level = level.saturating_sub((at - last) * 1000) + taken * interval;
                last = *at;
            }
            level = level.saturating_sub((time - last) * 1000);
            let admits = level + cost * interval <= rule.capacity * interval;
            let after = level + if admits { cost * interval } else { 0 };
            (admits, (rule.capacity * interval).saturating_sub(after) / interval)
        }
    }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::Log), Just(Algorithm::Counter), Just(Algorithm::Gcra)]
}

/// Steps of the clock in microseconds, of which some go back.
fn steps() -> impl Strategy<Value = Vec<(i64, u64)>> {
    let step = prop_oneof![4 => 0i64..400, 3 => 0i64..4000, 1 => -6000i64..0, 1 => 0i64..20_000];
    prop::collection::vec((step, prop_oneof![4 => Just(1u64), 1 => 1u64..9]), 1..120)
}

fn rule(algorithm: Algorithm, limit: u64, window_ms: u64, burst: Option<u64>) -> Rule {
    Rule::new(algorithm, limit, window_ms, burst.filter(|_| algorithm == Algorithm::Gcra)).unwrap()
}

const START: u64 = 1_700_000_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 400 }))]

    #[test]
    fn decides_as_its_model(
        algorithm in algorithm(),
        limit in 1u64..12,
        window_ms in 1u64..6,
        burst in prop::option::of(0u64..15),
        steps in steps(),
    ) {
        let rule = rule(algorithm, limit, window_ms, burst);
        let mut subject = Subject::new(algorithm, vec![rule]);
        let mut now = START;
        for (step, cost) in steps {
            now = now.saturating_add_signed(step);
            let (admits, remaining) = model(&subject, &rule, now, cost);
            let verdict = subject.take(now, cost, None);
            prop_assert_eq!((verdict.limited, verdict.remaining), (!admits, remaining), "at {}", now);
            prop_assert_eq!(verdict.limit, rule.capacity);
            // A refused call takes nothing: the same again is told the same.
            if verdict.limited {
                prop_assert_eq!(subject.clone().take(now, cost, None), verdict);
            }
            // After the wait it is admitted, and a microsecond earlier it is not.
            match verdict.retry_after {
                None => prop_assert!(!verdict.limited || cost > rule.capacity),
                Some(wait) => {
                    prop_assert!(wait > 0 && verdict.limited);
                    prop_assert!(!subject.clone().take(now + wait, cost, None).limited);
                    prop_assert!(subject.clone().take(now + wait - 1, cost, None).limited);
                }
            }
            // After the reset all permits are there again.
            let mut rested = subject.clone();
            let full = rested.take(now + verdict.reset_after, rule.capacity, None);
            prop_assert!(!full.limited, "{:?}", full);
        }
    }

    /// In no window, wherever it begins, are more permits admitted than the limit, whatever the clock does.
    #[test]
    fn no_window_of_a_log_holds_more(limit in 1u64..9, window_ms in 1u64..5, steps in steps()) {
        let rule = rule(Algorithm::Log, limit, window_ms, None);
        let mut subject = Subject::new(Algorithm::Log, vec![rule]);
        let mut now = START;
        for (step, cost) in steps {
            now = now.saturating_add_signed(step);
            subject.take(now, cost, None);
            prop_assert!(subject.permits.len() as u64 <= limit);
        }
        for (begin, _) in &subject.admitted {
            let window = *begin..begin + rule.window_us;
            let held: u64 = subject.admitted.iter().filter(|(at, _)| window.contains(at)).map(|(_, cost)| cost).sum();
            prop_assert!(held <= limit);
        }
    }

    /// A clock that was set back counts for one that stands still since the last call that was admitted.
    #[test]
    fn setting_the_clock_back_admits_no_more(algorithm in algorithm(), limit in 1u64..9, steps in steps()) {
        let rule = rule(algorithm, limit, 3, None);
        let (mut wild, mut still) = (Subject::new(algorithm, vec![rule]), Subject::new(algorithm, vec![rule]));
        let mut now = START;
        for (step, cost) in steps {
            now = now.saturating_add_signed(step);
            let stands = wild.newest.max(now);
            let (back, right) = (wild.take(now, cost, None), still.take(stands, cost, None));
            prop_assert_eq!((back.limited, back.remaining), (right.limited, right.remaining));
            prop_assert_eq!(back.retry_after, right.retry_after.map(|wait| wait + (stands - now)));
        }
    }

    /// With several windows, each holds, and one that refuses keeps the others from being charged.
    #[test]
    fn several_windows_hold_at_once(algorithm in algorithm(), limits in (1u64..5, 1u64..12), steps in steps()) {
        let rules = vec![rule(algorithm, limits.0, 1, None), rule(algorithm, limits.1, 7, None)];
        let mut subject = Subject::new(algorithm, rules.clone());
        let mut now = START;
        for (step, cost) in steps {
            now = now.saturating_add_signed(step);
            let expected: Vec<_> = rules.iter().map(|rule| model(&subject, rule, now, cost)).collect();
            let verdict = subject.take(now, cost, None);
            let admits = expected.iter().all(|(admits, _)| *admits);
            prop_assert_eq!(verdict.limited, !admits);
            if admits {
                prop_assert_eq!(Some(verdict.remaining), expected.iter().map(|(_, left)| *left).min());
            }
            if let Some(wait) = verdict.retry_after {
                prop_assert!(!subject.clone().take(now + wait, cost, None).limited);
                prop_assert!(subject.clone().take(now + wait - 1, cost, None).limited);
            }
        }
    }

    /// An identifier counts once within the window, and again after it.
    #[test]
    fn identifiers_count_once(algorithm in algorithm(), steps in prop::collection::vec((0u64..900, 0u8..6, any::<bool>()), 1..80)) {
        let rule = rule(algorithm, 7, 3, None);
        let mut subject = Subject::new(algorithm, vec![rule]);
        let mut given: Vec<(u8, u64)> = Vec::new();
        let mut now = START;
        for (step, id, named) in steps {
            now += step;
            let charged = subject.admitted.len();
            let verdict = subject.take(now, 1, named.then_some(&[id]));
            let is_repeated = named && given.iter().any(|(other, at)| *other == id && at + rule.window_us > now);
            if is_repeated {
                prop_assert!(!verdict.limited && subject.admitted.len() == charged);
            } else if named && !verdict.limited {
                prop_assert_eq!(subject.admitted.len(), charged + 1);
                given.push((id, now));
            }
        }
    }

    /// The way for one rule without identifiers decides and stores what the general way does.
    #[test]
    fn a_single_rule_is_decided_as_several_are(
        calls in prop::collection::vec((0u64..400_000, 0u64..5, 0u8..8), 1..60),
        limit in 1u64..20,
        algorithm in prop::sample::select(vec![Algorithm::Counter, Algorithm::Gcra]),
    ) {
        let burst = (algorithm == Algorithm::Gcra).then_some(3);
        let rules = [rule(algorithm, limit, 1000, None), rule(algorithm, limit, 700, burst)];
        let mut stored: Option<Vec<u8>> = None;
        let mut now = START;
        for (pause, cost, kind) in calls {
            // Clocks are set back now and then.
            now = if kind == 0 { now - pause } else { now + pause };
            let rule = rules[usize::from(kind == 1)];
            let state = stored.as_deref().map(|bytes| state::State::parse(bytes).unwrap());
            let call = Call { now, cost, id: None };
            let general = state::decide(state.as_ref(), algorithm, &[rule], &call);
            let until = general.change.as_ref().map(|change| change.until);
            let expected = general.change.map(|change| change.state.to_vec()).or_else(|| stored.clone());
            if let Some(bytes) = &mut stored {
                let mut told = None;
                let mut tell = |verdict: &Verdict| told = Some(*verdict);
                let taken = state::take_single(bytes, algorithm, &rule, now, cost, &mut tell);
                prop_assert_eq!((told, taken), (Some(general.verdict), Some(until)));
                prop_assert_eq!(Some(&*bytes), expected.as_ref());
            }
            stored = expected;
        }
    }

    #[test]
    fn any_bytes_are_a_state_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..3) {
        let mut bytes = bytes;
        if let (Some(first), Some(kind)) = (bytes.first_mut(), [b'c', b'g'].get(kind)) {
            *first = *kind;
        }
        if let Some(count) = bytes.get_mut(1) { *count %= 4; }
        if let Some(parsed) = state::State::parse(&bytes) {
            let rules = [rule(parsed.algorithm(), 5, 1000, None), rule(parsed.algorithm(), 9, 2000, None)];
            for cost in [0, 1, 9] {
                state::decide(Some(&parsed), parsed.algorithm(), &rules, &Call { now: START, cost, id: Some(b"x") });
            }
            let (_, refunded) = parsed.refund(START, 3);
            prop_assert!(state::State::parse(&refunded).is_some());
        }
    }
}

#[test]
fn states_of_another_kind_are_left_to_the_general_way() {
    let (one, other) = (rule(Algorithm::Gcra, 5, 1000, None), rule(Algorithm::Gcra, 9, 2000, None));
    let call = Call { now: START, cost: 1, id: None };
    let stored = |rules: &[Rule], algorithm, call: &Call<'_>| {
        state::decide(None, algorithm, rules, call).change.unwrap().state.to_vec()
    };
    let named = stored(&[one], Algorithm::Gcra, &Call { id: Some(b"x"), ..call });
    let several = stored(&[one, other], Algorithm::Gcra, &call);
    let counted = stored(&[rule(Algorithm::Counter, 5, 1000, None)], Algorithm::Counter, &call);
    let levelled = stored(&[one], Algorithm::Gcra, &call);
    for algorithm in [Algorithm::Gcra, Algorithm::Counter] {
        let of_other = if algorithm == Algorithm::Gcra { &counted } else { &levelled };
        for bytes in [&named, &several, &b"text".to_vec(), of_other, &vec![0; 34]] {
            let mut after = bytes.clone();
            let taken = state::take_single(&mut after, algorithm, &one, START, 1, &mut |_| panic!("told"));
            assert_eq!((taken, &after), (None, bytes));
        }
    }
}

#[test]
fn refunds_are_taken_again() {
    for algorithm in [Algorithm::Counter, Algorithm::Gcra] {
        let rule = rule(algorithm, 10, 1000, None);
        let mut subject = Subject::new(algorithm, vec![rule]);
        assert_eq!(subject.take(START, 8, None).remaining, 2);
        let bytes = subject.state.clone().unwrap();
        let (given, bytes) = state::State::parse(&bytes).unwrap().refund(START, 3);
        subject.state = Some(bytes.to_vec());
        assert_eq!((given, subject.take(START, 1, None).remaining), (3, 4), "{algorithm:?}");
        let bytes = subject.state.clone().unwrap();
        let (given, bytes) = state::State::parse(&bytes).unwrap().refund(START, 100);
        subject.state = Some(bytes.to_vec());
        assert_eq!((given, subject.take(START, 10, None).remaining), (6, 0), "{algorithm:?}");
    }
}

#[test]
fn identifiers_are_bounded() {
    let rule = rule(Algorithm::Counter, 1_000_000, 60_000, None);
    let mut subject = Subject::new(Algorithm::Counter, vec![rule]);
    for number in 0..5000u32 {
        subject.take(START + u64::from(number), 1, Some(&number.to_le_bytes()));
    }
    assert!(subject.state.as_ref().unwrap().len() <= 4096 * 16 + 100);
    let charged = subject.admitted.len();
    subject.take(START + 5000, 1, Some(&4999u32.to_le_bytes()));
    assert_eq!(subject.admitted.len(), charged);
}

#[test]
fn what_never_fits_is_told_so() {
    for algorithm in [Algorithm::Log, Algorithm::Counter, Algorithm::Gcra] {
        let mut subject = Subject::new(algorithm, vec![rule(algorithm, 5, 1000, None)]);
        let verdict = subject.take(START, 6, None);
        assert_eq!((verdict.limited, verdict.retry_after, verdict.remaining), (true, None, 5));
    }
}
