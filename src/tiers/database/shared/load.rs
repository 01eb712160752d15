//! Rows on their way into the cache upstream.
//!
//! A host loads a key's row once however many of its clients ask, under a lease that it takes upstream before it asks the
//! database. Whatever changes the key meanwhile, on whichever host, ends the lease, and then the row does not come in.

use std::sync::Arc;
use std::time::Duration;

use super::{Shared, scripts};
use crate::clock;
use crate::tiers::database::flights::Flight;
use crate::tiers::database::install::Brought;
use crate::tiers::database::rules::{Content, Rule};
use crate::tiers::database::store::{Failure, Loaded, RowState};
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{self, Outcome, Run, Script, integer, is_error, text};

/// For so long it stands at least that a row was found absent: who found it goes on with that.
const ABSENT: Duration = Duration::from_millis(200);

impl Shared {
    /// Brings a row into the cache, or finds that there is none. [`Brought::Value`] means that it is worth to look again.
    ///
    /// # Errors
    /// The database or upstream cannot be asked, or the row makes no value.
    pub async fn load(&'static self, rule: usize, key: &[u8]) -> Result<Brought, Failure> {
        let (flight, leads) = self.flights.join(key);
        if leads {
            let loading = Arc::clone(&flight);
            self.backend.runtime.spawn(async move {
                let limit = self.backend.config.statement_timeout.0;
                let brought = tokio::time::timeout(limit, self.bring(rule, &loading)).await;
                let late = || Err(Failure::Transient("it did not answer in time".to_owned()));
                let result = brought.unwrap_or_else(|_| late());
                let counters = &self.backend.counters;
                let counter = if result.is_ok() { &counters.loads } else { &counters.failed_loads };
                upstream::count(counter);
                // Who looks again must not find this one, which its landing may outlive for a moment.
                self.flights.void(loading.key());
                loading.land(result);
            });
        }
        flight.landed().await
    }

    async fn bring(&self, rule: usize, flight: &Flight) -> Result<Brought, Failure> {
        let (backend, key) = (&self.backend, flight.key());
        let limit = backend.config.statement_timeout.0;
        let lease = self.names.lease(key);
        let token = format!("{}:{:x}", self.host, fastrand::u64(..));
        let life = (limit.as_millis() as u64).to_string();
        let pending = self.names.pending.as_bytes().to_vec();
        let arguments = vec![pending.clone(), lease.clone(), token.into_bytes(), life.into_bytes()];
        let said = self.ask(&scripts::LEASE, key, arguments).await?;
        let token = match text(&said) {
            Some(b"present") => return Ok(Brought::Value),
            Some(b"deleted" | b"absent") => return Ok(Brought::Nothing),
            // It is not in the cache any more, and not in the database yet.
            Some(b"waiting") => {
                return match self.flush(Some(limit)).await? {
                    true => Ok(Brought::Value),
                    false => Err(Failure::Transient(
                        "it has not taken earlier writes of the key in time".to_owned(),
                    )),
                };
            }
            Some([b'=', token @ ..]) => token.to_vec(),
            _ => return Err(Failure::Transient("upstream's reply to a script makes no sense".to_owned())),
        };
        if let Some(fault) = backend.readiness.fault() {
            return Err(Failure::Transient(fault));
        }
        let loaded = backend.store.load(rule, key).await?;
        let Some(rule) = backend.rules.get(rule) else { return Ok(Brought::Nothing) };
        let row = match loaded {
            Loaded::Absent => None,
            Loaded::Row(state, _) => value_of(rule, state, clock::wall_ms()),
        };
        let is_absent = row.is_none();
        let value = row.unwrap_or_else(|| {
            let remembered = rule.negative_ttl.map_or(ABSENT, |ttl| ttl.max(ABSENT));
            vec![b"ABSENT".to_vec(), (remembered.as_millis() as u64).to_string().into_bytes()]
        });
        let arguments = [vec![lease, token, pending], value].concat();
        let said = self.ask(&scripts::FILL, key, arguments).await?;
        match integer(&said) {
            Some(1) if is_absent => Ok(Brought::Nothing),
            Some(_) => Ok(Brought::Value),
            None => Err(Failure::Refused("upstream does not take the row".to_owned())),
        }
    }

