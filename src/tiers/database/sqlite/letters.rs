//! The dead letters.

use rusqlite::{Connection, OptionalExtension};

use super::measured;
use crate::clock::wall_ms;
use crate::tiers::database::payload;
use crate::tiers::database::rules::Rules;
use crate::tiers::database::statistics::Statistics;
use crate::tiers::database::store::{DeadLetter, Failure, RowChange};

const BURY: &str = "INSERT INTO anteroom_dead_letter (key, rule, version, payload, error, at) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (rule, key, version) DO NOTHING";
const LIST: &str =
    "SELECT id, key, rule, version, error, at FROM anteroom_dead_letter WHERE id > ?1 ORDER BY id LIMIT ?2";
const ONE: &str = "SELECT key, rule, version, payload FROM anteroom_dead_letter WHERE id = ?1";
const DROP: &str = "DELETE FROM anteroom_dead_letter WHERE id = ?1";
const COUNT: &str = "SELECT count(*) FROM anteroom_dead_letter";

pub(super) fn bury(
    connection: &Connection,
    statistics: &Statistics,
    rules: &Rules,
    change: &RowChange,
    error: &str,
) -> Result<(), Failure> {
    let rule = rules.get(change.rule).ok_or_else(|| Failure::Refused("there is no such rule".to_owned()))?;
    let payload = payload::encode(rule, &change.state);
    let now = wall_ms() as i64;
    let letter = (&change.key[..], rule.pattern.text(), change.version, payload, error, now);
    measured(statistics, BURY, || connection.execute(BURY, letter)).map(drop)
}

pub(super) fn list(
    connection: &mut Connection,
    statistics: &Statistics,
    after: i64,
    limit: usize,
) -> Result<Vec<DeadLetter>, Failure> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let letter = |row: &rusqlite::Row<'_>| {
        Ok(DeadLetter {
            id: row.get(0)?,
            key: row.get::<_, Vec<u8>>(1)?.into(),
            rule: row.get(2)?,
            version: row.get(3)?,
            error: row.get(4)?,
            at_ms: row.get(5)?,
        })
    };
    measured(statistics, LIST, || {
        connection.prepare_cached(LIST)?.query_map((after, limit), letter)?.collect()
    })
}

pub(super) fn count(connection: &mut Connection, statistics: &Statistics) -> Result<u64, Failure> {
    let count: i64 = measured(statistics, COUNT, || connection.query_row(COUNT, [], |row| row.get(0)))?;
    Ok(count.unsigned_abs())
}

pub(super) fn change(
    connection: &mut Connection,
    statistics: &Statistics,
    rules: &Rules,
    id: i64,
) -> Result<Option<RowChange>, Failure> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, String>(3)?))
    };
    let found = measured(statistics, ONE, || connection.query_row(ONE, [id], read).optional())?;
    let Some((key, name, version, payload)) = found else { return Ok(None) };
    let index = rules.named(&name);
    let Some((index, rule)) = index.and_then(|index| Some((index, rules.get(index)?))) else {
        return Err(Failure::Refused(format!("the rule '{name}' is no longer configured")));
    };
    let state = payload::decode(rule, &payload)?;
    Ok(Some(RowChange { rule: index, key: key.into(), version, state }))
}

pub(super) fn remove(
    connection: &mut Connection,
    statistics: &Statistics,
    ids: &[i64],
) -> Result<u64, Failure> {
    measured(statistics, DROP, || {
        let transaction = connection.transaction()?;
        let mut count = 0;
        for id in ids {
            count += transaction.prepare_cached(DROP)?.execute([id])? as u64;
        }
        transaction.commit()?;
        Ok(count)
    })
}
