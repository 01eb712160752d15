//! The commands of the database tier: each waits for the database, so its reply is pending.

use std::time::Duration;

use super::execute::Flow;
use super::pending::Pending;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::spec::Database;
use crate::protocol::{Args, OwnedArgs, Protocol, Reply, ReplyError};
use crate::tiers::database::store::{Batch, DeadLetter, Failure};
use crate::tiers::database::write_behind::WriteBehind;
use crate::types::number::parse_i64;

/// Dead letters listed unless another number is asked for.
const LISTED: usize = 100;
/// Dead letters fetched at once where all are meant.
const PAGE: usize = 1000;

impl Worker {
    /// Begins a command of the database tier.
    pub(super) fn database_command(
        &self,
        session: &Session,
        what: Database,
        args: Args<'_>,
    ) -> Result<Flow, ReplyError> {
        let Some(tier) = self.instance.write_behind() else {
            return Err(ReplyError::fixed("ERR no database is configured"));
        };
        let (args, protocol) = (args.to_owned(), session.protocol);
        let asked = tier.backend().runtime.spawn(async move {
            let mut out = Vec::new();
            if let Err(error) = answer(tier, what, &args, protocol, &mut out).await {
                out.clear();
                Reply::new(&mut out, protocol).error(&error);
            }
            out
        });
        let pending = Pending::reply(Box::pin(async move {
            asked.await.unwrap_or_else(|_| b"-ERR the server is ending\r\n".to_vec())
        }));
        // A flush without a timeout takes as long as the database is away.
        Ok(Flow::pending(if what == Database::Flush { pending.unbounded() } else { pending }))
    }
}

async fn answer(
    tier: WriteBehind,
    what: Database,
    args: &OwnedArgs,
    protocol: Protocol,
    out: &mut Vec<u8>,
) -> Result<(), ReplyError> {
    match what {
        Database::Flush => {
            let timeout = timeout(args.as_args())?;
            if !tier.flush(timeout).await.map_err(|error| refused(&error))? {
                let left = tier.depth();
                return Err(ReplyError::new(format!("TIMEOUT {left} changes are not in the database yet")));
            }
            Reply::new(out, protocol).ok();
        }
        Database::Status => {
            // Unknown while the database is away.
            let letters = tier.backend().store.dead_letter_count().await.ok();
            status(tier, letters, &mut Reply::new(out, protocol));
        }
        Database::DeadLetter => return dead_letter(tier, args, &mut Reply::new(out, protocol)).await,
        Database::Query => {
            let args = args.as_args();
            let name = String::from_utf8_lossy(args.at(1)).into_owned();
            let parameters = args.skip(2).iter().map(<[u8]>::to_vec).collect();
            let rows = tier.backend().query(name, parameters).await.map_err(|error| refused(&error))?;
            Reply::new(out, protocol).bulk(&rows);
        }
    }
    Ok(())
}

fn refused(error: &Failure) -> ReplyError {
    ReplyError::new(format!("DBERR {error}"))
}

fn timeout(args: Args<'_>) -> Result<Option<Duration>, ReplyError> {
    match args.len() {
        1 => Ok(None),
        3 if args.is(1, "timeout") => {
            let millis = parse_i64(args.at(2)).ok_or(ReplyError::NOT_INTEGER)?;
            let millis = u64::try_from(millis).map_err(|_| ReplyError::NOT_POSITIVE)?;
            Ok(Some(Duration::from_millis(millis)))
        }
        _ => Err(ReplyError::SYNTAX),
    }
}

fn status(tier: WriteBehind, letters: Option<u64>, reply: &mut Reply<'_>) {
    let status = tier.status();
    reply.map(status.figures.len() + 3);
    reply.bulk(b"database");
    reply.bulk(if status.is_away { b"away" } else { b"up" });
    reply.bulk(b"journal");
    reply.bulk(status.trouble.as_deref().unwrap_or("ok").as_bytes());
    for figure in status.figures {
        reply.bulk(figure.name.as_bytes());
        reply.count(figure.value as usize);
    }
    reply.bulk(b"dead_letters_kept");
    match letters {
        Some(count) => reply.count(count as usize),
        None => reply.null(),
    }
}

