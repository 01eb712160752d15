//! The ways to Postgres: encrypted, and through a pooler that gives each transaction another session.

use super::*;
use crate::postgres::Bouncer;

const ROWS: u64 = 300;

/// All modes over one address: write-behind by several writers, transactions, deletions, loads, write-through.
fn use_it(postgres: &Postgres, server: &Server) {
    std::thread::scope(|scope| {
        for writer in 0..3 {
            scope.spawn(move || {
                let mut client = server.client();
                for number in (writer..ROWS).step_by(3) {
                    assert_eq!(client.run(&format!("HSET user:{number} a {number} b 1")), ":2\r\n");
                    assert_eq!(client.run(&format!("SET any:{number} v{number}")), "+OK\r\n");
                    client.run(&format!("HINCRBY user:{number} b 1"));
                }
            });
        }
    });
    let mut client = server.client();
    client.run("DEL user:0");
    client.run("MULTI");
    client.run("HSET plain:1 a 5");
    client.run("HSET plain:2 a 6");
    assert_eq!(client.run("EXEC"), "*2\r\n:1\r\n:1\r\n");
    flush(server);
    let sum = (1..ROWS).sum::<u64>().to_string();
    assert_eq!(postgres.sql("SELECT sum(a) FROM users WHERE b = 2"), [sum]);
    assert_eq!(postgres.sql("SELECT count(*) FROM anteroom_entries"), [ROWS.to_string()]);
    assert_eq!(postgres.sql("SELECT sum(a) FROM plain"), ["11"]);
    postgres.sql("INSERT INTO plain VALUES (9, 1, 2)");
    assert_eq!(client.run("HGET plain:9 b"), bulk("2"));
    assert_eq!(client.run("EXISTS plain:10"), ":0\r\n");
    assert_eq!(client.run("SET through:me:1 now"), "+OK\r\n");
    assert_eq!(postgres.sql("SELECT body FROM notes WHERE title = '1'"), ["now"]);
    assert_eq!((info(server, "writebehind_retries"), info(server, "writebehind_dead_letters")), (0, 0));
}

fn rules() -> String {
    let through = "[[database.rules]]\npattern = 'through:{owner}:{title}'\nmode = 'write-through'\ntable = 'notes'\n\
                   key = { owner = 'owner', title = 'title' }\nvalue = 'body'\n";
    format!("{RULES}\n{through}")
}

#[test]
fn through_a_pooler_of_transactions_nothing_depends_on_the_session() {
    let postgres = Postgres::start();
    postgres.sql(TABLES);
    let bouncer = Bouncer::before(&postgres);
    let options = "prepared-statements = false\nflush-interval = '50ms'";
    let server = serve(&config(&bouncer.url(), options, &rules()), &[]);
    use_it(&postgres, &server);
}

#[test]
fn connections_are_encrypted_and_certificates_verified() {
    let names = vec!["localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let postgres = Postgres::with_tls(&cert.pem(), &signing_key.serialize_pem());
    postgres.sql(TABLES);
    let authority = std::env::temp_dir().join(format!("anteroom-postgres-ca-{}.pem", std::process::id()));
    std::fs::write(&authority, cert.pem()).unwrap();
    let url = |host: &str, more: &str| format!("postgres://anteroom@{host}:{}/postgres{more}", postgres.port);
    let trusted = url("localhost", &format!("?sslmode=verify-full&sslrootcert={}", authority.display()));
    let server = serve(&config(&trusted, "flush-interval = '50ms'", &rules()), &[]);
    use_it(&postgres, &server);
    let open = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE NOT ssl AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    assert_eq!(postgres.sql(open), ["0"]);
    // Nobody vouches for it, or not by that name.
    let unnamed = format!("?sslmode=verify-full&sslrootcert={}", authority.display());
    for (host, more) in [("localhost", "?sslmode=verify-full"), ("127.0.0.1", unnamed.as_str())] {
        let said = refused_at_start(&config(&url(host, more), "", RULES));
        assert!(said.contains("certificate"), "{said}");
    }
    std::fs::remove_file(&authority).unwrap();
}

/// What a server says that does not start.
fn refused_at_start(text: &str) -> String {
    let file = std::env::temp_dir().join(format!("anteroom-refused-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["--port", &crate::harness::free_port().to_string(), "--admin", "off", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
