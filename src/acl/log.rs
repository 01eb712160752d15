//! What was denied of late.

use std::collections::VecDeque;

/// The same denial within so many milliseconds is one entry.
const TOGETHER_MS: u64 = 60_000;

/// What kind of thing was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// To be somebody.
    Auth,
    /// A command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
}

impl Incident {
    /// As `ACL LOG` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
        }
    }
}

/// Where the request stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// By itself.
    TopLevel,
    /// In a transaction.
    Multi,
    /// In a script.
    Lua,
}

impl Where {
    /// As `ACL LOG` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopLevel => "toplevel",
            Self::Multi => "multi",
            Self::Lua => "lua",
        }
    }
}

/// An entry.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// How often.
    pub count: u64,
    /// What kind of thing was denied.
    pub incident: Incident,
    /// Where.
    pub place: Where,
    /// The command, key or channel.
    pub object: Box<[u8]>,
    /// Who he said he was.
    pub user: Box<[u8]>,
    /// The client as `CLIENT LIST` shows it, the last time.
    pub client: String,
    /// Counts all entries there ever were.
    pub id: u64,
    /// When it was denied first, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When last.
    pub updated_ms: u64,
}

/// The entries, the newest first.
#[derive(Debug, Default)]
pub struct AclLog {
    entries: VecDeque<LogEntry>,
    next_id: u64,
}

impl AclLog {
    /// Adds an entry, or counts it with one that is the same; keeps no more than so many.
    pub fn add(&mut self, mut entry: LogEntry, most: usize) {
        let is_same = |known: &LogEntry| {
            known.incident == entry.incident
                && known.place == entry.place
                && known.object == entry.object
                && known.user == entry.user
                && entry.updated_ms.saturating_sub(known.updated_ms) <= TOGETHER_MS
        };
        // Redis looks no farther either.
        const NEAR: usize = 10;
        if let Some(mut known) =
            self.entries.iter().take(NEAR).position(is_same).and_then(|at| self.entries.remove(at))
        {
            known.count += 1;
            (known.updated_ms, known.client) = (entry.updated_ms, entry.client);
            self.entries.push_front(known);
            return;
        }
        entry.id = self.next_id;
        self.next_id += 1;
        self.entries.push_front(entry);
        self.entries.truncate(most);
    }

    /// The newest entries.
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &LogEntry> {
        self.entries.iter().take(count)
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: &[u8], at: u64) -> LogEntry {
        LogEntry {
            count: 1,
            incident: Incident::Key,
            place: Where::TopLevel,
            object: object.into(),
            user: (*b"alice").into(),
            client: format!("at {at}"),
            id: 0,
            created_ms: at,
            updated_ms: at,
        }
    }

    #[test]
    fn the_same_within_a_minute_is_one_entry() {
        let mut log = AclLog::default();
        for (object, at) in [(&b"a"[..], 0), (b"b", 1), (b"a", 60_000), (b"a", 120_001), (b"b", 120_002)] {
            log.add(entry(object, at), 3);
        }
        let seen: Vec<_> = log.newest(9).map(|entry| (&*entry.object, entry.count, entry.id)).collect();
        assert_eq!(seen, [(&b"b"[..], 1, 3), (b"a", 1, 2), (b"a", 2, 0)]);
        log.clear();
        assert_eq!(log.newest(9).len(), 0);
    }
}
