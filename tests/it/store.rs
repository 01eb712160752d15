//! The databases behind `Store`: one suite over Postgres (with and without named statements) and SQLite.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anteroom::config::database::DatabaseConfig;
use anteroom::tiers::database::open;
use anteroom::tiers::database::postgres::triggers::triggers;
use anteroom::tiers::database::rules::Rules;
use anteroom::tiers::database::store::{
    Batch, Failure, Loaded, Notification, RowChange, RowState, SetupError, Store,
};
use parking_lot::Mutex;

use crate::postgres::Postgres;

const RULES: &str = r#"
    auto-create = true
    pool-min = 1
    [[rules]]
    pattern = "user:{id}"
    table = "users"
    key = { id = "id" }
    columns = { name = "name", email = "mail", age = "age" }
    version = "ver"
    [[rules]]
    pattern = "note:{owner}:{title}"
    table = "notes"
    key = { owner = "owner", title = "title" }
    value = "body"
    [[rules]]
    pattern = "doc:{id}"
    table = "docs"
    key = { id = "id" }
    json = "doc"
    [[rules]]
    pattern = "plain:{id}"
    table = "plain"
    key = { id = "id" }
    columns = { a = "a", b = "b" }
    [[rules]]
    pattern = "any:{x}"
    [queries.adults]
    sql = "SELECT name, age FROM users WHERE age >= $1 ORDER BY age -- by age"
    tables = ["users"]
"#;
const USER: usize = 0;
const NOTE: usize = 1;
const DOC: usize = 2;
const PLAIN: usize = 3;
const ANY: usize = 4;

const TABLES: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, mail VARCHAR(20), age INTEGER, ver BIGINT);
    CREATE TABLE notes (owner TEXT, title TEXT, body BYTES, UNIQUE (owner, title));
    CREATE TABLE docs (id TEXT PRIMARY KEY, doc JSONB);
    CREATE TABLE plain (id INTEGER PRIMARY KEY, a TEXT, b TEXT);";

/// A database under test.
enum Server {
    Postgres(Postgres),
    Sqlite(PathBuf),
}

impl Server {
    fn postgres() -> Self {
        let server = Postgres::start();
        server.sql(&TABLES.replace("BYTES", "bytea"));
        Self::Postgres(server)
    }

