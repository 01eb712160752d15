//! The slow log: the last commands that took longer than `slowlog-log-slower-than`.

use std::collections::VecDeque;

use crate::protocol::Args;

/// Arguments kept of a command; the last says how many more there were.
const MAX_ARGUMENTS: usize = 32;
/// Bytes kept of an argument.
const MAX_ARGUMENT: usize = 128;

/// One slow command.
#[derive(Debug, Clone)]
pub struct SlowEntry {
    /// Unique, ascending.
    pub id: u64,
    /// Unix time in seconds.
    pub time: u64,
    /// How long it ran, in microseconds.
    pub micros: u64,
    /// Its arguments, shortened.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address.
    pub address: String,
    /// The client's name.
    pub name: String,
}

/// The last slow commands, newest first.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
}

impl SlowLog {
    /// Notes a command, keeping at most `limit` entries.
    pub fn push(
        &mut self,
        args: Args<'_>,
        time: u64,
        micros: u64,
        address: String,
        name: String,
        limit: usize,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        self.entries.push_front(SlowEntry { id, time, micros, arguments: shorten(args), address, name });
        self.entries.truncate(limit);
    }

    /// The entries, newest first.
    pub fn entries(&self) -> impl Iterator<Item = &SlowEntry> {
        self.entries.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

fn shorten(args: Args<'_>) -> Vec<Vec<u8>> {
    let kept = if args.len() > MAX_ARGUMENTS { MAX_ARGUMENTS - 1 } else { args.len() };
    let mut arguments: Vec<Vec<u8>> = args
        .take(kept)
        .iter()
        .map(|argument| {
            if argument.len() <= MAX_ARGUMENT {
                return argument.to_vec();
            }
            let mut shortened = argument[..MAX_ARGUMENT].to_vec();
            let more = argument.len() - MAX_ARGUMENT;
            shortened.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
            shortened
        })
        .collect();
    if args.len() > kept {
        arguments.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    arguments
}
