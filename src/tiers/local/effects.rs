//! What a command leaves to be done once its locks are released.

use super::entry::Entry;
use super::value::Value;
use crate::protocol::ReplyError;
use crate::types::table::Table;

/// The classes of keyspace events, as `notify-keyspace-events` names them by letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EventClass {
    /// `g`: commands on keys of any type.
    Generic = 1 << 2,
    /// `$`: strings.
    String = 1 << 3,
    /// `l`: lists.
    List = 1 << 4,
    /// `s`: sets.
    Set = 1 << 5,
    /// `h`: hashes.
    Hash = 1 << 6,
    /// `z`: sorted sets.
    SortedSet = 1 << 7,
    /// `x`: a key's time has come.
    Expired = 1 << 8,
    /// `e`: a key was evicted.
    Evicted = 1 << 9,
    /// `m`: a key was looked for in vain.
    Missed = 1 << 11,
    /// Nobody is told of it, as of what Redis has no event for.
    Silent = 0,
    /// `t`: streams.
    Stream = 1 << 10,
    /// `n`: a key was created.
    New = 1 << 14,
}

impl EventClass {
    /// `K`: events are told on channels named after keys.
    pub const KEYSPACE: u32 = 1;
    /// `E`: events are told on channels named after events.
    pub const KEYEVENT: u32 = 1 << 1;
}

/// What happened to a key, in the words of Redis's keyspace notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its class.
    pub class: EventClass,
    /// Its name: mostly the command's.
    pub name: &'static str,
}

macro_rules! event_constructors {
    ($($function:ident $class:ident),*) => {
        impl Event {
            $(
                #[doc = concat!("An event of the class `", stringify!($class), "`.")]
                pub const fn $function(name: &'static str) -> Self {
                    Self { class: EventClass::$class, name }
                }
            )*
        }
    };
}

event_constructors!(generic Generic, string String, list List, set Set, hash Hash, sorted_set SortedSet, stream Stream);

impl Event {
    /// The key is gone, by a command or because its collection became empty.
    pub const DEL: Self = Self::generic("del");
    /// The key's deadline passed.
    pub const EXPIRED: Self = Self { class: EventClass::Expired, name: "expired" };
    /// The key made room for others.
    pub const EVICTED: Self = Self { class: EventClass::Evicted, name: "evicted" };

    /// A change of which Redis tells nobody.
    pub const SILENT: Self = Self { class: EventClass::Silent, name: "" };

    /// A reader looked for the key in vain.
    pub const MISSED: Self = Self { class: EventClass::Missed, name: "keymiss" };

    /// Whether only the deadline of the key, or of fields, changed.
    pub fn is_deadline(self) -> bool {
        match self.class {
            EventClass::Generic => matches!(self.name, "expire" | "persist"),
            EventClass::Hash => matches!(self.name, "hexpire" | "hpersist"),
            _ => false,
        }
    }
}

/// Collected under the locks, carried out after them.
#[derive(Default)]
pub struct Effects {
    /// Keys for which blocked clients wait and that came to hold something.
    pub ready: Vec<(usize, Box<[u8]>)>,
    /// Keyspace notifications to publish: database, event, key.
    pub events: Vec<(usize, Event, Box<[u8]>)>,
    /// Values that take long to free.
    pub garbage: Vec<Value>,
    /// Whole tables to free.
    pub tables: Vec<Table<Entry>>,
    /// What has to be acknowledged by the tier that was told of the changes, before the client is answered.
    pub journaled: Option<u64>,
    /// Changes were made and not taken by the tier that has to have them: the client is told this.
    pub unaccepted: Option<ReplyError>,
    /// The tables are to be free before the reply is sent (`FLUSHALL SYNC`).
    pub frees_tables_now: bool,
}

impl Effects {
    /// How many values there are to free.
    pub fn objects(&self) -> u64 {
        (self.garbage.len() + self.tables.iter().map(Table::len).sum::<usize>()) as u64
    }

    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.events.is_empty()
            && self.garbage.is_empty()
            && self.tables.is_empty()
            && self.journaled.is_none()
            && self.unaccepted.is_none()
    }
}
