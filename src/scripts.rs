//! Scripts that the server knows, by their digests, and those that run beyond their time.
//!
//! All threads share them as bytecode; each loads what it runs into its own machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use sha1::Digest as _;

use crate::lua;
use crate::protocol::{OwnedArgs, ReplyError};

/// A SHA-1 digest in lower-case hexadecimal.
pub type Digest = [u8; 40];

/// The name of a script's source in the places of errors.
pub const SOURCE_NAME: &std::ffi::CStr = c"@user_script";

/// What a script or a function says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// It only reads.
    pub const NO_WRITES: u32 = 1;
    /// It runs even if memory has run out.
    pub const ALLOW_OOM: u32 = 1 << 1;
    /// It runs on a stale replica.
    pub const ALLOW_STALE: u32 = 1 << 2;
    /// It does not run in a cluster.
    pub const NO_CLUSTER: u32 = 1 << 3;
    /// It reaches keys of several slots.
    pub const ALLOW_CROSS_SLOT: u32 = 1 << 4;
    /// It says nothing, as scripts before Redis 7.
    pub const UNSAID: u32 = 1 << 5;

    /// By their names.
    pub const NAMES: &'static [(u32, &'static str)] = &[
        (Self::NO_WRITES, "no-writes"),
        (Self::ALLOW_OOM, "allow-oom"),
        (Self::ALLOW_STALE, "allow-stale"),
        (Self::NO_CLUSTER, "no-cluster"),
        (Self::ALLOW_CROSS_SLOT, "allow-cross-slot-keys"),
    ];

    /// Whether a flag is set.
    pub fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// The flag of a name.
    pub fn named(name: &[u8]) -> Option<u32> {
        Self::NAMES.iter().find(|(_, known)| known.as_bytes() == name).map(|(flag, _)| *flag)
    }
}

/// A script, compiled.
pub struct Script {
    /// What names it.
    pub digest: Digest,
    /// What it says of itself.
    pub flags: Flags,
    /// What machines load.
    pub bytecode: Vec<u8>,
    /// Its source.
    pub source: Box<[u8]>,
}

impl Script {
    /// Compiles a source.
    ///
    /// # Errors
    /// It is no Lua, or its first line makes no sense.
    pub fn compile(source: &[u8], digest: Digest) -> Result<Self, ReplyError> {
        let (flags, skipped) = read_shebang(source)?;
        // The line's end stays, so that lines count as they do for the author.
        let bytecode = lua::compile(&source[skipped..], "user_script").map_err(|error| {
            ReplyError::new(format!("ERR Error compiling script (new function): {error}"))
        })?;
        Ok(Self { digest, flags, bytecode, source: source.into() })
    }
}