    fn sqlite() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("anteroom-sqlite-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let server = Self::Sqlite(dir);
        server.sql(&TABLES.replace("BYTES", "BLOB"));
        server
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url(),
            Self::Sqlite(dir) => format!("sqlite:{}", dir.join("data.db").display()),
        }
    }

    fn sql(&self, sql: &str) {
        match self {
            Self::Postgres(server) => drop(server.sql(sql)),
            Self::Sqlite(dir) => {
                let connection = rusqlite::Connection::open(dir.join("data.db")).unwrap();
                connection.execute_batch(sql).unwrap();
            }
        }
    }

    fn open(&self, rules: &str, extra: &str) -> (Arc<dyn Store>, Arc<Rules>) {
        let text = format!("url = \"{}\"\n{extra}\n{rules}", self.url());
        let config = DatabaseConfig::read(&text.parse().unwrap()).unwrap();
        let rules = Arc::new(Rules::compile(&config).unwrap());
        (open(&config, rules.clone()).unwrap(), rules)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Sqlite(dir) = self {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time") })
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn fields(list: &[(usize, Option<&str>)], whole: bool) -> RowState {
    RowState::Fields { fields: list.iter().map(|(index, text)| (*index, text.map(bytes))).collect(), whole }
}

fn document(list: &[(&str, Option<&str>)], whole: bool) -> RowState {
    RowState::Document {
        members: list.iter().map(|(name, text)| (bytes(name), text.map(bytes))).collect(),
        whole,
    }
}

fn change(rule: usize, key: &str, version: i64, state: RowState) -> RowChange {
    RowChange { rule, key: key.as_bytes().into(), version, state }
}

async fn apply(store: &dyn Store, changes: Vec<RowChange>) -> Result<(), Failure> {
    store.apply(&Batch::of_one(changes)).await
}

async fn put(store: &dyn Store, rule: usize, key: &str, version: i64, state: RowState) {
    apply(store, vec![change(rule, key, version, state)]).await.unwrap();
}

async fn row(store: &dyn Store, rule: usize, key: &str) -> Option<(RowState, i64)> {
    match store.load(rule, key.as_bytes()).await.unwrap() {
        Loaded::Absent => None,
        Loaded::Row(state, version) => Some((state, version)),
    }
}

/// The columns of `user` are in the order of their fields: age, email, name.
async fn suite(store: &dyn Store) {
    store.check().await.unwrap();
    assert_eq!(store.highest_version().await.unwrap(), 0);
    versions_and_tombstones(store, USER, "user:1").await;
    versions_and_tombstones(store, PLAIN, "plain:1").await;
    partial_columns(store).await;
    values(store).await;
    documents(store).await;
    default_table(store).await;
    refused(store).await;
    apart(store).await;
    letters(store).await;
    mixed_batch(store).await;
    queries(store).await;
    assert!(store.statements().iter().any(|statement| statement.count > 1 && statement.max >= statement.min));
}

/// Index 1 is a text column in both rules; `user` needs a name as well.
async fn versions_and_tombstones(store: &dyn Store, rule: usize, key: &str) {
    let state = |text| match rule {
        USER => fields(&[(1, Some(text)), (2, Some("n"))], true),
        _ => fields(&[(1, Some(text))], true),
    };
    assert_eq!(row(store, rule, key).await, None);
    put(store, rule, key, 10, state("ten")).await;
    assert_eq!(row(store, rule, key).await, Some((state("ten"), 10)));
    put(store, rule, key, 9, state("nine")).await;
    put(store, rule, key, 10, state("again")).await;
    assert_eq!(row(store, rule, key).await, Some((state("ten"), 10)), "older");
    put(store, rule, key, 11, state("eleven")).await;
    put(store, rule, key, 8, RowState::Absent).await;
    assert_eq!(row(store, rule, key).await, Some((state("eleven"), 11)), "an older deletion");
    put(store, rule, key, 20, RowState::Absent).await;
    assert_eq!(row(store, rule, key).await, None);
    put(store, rule, key, 19, state("late")).await;
    assert_eq!(row(store, rule, key).await, None, "a late write revived a deleted row");
    put(store, rule, key, 18, fields(&[(1, Some("late"))], false)).await;
    assert_eq!(row(store, rule, key).await, None, "a late partial write revived a deleted row");
    put(store, rule, key, 21, state("new")).await;
    assert_eq!(row(store, rule, key).await, Some((state("new"), 21)));
    put(store, rule, key, 20, RowState::Absent).await;
    assert_eq!(row(store, rule, key).await, Some((state("new"), 21)), "a deletion again");
    assert!(store.highest_version().await.unwrap() >= 21);
}

async fn partial_columns(store: &dyn Store) {
    let whole = fields(&[(0, Some("30")), (1, Some("m@x")), (2, Some("Ann"))], true);
    put(store, USER, "user:2", 100, whole).await;
    // The name must not be NULL, and is not named: the row is there, so nothing is wrong.
    put(store, USER, "user:2", 101, fields(&[(0, Some("31"))], false)).await;
    put(store, USER, "user:2", 102, fields(&[(1, None)], false)).await;
    let expected = fields(&[(0, Some("31")), (2, Some("Ann"))], true);
    assert_eq!(row(store, USER, "user:2").await, Some((expected, 102)));
    put(store, USER, "user:2", 103, fields(&[(2, Some("Bob"))], true)).await;
    assert_eq!(row(store, USER, "user:2").await, Some((fields(&[(2, Some("Bob"))], true), 103)));
    put(store, PLAIN, "plain:2", 104, fields(&[(0, Some("a"))], false)).await;
    put(store, PLAIN, "plain:2", 105, fields(&[(1, Some("b"))], false)).await;
    put(store, PLAIN, "plain:2", 103, fields(&[(1, Some("old"))], false)).await;
    let expected = fields(&[(0, Some("a")), (1, Some("b"))], true);
    assert_eq!(row(store, PLAIN, "plain:2").await, Some((expected, 105)));
    // One key of two spellings is one row of one key.
    assert_eq!(row(store, PLAIN, "plain:02").await, None);
    let spelled = apply(store, vec![change(PLAIN, "plain:02", 106, RowState::Absent)]).await;
    assert!(matches!(spelled, Err(Failure::Refused(_))), "{spelled:?}");
}

async fn values(store: &dyn Store) {
    let odd = RowState::Value(vec![0, 255, 10]);
    put(store, NOTE, "note:ann:a:b", 200, odd.clone()).await;
    assert_eq!(row(store, NOTE, "note:ann:a:b").await, Some((odd, 200)));
    assert_eq!(row(store, NOTE, "note:ann:a").await, None);
    put(store, NOTE, "note:ann:a:b", 201, RowState::Absent).await;
    assert_eq!(row(store, NOTE, "note:ann:a:b").await, None);
}

async fn documents(store: &dyn Store) {
    put(store, DOC, "doc:x", 300, document(&[("a", Some("1")), ("b", Some("2"))], true)).await;
    put(store, DOC, "doc:x", 301, document(&[("b", None), ("c", Some("3"))], false)).await;
    let expected = document(&[("a", Some("1")), ("c", Some("3"))], true);
    assert_eq!(row(store, DOC, "doc:x").await, Some((expected, 301)));
    put(store, DOC, "doc:y", 302, document(&[("k", Some("v")), ("gone", None)], false)).await;
    assert_eq!(row(store, DOC, "doc:y").await, Some((document(&[("k", Some("v"))], true), 302)));
    put(store, DOC, "doc:x", 303, document(&[("z", Some("9"))], true)).await;
    assert_eq!(row(store, DOC, "doc:x").await, Some((document(&[("z", Some("9"))], true), 303)));
}

async fn default_table(store: &dyn Store) {
    let dump = |expires_ms| RowState::Dump { kind: "list".into(), payload: vec![1, 0, 255], expires_ms };
    put(store, ANY, "any:\u{1}", 400, dump(Some(1_900_000_000_123))).await;
    assert_eq!(row(store, ANY, "any:\u{1}").await, Some((dump(Some(1_900_000_000_123)), 400)));
    put(store, ANY, "any:\u{1}", 401, dump(None)).await;
    put(store, ANY, "any:\u{1}", 399, RowState::Absent).await;
    assert_eq!(row(store, ANY, "any:\u{1}").await, Some((dump(None), 401)));
}

async fn refused(store: &dyn Store) {
    let good = change(PLAIN, "plain:50", 500, fields(&[(0, Some("good"))], true));
    for (why, bad) in [
        ("type", change(USER, "user:51", 501, fields(&[(0, Some("secret")), (2, Some("n"))], true))),
        ("null", change(USER, "user:51", 502, fields(&[(0, Some("1"))], true))),
        (
            "utf8",
            change(
                USER,
                "user:51",
                503,
                RowState::Fields { fields: vec![(2, Some(vec![255]))], whole: true },
            ),
        ),
        ("kind", change(USER, "user:51", 504, RowState::Value(bytes("x")))),
        ("column", change(USER, "user:51", 505, fields(&[(9, Some("x"))], false))),
        ("rule", change(99, "user:51", 506, RowState::Absent)),
    ] {
        match apply(store, vec![good.clone(), bad]).await {
            Err(Failure::Refused(text)) => assert!(!text.contains("secret"), "{text}"),
            other => panic!("{why}: {other:?}"),
        }
        assert_eq!(row(store, PLAIN, "plain:50").await, None, "{why}: a batch commits whole or not at all");
    }
}

/// What is not refused is committed, together; the rest is named, whatever it is refused for.
async fn apart(store: &dyn Store) {
    let batch = Batch::of_one(vec![
        change(USER, "user:900", 700, fields(&[(2, Some("Ada"))], true)),
        // Its column must not be null.
        change(USER, "user:901", 701, fields(&[(1, Some("a@b"))], true)),
        // No number.
        change(USER, "user:x", 702, fields(&[(2, Some("Bob"))], true)),
        // Its rule has no place for that.
        change(NOTE, "note:a:apart", 703, fields(&[], true)),
        change(NOTE, "note:b:apart", 704, RowState::Value(bytes("text"))),
    ]);
    assert!(matches!(store.apply(&batch).await, Err(Failure::Refused(_))));
    let refused = store.apply_apart(&batch).await.unwrap();
    assert_eq!(refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2, 3], "{refused:?}");
    assert!(refused.iter().all(|(_, reason)| !reason.contains("Bob") && !reason.contains("a@b")));
    assert!(row(store, USER, "user:900").await.is_some() && row(store, USER, "user:901").await.is_none());
    assert_eq!(
        row(store, NOTE, "note:b:apart").await.map(|(state, _)| state),
        Some(RowState::Value(bytes("text")))
    );
    // Once more changes nothing.
    assert_eq!(store.apply_apart(&batch).await.unwrap().len(), 3);
}

async fn letters(store: &dyn Store) {
    let bad = change(USER, "user:60", 600, fields(&[(0, Some("x"))], false));
    let deletion = change(ANY, "any:60", 601, RowState::Absent);
    for change in [&bad, &bad, &deletion] {
        store.bury(change, "it did not fit").await.unwrap();
    }
    assert_eq!(store.dead_letter_count().await.unwrap(), 2);
    let letters = store.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!((&*letters[0].key, letters[0].version), (&b"user:60"[..], 600));
    assert_eq!((&*letters[0].rule, &*letters[0].error), ("user:{id}", "it did not fit"));
    assert!(letters[0].at_ms > 1_600_000_000_000);
    assert_eq!(store.dead_letters(letters[0].id, 10).await.unwrap().len(), 1);
    assert_eq!(store.dead_letter(letters[0].id).await.unwrap(), Some(bad));
    assert_eq!(store.dead_letter(letters[1].id).await.unwrap(), Some(deletion));
    assert_eq!(store.dead_letter(letters[1].id + 1000).await.unwrap(), None);
    assert_eq!(store.drop_dead_letters(&[letters[0].id, letters[1].id, 12345]).await.unwrap(), 2);
    assert_eq!(store.dead_letter_count().await.unwrap(), 0);
}

async fn mixed_batch(store: &dyn Store) {
    let mut changes = Vec::new();
    for number in 1000..2000 {
        let name = format!("name {number}");
        changes.push(change(USER, &format!("user:{number}"), number, fields(&[(2, Some(&name))], true)));
        changes.push(change(PLAIN, &format!("plain:{number}"), number, fields(&[(0, Some("x"))], false)));
    }
    changes.push(change(USER, "user:2", 2001, RowState::Absent));
    apply(store, changes.clone()).await.unwrap();
    apply(store, changes).await.unwrap();
    assert_eq!(row(store, USER, "user:2").await, None);
    assert_eq!(row(store, USER, "user:1999").await, Some((fields(&[(2, Some("name 1999"))], true), 1999)));
    assert_eq!(row(store, PLAIN, "plain:1000").await, Some((fields(&[(0, Some("x"))], true), 1000)));
    assert_eq!(store.highest_version().await.unwrap(), 2001);
}

async fn queries(store: &dyn Store) {
    put(store, USER, "user:5001", 5001, fields(&[(0, Some("70")), (2, Some("O'Hara"))], true)).await;
    put(store, USER, "user:5002", 5002, fields(&[(0, Some("80")), (2, Some("\"quoted\""))], true)).await;
    let rows = store.query("adults", &[b"65"]).await.unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&rows).unwrap();
    assert_eq!(rows, serde_json::json!([{"name": "O'Hara", "age": 70}, {"name": "\"quoted\"", "age": 80}]));
    assert_eq!(store.query("adults", &[b"200"]).await.unwrap(), b"[]");
    for (name, params) in [("adults", &[][..]), ("none", &[&b"1"[..]][..])] {
        assert!(matches!(store.query(name, params).await, Err(Failure::Refused(_))), "{name}");
    }
}

