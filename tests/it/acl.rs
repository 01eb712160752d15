//! Users: what Redis 7.2.6 replies, and that there is no way around a rule.

use std::os::unix::fs::PermissionsExt;

use crate::database::wait_for;
use crate::harness::{Client, Server, encode};
use crate::recorded::{self, words};
use crate::upstream::Pair;

/// A reply without what differs from run to run, its line ends as bars.
fn shown(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    let mut lines: Vec<&str> = Vec::new();
    let mut skip = 0;
    for line in text.split("\r\n") {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        lines.push(line);
        let hidden = match line {
            "age-seconds" | "client-info" => 2,
            "timestamp-created" | "timestamp-last-updated" => 1,
            _ => continue,
        };
        lines.push("?");
        skip = hidden;
    }
    lines.join("|")
}

fn reply_of(client: &mut Client, command: &[Vec<u8>]) -> String {
    let reply = client.try_send(&encode(command)).then(|| client.try_read()).flatten();
    reply.map_or_else(|| "(closed)".to_owned(), |reply| shown(&reply))
}

#[test]
fn replies_are_those_of_redis() {
    let server = Server::anteroom(&[]);
    recorded::check(&server, include_str!("acl-7.2.6.txt"), reply_of);
}

fn user(server: &Server, name: &str) -> Client {
    let mut client = server.client();
    assert_eq!(client.run(&format!("AUTH {name} x")), "+OK\r\n");
    client
}

const DENIED: &str = "-NOPERM ";

/// Every command with a key, by everything that runs commands, as a user who may not touch that key.
#[test]
fn no_command_reaches_a_key_that_its_user_may_not_touch() {
    let server = Server::anteroom(&[]);
    let mut admin = server.client();
    admin.run("SET secret value");
    admin.run("ACL SETUSER u on nopass +@all ~own:*");
    let mut client = user(&server, "u");
    let mut tried = 0;
    for command in anteroom::commands::table::COMMANDS.iter() {
        // The least arguments it takes, all of which are the key: those that are counts are wrong, then.
        let least = (1..20).find(|count| command.spec.arity.accepts(*count)).unwrap();
        let name = command.name.replace('|', " ");
        let given = name.split(' ').count();
        for value in ["secret", "1"] {
            let mut words: Vec<Vec<u8>> = name.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            words.resize(least.max(given + 1), b"secret".to_vec());
            if let Some(second) = words.get_mut(given + 1) {
                *second = value.as_bytes().to_vec();
            }
            let buffer = anteroom::protocol::OwnedArgs::from_slices(words.iter().map(Vec::as_slice));
            let args = buffer.as_args();
            let has_arity = command.spec.arity.accepts(words.len());
            let keys = anteroom::commands::keys::extract(command.spec, args).unwrap_or_default();
            let names_it = keys.iter().any(|(at, flags)| {
                flags & anteroom::commands::keys::access::NOT_KEY == 0 && args.at(*at) == b"secret"
            });
            if !has_arity || !(names_it || command.spec.derived_key.is_some()) {
                continue;
            }
            tried += 1;
            let reply = reply_of(&mut client, &words);
            assert_eq!(reply, "-NOPERM No permissions to access a key|", "{name} {value}");
        }
    }
    assert!(tried > 200, "{tried}");
    assert_eq!(admin.run("GET secret"), "$5\r\nvalue\r\n");
    // The ways to run commands by others.
    assert_eq!(client.run("MULTI"), "+OK\r\n");
    assert!(client.run("GET secret").starts_with(DENIED));
    assert!(client.run("EXEC").starts_with("-EXECABORT "));
    for script in ["return redis.call('get','secret')", "return redis.pcall('get','secret').err"] {
        let reply = reply_of(&mut client, &words(&format!("EVAL \"{script}\" 0")));
        assert!(reply.contains("ACL failure in script: No permissions to access a key"), "{reply}");
    }
    admin.run("FUNCTION FLUSH");
    let library =
        "#!lua name=l\nredis.register_function('f', function() return redis.call('get','secret') end)";
    admin.send(&[b"FUNCTION".to_vec(), b"LOAD".to_vec(), library.into()]);
    admin.read();
    assert!(client.run("FCALL f 0").contains("ACL failure in script"));
    assert!(client.run("WATCH secret").starts_with(DENIED));
    assert!(client.run("BLPOP own:1 secret 0").starts_with(DENIED));
    assert!(client.run("COPY secret own:1").starts_with(DENIED));
    assert!(client.run("SORT own:1 BY secret* GET secret*").starts_with("-ERR BY option of SORT denied"));
    assert!(client.run("RATELIMIT.TAKE secret 1 1000").starts_with(DENIED));
}

