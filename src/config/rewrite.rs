//! `CONFIG REWRITE`: what `CONFIG SET` changed goes into the file that the server was started with. All else in the
//! file stays as it is, comments included.

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::Settings;
use super::directives::{IDS, Id, Kind};
use super::file::SECTIONS;
use super::replace::replace_file;

/// Why the file was not rewritten.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// It cannot be read or replaced.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// It is no TOML any more.
    #[error("{0}")]
    Syntax(String),
    /// A section is something else there.
    #[error("'{0}' is not a section")]
    NoSection(&'static str),
}

/// Rewrites the file at `path`; a reader sees the old text or the new one, never half of it.
///
/// # Errors
/// If the file cannot be read, understood or replaced.
pub fn rewrite(path: &Path, settings: &Settings) -> Result<(), RewriteError> {
    let text = std::fs::read_to_string(path)?;
    let rewritten = rewritten(&text, settings)?;
    if rewritten == text {
        return Ok(());
    }
    Ok(replace_file(path, rewritten.as_bytes())?)
}

fn rewritten(text: &str, settings: &Settings) -> Result<String, RewriteError> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| RewriteError::Syntax(error.to_string()))?;
    for id in IDS.iter().copied().filter(|id| settings.was_set(*id)) {
        put(&mut document, id, settings)?;
    }
    Ok(document.to_string())
}

fn put(document: &mut DocumentMut, id: Id, settings: &Settings) -> Result<(), RewriteError> {
    let directive = id.directive();
    let own = SECTIONS.iter().find(|(_, keys)| keys.contains(&directive.name)).map(|(name, _)| *name);
    for section in own.into_iter().chain(["redis"]) {
        let Some(entries) = document.get_mut(section).and_then(Item::as_table_like_mut) else { continue };
        let key = entries.iter().map(|(key, _)| key.to_owned()).find(|key| Id::named(key) == Some(id));
        if let Some(value) = key.and_then(|key| entries.get_mut(&key)).and_then(Item::as_value_mut) {
            if !settings.holds(id, &super::file::text_of(value)) {
                let decor = value.decor().clone();
                *value = value_of(id, settings);
                *value.decor_mut() = decor;
            }
            return Ok(());
        }
    }
    if settings.holds(id, directive.default) {
        return Ok(());
    }
    let section = own.unwrap_or("redis");
    let entries: &mut dyn TableLike = document
        .entry(section)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or(RewriteError::NoSection(section))?;
    entries.insert(directive.name, Item::Value(value_of(id, settings)));
    Ok(())
}

fn value_of(id: Id, settings: &Settings) -> Value {
    match id.directive().kind {
        Kind::Bool => (settings.int(id) == 1).into(),
        Kind::Int(..) => settings.int(id).into(),
        Kind::Memory(..) => super::units::format_memory(settings.int(id)).into(),
        _ => settings.shown(id).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Ours.\n[server]\nport = 7000 # here\ntimeout = 5\t# idle\n\n[memory]\nmaxmemory = \"1kb\"\n\n\
        [redis]\nhash-max-ziplist-entries = 7 # few\n# the end\n";

    #[test]
    fn only_what_was_set_changes() {
        let settings = Settings::default();
        assert_eq!(rewritten(FILE, &settings).unwrap(), FILE);
        settings
            .set(&[
                ("timeout", "9"),
                ("maxmemory", "1024"),
                ("hash-max-listpack-entries", "8"),
                ("latency-tracking", "no"),
                ("maxmemory-policy", "allkeys-lru"),
                ("lfu-log-factor", "10"),
            ])
            .unwrap();
        let expected = FILE
            .replace("timeout = 5\t#", "timeout = 9\t#")
            .replace("entries = 7", "entries = 8")
            .replace("\"1kb\"\n", "\"1kb\"\nmaxmemory-policy = \"allkeys-lru\"\n")
            .replace("# few\n", "# few\nlatency-tracking = false\n");
        assert_eq!(rewritten(FILE, &settings).unwrap(), expected);
    }

    #[test]
    fn sections_are_made_and_faults_are_told() {
        let settings = Settings::default();
        settings.set(&[("maxmemory", "64mb"), ("requirepass", "a\"b")]).unwrap();
        let text = rewritten("", &settings).unwrap();
        assert_eq!(text, "[memory]\nmaxmemory = \"64mb\"\n\n[server]\nrequirepass = 'a\"b'\n");
        assert!(matches!(rewritten("[x", &settings), Err(RewriteError::Syntax(_))));
        assert!(matches!(rewritten("memory = 1", &settings), Err(RewriteError::NoSection("memory"))));
    }
}
