//! The tier as the keyspace sees it: who is told of changes.

use smallvec::smallvec;

use super::mutation::{changed_columns, columns_of, state_of};
use super::rules::{OnExpire, Rule};
use super::store::{Changes, RowChange, RowState};
use super::tier::Tier;
use crate::protocol::ReplyError;
use crate::tiers::local::{Change, Columns, DATABASE, Event, EventClass, Mirror, ValueRef};

impl Tier {
    fn rule_at(&self, rule: usize) -> Option<&Rule> {
        self.backend.rules.get(rule)
    }

    /// What the database is to be told of a change; `None` if it concerns the cache alone.
    pub fn row_change(
        &self,
        rule: usize,
        key: &[u8],
        before: Option<&Columns>,
        value: Option<(ValueRef<'_>, Option<u64>)>,
    ) -> Option<RowChange> {
        let config = self.rule_at(rule)?;
        let state = match (value, before) {
            (None, _) => RowState::Absent,
            (Some((value, deadline)), Some(before)) => match columns_of(config, value) {
                Some(after) => changed_columns(before, &after)?,
                None => state_of(config, value, deadline),
            },
            (Some((value, deadline)), None) => state_of(config, value, deadline),
        };
        Some(RowChange { rule, key: key.into(), version: 0, state })
    }
}

impl Mirror for Tier {
    fn rule(&self, key: &[u8]) -> Option<usize> {
        self.backend.rules.find(key)
    }

    fn wants(&self, rule: usize, key: &[u8], event: Event) -> bool {
        let Some(rule) = self.rule_at(rule) else { return false };
        let is_end = event.class == EventClass::Expired;
        // Who has the key as his lane decides what the row becomes.
        let stays = is_end && (rule.on_expire == OnExpire::Keep || self.lanes.of(DATABASE, key).is_some());
        // A table has no place for deadlines.
        let is_ours = event.is_deadline() && rule.content().is_some();
        let wants = rule.writes() && !stays && !is_ours;
        if !wants {
            self.changed(key);
        }
        wants
    }

    fn columns(&self, rule: usize, value: ValueRef<'_>) -> Option<Columns> {
        let rule = self.rule_at(rule)?;
        if rule.writes() { columns_of(rule, value) } else { None }
    }

    fn accept(&self, changes: &[Change<'_>]) -> Result<Option<u64>, ReplyError> {
        let of = |change: &Change<'_>| self.row_change(change.rule, change.key, change.before, change.value);
        let rows: Changes = changes.iter().filter_map(of).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        self.accept(rows).map(Some).map_err(|error| super::tier::refusal(&error))
    }

    fn pins(&self, key: &[u8]) -> bool {
        self.backend.rules.find(key).is_some() && self.pins_row(key)
    }

    fn gone(&self, key: &[u8]) {
        let Some(index) = self.backend.rules.find(key) else { return };
        let Some(rule) = self.rule_at(index) else { return };
        let is_lane = self.lanes.of(DATABASE, key).is_some();
        if rule.on_expire == OnExpire::Delete && rule.writes() && !is_lane {
            let change = RowChange { rule: index, key: key.into(), version: 0, state: RowState::Absent };
            // A failure is logged and counted there; the row stays, as it would if the process had ended just now.
            drop(self.accept(smallvec![change]));
        } else {
            self.changed(key);
        }
    }
}
