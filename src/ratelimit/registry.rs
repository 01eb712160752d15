//! The policies in force, with what each admitted and refused, and the subjects refused most.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use parking_lot::RwLock;

use super::refusals::Refusals;
use crate::config::{Policies, RatePolicy};

/// What all connections share of rate limiting.
#[derive(Default)]
pub struct RateLimits {
    /// Locked after shards, if both are.
    policies: RwLock<HashMap<String, ActivePolicy>>,
    refusals: Refusals,
    /// Calls that upstream was to decide on and did not.
    undecided: AtomicU64,
}

/// A policy in force.
#[derive(Debug, Clone)]
pub struct ActivePolicy {
    /// What it says.
    pub policy: RatePolicy,
    counts: Arc<CachePadded<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
}

impl ActivePolicy {
    /// Counts a call.
    pub fn note(&self, limited: bool) {
        let counter = if limited { &self.counts.refused } else { &self.counts.admitted };
        counter.fetch_add(1, Relaxed);
    }
}

impl RateLimits {
    /// Those of a configuration.
    pub fn new(policies: &Policies) -> Self {
        let limits = Self::default();
        limits.replace(policies);
        limits
    }

    /// Puts other policies into force. A policy that keeps its name keeps its counts.
    pub fn replace(&self, policies: &Policies) {
        let mut active = self.policies.write();
        *active = policies
            .iter()
            .map(|(name, policy)| {
                let counts = active.get(name).map(|old| old.counts.clone()).unwrap_or_default();
                (name.clone(), ActivePolicy { policy: policy.clone(), counts })
            })
            .collect();
    }

    /// Looks at the policy of a name.
    pub fn with_policy<R>(&self, name: &[u8], look: impl FnOnce(&ActivePolicy) -> R) -> Option<R> {
        self.policies.read().get(std::str::from_utf8(name).ok()?).map(look)
    }

    /// The policies by name, with how many calls each admitted and refused.
    pub fn counts(&self) -> impl Iterator<Item = (String, u64, u64)> + use<> {
        let mut counts: Vec<_> = self
            .policies
            .read()
            .iter()
            .map(|(name, active)| {
                let counts = &active.counts;
                (name.clone(), counts.admitted.load(Relaxed), counts.refused.load(Relaxed))
            })
            .collect();
        counts.sort();
        counts.into_iter()
    }

    /// Notes that a subject was refused; `hash` is that of its name as a key.
    pub fn note_refusal(&self, subject: &[u8], hash: u64) {
        self.refusals.note(subject, hash);
    }

    /// Counts a call that upstream was to decide on and did not.
    pub fn note_undecided(&self) {
        self.undecided.fetch_add(1, Relaxed);
    }

    /// Calls that upstream was to decide on and did not.
    pub fn undecided(&self) -> u64 {
        self.undecided.load(Relaxed)
    }

    /// The subjects refused most, with counts that are near to the truth where they are large.
    pub fn most_refused(&self, count: usize) -> Vec<(Box<[u8]>, u64)> {
        self.refusals.top(count)
    }

    /// Counts from nothing again.
    pub fn reset_counts(&self) {
        self.refusals.clear();
        self.undecided.store(0, Relaxed);
        for active in self.policies.read().values() {
            active.counts.admitted.store(0, Relaxed);
            active.counts.refused.store(0, Relaxed);
        }
    }
}