#[test]
fn a_change_of_rules_holds_at_once() {
    let server = Server::anteroom(&["--threads", "2"]);
    let mut admin = server.client();
    admin.run("ACL SETUSER u on nopass +@all ~* &*");
    let (mut waiting, mut listening, mut queued) =
        (user(&server, "u"), user(&server, "u"), user(&server, "u"));
    waiting.send(&words("BLPOP list 0"));
    listening.run("SUBSCRIBE news");
    queued.run("MULTI");
    queued.run("SET k v");
    wait_for(|| admin.run("INFO clients").contains("blocked_clients:1"));
    assert_eq!(admin.run("ACL SETUSER u -set resetkeys ~other resetchannels"), "+OK\r\n");
    assert_eq!(String::from_utf8(waiting.read()).unwrap(), "-NOPERM No permissions to access a key\r\n");
    assert!(listening.is_closed());
    assert!(queued.run("EXEC").contains("-NOPERM ACLs rules changed between"));
    admin.run("RPUSH list a");
    assert_eq!(admin.run("LLEN list"), ":1\r\n");
    // A user who is gone has no connections, and nobody can be him.
    assert_eq!(admin.run("ACL DELUSER u"), ":1\r\n");
    assert!(waiting.is_closed());
    assert!(server.client().run("AUTH u x").starts_with("-WRONGPASS "));
}

#[test]
fn the_default_user_may_be_restricted_or_off() {
    let server = Server::anteroom(&[]);
    let mut admin = server.client();
    admin.run("ACL SETUSER root on >secret +@all ~* &*");
    admin.run("AUTH root secret");
    admin.run("ACL SETUSER default -@all +ping");
    let mut other = server.client();
    assert_eq!(other.run("PING"), "+PONG\r\n");
    assert_eq!(other.run("GET a"), "-NOPERM User default has no permissions to run the 'get' command\r\n");
    admin.run("ACL SETUSER default off");
    // Who was in before stays in, as with Redis; who comes later must say who he is.
    assert_eq!(other.run("PING"), "+PONG\r\n");
    assert_eq!(server.client().run("PING"), "-NOAUTH Authentication required.\r\n");
    let info = admin.run("INFO stats");
    assert!(info.contains("acl_access_denied_cmd:1\r\n"), "{info}");
}