/// The digest of a script.
pub fn digest(source: &[u8]) -> Digest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 40];
    for (index, byte) in sha1::Sha1::digest(source).iter().enumerate() {
        text[2 * index] = DIGITS[usize::from(byte >> 4)];
        text[2 * index + 1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The digest that a client names, in any case; `None` if it is none.
pub fn named_digest(text: &[u8]) -> Option<Digest> {
    let mut digest: Digest = text.try_into().ok()?;
    digest.make_ascii_lowercase();
    Some(digest)
}

/// The words of the first line, some of them in quotes, and where it ends; `None` if it does not, or a quote does not.
pub fn first_line(source: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let end = memchr::memchr(b'\n', source)?;
    let mut letters = source[..end].iter().copied().peekable();
    let mut words = Vec::new();
    loop {
        while letters.next_if(u8::is_ascii_whitespace).is_some() {}
        if letters.peek().is_none() {
            return Some((words, end));
        }
        let mut word = Vec::new();
        while let Some(letter) = letters.next_if(|letter| !letter.is_ascii_whitespace()) {
            if !matches!(letter, b'"' | b'\'') {
                word.push(letter);
                continue;
            }
            loop {
                match letters.next()? {
                    quote if quote == letter => break,
                    b'\\' if letters.peek() == Some(&letter) => word.extend(letters.next()),
                    other => word.push(other),
                }
            }
        }
        words.push(word);
    }
}

fn read_shebang(source: &[u8]) -> Result<(Flags, usize), ReplyError> {
    if !source.starts_with(b"#!") {
        return Ok((Flags(Flags::UNSAID), 0));
    }
    let (words, end) = first_line(source).ok_or(ReplyError::fixed("ERR Invalid script shebang"))?;
    let (Some(engine), options) = (words.first(), words.get(1..).unwrap_or_default()) else {
        return Err(ReplyError::fixed("ERR Invalid engine in script shebang"));
    };
    if engine != b"#!lua" {
        return Err(ReplyError::showing("ERR Unexpected engine in script shebang: ", engine, ""));
    }
    let mut flags = 0;
    for option in options {
        let Some(names) = option.strip_prefix(b"flags=") else {
            return Err(ReplyError::showing("ERR Unknown lua shebang option: ", option, ""));
        };
        for name in names.split(|byte| *byte == b',').filter(|_| !names.is_empty()) {
            flags |= Flags::named(name)
                .ok_or_else(|| ReplyError::showing("ERR Unexpected flag in script shebang: ", name, ""))?;
        }
    }
    Ok((Flags(flags), end))
}

/// A script or function that runs beyond its time.
pub struct Running {
    /// The function's name, or the script's digest.
    pub name: Vec<u8>,
    /// The command that runs it.
    pub command: OwnedArgs,
    /// Whether it is a script rather than a function.
    pub is_script: bool,
    /// When it began, in monotonic milliseconds since the server's start.
    pub started: std::time::Instant,
    /// It has changed something, so that it cannot be stopped any more.
    pub has_written: AtomicBool,
    killed: AtomicBool,
}

impl Running {
    /// One that has just had its time.
    pub fn new(
        name: Vec<u8>,
        command: OwnedArgs,
        is_script: bool,
        started: std::time::Instant,
        has_written: bool,
    ) -> Self {
        let (has_written, killed) = (AtomicBool::new(has_written), AtomicBool::new(false));
        Self { name, command, is_script, started, has_written, killed }
    }

    /// Whether it is to end.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
}

/// All scripts.
#[derive(Default)]
pub struct Scripts {
    known: RwLock<HashMap<Digest, Arc<Script>>>,
    /// Grows when scripts are forgotten, so that machines forget theirs.
    generation: AtomicU64,
    running: Mutex<Vec<Arc<Running>>>,
    /// Bytes that the machines of all threads take, nearly.
    machines: AtomicUsize,
    /// Told when scripts are forgotten.
    watchers: Mutex<Vec<Arc<tokio::sync::Notify>>>,
}

/// Why nothing was stopped.
const NOT_BUSY: ReplyError = ReplyError::fixed("NOTBUSY No scripts in execution right now.");
const UNKILLABLE: ReplyError = ReplyError::fixed(
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script \
     termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
);
const BUSY_SCRIPT: ReplyError = ReplyError::fixed(
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
);
const BUSY_FUNCTION: ReplyError = ReplyError::fixed(
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
);

impl Scripts {
    /// The script of a digest.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Script>> {
        self.known.read().get(digest).cloned()
    }

    /// Makes a script known; returns the one that is known by its digest now.
    ///
    /// # Errors
    /// It does not compile.
    pub fn add(&self, source: &[u8], digest: Digest) -> Result<Arc<Script>, ReplyError> {
        if let Some(script) = self.get(&digest) {
            return Ok(script);
        }
        let script = Arc::new(Script::compile(source, digest)?);
        Ok(self.known.write().entry(digest).or_insert(script).clone())
    }

    /// Forgets all scripts.
    pub fn flush(&self) {
        let mut known = self.known.write();
        known.clear();
        self.generation.fetch_add(1, Ordering::Release);
        self.watchers.lock().iter().for_each(|watcher| watcher.notify_one());
    }

    /// Has somebody be told when scripts are forgotten.
    pub fn watch(&self, watcher: Arc<tokio::sync::Notify>) {
        self.watchers.lock().push(watcher);
    }

    /// How often scripts were forgotten.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many are known, and the bytes they take.
    pub fn usage(&self) -> (usize, usize) {
        let known = self.known.read();
        let bytes = |script: &Arc<Script>| {
            size_of::<Script>() + size_of::<Digest>() + script.bytecode.len() + script.source.len()
        };
        (known.len(), known.values().map(bytes).sum())
    }

    /// A machine took so many bytes, and takes so many now.
    pub fn note_memory(&self, before: usize, now: usize) {
        self.machines.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Bytes that machines take.
    pub fn machine_memory(&self) -> usize {
        self.machines.load(Ordering::Relaxed)
    }

    /// Notes one that runs beyond its time.
    pub fn note_running(&self, running: Arc<Running>) {
        self.running.lock().push(running);
    }

    /// It has ended.
    pub fn note_ended(&self, running: &Arc<Running>) {
        self.running.lock().retain(|other| !Arc::ptr_eq(other, running));
    }

    /// The one that has run longest of those beyond their time.
    pub fn longest(&self) -> Option<Arc<Running>> {
        self.running.lock().first().cloned()
    }

    /// The error of a command that comes while a script runs beyond its time.
    pub fn busy(&self) -> ReplyError {
        match self.longest() {
            Some(running) if !running.is_script => BUSY_FUNCTION,
            _ => BUSY_SCRIPT,
        }
    }

    /// Stops scripts (or functions) that run beyond their time and have changed nothing.
    ///
    /// # Errors
    /// There is none.
    pub fn kill(&self, scripts: bool) -> Result<(), ReplyError> {
        let running = self.running.lock();
        if running.is_empty() {
            return Err(NOT_BUSY);
        }
        let mut result = Err(UNKILLABLE);
        for one in running.iter().filter(|one| !one.has_written.load(Ordering::Acquire)) {
            if one.is_script == scripts {
                one.killed.store(true, Ordering::Release);
                result = Ok(());
            } else if result.is_err() {
                result = Err(if one.is_script { BUSY_SCRIPT } else { BUSY_FUNCTION });
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> String {
        read_shebang(source.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn first_lines_are_read() {
        assert_eq!(read_shebang(b"return 1").unwrap(), (Flags(Flags::UNSAID), 0));
        assert_eq!(read_shebang(b"#!lua\nreturn 1").unwrap(), (Flags(0), 5));
        let flags = Flags(Flags::NO_WRITES | Flags::ALLOW_STALE);
        assert_eq!(read_shebang(b"#!lua flags=no-writes,allow-stale\n").unwrap(), (flags, 33));
        assert_eq!(refused("#!lua"), "ERR Invalid script shebang");
        assert_eq!(refused("#!not-lua\n"), "ERR Unexpected engine in script shebang: #!not-lua");
        assert_eq!(refused("#!lua bad=1\n"), "ERR Unknown lua shebang option: bad=1");
        assert_eq!(refused("#!lua flags=bad\n"), "ERR Unexpected flag in script shebang: bad");
    }

    #[test]
    fn a_script_that_has_written_is_not_killed() {
        let scripts = Scripts::default();
        assert_eq!(scripts.kill(true), Err(NOT_BUSY));
        let now = crate::clock::monotonic();
        let running = Arc::new(Running::new(Vec::new(), OwnedArgs::default(), true, now, true));
        scripts.note_running(running.clone());
        assert_eq!(scripts.kill(true), Err(UNKILLABLE));
        running.has_written.store(false, Ordering::Release);
        assert_eq!(scripts.kill(false), Err(BUSY_SCRIPT));
        assert_eq!(scripts.kill(true), Ok(()));
        assert!(running.is_killed());
        scripts.note_ended(&running);
        assert_eq!(scripts.kill(true), Err(NOT_BUSY));
    }
}
