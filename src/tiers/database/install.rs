//! Rows on their way into the cache.
//!
//! A row comes in under the key's lock, and only if the key is still absent there, has nothing waiting for the database,
//! and did not change since the row was asked for.

use super::flights::Flight;
use super::mutation::entry_of;
use super::store::{Failure, Loaded, RowState};
use super::tier::Tier;
use crate::clock;
use crate::tiers::local::{DATABASE, Effects, Keyspace, LockPlan, View};
use crate::types::hasher::hash_bytes;

/// What a load brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// The key is in the cache, or was overtaken by a change.
    Value,
    /// There is no row, or nothing in it.
    Nothing,
}

/// Puts a loaded row into the cache.
///
/// # Errors
/// The row makes no value.
pub(super) fn install(
    tier: &Tier,
    keyspace: &Keyspace,
    rule: usize,
    flight: &Flight,
    loaded: &Loaded,
) -> Result<Brought, Failure> {
    let plan = LockPlan::Keys([hash_bytes(flight.key())].into_iter().collect());
    let mut effects = Effects::default();
    let mut view = View::new(keyspace, &plan, DATABASE, clock::wall_ms(), &mut effects);
    if flight.is_void() || view.contains(flight.key()) || tier.pins_row(flight.key()) {
        return Ok(Brought::Value);
    }
    let brought = match loaded {
        Loaded::Absent | Loaded::Row(RowState::Absent, _) => Brought::Nothing,
        Loaded::Row(state, _) => tier.adopt(&mut view, rule, flight.key(), state)?,
    };
    if brought == Brought::Nothing {
        tier.note_absent(flight, rule);
    }
    Ok(brought)
}

impl Tier {
    /// Puts a row's state into the cache, where its key is absent; the key's lock is held.
    ///
    /// # Errors
    /// The state makes no value.
    pub fn adopt(
        &self,
        view: &mut View<'_>,
        rule: usize,
        key: &[u8],
        state: &RowState,
    ) -> Result<Brought, Failure> {
        let Some(rule) = self.backend.rules.get(rule) else { return Ok(Brought::Nothing) };
        let now_ms = view.now_ms();
        let deadline = rule.ttl.map(|ttl| now_ms + ttl.as_millis() as u64);
        let entry = entry_of(key, state, deadline, now_ms, view.settings(), rule.content())
            .map_err(|_| Failure::Refused("the row holds no value of Redis".to_owned()))?;
        let Some(entry) = entry else { return Ok(Brought::Nothing) };
        view.adopt(entry);
        Ok(Brought::Value)
    }
}