#[test]
fn sqlite_keeps_the_contract() {
    let server = Server::sqlite();
    block_on(suite(&*server.open(RULES, "").0));
}

#[test]
fn postgres_keeps_the_contract() {
    let server = Server::postgres();
    block_on(suite(&*server.open(RULES, "").0));
}

#[test]
fn postgres_keeps_the_contract_without_named_statements() {
    let server = Server::postgres();
    block_on(suite(&*server.open(RULES, "prepared-statements = false").0));
    block_on(async {
        let injected = server.open(RULES, "").0;
        injected.check().await.unwrap();
        let answer = injected.query("adults", &[b"1; DROP TABLE users"]).await;
        assert!(matches!(answer, Err(Failure::Refused(_))), "{answer:?}");
    });
}

fn schema_errors(server: &Server) {
    for (rule, part) in [
        ("table = 'missing'\nkey = { id = 'id' }\nvalue = 'v'", "no table 'missing'"),
        ("table = 'users'\nkey = { id = 'id' }\nvalue = 'nope'", "no column 'nope'"),
        ("table = 'users'\nkey = { id = 'mail' }\nvalue = 'name'", "no unique key of exactly (mail)"),
        ("table = 'users'\nkey = { id = 'id' }\nvalue = 'name'\nversion = 'mail'", "'mail' is"),
        ("table = 'users'\nkey = { id = 'id' }\nvalue = 'mail'", "'name' is NOT NULL without a default"),
    ] {
        let (store, _) = server.open(&format!("[[rules]]\npattern = 'k:{{id}}'\n{rule}"), "");
        match block_on(store.check()) {
            Err(SetupError::Rule { rule, reason }) => {
                assert_eq!(rule, "k:{id}");
                assert!(reason.contains(part), "{reason}");
            }
            other => panic!("{part}: {other:?}"),
        }
    }
    let (store, _) = server.open("[[rules]]\npattern = 'k:{id}'", "");
    let error = block_on(store.check()).unwrap_err().to_string();
    assert!(error.contains("anteroom_entries") && error.contains("auto-create"), "{error}");
    let (store, _) = server.open("[queries.bad]\nsql = 'SELECT nope FROM users'", "");
    let error = block_on(store.check()).unwrap_err().to_string();
    assert!(error.contains("query 'bad'") && error.contains("nope"), "{error}");
}

