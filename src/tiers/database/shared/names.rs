//! The names of what hosts share upstream.

/// The group that all hosts read the stream in; the scripts name it, too.
pub const GROUP: &str = "flushers";

/// The names of the keys.
#[derive(Debug, Clone)]
pub struct Names {
    /// What was accepted: a stream of entries.
    pub stream: String,
    /// The last version given.
    pub version: String,
    /// How many bytes of values the stream holds.
    pub bytes: String,
    /// Keys whose latest state is not in the database: whether they are present or deleted, and the version.
    pub pending: String,
    /// Which keys were there before a transaction's writes; within it alone.
    pub note: String,
    /// Pending keys whose rows others changed meanwhile.
    pub stale: String,
    /// There while somebody waits for a flush.
    pub hurry: String,
    /// Hosts that are told of changes in the database, and when each last said so.
    pub listening: String,
    /// Before a key: the lease under which its row is loaded, or that there is none.
    pub lease: String,
    host: String,
}

impl Names {
    /// The names for a journal of this name.
    pub fn of(journal: &str) -> Self {
        let name = |what: &str| format!("anteroom:{{{journal}}}:{what}");
        Self {
            stream: name("stream"),
            version: name("version"),
            bytes: name("bytes"),
            pending: name("pending"),
            note: name("note"),
            stale: name("stale"),
            hurry: name("hurry"),
            listening: name("listening"),
            lease: name("lease:"),
            host: name("host:"),
        }
    }

    /// What is there while a host lives.
    pub fn host(&self, host: &str) -> String {
        format!("{}{host}", self.host)
    }

    /// The lease of a key.
    pub fn lease(&self, key: &[u8]) -> Vec<u8> {
        [self.lease.as_bytes(), key].concat()
    }

    /// The first keys of what writes the journal.
    pub fn journal(&self) -> [&str; 5] {
        [&self.stream, &self.version, &self.bytes, &self.pending, &self.note]
    }
}
