//! What the sections `[database]` and `[upstream]` ask of each other: hosts that share an upstream write the same keys, so
//! the versions of rows, and the journal, must be upstream's.

use super::database::{DatabaseConfig, JournalPlace, Mode, OnExpire};
use super::upstream::UpstreamConfig;

/// What of the section `[database]` does not fit the upstream, or the want of one: the key, and why.
pub fn clash(database: &DatabaseConfig, upstream: Option<&UpstreamConfig>) -> Option<(String, &'static str)> {
    let key = |key: &str| format!("database.{key}");
    let Some(upstream) = upstream else {
        let is_there = database.journal == JournalPlace::Upstream;
        return is_there.then(|| (key("journal"), "there is no upstream that could hold it"));
    };
    if database.journal == JournalPlace::Local {
        let reason = "hosts that have an upstream write the same keys, and the journal of one knows no order with those \
                      of the others: use \"upstream\"";
        return Some((key("journal"), reason));
    }
    if upstream.endpoint.cluster.is_some() {
        let reason = "a cluster cannot take a value and the journal's entry of it at once: use one server, or Sentinel";
        return Some((key("journal"), reason));
    }
    if database.url.starts_with("sqlite:") {
        return Some((
            key("url"),
            "all hosts that have the upstream need the same database: use postgres://",
        ));
    }
    let name = &database.journal_name;
    if name.is_empty() || !name.chars().all(|part| part.is_ascii_alphanumeric() || "-_.".contains(part)) {
        return Some((key("journal-name"), "must be of letters, digits, '-', '_' and '.'"));
    }
    database.rules.iter().find_map(|rule| {
        let of_rule = |what: &str| format!("database.rules '{}', {what}", rule.pattern);
        if rule.mode == Mode::WriteThrough {
            return Some((
                of_rule("mode"),
                "write-through is not served with an upstream: use \"write-behind\"",
            ));
        }
        let reason = "with an upstream, keys expire there and nobody here is told: use \"keep\"";
        (rule.on_expire == OnExpire::Delete).then(|| (of_rule("on-expire"), reason))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clash_of(database: &str, upstream: Option<&str>) -> Option<(String, &'static str)> {
        let database = DatabaseConfig::read(&database.parse().unwrap()).unwrap();
        clash(&database, upstream.map(|url| UpstreamConfig::at(url).unwrap()).as_ref())
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let there = "url = 'postgres://h/d'\njournal = 'upstream'\n";
        assert_eq!(clash_of(there, Some("redis://h")), None);
        assert_eq!(clash_of("url = 'sqlite:a.db'", None), None);
        for (database, upstream, key) in [
            (there.to_owned(), None, "database.journal"),
            ("url = 'postgres://h/d'".to_owned(), Some("redis://h"), "database.journal"),
            (there.to_owned(), Some("redis-cluster://h:1"), "database.journal"),
            ("url = 'sqlite:a.db'\njournal = 'upstream'".to_owned(), Some("redis://h"), "database.url"),
            (format!("{there}journal-name = ''"), Some("redis://h"), "database.journal-name"),
            (
                format!("{there}[[rules]]\npattern = 'a:{{i}}'\nmode = 'write-through'"),
                Some("redis://h"),
                "database.rules 'a:{i}', mode",
            ),
            (
                format!("{there}[[rules]]\npattern = 'a:{{i}}'\non-expire = 'delete'"),
                Some("redis://h"),
                "database.rules 'a:{i}', on-expire",
            ),
        ] {
            assert_eq!(clash_of(&database, upstream).map(|(key, _)| key).as_deref(), Some(key));
        }
    }
}