#[test]
fn errors_of_the_schema_name_the_rule() {
    schema_errors(&Server::sqlite());
    schema_errors(&Server::postgres());
}

#[test]
fn a_postgres_that_is_away_is_transient_and_found_again() {
    let mut server = Postgres::start();
    server.sql(&TABLES.replace("BYTES", "bytea"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let text = format!("url = \"{}\"\n{RULES}", server.url());
    let config = DatabaseConfig::read(&text.parse().unwrap()).unwrap();
    let store = open(&config, Arc::new(Rules::compile(&config).unwrap())).unwrap();
    let early = runtime.block_on(store.load(USER, b"user:1"));
    assert!(matches!(early, Err(Failure::Transient(_))), "{early:?}");
    runtime.block_on(store.check()).unwrap();
    runtime.block_on(put(&*store, USER, "user:1", 1, fields(&[(2, Some("before"))], true)));
    server.kill();
    let away = runtime.block_on(apply(&*store, vec![change(USER, "user:1", 2, RowState::Absent)]));
    assert!(matches!(away, Err(Failure::Transient(_))), "{away:?}");
    server.restart();
    assert!(runtime.block_on(row(&*store, USER, "user:1")).is_some());
    runtime.block_on(put(&*store, USER, "user:1", 2, RowState::Absent));
    assert!(runtime.block_on(row(&*store, USER, "user:1")).is_none());
}

#[test]
fn what_others_change_is_told_and_own_writes_are_not() {
    let server = Server::postgres();
    let (store, rules) = server.open(RULES, "");
    let told = Arc::new(Mutex::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(store.check()).unwrap();
    // Twice, as they can be installed again.
    server.sql(&triggers(&rules));
    server.sql(&triggers(&rules));
    let ears = told.clone();
    runtime.spawn(store.listen(Arc::new(move |notification| ears.lock().push(notification))));
    let wait_for = |wanted: Notification| {
        for _ in 0..400 {
            if told.lock().contains(&wanted) {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{wanted:?} is not told, but {:?}", told.lock());
    };
    let changed = |rule, key: &str| Notification::Changed { rule, key: key.as_bytes().into() };
    wait_for(Notification::Listening);
    runtime.block_on(put(&*store, USER, "user:77", 1, fields(&[(2, Some("own"))], true)));
    server.sql("INSERT INTO users (id, name) VALUES (7, 'x'); UPDATE users SET id = 8 WHERE id = 7");
    wait_for(changed(USER, "user:7"));
    wait_for(changed(USER, "user:8"));
    server.sql("INSERT INTO notes VALUES ('ann', 'a b', 'x')");
    wait_for(changed(NOTE, "note:ann:a b"));
    server.sql("INSERT INTO anteroom_entries VALUES ('any:q', 'string', 'x', NULL, 1)");
    wait_for(changed(ANY, "any:q"));
    server.sql("TRUNCATE docs");
    wait_for(Notification::TableChanged { table: "docs".to_owned() });
    assert!(!told.lock().contains(&changed(USER, "user:77")), "own writes are told");
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LISTEN%' AND pid <> pg_backend_pid()");
    wait_for(Notification::Lost);
    told.lock().clear();
    wait_for(Notification::Listening);
    server.sql("DELETE FROM users WHERE id = 8");
    wait_for(changed(USER, "user:8"));
}

#[test]
fn a_locked_row_is_transient_after_the_timeout() {
    let server = Server::postgres();
    let (store, _) = server.open(RULES, "statement-timeout = '1s'");
    block_on(async {
        store.check().await.unwrap();
        put(&*store, USER, "user:1", 1, fields(&[(2, Some("x"))], true)).await;
        let (client, connection) =
            tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE users").await.unwrap();
        let blocked = apply(&*store, vec![change(USER, "user:1", 2, RowState::Absent)]).await;
        assert!(matches!(blocked, Err(Failure::Transient(_))), "{blocked:?}");
        put(&*store, PLAIN, "plain:1", 3, fields(&[(0, Some("x"))], true)).await;
        client.batch_execute("COMMIT").await.unwrap();
        put(&*store, USER, "user:1", 2, RowState::Absent).await;
        assert!(row(&*store, USER, "user:1").await.is_none());
        driver.abort();
    });
}

#[test]
fn a_postgres_that_hangs_is_found() {
    let Server::Postgres(ref server) = Server::postgres() else { panic!("it is Postgres") };
    let text = format!("url = \"{}\"\n{RULES}", server.url());
    let config = DatabaseConfig::read(&text.parse().unwrap()).unwrap();
    let store = open(&config, Arc::new(Rules::compile(&config).unwrap())).unwrap();
    block_on(async {
        store.check().await.unwrap();
        put(&*store, PLAIN, "plain:1", 1, fields(&[(0, Some("x"))], true)).await;
        server.signal(libc::SIGSTOP);
        let started = anteroom::clock::monotonic();
        let hung = apply(&*store, vec![change(PLAIN, "plain:1", 2, RowState::Absent)]).await;
        let took = started.elapsed();
        server.signal(libc::SIGCONT);
        assert!(matches!(hung, Err(Failure::Transient(_))), "{hung:?}");
        // Well before the statement's timeout of 30 s.
        assert!(took < Duration::from_secs(20), "{took:?}");
        put(&*store, PLAIN, "plain:1", 2, RowState::Absent).await;
    });
}
