//! The command table against itself and against what `redis-server` says of its commands.

use std::collections::HashSet;

use anteroom::commands::spec::flag;
use anteroom::commands::table::COMMANDS;

use crate::harness::Server;

#[test]
fn rows_make_sense() {
    let mut names = HashSet::new();
    for command in COMMANDS.iter() {
        let spec = command.spec;
        assert!(names.insert(&command.name), "{} is there twice", command.name);
        assert!(!(spec.has(flag::WRITE) && spec.has(flag::READONLY)), "{} writes and does not", command.name);
        assert!(
            spec.has(flag::WRITE) || !spec.has(flag::DENYOOM),
            "{} needs memory and does not write",
            command.name
        );
        assert_eq!(command.name, command.name.to_lowercase());
        if spec.subcommands().is_empty() {
            assert!(!spec.summary.is_empty(), "{} has no summary", command.name);
        }
        assert_eq!(
            COMMANDS.get(command.name.to_uppercase().as_bytes()).map(|found| found.index),
            command.parent.is_none().then_some(command.index)
        );
    }
}

/// Arity and legacy key positions equal Redis's for every command both have.
#[test]
fn arities_and_keys_are_those_of_redis() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let (mut ours, mut theirs) = (ours.client(), theirs.client());
    for command in COMMANDS.top_level() {
        let query = format!("COMMAND INFO {}", command.name);
        let head = |reply: String| {
            let lines: Vec<String> = reply.split("\r\n").map(str::to_owned).collect();
            (lines.get(4).cloned(), lines)
        };
        let ((our_arity, _), (their_arity, their_lines)) = (head(ours.run(&query)), head(theirs.run(&query)));
        // 7.2 gave these two an optional argument that 7.0 does not have.
        if their_lines.len() > 5 && !matches!(command.name.as_str(), "zrank" | "zrevrank") {
            assert_eq!(our_arity, their_arity, "{}", command.name);
        }
    }
}

/// Commands whose `COMMAND INFO` differs, and why.
const REVIEWED: &[(&str, &str)] =
    &[("auth", "never in the slow log, where Redis hides the password"), ("hello", "as AUTH")];

/// What Redis 7.2.6 says of its commands, and 7.4.1 of those that it had first.
const DESCRIPTIONS: [&str; 2] = [include_str!("commands-7.2.6.txt"), include_str!("commands-7.4.1.txt")];

/// `COMMAND INFO` and the parts of `COMMAND DOCS` that programs read are what Redis replied.
///
/// Summaries and costs are in our own words; histories and the notes of key specs are left out. A line of the file is
/// a name, what `INFO` says from the arity to the key specs, and what `DOCS` says, each with its sets sorted.
#[test]
fn descriptions_are_those_of_redis() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("HELLO 3");
    let mut checked = 0;
    for line in DESCRIPTIONS.iter().flat_map(|text| text.lines()) {
        let [name, info, docs] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if COMMANDS.find(name.as_bytes()).is_none() {
            continue;
        }
        checked += 1;
        let reply = client.run(&format!("COMMAND INFO {name}"));
        let Tree::List(commands) = Tree::read(&mut reply.as_str()) else { panic!("{reply}") };
        let Tree::List(fields) = &commands[0] else { panic!("{reply}") };
        if !REVIEWED.iter().any(|(other, _)| *other == name) {
            assert_eq!(Tree::List(fields[1..9].to_vec()).to_string(), info, "{name}");
        }
        let reply = client.run(&format!("COMMAND DOCS {name}"));
        let Tree::Map(commands) = Tree::read(&mut reply.as_str()) else { panic!("{reply}") };
        let Tree::Map(mut fields) = commands[0].1.clone() else { panic!("{reply}") };
        fields
            .retain(|(key, _)| !["summary", "complexity", "subcommands"].contains(&key.to_string().as_str()));
        assert_eq!(Tree::Map(fields).to_string(), docs, "{name}");
    }
    assert!(checked > 200, "{checked}");
}

/// Commands that Redis does not have.
const OURS: &[&str] = &[
    "cache.inspect",
    "cache.invalidate",
    "cache.stats",
    "cl.throttle",
    "db.deadletter",
    "db.flush",
    "db.query",
    "db.status",
    "ratelimit.check",
    "ratelimit.multi",
    "ratelimit.peek",
    "ratelimit.refund",
    "ratelimit.reset",
    "ratelimit.take",
    "ratelimit.top",
];

