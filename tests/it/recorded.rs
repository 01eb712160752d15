//! Replies of a Redis that the tests cannot start, recorded from one built by hand.
//!
//! A line is the name of a connection, a command, and what was replied, its line ends as bars.

use std::collections::HashMap;

use crate::harness::{Client, Server};

/// Words, of which those with spaces stand in double quotes.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        match at % 2 {
            1 => words.push(part.as_bytes().to_vec()),
            _ => words
                .extend(part.split(' ').filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec())),
        }
    }
    words
}

/// Sends each command by its connection and compares the reply, as `ask` shows it.
pub fn check(server: &Server, lines: &str, mut ask: impl FnMut(&mut Client, &[Vec<u8>]) -> String) {
    let mut clients: HashMap<&str, Client> = HashMap::new();
    for line in lines.lines() {
        let [name, command, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let client = clients.entry(name).or_insert_with(|| server.client());
        assert_eq!(ask(client, &words(command)), expected, "{name}: {command}");
    }
}
