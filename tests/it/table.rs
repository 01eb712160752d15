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