    async fn ask(
        &self,
        script: &'static Script,
        key: &[u8],
        arguments: Vec<Vec<u8>>,
    ) -> Result<Box<[u8]>, Failure> {
        let run = Run { script, db: DATABASE, keys: vec![key.into()], arguments };
        let outcome: Outcome = run.run(self.upstream.clone()).await;
        match outcome {
            Ok(reply) if is_error(&reply) => {
                let said = String::from_utf8_lossy(&reply[1..]).trim_end().to_owned();
                Err(Failure::Transient(format!("upstream: {said}")))
            }
            Ok(reply) => Ok(reply),
            Err(_) => Err(Failure::Transient("upstream does not answer".to_owned())),
        }
    }
}

/// What a row is as a value upstream: its kind, when it expires, or 0, and what it is made of. `None` if there is nothing in
/// it, or its time has come.
fn value_of(rule: &Rule, state: RowState, now_ms: u64) -> Option<Vec<Vec<u8>>> {
    let deadline = rule.ttl.map(|ttl| now_ms + ttl.as_millis() as u64);
    let (kind, parts, own) = match state {
        RowState::Absent => return None,
        RowState::Value(value) => ("SET", vec![value], None),
        RowState::Dump { payload, expires_ms, .. } => ("RESTORE", vec![payload], expires_ms),
        RowState::Fields { fields, .. } => {
            let Some(Content::Columns(columns)) = rule.content() else { return None };
            let pair =
                |(index, value): (usize, Option<Vec<u8>>)| Some([columns.get(index)?.field.to_vec(), value?]);
            ("HSET", fields.into_iter().filter_map(pair).flatten().collect(), None)
        }
        RowState::Document { members, .. } => {
            let pair = |(name, value): (Vec<u8>, Option<Vec<u8>>)| Some([name, value?]);
            ("HSET", members.into_iter().filter_map(pair).flatten().collect(), None)
        }
    };
    if parts.is_empty() || own.is_some_and(|own| own <= now_ms) {
        return None;
    }
    let deadline = own.into_iter().chain(deadline).min().unwrap_or(0);
    let head = vec![kind.as_bytes().to_vec(), deadline.to_string().into_bytes()];
    Some([head, parts].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::database::rules::Rules;

    fn words(rule: usize, state: RowState) -> Option<Vec<String>> {
        let rules = Rules::of_each_kind();
        let value = value_of(rules.get(rule).unwrap(), state, 1000)?;
        Some(value.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    #[test]
    fn rows_become_commands() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let dump = |expires_ms| RowState::Dump { kind: "list".into(), payload: b"x".to_vec(), expires_ms };
        assert_eq!(words(0, dump(None)).unwrap(), ["RESTORE", "0", "x"]);
        assert_eq!(words(0, dump(Some(1001))).unwrap(), ["RESTORE", "1001", "x"]);
        assert_eq!(words(0, dump(Some(1000))), None);
        let fields = RowState::Fields { fields: vec![(0, some("1")), (1, None)], whole: true };
        assert_eq!(words(1, fields).unwrap(), ["HSET", "0", "x", "1"]);
        assert_eq!(words(1, RowState::Fields { fields: vec![(1, None)], whole: true }), None);
        assert_eq!(words(2, RowState::Value(Vec::new())).unwrap(), ["SET", "0", ""]);
        let members = RowState::Document { members: vec![(b"a".to_vec(), some("1"))], whole: true };
        assert_eq!(words(3, members).unwrap(), ["HSET", "0", "a", "1"]);
        assert_eq!(words(1, RowState::Absent), None);
    }
}