#[test]
fn commands_that_redis_lacks_are_reviewed() {
    let theirs: HashSet<&str> = DESCRIPTIONS
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split('\t').next())
        .collect();
    let mut ours: Vec<&str> =
        COMMANDS.top_level().map(|command| command.spec.name).filter(|name| !theirs.contains(name)).collect();
    ours.sort_unstable();
    assert_eq!(ours, OURS);
}

#[test]
fn lists_are_filtered_and_key_flags_follow_the_arguments() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for (command, expected) in [
        ("COMMAND LIST FILTERBY MODULE json", "*0\r\n"),
        ("COMMAND LIST FILTERBY PATTERN zrangeb*x", "*1\r\n$11\r\nzrangebylex\r\n"),
        ("COMMAND LIST FILTERBY ACLCAT nothing", "*0\r\n"),
        ("COMMAND LIST FILTERBY PATTERN", "-ERR syntax error\r\n"),
        ("COMMAND GETKEYS nothing a", "-ERR Invalid command specified\r\n"),
        ("COMMAND GETKEYS ping", "-ERR The command has no key arguments\r\n"),
        ("COMMAND GETKEYS get", "-ERR Invalid number of arguments specified for command\r\n"),
        ("COMMAND GETKEYS mset a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYSANDFLAGS set k v", "*1\r\n*2\r\n$1\r\nk\r\n*2\r\n+OW\r\n+update\r\n"),
        ("COMMAND GETKEYSANDFLAGS set k v GET", "*1\r\n*2\r\n$1\r\nk\r\n*3\r\n+RW\r\n+access\r\n+update\r\n"),
        ("COMMAND GETKEYSANDFLAGS bitfield k get u8 0", "*1\r\n*2\r\n$1\r\nk\r\n*2\r\n+RO\r\n+access\r\n"),
    ] {
        assert_eq!(client.run(command), expected, "{command}");
    }
}

/// `MODULE HELP` is in our own words, and `WAITAOF` is of 7.2.
#[test]
fn what_a_server_by_itself_lacks_is_said_as_redis_says_it() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let (mut ours, mut theirs) = (ours.client(), theirs.client());
    for command in [
        "READONLY",
        "READWRITE",
        "ASKING",
        "READONLY x",
        "CLUSTER",
        "CLUSTER INFO",
        "CLUSTER SLOTS",
        "cluster shards",
        "MODULE",
        "MODULE LIST",
        "MODULE LIST x",
        "MODULE nothing",
    ] {
        assert_eq!(ours.run(command), theirs.run(command), "{command}");
    }
    for (command, expected) in [
        ("WAITAOF 0 0 0", "*2\r\n:0\r\n:0\r\n"),
        ("WAITAOF 1 0 0", "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n"),
        ("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1\r\n"),
        ("WAITAOF x 0 0", "-ERR value is not an integer or out of range\r\n"),
        ("WAITAOF 0 -1 0", "-ERR value is out of range, must be positive\r\n"),
        ("WAITAOF 0 0 -1", "-ERR timeout is negative\r\n"),
    ] {
        assert_eq!(ours.run(command), expected, "{command}");
    }
}

/// A reply, shown as the lines of `commands-7.2.6.txt` are.
#[derive(Clone)]
enum Tree {
    Leaf(String),
    List(Vec<Tree>),
    Set(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

impl Tree {
    fn read(reply: &mut &str) -> Self {
        let (head, rest) = reply.split_once("\r\n").unwrap();
        *reply = rest;
        let (mark, text) = head.split_at(1);
        let len = || text.parse::<usize>().unwrap();
        match mark {
            "$" => {
                let (bulk, rest) = reply.split_at(len());
                *reply = &rest[2..];
                Self::Leaf(bulk.to_owned())
            }
            "*" => Self::List((0..len()).map(|_| Self::read(reply)).collect()),
            "~" => Self::Set((0..len()).map(|_| Self::read(reply)).collect()),
            "%" => Self::Map((0..len()).map(|_| (Self::read(reply), Self::read(reply))).collect()),
            _ => Self::Leaf(text.to_owned()),
        }
    }
}

impl std::fmt::Display for Tree {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts = |trees: &[Self]| trees.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Leaf(text) => formatter.write_str(text),
            Self::List(trees) => write!(formatter, "[{}]", texts(trees).join(" ")),
            Self::Set(trees) => {
                let mut texts = texts(trees);
                texts.sort();
                write!(formatter, "{{{}}}", texts.join(" "))
            }
            Self::Map(pairs) if pairs.is_empty() => formatter.write_str("[]"),
            Self::Map(pairs) => {
                let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} {value}")).collect();
                write!(formatter, "({})", pairs.join(" "))
            }
        }
    }
}
