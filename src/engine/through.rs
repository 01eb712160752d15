//! Write-through: what a request changes is tried, committed by the database, and only then made.
//!
//! Until the commit has ended the cache has the old values, and nobody else changes the request's keys: they are a lane. The
//! commit goes on when its client is gone, so cache and database do not part.

use std::time::Duration;

use super::execute::Flow;
use super::pending::Pending;
use super::rows::Key;
use super::worker::Worker;
use crate::clients::Session;
use crate::clock;
use crate::instance::Instance;
use crate::protocol::{Protocol, Reply, ReplyError};
use crate::tiers::database::lanes::Lane;
use crate::tiers::database::store::{Batch, Failure, RowChange};
use crate::tiers::database::tier::{Tier, refusal};
use crate::tiers::local::{DATABASE, Effects, Event, LockPlan, Tried, View};
use crate::types::hasher::hash_bytes;

/// How often a commit is tried that the database could not serve.
const TRIES: u32 = 3;

/// What was tried and is to be committed.
pub(super) struct Through {
    rows: Vec<RowChange>,
    tried: Tried,
    lane: Lane,
    keys: Vec<Key>,
}

struct Commit {
    instance: &'static Instance,
    tier: &'static Tier,
    through: Through,
    events: Vec<(usize, Event, Box<[u8]>)>,
    encoded: Vec<u8>,
    protocol: Protocol,
}

impl Through {
    /// Takes the lane of `keys` for what was tried on them; makes it at once if no row changes. `view` holds the keys.
    pub(super) fn begin(
        tier: &'static Tier,
        view: &mut View<'_>,
        tried: Tried,
        keys: Vec<Key>,
    ) -> Option<Self> {
        let row = |change: &crate::tiers::local::TriedChange| {
            let rule = tier.backend.rules.find(&change.key).filter(|_| change.db == DATABASE)?;
            tier.backend.rules.get(rule).filter(|rule| rule.writes())?;
            let value = change.entry.as_ref().map(|entry| (entry.value(), entry.deadline()));
            tier.row_change(rule, &change.key, change.before.as_ref(), value)
        };
        let rows: Vec<RowChange> = tried.changes().iter().filter_map(row).collect();
        if rows.is_empty() {
            view.make(tried);
            return None;
        }
        Some(Self { rows, tried, lane: tier.lanes.take(keys.clone()), keys })
    }
}

impl Worker {
    /// Ends a tried request whose reply is `encoded`: by way of the database, or at once if it has been made.
    pub(super) fn commit(
        &mut self,
        tier: &'static Tier,
        through: Option<Through>,
        session: &Session,
        encoded: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let Some(through) = through else {
            out.extend_from_slice(&encoded);
            if self.has_effects() {
                self.settle();
            }
            return Flow::Next;
        };
        let events = std::mem::take(&mut self.effects().events);
        self.settle();
        let (instance, protocol) = (self.instance, session.protocol);
        let commit = Commit { instance, tier, through, events, encoded, protocol };
        let committed = tier.backend.runtime.spawn(commit.run());
        Flow::pending(Pending::reply(Box::pin(async move {
            committed.await.unwrap_or_else(|_| {
                let error =
                    ReplyError::fixed("DBERR the server is ending: the write may or may not be committed");
                refused(protocol, &error)
            })
        })))
    }
}

impl Commit {
    async fn run(mut self) -> Vec<u8> {
        let tier = self.tier;
        let rows: Vec<_> = self.through.rows.iter().map(|change| change.key.clone()).collect();
        let reply = match self.persist().await {
            Ok(()) => self.make(),
            Err(error) => {
                let protocol = self.protocol;
                // Its lane ends here.
                drop(self);
                refused(protocol, &error)
            }
        };
        tier.forget_stale(rows.iter());
        reply
    }

    async fn persist(&mut self) -> Result<(), ReplyError> {
        let tier = self.tier;
        let version = tier.next_version().map_err(|error| refusal(&error))?;
        let mut changes = std::mem::take(&mut self.through.rows);
        changes.iter_mut().for_each(|change| change.version = version);
        let batch = Batch::of_one(changes);
        for tried in 1.. {
            match tier.backend.store.apply(&batch).await {
                Ok(()) => break,
                Err(Failure::Transient(_) | Failure::Locked(_)) if tried < TRIES => {
                    let pause = Duration::from_millis(20 << tried);
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
                Err(error) => {
                    if let Failure::Transient(_) = error {
                        // It may have been committed all the same.
                        for change in batch.changes {
                            tier.backend.runtime.spawn(tier.look_again(
                                &self.instance.keyspace,
                                change.rule,
                                change.key,
                            ));
                        }
                    }
                    return Err(ReplyError::new(format!("DBERR the write is not made: {error}")));
                }
            }
        }
        tier.backend.invalidate_queries(batch.changes.iter().map(|change| change.rule));
        Ok(())
    }

    /// Makes in the cache what the database has, and gives the keys free.
    fn make(self) -> Vec<u8> {
        let Through { tried, lane, keys, .. } = self.through;
        let plan = LockPlan::Keys(keys.iter().map(|(_, key)| hash_bytes(key)).collect());
        let mut effects = Effects::default();
        let mut view = View::new(&self.instance.keyspace, &plan, DATABASE, clock::wall_ms(), &mut effects);
        tried.changes().iter().for_each(|change| self.tier.changed(&change.key));
        view.make(tried);
        drop(lane);
        drop(view);
        effects.events.extend(self.events);
        if !effects.is_empty() {
            self.instance.settle_apart(effects);
        }
        self.encoded
    }
}

fn refused(protocol: Protocol, error: &ReplyError) -> Vec<u8> {
    let mut encoded = Vec::new();
    Reply::new(&mut encoded, protocol).error(error);
    encoded
}