/// With an upstream, what is kept here is no way around a rule, nor is what runs there.
#[test]
fn rules_hold_before_an_upstream() {
    let pair = Pair::start("");
    let (mut admin, mut redis) = pair.clients();
    redis.run("SET secret value");
    redis.run("SET own:1 mine");
    assert_eq!(admin.run("GET secret"), "$5\r\nvalue\r\n");
    assert_eq!(admin.run("ACL SETUSER u on nopass +@all -flushall ~own:* &own"), "+OK\r\n");
    assert_eq!(admin.run("ACL USERS"), "*2\r\n$7\r\ndefault\r\n$1\r\nu\r\n");
    let mut client = user(&pair.anteroom, "u");
    assert_eq!(client.run("GET own:1"), "$4\r\nmine\r\n");
    assert_eq!(client.run("GET own:1"), "$4\r\nmine\r\n");
    for command in [
        "GET secret",
        "MGET own:1 secret",
        "DEL secret",
        "FLUSHALL",
        "BLPOP secret 0",
        "WATCH secret",
        "PUBLISH other m",
        "SUBSCRIBE other",
        "EVAL return(1) 0",
        "FCALL f 0",
        "BGREWRITEAOF",
    ] {
        let reply = client.run(command);
        assert!(reply.starts_with(DENIED), "{command}: {reply}");
    }
    assert_eq!(client.run("MULTI"), "+OK\r\n");
    assert!(client.run("GET secret").starts_with(DENIED));
    assert!(client.run("EXEC").starts_with("-EXECABORT "));
    assert_eq!(client.run("PUBLISH own m"), ":0\r\n");
    assert!(client.run("SUBSCRIBE own").starts_with("*3\r\n$9\r\nsubscribe\r\n"));
    let mut queued = user(&pair.anteroom, "u");
    assert_eq!(queued.run("MULTI"), "+OK\r\n");
    assert_eq!(queued.run("SET own:1 other"), "+QUEUED\r\n");
    assert_eq!(admin.run("ACL SETUSER u -set"), "+OK\r\n");
    assert!(
        queued
            .run("EXEC")
            .starts_with("-EXECABORT Transaction discarded because of: NOPERM ACLs rules changed")
    );
    assert_eq!(redis.run("GET own:1"), "$4\r\nmine\r\n");
    assert_eq!(admin.run("ACL SETUSER u resetchannels"), "+OK\r\n");
    assert!(client.is_closed());
    assert_eq!(redis.run("GET secret"), "$5\r\nvalue\r\n");
}

#[test]
fn users_are_kept_in_a_file() {
    let directory = Server::anteroom(&[]);
    let file = directory.dir.join("users.acl");
    let config = directory.dir.join("anteroom.toml");
    let given =
        "# users\nuser alice on >wonder ~a* +@read -get (~b* +set)\n\nuser default on nopass ~* &* +@all\n";
    std::fs::write(&file, given).unwrap();
    std::fs::write(&config, format!("[server]\naclfile = \"{}\"\n", file.display())).unwrap();
    let start = || Server::anteroom(&["--config", config.to_str().unwrap()]);
    let server = start();
    let mut alice = server.client();
    assert_eq!(alice.run("AUTH alice wonder"), "+OK\r\n");
    assert_eq!(alice.run("STRLEN a1"), ":0\r\n");
    assert_eq!(alice.run("SET b1 v"), "+OK\r\n");
    assert!(alice.run("GET a1").starts_with(DENIED));
    let mut admin = server.client();
    assert_eq!(admin.run("ACL SETUSER bob on >builder allkeys +get"), "+OK\r\n");
    let before = admin.run("ACL LIST");
    let mode = |file: &std::path::Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(admin.run("ACL SAVE"), "+OK\r\n");
    assert_eq!(mode(&file), 0o640);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(admin.run("ACL SAVE"), "+OK\r\n");
    assert_eq!(mode(&file), 0o600);
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(!saved.contains("builder") && saved.contains("user bob on sanitize-payload #"), "{saved}");
    assert_eq!(start().client().run("ACL LIST"), before);
    // What is wrong changes nothing, and says where it is.
    std::fs::write(&file, format!("{saved}user carol on >pass +nothing\n")).unwrap();
    let error = admin.run("ACL LOAD");
    assert!(error.contains("users.acl:4: +nothing: Unknown command or category name"), "{error}");
    assert_eq!(admin.run("ACL LIST"), before);
    // Of whom the file says nothing, nothing stays: the default user is as at a start.
    assert_eq!(admin.run("ACL SETUSER default -flushall"), "+OK\r\n");
    std::fs::write(&file, "user carol off\n").unwrap();
    assert_eq!(admin.run("ACL LOAD"), "+OK\r\n");
    let list = admin.run("ACL LIST");
    assert!(list.contains("user default on nopass sanitize-payload ~* &* +@all\r\n"), "{list}");
    assert_eq!(admin.run("ACL USERS"), "*2\r\n$5\r\ncarol\r\n$7\r\ndefault\r\n");
    assert!(alice.is_closed());
    // The server does not start with half of the users.
    std::fs::write(&file, "user carol on >pass\nuser carol off\n").unwrap();
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["check", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && said.contains("users.acl:2: Duplicate user found"), "{said}");
}