async fn dead_letter(tier: WriteBehind, args: &OwnedArgs, reply: &mut Reply<'_>) -> Result<(), ReplyError> {
    let args = args.as_args();
    if args.is(1, "list") {
        let (after, count) = list_options(args.skip(2))?;
        let letters =
            tier.backend().store.dead_letters(after, count).await.map_err(|error| refused(&error))?;
        reply.array(letters.len());
        letters.iter().for_each(|letter| show(letter, reply));
        return Ok(());
    }
    let is_retry = args.is(1, "retry");
    if args.len() != 3 || !is_retry && !args.is(1, "drop") {
        return Err(ReplyError::SYNTAX);
    }
    let ids = if args.is(2, "all") {
        all_letters(tier).await?
    } else {
        vec![parse_i64(args.at(2)).ok_or(ReplyError::NOT_INTEGER)?]
    };
    let done = if is_retry {
        let mut done = 0;
        for id in ids {
            done += u64::from(retry(tier, id).await?);
        }
        done
    } else {
        tier.backend().store.drop_dead_letters(&ids).await.map_err(|error| refused(&error))?
    };
    reply.count(done as usize);
    Ok(())
}

fn list_options(args: Args<'_>) -> Result<(i64, usize), ReplyError> {
    let (mut after, mut count) = (0, LISTED);
    for index in (0..args.len()).step_by(2) {
        let value = args.get(index + 1).ok_or(ReplyError::SYNTAX)?;
        let value = parse_i64(value).ok_or(ReplyError::NOT_INTEGER)?;
        if args.is(index, "after") {
            after = value;
        } else if args.is(index, "count") {
            count = usize::try_from(value).map_err(|_| ReplyError::NOT_POSITIVE)?;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    Ok((after, count))
}

async fn all_letters(tier: WriteBehind) -> Result<Vec<i64>, ReplyError> {
    let mut ids: Vec<i64> = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or(0);
        let page = tier.backend().store.dead_letters(after, PAGE).await.map_err(|error| refused(&error))?;
        if page.is_empty() {
            return Ok(ids);
        }
        ids.extend(page.iter().map(|letter| letter.id));
    }
}

/// Tries a dead letter's change again, with the version it had: what came since wins. Says whether it is done with.
async fn retry(tier: WriteBehind, id: i64) -> Result<bool, ReplyError> {
    let change = match tier.backend().store.dead_letter(id).await {
        Ok(Some(change)) => change,
        Ok(None) | Err(Failure::Refused(_)) => return Ok(false),
        Err(error) => return Err(refused(&error)),
    };
    let rule = change.rule;
    match tier.backend().store.apply(&Batch::of_one(vec![change])).await {
        Ok(()) => {}
        Err(Failure::Refused(_)) => return Ok(false),
        Err(error) => return Err(refused(&error)),
    }
    tier.backend().invalidate_queries([rule].into_iter());
    tier.backend().store.drop_dead_letters(&[id]).await.map_err(|error| refused(&error))?;
    Ok(true)
}

fn show(letter: &DeadLetter, reply: &mut Reply<'_>) {
    reply.map(6);
    reply.bulk(b"id");
    reply.integer(letter.id);
    reply.bulk(b"key");
    reply.bulk(&letter.key);
    reply.bulk(b"rule");
    reply.bulk(letter.rule.as_bytes());
    reply.bulk(b"version");
    reply.integer(letter.version);
    reply.bulk(b"error");
    reply.bulk(letter.error.as_bytes());
    reply.bulk(b"time-ms");
    reply.integer(letter.at_ms);
}
