//! Who may do what: users, their rules, and what they were denied.
//!
//! Invariants:
//! - A user's rules are replaced as a whole: a check sees the old ones or the new ones, never half of a change.
//! - A user that may do everything costs a request one look at a flag.
//!
//! Not here: how rules are written (`commands/acl`), and where they are checked (`engine/permission`). Commands are known
//! by their places in the command table alone.

mod log;
mod selector;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};

pub use log::{AclLog, Incident, LogEntry, Where};
pub use selector::{KeyPattern, Need, Selector};

/// The user that connections begin as.
pub const DEFAULT: &[u8] = b"default";

/// Why a request was denied. In the order of how much the reasons say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command is not among the user's.
    Command,
    /// A key is not, by its place among the request's keys.
    Key(usize),
    /// A channel is not, by its place among the request's channels.
    Channel(usize),
}

/// What a request needs.
pub struct Wanted<'a> {
    /// The command's place in the table.
    pub command: usize,
    /// Everybody may run it.
    pub is_free: bool,
    /// The argument behind the command's name, which rules may name.
    pub first_argument: Option<&'a [u8]>,
    /// Its keys, with what is done to them.
    pub keys: &'a [(&'a [u8], Need)],
    /// Its channels, and whether they are patterns.
    pub channels: &'a [(&'a [u8], bool)],
}

/// What a user may do, and how he proves who he is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether anybody can authenticate as this user.
    pub is_on: bool,
    /// Whether any password will do.
    pub any_password: bool,
    /// Whether the payloads he restores are checked. They always are; the flag is kept as it was set.
    pub sanitizes: bool,
    /// SHA-256 of the passwords, in hexadecimal.
    pub passwords: Vec<String>,
    /// What he may do himself.
    pub root: Selector,
    /// What he may do beside that: a request needs one selector that allows all of it.
    pub selectors: Vec<Selector>,
}

impl Rules {
    /// Of a user who may do nothing yet.
    pub fn new(all_channels: bool) -> Self {
        Self {
            is_on: false,
            any_password: false,
            sanitizes: true,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            selectors: Vec::new(),
        }
    }

    /// Of one who may do everything and needs no password.
    pub fn all() -> Self {
        let root = Selector::all();
        Self { is_on: true, any_password: true, root, ..Self::new(true) }
    }

    /// Of the default user, if nothing is said of him but his password; none if that is empty.
    pub fn default_user(password: &str) -> Self {
        let mut rules = Self::all();
        rules.set_password(password);
        rules
    }

    fn set_password(&mut self, password: &str) {
        self.any_password = password.is_empty();
        self.passwords = (!password.is_empty()).then(|| hash_of(password.as_bytes())).into_iter().collect();
    }

    /// Whether a request may run.
    ///
    /// # Errors
    /// The reason that says most, of those that the selectors have.
    pub fn check(&self, wanted: &Wanted<'_>) -> Result<(), Denied> {
        let mut strongest = Denied::Command;
        for selector in std::iter::once(&self.root).chain(&self.selectors) {
            match selector.check(wanted) {
                Ok(()) => return Ok(()),
                Err(denied) => strongest = strongest.max(denied),
            }
        }
        Err(strongest)
    }

    /// Whether it allows everything.
    pub fn is_unrestricted(&self) -> bool {
        std::iter::once(&self.root).chain(&self.selectors).any(Selector::is_unrestricted)
    }

    /// Whether one selector that allows the request reads all keys.
    pub fn reads_all_keys(&self, wanted: &Wanted<'_>) -> bool {
        std::iter::once(&self.root)
            .chain(&self.selectors)
            .any(|selector| selector.reads_all_keys() && selector.check(wanted).is_ok())
    }

    /// What it says of channels, by selector.
    pub fn channels(&self) -> impl Iterator<Item = (bool, &[Box<[u8]>])> {
        std::iter::once(&self.root)
            .chain(&self.selectors)
            .map(|selector| (selector.all_channels, &*selector.channels))
    }

