//! What requests need of the database before they run: rows in the cache, room in the journal, keys of their own.
//!
//! Asked with the locks of the request's keys held: what is there then is there while the request runs.

use std::sync::Arc;

use smallvec::SmallVec;

use super::execute::Flow;
use super::pending::Pending;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::keys::{self, access};
use crate::commands::spec::{Run, Scope, flag};
use crate::commands::table::Command;
use crate::protocol::{Args, Reply, ReplyError};
use crate::tiers::database::flights::Flight;
use crate::tiers::database::rules::Mode;
use crate::tiers::database::store::{Failure, RowState};
use crate::tiers::database::tier::Tier;
use crate::tiers::local::{DATABASE, LockPlan, View};
use crate::types::hasher::hash_bytes;
use crate::types::number::parse_i64;

/// A key with its database.
pub(super) type Key = (usize, Box<[u8]>);

/// Whether requests may run.
pub(super) enum Prepared {
    /// They may.
    Ready,
    /// They must not.
    Refused(ReplyError),
    /// Not yet.
    Waits(Waits),
    /// They may, and are answered once the database has committed what they change.
    Through,
}

/// What requests have to wait for.
#[derive(Default)]
pub(super) struct Waits {
    /// Rows to load.
    loads: Vec<(usize, Box<[u8]>)>,
    /// What is accepted has to be in the database first.
    flush: bool,
    /// Keys that somebody else is changing.
    lanes: Vec<Key>,
}

/// A key of a request.
struct Named {
    key: SmallVec<[u8; 64]>,
    /// Whether what the request does depends on what the key holds.
    depends: bool,
}

impl Worker {
    /// Whether the request concerns rows of the database.
    #[cold]
    pub(super) fn has_rows(&self, db: usize, command: &Command, args: Args<'_>) -> bool {
        let Some(tier) = self.instance.database().filter(|_| db == DATABASE) else { return false };
        named(command, args).iter().any(|named| tier.backend.rules.find(&named.key).is_some())
    }

    /// Whether these requests, which run as one, may run now. `view` holds their keys.
    pub(super) fn prepare<'c>(
        &mut self,
        tier: &'static Tier,
        db: usize,
        view: &mut View<'_>,
        requests: impl Iterator<Item = (&'c Command, Args<'c>)>,
    ) -> Prepared {
        let mut waits = Waits::default();
        let (mut bytes, mut writes, mut through, mut pinned) = (0, false, false, false);
        let selected = view.db();
        let mut db = db;
        for (command, args) in requests {
            db = selects(command, args).unwrap_or(db);
            let is_write = command.spec.has(flag::WRITE) || matches!(command.spec.run, Run::Limit(_));
            let has_lanes = is_write && !tier.lanes.is_empty();
            let target = target(command, args);
            let concerns_rows = db == DATABASE || target == Some(DATABASE);
            if !concerns_rows && !has_lanes {
                continue;
            }
            for Named { key, depends } in named(command, args) {
                for db in [Some(db), target].into_iter().flatten().filter(|_| has_lanes) {
                    if tier.lanes.of(db, &key).is_some() {
                        waits.lanes.push((db, key.to_vec().into()));
                    }
                }
                let Some(rule) = tier.backend.rules.find(&key).filter(|_| concerns_rows) else { continue };
                if is_write && let Some(config) = tier.backend.rules.get(rule) {
                    writes |= config.writes();
                    bytes += key.len();
                    through |= config.mode == Mode::WriteThrough;
                    pinned |= tier.backend.rules.write_through() && tier.pins_row(&key);
                }
                view.select(DATABASE);
                if depends && let Err(error) = look(tier, &self.landed, view, (rule, &key), &mut waits) {
                    return Prepared::Refused(error);
                }
            }
            if is_write {
                bytes += args.iter().map(<[u8]>::len).sum::<usize>();
            }
        }
        view.select(selected);
        if writes && let Err(error) = tier.admit(bytes) {
            return Prepared::Refused(error);
        }
        // The order of versions is that of the writes, also where one goes through the backlog and one beside it.
        waits.flush |= through && pinned;
        if waits.flush || !waits.loads.is_empty() || !waits.lanes.is_empty() {
            return Prepared::Waits(waits);
        }
        if through { Prepared::Through } else { Prepared::Ready }
    }

    /// What a script has to wait for before it may run with these keys.
    pub(super) fn prepare_script<'k>(
        &mut self,
        tier: &'static Tier,
        db: usize,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Option<Waits> {
        let rows =
            keys.filter_map(|key| Some((tier.backend.rules.find(key).filter(|_| db == DATABASE)?, key)));
        let rows: SmallVec<[(usize, &[u8]); 4]> = rows.collect();
        if rows.is_empty() {
            return None;
        }
        let (instance, now_ms) = (self.instance, self.now_ms());
        let plan = LockPlan::Keys(rows.iter().map(|(_, key)| hash_bytes(key)).collect());
        // A script that holds them beyond its time is told of by the run itself.
        let mut view =
            View::acquire(&instance.keyspace, &plan, DATABASE, now_ms, self.effects.get_or_insert_default())?;
        let mut waits = Waits::default();
        for row in rows {
            // What makes no value is told of by the command that needs it.
            drop(look(tier, &self.landed, &mut view, row, &mut waits));
        }
        (waits.flush || !waits.loads.is_empty()).then_some(waits)
    }

    /// Whether a script's command may run: a script cannot wait.
    pub(super) fn prepare_within(
        &mut self,
        db: usize,
        view: &mut View<'_>,
        command: &Command,
        args: Args<'_>,
    ) -> Result<(), ReplyError> {
        let Some(tier) = self.instance.database() else { return Ok(()) };
        match self.prepare(tier, db, view, [(command, args)].into_iter()) {
            Prepared::Ready => Ok(()),
            Prepared::Refused(error) => Err(error),
            Prepared::Waits(_) => Err(ReplyError::fixed(
                "TRYAGAIN a row of the database that the script touches is not at hand: name its key among the keys",
            )),
            Prepared::Through => Err(ReplyError::fixed(
                "ERR scripts cannot write keys under a rule of the database that is written through",
            )),
        }
    }

    /// Waits for what is missing; then the request runs again.
    #[cold]
    pub(super) fn fill(&self, tier: &'static Tier, waits: Waits, args: Args<'_>) -> Flow {
        let keyspace = &self.instance.keyspace;
        let flights: Vec<_> = waits.loads.iter().map(|(rule, key)| tier.load(keyspace, *rule, key)).collect();
        let (lanes, loading) = (waits.lanes, flights.iter().map(Arc::clone).collect::<Vec<_>>());
        let limit = tier.backend.config.statement_timeout.0;
        let fill = async move {
            tier.lanes.free(&lanes).await;
            if waits.flush && !tier.backend.flush(Some(limit)).await {
                return Err(ReplyError::fixed(
                    "BUSY the database has not taken earlier writes of the key in time",
                ));
            }
            for flight in loading {
                flight.landed().await.map_err(|error| load_error(&error))?;
            }
            Ok(())
        };
        Flow::pending(Pending::fill(Box::pin(fill), args).with(flights))
    }

    /// Makes the reply an error if the journal did not take what the request changed.
    #[cold]
    pub(super) fn refuse_unaccepted(&mut self, session: &Session, out: &mut Vec<u8>) {
        if let Some(error) = self.unaccepted.take() {
            out.truncate(self.reply_begins);
            self.count_error(&error);
            Reply::new(out, session.protocol).error(&error);
        }
    }
}

