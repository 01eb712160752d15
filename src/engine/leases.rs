//! Limits of scope `leased`: permits are taken of upstream several at a time, and used here without asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::limits::{Decision, decision, script_of};
use crate::clock;
use crate::commands::ratelimit::{Asked, What};
use crate::instance::Instance;
use crate::protocol::ReplyError;
use crate::ratelimit::leases::{Attend, Flight, Landed, Leftover, Place, Terms};
use crate::ratelimit::remote::{self, Answer, Question};
use crate::tiers::upstream::{Run, Script, Upstream};

static GIVE_BACK: Script = Script::new(remote::GIVE_BACK);
/// Leases have a number each.
static LEASES: AtomicU64 = AtomicU64::new(0);

/// A call that may be answered from a lease.
pub(super) struct Leasable {
    place: Place,
    terms: Terms,
    cost: u64,
}

impl Leasable {
    /// What may be answered from a lease is a call for permits of one key that needs no identifier.
    pub fn of(asked: &Asked<'_>, db: usize) -> Option<Self> {
        let What::Decide(question) = &asked.what else { return None };
        if !question.takes || question.id.is_some() || question.cost == 0 || asked.is_multi() {
            return None;
        }
        let rules = question.limits.iter().map(|(_, rule)| *rule).collect();
        let terms = Terms { algorithm: question.algorithm, rules };
        Some(Self { place: Place::new(db, &asked.keys[0]), terms, cost: question.cost })
    }

    /// Takes permits that are here already.
    pub fn take(&self, instance: &Instance) -> Option<Answer> {
        let verdict = instance.leases.take(&self.place, &self.terms, self.cost, clock::monotonic())?;
        Some(Answer { verdict, limit: 0, now: 0 })
    }

    /// Whether a lease is worth waiting for: a call for more permits than one is decided on by itself.
    pub fn is_single(&self) -> bool {
        self.cost == 1
    }

    /// Decides on a call for one permit; `apart` does so for a call that no lease is good for.
    pub async fn decide(
        self,
        instance: &'static Instance,
        upstream: Arc<Upstream>,
        apart: impl Future<Output = Decision>,
    ) -> Decision {
        let (mut arrival, most) = (None, instance.config.sharing.lease);
        let attended = async {
            loop {
                let now = clock::monotonic();
                let attend = instance.leases.attend(&self.place, &self.terms, most, &mut arrival, now);
                let mut done = match attend {
                    Attend::Admitted(verdict) | Attend::Refused(verdict) => {
                        return Some(Decision::Answer(Answer { verdict, limit: 0, now: 0 }));
                    }
                    Attend::Failed(error) => return Some(error.map_or(Decision::None, Decision::Error)),
                    Attend::Apart => return None,
                    Attend::Wait(done) => done,
                    Attend::Lead(flight) => {
                        let done = flight.watch();
                        // By itself: whoever waits for it may go away, and what it takes is to be used by others.
                        tokio::spawn(fly(instance, upstream.clone(), &self, flight));
                        done
                    }
                };
                // An error says that the flight is over, too.
                drop(done.wait_for(|done| *done).await);
            }
        };
        match tokio::time::timeout(upstream.config.timeout * 2, attended).await {
            Ok(Some(decision)) => decision,
            Ok(None) => apart.await,
            Err(_) => Decision::None,
        }
    }
}

/// Makes a flight.
fn fly(
    instance: &'static Instance,
    upstream: Arc<Upstream>,
    call: &Leasable,
    flight: Flight,
) -> impl Future<Output = ()> + Send + 'static {
    let (place, terms) = (call.place.clone(), call.terms.clone());
    async move {
        if let Some(leftover) = &flight.leftover {
            give_back(&upstream, place.bytes(), leftover).await;
        }
        let landed = lease(instance, &upstream, &place, &terms, flight.want).await;
        instance.leases.land(place.bytes(), &terms, &flight, landed, clock::monotonic());
    }
}

/// Takes permits, as many as wanted or fewer.
async fn lease(
    instance: &Instance,
    upstream: &Arc<Upstream>,
    place: &Place,
    terms: &Terms,
    mut want: u64,
) -> Landed<ReplyError> {
    let (db, key) = Place::parts(place.bytes());
    loop {
        let id = format!("lease:{}:{}", instance.run_id, LEASES.fetch_add(1, Relaxed)).into_bytes();
        let question = Question {
            algorithm: terms.algorithm,
            limits: terms.rules.iter().map(|rule| (0, terms.shared(rule))).collect(),
            cost: want,
            id: terms.is_named().then_some(&id[..]),
            takes: true,
            hold_us: terms.hold_us(),
        };
        let (script, arguments) = script_of(&question);
        let began = clock::monotonic();
        let run = Run { script, db, keys: vec![key.into()], arguments };
        match decision(Some(&question), run.run(upstream.clone()).await) {
            Decision::Answer(answer) if answer.verdict.limited && want > 1 => {
                want = (answer.verdict.remaining / 4).min(want / 2).max(1);
            }
            Decision::Answer(answer) if answer.verdict.limited => return Landed::Refused(answer.verdict),
            Decision::Answer(answer) => {
                // Upstream took it after this began, so it is over here before it is there.
                let until = began + Duration::from_micros(terms.usable_us(answer.now));
                return Landed::Granted(id, want, until, answer);
            }
            Decision::Error(error) => return Landed::Failed(Some(error)),
            Decision::Number(_) | Decision::None => return Landed::Failed(None),
        }
    }
}

async fn give_back(upstream: &Arc<Upstream>, place: &[u8], leftover: &Leftover) {
    let (db, key) = Place::parts(place);
    let run = Run { script: &GIVE_BACK, db, keys: vec![key.into()], arguments: leftover.arguments() };
    // Without upstream they are lost until their window has ended, which is on the safe side.
    drop(run.run(upstream.clone()).await);
}

/// Gives back what is left of leases that are over, or of all.
pub async fn give_leases_back(instance: &'static Instance, all: bool) {
    let Some(upstream) = &instance.upstream else { return };
    for (place, leftover) in instance.leases.end(all, clock::monotonic()) {
        give_back(upstream, &place, &leftover).await;
    }
}
