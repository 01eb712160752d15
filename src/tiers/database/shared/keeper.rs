//! Keeps the journal tidy: tells upstream what is in the database and what others changed there, shows that this host
//! lives, takes over from those that do not, and looks how much waits.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Ending, Finished, Seen, Shared, ask, first_place, scripts};
use crate::clock;
use crate::tiers::database::store::Failure;
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{Backoff, Dedicated, elements, integer, text};
use crate::types::number::parse_i64;

/// For so long a host counts as living that has given no sign.
pub(super) const LIFE: Duration = Duration::from_secs(2);
/// So often it gives one.
const SIGN: Duration = Duration::from_millis(400);
/// So often something is looked at that nobody tells of.
const TICK: Duration = Duration::from_millis(100);
/// So often it is looked whether a host is gone.
const INHERIT: Duration = Duration::from_secs(1);
/// So many keys of entries, and entries, are told of at a time, and the rest of the last entry.
const MOST_TOLD: usize = 2000;

impl Shared {
    /// Keeps for as long as the process lives.
    pub(super) async fn keep(&'static self) {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.upstream.pool(None) {
                Ok(pool) => match pool.take(false, DATABASE).await {
                    Ok(mut dedicated) => self.keep_by(&mut dedicated, &mut backoff).await,
                    Err(error) => Failure::Transient(error.to_string()),
                },
                Err(error) => Failure::Transient(error.to_string()),
            };
            if !std::mem::replace(&mut self.seen.lock().is_away, true) {
                tracing::warn!(%error, "the journal upstream cannot be looked after");
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn keep_by(&'static self, dedicated: &mut Dedicated, backoff: &mut Backoff) -> Failure {
        let mut signed: Option<Instant> = None;
        let mut inherited = clock::monotonic();
        if let Err(failure) = self.look_for_hazards(dedicated).await {
            return failure;
        }
        loop {
            let now = clock::monotonic();
            let is_due = signed.is_none_or(|at| now - at >= SIGN);
            if let Err(failure) = self.turn(dedicated, is_due).await {
                return failure;
            }
            if is_due {
                signed = Some(now);
                backoff.reset();
            }
            if now - inherited >= INHERIT && self.backend.readiness.is_ready() {
                inherited = now;
                let inherited = self.inherit(dedicated).await;
                let looked = self.look_for_hazards(dedicated).await;
                if let Err(failure) = inherited.and(looked) {
                    return failure;
                }
            }
            // The timeout is the tick.
            drop(tokio::time::timeout(TICK, self.wake.notified()).await);
        }
    }

    /// A Redis that evicts whatever it likes may evict the journal.
    async fn look_for_hazards(&self, dedicated: &mut Dedicated) -> Result<(), Failure> {
        let replies = ask(dedicated, &[&[b"INFO", b"memory"]]).await?;
        let info = String::from_utf8_lossy(text(&replies[0]).unwrap_or_default()).into_owned();
        let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let policy = of("maxmemory_policy").filter(|policy| policy.starts_with("allkeys"));
        let hazard = policy.filter(|_| of("maxmemory").is_some_and(|limit| limit.trim() != "0")).map(|policy| {
            format!("upstream may evict the journal (maxmemory-policy {policy}): use noeviction or one of volatile-*")
        });
        let mut before = self.hazard.lock();
        if *before != hazard {
            match &hazard {
                Some(hazard) => tracing::error!("writes under rules of the database are refused: {hazard}"),
                None => tracing::info!("upstream keeps the journal again"),
            }
        }
        *before = hazard;
        Ok(())
    }

    /// Tells what is to be told, and looks.
    async fn turn(&'static self, dedicated: &mut Dedicated, is_sign_due: bool) -> Result<(), Failure> {
        let finished = self.take_finished();
        let told = self.tell(dedicated, &finished).await;
        match &told {
            Ok(()) => {
                let mut taken = self.taken.lock();
                for ending in &finished.entries {
                    taken.ids.remove(&ending.id);
                }
            }
            // Upstream may have done it already: twice is once.
            Err(_) => self.give_back(finished),
        }
        told?;
        if is_sign_due {
            let sign = self.names.host(&self.host);
            let life = LIFE.as_millis().to_string();
            ask(dedicated, &[&[b"SET", sign.as_bytes(), b"1", b"PX", life.as_bytes()]]).await?;
        }
        self.look(dedicated).await?;
        self.follow_on(dedicated).await
    }

    fn take_finished(&self) -> Finished {
        let mut finished = self.finished.lock();
        let mut told = 0;
        let some = finished.entries.iter().take_while(|ending| {
            let is_room = told < MOST_TOLD;
            told += 1 + ending.keys.len();
            is_room
        });
        let some = some.count();
        let entries = finished.entries.drain(..some).collect();
        if !finished.entries.is_empty() {
            self.wake.notify_one();
        }
        Finished { entries, changed: std::mem::take(&mut finished.changed) }
    }

    fn give_back(&self, untold: Finished) {
        let mut finished = self.finished.lock();
        finished.entries.extend(untold.entries);
        finished.changed.extend(untold.changed);
    }

    async fn tell(&self, dedicated: &mut Dedicated, finished: &Finished) -> Result<(), Failure> {
        let names = &self.names;
        if !finished.changed.is_empty() {
            self.forget(dedicated, &finished.changed).await?;
        }
        if finished.entries.is_empty() {
            return Ok(());
        }
        let number = |number: i64| number.to_string().into_bytes();
        let mut arguments = vec![number(finished.entries.len() as i64)];
        for Ending { id, size, .. } in &finished.entries {
            arguments.extend([id.to_vec(), number(*size as i64)]);
        }
        for Ending { version, keys, .. } in &finished.entries {
            keys.iter().for_each(|key| arguments.extend([key.to_vec(), number(*version)]));
        }
        let keys = [&names.stream, &names.pending, &names.bytes, &names.stale];
        let mut words: Vec<&[u8]> = vec![b"EVAL", scripts::COMPLETE.as_bytes(), b"4"];
        words.extend(keys.iter().map(|key| key.as_bytes()));
        words.extend(arguments.iter().map(Vec::as_slice));
        ask(dedicated, &[&words]).await.map(drop)
    }

    /// Drops keys whose rows others changed from the cache.
    pub(super) async fn forget(
        &self,
        dedicated: &mut Dedicated,
        changed: &[Box<[u8]>],
    ) -> Result<(), Failure> {
        let (names, count) = (&self.names, (changed.len() + 2).to_string());
        let mut words: Vec<&[u8]> = vec![b"EVAL", scripts::FORGET.as_bytes(), count.as_bytes()];
        words.extend([names.pending.as_bytes(), names.stale.as_bytes()]);
        words.extend(changed.iter().map(|key| &**key));
        words.push(names.lease.as_bytes());
        ask(dedicated, &[&words]).await.map(drop)
    }

    /// Looks how much waits, for how long, and whether somebody waits for its end.
    async fn look(&self, dedicated: &mut Dedicated) -> Result<(), Failure> {
        let stream = self.names.stream.as_bytes();
        let replies = ask(
            dedicated,
            &[
                &[b"EXISTS", self.names.hurry.as_bytes()],
                &[b"XRANGE", stream, b"-", b"+", b"COUNT", b"1"],
                &[b"XLEN", stream],
                &[b"GET", self.names.bytes.as_bytes()],
                &[b"TIME"],
            ],
        )
        .await?;
        let [hurry, first, entries, bytes, time] = &replies[..] else { return Ok(()) };
        if integer(hurry) == Some(1) {
            self.backend.hurry();
        }
        let now_ms = millis(time).unwrap_or(0);
        let age = first_place(first).map_or(0, |(accepted_ms, _)| now_ms.saturating_sub(accepted_ms));
        let age = Duration::from_millis(age);
        let entries = integer(entries).unwrap_or(0).max(0) as u64;
        *self.seen.lock() = Seen { entries, age, is_away: false };
        self.bytes.store(text(bytes).and_then(parse_i64).unwrap_or(0), Relaxed);
        self.following.lock().tick(now_ms);
        let most = self.backend.config.journal_max_age.0;
        let is_overdue = !most.is_zero() && age > most;
        if self.is_overdue.swap(is_overdue, Relaxed) != is_overdue {
            tracing::warn!(
                ?age,
                refused = is_overdue,
                "writes under rules of the database: the oldest's wait"
            );
        }
        Ok(())
    }
}

/// `TIME`'s reply in milliseconds.
pub(super) fn millis(time: &[u8]) -> Option<u64> {
    let parts = elements(time)?;
    let number = |part: &&[u8]| text(part).and_then(parse_i64);
    let (seconds, micros) = (number(parts.first()?)?, number(parts.get(1)?)?);
    Some((seconds * 1000 + micros / 1000).max(0) as u64)
}