/// Notes what has to be waited for so that a row is in the cache, or known to be absent; the key's lock is held.
fn look(
    tier: &Tier,
    landed: &[Arc<Flight>],
    view: &mut View<'_>,
    (rule, key): (usize, &[u8]),
    waits: &mut Waits,
) -> Result<(), ReplyError> {
    if view.contains(key) {
        return Ok(());
    }
    let has_landed = || landed.iter().any(|flight| flight.key() == key && flight.is_absent());
    match tier.unflushed(key) {
        Some(RowState::Absent) => {}
        Some(state) if state.is_partial() => waits.flush = true,
        Some(state) => drop(tier.adopt(view, rule, key, &state).map_err(|error| load_error(&error))?),
        None if tier.is_absent(key) || has_landed() => {}
        None => waits.loads.push((rule, key.into())),
    }
    Ok(())
}

/// What a client is told whose row cannot be loaded.
fn load_error(error: &Failure) -> ReplyError {
    ReplyError::new(format!("DBERR cannot load the row: {error}"))
}

/// The keys that requests may change, with their databases.
pub(super) fn keys_of<'c>(db: usize, requests: impl Iterator<Item = (&'c Command, Args<'c>)>) -> Vec<Key> {
    let (mut db, mut keys) = (db, Vec::new());
    for (command, args) in requests {
        db = selects(command, args).unwrap_or(db);
        for named in named(command, args) {
            let databases = [Some(db), target(command, args)].into_iter().flatten();
            keys.extend(databases.map(|db| (db, named.key.to_vec().into())));
        }
    }
    keys
}

/// The database that a request has those behind it look at.
pub(super) fn selects(command: &Command, args: Args<'_>) -> Option<usize> {
    if command.spec.name == "select" { number(args.get(1)?) } else { None }
}

/// The database that a request puts its key into, if it names one.
pub(super) fn target(command: &Command, args: Args<'_>) -> Option<usize> {
    match command.spec.name {
        "move" => number(args.get(2)?),
        "copy" => {
            (3..args.len()).find(|index| args.is(*index, "db")).and_then(|at| number(args.get(at + 1)?))
        }
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<usize> {
    parse_i64(text).and_then(|number| usize::try_from(number).ok())
}

fn named(command: &Command, args: Args<'_>) -> SmallVec<[Named; 2]> {
    let mut scope = command.spec.scope;
    while let Scope::By(decide) = scope {
        scope = decide(args);
    }
    if matches!(scope, Scope::Each)
        || !matches!(command.spec.run, Run::Data(_) | Run::Blocking(_) | Run::Limit(_) | Run::Script(_))
    {
        return SmallVec::new();
    }
    let of = |key: &[u8], depends| Named { key: SmallVec::from_slice(key), depends };
    let mut all: SmallVec<[Named; 2]> = match command.single_key() {
        Some(index) => {
            let flags = command.spec.keys.first().map_or(0, |spec| spec.flags);
            args.get(index).map(|key| of(key, depends(command, args, flags))).into_iter().collect()
        }
        None => {
            let found = keys::extract(command.spec, args).unwrap_or_default();
            found.iter().map(|(index, flags)| of(args.at(*index), depends(command, args, *flags))).collect()
        }
    };
    all.extend(command.spec.derived_key.map(|derive| of(&derive(args), true)));
    all
}

/// Whether a command's doing or its reply depends on what a key with these access flags holds. Only those that put a value
/// there whatever happens do not: one that may delete it has to find it first.
pub(super) fn depends(command: &Command, args: Args<'_>, flags: u16) -> bool {
    let is_overwritten = flags & (access::OW | access::UPDATE) == access::OW | access::UPDATE;
    let is_blind = match command.spec.name {
        "set" => !(3..args.len()).any(|index| {
            ["nx", "xx", "get", "keepttl", "exat", "pxat"].iter().any(|word| args.is(index, word))
        }),
        "mset" | "setex" | "psetex" | "rename" => is_overwritten,
        _ => false,
    };
    !is_blind
}
