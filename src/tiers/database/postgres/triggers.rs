//! The triggers that tell of changes: what `anteroom sql triggers` prints, for an administrator to read and install.
//!
//! A message is JSON: `t` is the table as the rules name it, `k` the key columns as text (absent if the change is to be
//! taken for one of the whole table), `o` who wrote: the session's `anteroom.origin`, by which a server knows its own.

use std::collections::{BTreeMap, BTreeSet};

use super::schema::{quote, quote_table};
use crate::tiers::database::rules::{DEFAULT_TABLE, Rules, Target};

/// The channel.
pub(super) const CHANNEL: &str = "anteroom_changes";

const FUNCTION: &str = r#"CREATE OR REPLACE FUNCTION anteroom_notify() RETURNS trigger LANGUAGE plpgsql AS $anteroom$
DECLARE
    message jsonb := jsonb_build_object('o', coalesce(current_setting('anteroom.origin', true), ''), 't', TG_ARGV[0]);
    before jsonb;
    after jsonb;
    key jsonb;
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        PERFORM pg_notify('anteroom_changes', message::text);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT jsonb_object_agg(c, to_jsonb(OLD) ->> c) INTO before FROM unnest(TG_ARGV[1:]) AS c;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT jsonb_object_agg(c, to_jsonb(NEW) ->> c) INTO after FROM unnest(TG_ARGV[1:]) AS c;
    END IF;
    FOR key IN SELECT DISTINCT k FROM unnest(ARRAY[before, after]) AS k WHERE k IS NOT NULL LOOP
        -- A message has at most 8000 bytes; of a longer one only the table is told.
        IF octet_length((message || jsonb_build_object('k', key))::text) < 7900 THEN
            PERFORM pg_notify('anteroom_changes', (message || jsonb_build_object('k', key))::text);
        ELSE
            PERFORM pg_notify('anteroom_changes', message::text);
        END IF;
    END LOOP;
    RETURN NULL;
END
$anteroom$;
"#;

/// The statements that install the triggers of all rules' tables; they can be run again.
pub fn triggers(rules: &Rules) -> String {
    let mut tables: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in rules.all() {
        match &rule.target {
            Target::Default => drop(tables.entry(DEFAULT_TABLE).or_default().insert("key")),
            Target::Table { table, key, .. } => {
                tables.entry(table).or_default().extend(key.iter().map(String::as_str));
            }
        }
    }
    // Tables that only queries name have no keys to tell.
    for query in rules.queries().values() {
        for table in &query.tables {
            tables.entry(table).or_default();
        }
    }
    let mut text = format!("BEGIN;\n{FUNCTION}");
    for (table, key) in tables {
        let quoted = quote_table(table);
        let mut arguments = vec![literal(table)];
        arguments.extend(key.iter().map(|column| literal(column)));
        let each = if key.is_empty() { "STATEMENT" } else { "ROW" };
        for (name, events, each, arguments) in [
            ("anteroom_notify", "INSERT OR UPDATE OR DELETE", each, arguments.join(", ")),
            ("anteroom_notify_truncate", "TRUNCATE", "STATEMENT", literal(table)),
        ] {
            let name = quote(name);
            text.push_str(&format!(
                "DROP TRIGGER IF EXISTS {name} ON {quoted};\nCREATE TRIGGER {name} AFTER {events} ON {quoted}\n    \
                 FOR EACH {each} EXECUTE FUNCTION anteroom_notify({arguments});\n"
            ));
        }
    }
    text.push_str("COMMIT;\n");
    text
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
