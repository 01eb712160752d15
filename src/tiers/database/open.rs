//! Which database an address names.

use std::sync::Arc;

use super::postgres::Postgres;
use super::rules::Rules;
use super::sqlite::Sqlite;
use super::store::{SetupError, Store};
use crate::config::database::DatabaseConfig;

/// The database of a section's `url`. Nothing is sent to Postgres before [`Store::check`]; a SQLite file is opened.
///
/// # Errors
/// The address names no database, or the file cannot be opened.
pub fn open(config: &DatabaseConfig, rules: Arc<Rules>) -> Result<Arc<dyn Store>, SetupError> {
    match config.url.split_once(':') {
        Some(("sqlite", _)) => Ok(Arc::new(Sqlite::new(config, rules)?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(Postgres::new(config, rules)?)),
        _ => Err(SetupError::Address("must begin with postgres:// or sqlite:".to_owned())),
    }
}