    /// Whether any selector allows a channel, or a pattern of channels.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        std::iter::once(&self.root)
            .chain(&self.selectors)
            .any(|selector| selector.allows_channel(channel, is_pattern))
    }

    /// Whether a password is right. All hashes are compared whole, so that the time says nothing.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let hash = hash_of(password);
        let same = |known: &String| {
            known.bytes().zip(hash.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
        };
        self.any_password || self.passwords.iter().fold(false, |found, known| found | same(known))
    }
}

/// A password as it is kept: SHA-256 in hexadecimal.
pub fn hash_of(password: &[u8]) -> String {
    Sha256::digest(password).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user.
#[derive(Debug)]
pub struct User {
    /// His name.
    pub name: Box<[u8]>,
    unrestricted: AtomicBool,
    rules: RwLock<Arc<Rules>>,
}

impl User {
    /// A user with these rules.
    pub fn new(name: &[u8], rules: Rules) -> Self {
        let unrestricted = AtomicBool::new(rules.is_unrestricted());
        Self { name: name.into(), unrestricted, rules: RwLock::new(Arc::new(rules)) }
    }

    /// Whether there is anything that he may not do.
    #[inline]
    pub fn is_restricted(&self) -> bool {
        !self.unrestricted.load(Relaxed)
    }

    /// His rules as they are now.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }

    /// Puts other rules in their place.
    pub fn set_rules(&self, rules: Rules) {
        let mut current = self.rules.write();
        self.unrestricted.store(rules.is_unrestricted(), Relaxed);
        *current = Arc::new(rules);
    }

    /// His name as text.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// The users of a server.
pub struct Acl {
    users: RwLock<BTreeMap<Box<[u8]>, Arc<User>>>,
    default: Arc<User>,
    /// Changes one after the other: who changes rules reads them first.
    pub changing: Mutex<()>,
    /// What was denied of late.
    pub log: Mutex<AclLog>,
    counts: [AtomicU64; 4],
    /// There is, or was, a user who may not do everything.
    restricts: AtomicBool,
}

impl Default for Acl {
    fn default() -> Self {
        let default = Arc::new(User::new(DEFAULT, Rules::all()));
        Self {
            users: RwLock::new(BTreeMap::from([(DEFAULT.into(), default.clone())])),
            default,
            changing: Mutex::new(()),
            log: Mutex::default(),
            counts: Default::default(),
            restricts: AtomicBool::new(false),
        }
    }
}

impl Acl {
    /// The user that connections begin as.
    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// Whether who has not authenticated may do what the default user may.
    pub fn is_open(&self) -> bool {
        let rules = self.default.rules();
        rules.is_on && rules.any_password
    }

    /// Gives the default user this password, or none.
    pub fn set_default_password(&self, password: &str) {
        let _changing = self.changing.lock();
        let mut rules = (*self.default.rules()).clone();
        rules.set_password(password);
        self.default.set_rules(rules);
    }

    /// The user of this name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().get(name).cloned()
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.users.read().values().cloned().collect()
    }

    /// Gives a user these rules; there is such a user from here on.
    pub fn put(&self, name: &[u8], rules: Rules) -> Arc<User> {
        if !rules.is_unrestricted() {
            self.restricts.store(true, Relaxed);
        }
        if let Some(user) = self.get(name) {
            user.set_rules(rules);
            return user;
        }
        let user = Arc::new(User::new(name, rules));
        self.users.write().insert(name.into(), user.clone());
        user
    }

    /// Whether there may be a user who may not do everything.
    #[inline]
    pub fn restricts(&self) -> bool {
        self.restricts.load(Relaxed)
    }

    /// Removes a user; says which.
    pub fn remove(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.write().remove(name)
    }

    /// The user who proves with this password that he is who he says.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        self.get(name).filter(|user| {
            let rules = user.rules();
            rules.is_on && rules.accepts(password)
        })
    }

    /// Counts what was denied.
    pub fn count(&self, incident: Incident) {
        self.counts[incident as usize].fetch_add(1, Relaxed);
    }

    /// How often that was denied.
    pub fn denied(&self, incident: Incident) -> u64 {
        self.counts[incident as usize].load(Relaxed)
    }
}
