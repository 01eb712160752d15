//! The dead letters.

use tokio_postgres::types::Type;

use super::Postgres;
use super::load::column;
use super::session::{Locks, Transaction, read};
use crate::tiers::database::payload;
use crate::tiers::database::store::{DeadLetter, Failure, RowChange};

const BURY: &str = "INSERT INTO anteroom_dead_letter (key, rule, version, payload, error) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (rule, key, version) DO NOTHING";
const LIST: &str = "SELECT id, key, rule, version, error, (extract(epoch FROM at) * 1000)::bigint \
    FROM anteroom_dead_letter WHERE id > $1 ORDER BY id LIMIT $2";
const ONE: &str = "SELECT key, rule, version, payload FROM anteroom_dead_letter WHERE id = $1";
const DROP: &str = "DELETE FROM anteroom_dead_letter WHERE id = ANY ($1)";
const COUNT: &str = "SELECT count(*) FROM anteroom_dead_letter";

impl Postgres {
    pub(super) async fn bury_change(&self, change: &RowChange, error: &str) -> Result<(), Failure> {
        let rule = self.rules.get(change.rule);
        let rule = rule.ok_or_else(|| Failure::Refused("there is no such rule".to_owned()))?;
        let payload = payload::encode(rule, &change.state);
        let error = error.replace('\0', "");
        let transaction = Transaction::begin(&self.connections, &Locks::default(), &self.statistics).await?;
        transaction
            .execute(
                BURY,
                &[
                    (&&change.key[..], Type::BYTEA),
                    (&rule.pattern.text(), Type::TEXT),
                    (&change.version, Type::INT8),
                    (&payload, Type::TEXT),
                    (&error, Type::TEXT),
                ],
            )
            .await?;
        transaction.commit().await
    }

    pub(super) async fn list_letters(&self, after: i64, limit: usize) -> Result<Vec<DeadLetter>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let parameters: [super::session::Parameter<'_>; 2] = [(&after, Type::INT8), (&limit, Type::INT8)];
        let rows = read(&self.connections, &self.statistics, LIST, &parameters).await?;
        let letter = |row: &tokio_postgres::Row| {
            Ok(DeadLetter {
                id: column(row, 0)?,
                key: column::<Vec<u8>>(row, 1)?.into(),
                rule: column(row, 2)?,
                version: column(row, 3)?,
                error: column(row, 4)?,
                at_ms: column(row, 5)?,
            })
        };
        rows.iter().map(letter).collect()
    }

    pub(super) async fn count_letters(&self) -> Result<u64, Failure> {
        let rows = read(&self.connections, &self.statistics, COUNT, &[]).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
        Ok(count.unsigned_abs())
    }

    pub(super) async fn letter_change(&self, id: i64) -> Result<Option<RowChange>, Failure> {
        let rows = read(&self.connections, &self.statistics, ONE, &[(&id, Type::INT8)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let name: String = column(row, 1)?;
        let index = self.rules.named(&name);
        let Some((index, rule)) = index.and_then(|index| Some((index, self.rules.get(index)?))) else {
            return Err(Failure::Refused(format!("the rule '{name}' is no longer configured")));
        };
        let payload: String = column(row, 3)?;
        let state = payload::decode(rule, &payload)?;
        let key: Vec<u8> = column(row, 0)?;
        Ok(Some(RowChange { rule: index, key: key.into(), version: column(row, 2)?, state }))
    }

    pub(super) async fn drop_letters(&self, ids: &[i64]) -> Result<u64, Failure> {
        let transaction = Transaction::begin(&self.connections, &Locks::default(), &self.statistics).await?;
        let count = transaction.execute(DROP, &[(&ids, Type::INT8_ARRAY)]).await?;
        transaction.commit().await?;
        Ok(count)
    }
}
