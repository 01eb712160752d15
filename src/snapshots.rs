//! Snapshots as files: written when asked for, on a schedule and at the end, read at the start.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use memmap2::Mmap;
use parking_lot::Mutex;

use crate::clock;
use crate::config::{Id, Settings};
use crate::libraries::Libraries;
use crate::tiers::local::{Effects, Entry, Event, Keyspace, LockPlan, View, rdb_limits};
use crate::types::rdb::{FileError, FileWriter, Record, read_file};

/// After a failure the schedule waits so long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a snapshot is of.
pub struct Contents {
    /// The keys.
    pub keyspace: &'static Keyspace,
    /// The functions.
    pub libraries: &'static Libraries,
    /// Where the file is.
    pub settings: Arc<Settings>,
    /// The version of Redis that the file is said to be of.
    pub redis_version: &'static str,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// One is being written.
    #[error("a snapshot is being written")]
    InProgress,
    /// A script holds keys beyond its time; the thread that asks may be the one to go on with it.
    #[error("a script holds keys")]
    Busy,
    /// Nobody writes snapshots: there is an upstream.
    #[error("there are no snapshots")]
    NotStarted,
    /// It cannot be written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Why a snapshot is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("{0} cannot be read: {1}")]
    Io(PathBuf, io::Error),
    /// It is damaged or unknown.
    #[error("{0} cannot be loaded: {1}")]
    File(PathBuf, FileError),
    /// A key is in a database that is not there.
    #[error("{0} has keys of database {1}, and there are fewer")]
    Database(PathBuf, usize),
}

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Keys that are there now.
    pub keys: u64,
    /// Keys whose time had come.
    pub expired: u64,
    /// Keys that are rows of a database, which knows better.
    pub rows: u64,
}

/// What is known of the last snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Last {
    /// When it was written, or the server started, in seconds since the Unix epoch.
    pub saved_s: u64,
    /// How many changes there had been.
    pub changes: u64,
    /// Whether the last try went well.
    pub is_ok: bool,
    /// How long it took.
    pub took: Option<Duration>,
    /// When one that is being written began.
    pub began: Option<Instant>,
    /// When the last try ended.
    tried: Option<Instant>,
    /// How many there were.
    pub saves: u64,
    /// What was loaded at the start.
    pub loaded: Loaded,
}

/// The snapshots of a server.
pub struct Snapshots {
    contents: std::sync::OnceLock<Contents>,
    is_busy: AtomicBool,
    last: Mutex<Last>,
    wanted: Sender<()>,
    queue: Mutex<Option<Receiver<()>>>,
}

impl Default for Snapshots {
    fn default() -> Self {
        let (wanted, queue) = channel();
        let last = Last {
            saved_s: clock::wall_ms() / 1000,
            changes: 0,
            is_ok: true,
            took: None,
            began: None,
            tried: None,
            saves: 0,
            loaded: Loaded::default(),
        };
        Self {
            contents: std::sync::OnceLock::new(),
            is_busy: AtomicBool::new(false),
            last: Mutex::new(last),
            wanted,
            queue: Mutex::new(Some(queue)),
        }
    }
}

impl Snapshots {
    /// Starts the thread that writes them in the background.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&'static self, contents: Contents) -> io::Result<()> {
        self.contents.get_or_init(|| contents);
        let Some(queue) = self.queue.lock().take() else { return Ok(()) };
        std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            for () in queue {
                if let Err(error) = self.write() {
                    tracing::error!(%error, "no snapshot");
                }
                self.is_busy.store(false, Ordering::Release);
            }
        })?;
        Ok(())
    }

    /// What is known of the last one.
    pub fn last(&self) -> Last {
        *self.last.lock()
    }

    /// Writes one, in this thread.
    ///
    /// # Errors
    /// If one is being written already, a script is in the way, or it cannot be written.
    pub fn save(&self) -> Result<(), SaveError> {
        let contents = self.contents.get().ok_or(SaveError::NotStarted)?;
        if contents.keyspace.is_held() {
            return Err(SaveError::Busy);
        }
        if self.is_busy.swap(true, Ordering::Acquire) {
            return Err(SaveError::InProgress);
        }
        let saved = self.write();
        self.is_busy.store(false, Ordering::Release);
        saved
    }

    /// The same at the end of the server, after one that is being written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_last(&self) -> Result<(), SaveError> {
        loop {
            match self.save() {
                Err(SaveError::InProgress) => std::thread::sleep(Duration::from_millis(5)),
                saved => return saved,
            }
        }
    }

    /// Has one written in the background.
    ///
    /// # Errors
    /// If one is being written already.
    pub fn begin(&self) -> Result<(), SaveError> {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return Err(SaveError::InProgress);
        }
        self.wanted.send(()).map_err(|_| SaveError::NotStarted)
    }

    /// Has one written if the schedule of `save` says so.
    pub fn follow_schedule(&self) {
        let Some(contents) = self.contents.get() else { return };
        let points = contents.settings.save_points();
        if points.is_empty() || self.is_busy.load(Ordering::Relaxed) {
            return;
        }
        let last = self.last();
        if !last.is_ok && last.tried.is_some_and(|tried| tried.elapsed() < RETRY_AFTER) {
            return;
        }
        let since = (clock::wall_ms() / 1000).saturating_sub(last.saved_s);
        let changes = contents.keyspace.changes().saturating_sub(last.changes);
        if points.iter().any(|point| since > point.seconds && changes >= point.changes) {
            tracing::info!(changes, seconds = since, "a snapshot is due");
            // One that began meanwhile will do.
            drop(self.begin());
        }
    }

    fn write(&self) -> Result<(), SaveError> {
        let contents = self.contents.get().ok_or(SaveError::NotStarted)?;
        let began = clock::monotonic();
        self.last.lock().began = Some(began);
        let changes = contents.keyspace.changes();
        let path = path(&contents.settings);
        let written = contents.write(&path);
        let mut last = self.last.lock();
        last.began = None;
        last.tried = Some(clock::monotonic());
        last.took = Some(began.elapsed());
        last.is_ok = written.is_ok();
        let (keys, bytes) = written.map_err(|error| SaveError::Io(path, error))?;
        last.saved_s = clock::wall_ms() / 1000;
        last.changes = changes;
        last.saves += 1;
        tracing::info!(keys, bytes, millis = began.elapsed().as_millis() as u64, "a snapshot is written");
        Ok(())
    }

    /// Loads the file, if there is one; the sources of its libraries of functions, which are yet to be loaded. `is_row` tells keys that are rows of a database: those are read from there.
    ///
    /// # Errors
    /// If it is not what it should be: nobody is to be served from half of it.
    pub fn load(&self, is_row: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, LoadError> {
        let Some(contents) = self.contents.get() else { return Ok(Vec::new()) };
        let path = path(&contents.settings);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LoadError::Io(path, error)),
        };
        let (loaded, libraries) = contents.load(&path, &file, is_row)?;
        tracing::info!(
            keys = loaded.keys,
            expired = loaded.expired,
            rows = loaded.rows,
            "a snapshot is loaded"
        );
        let mut last = self.last.lock();
        last.loaded = loaded;
        last.changes = contents.keyspace.changes();
        Ok(libraries)
    }
}

/// Where the file is.
fn path(settings: &Settings) -> PathBuf {
    Path::new(&*settings.text(Id::Dir)).join(&*settings.text(Id::Dbfilename))
}

impl Contents {
    /// Writes a file and puts it in the place of the one before; how many keys it has, and how many bytes.
    fn write(&self, path: &Path) -> io::Result<(u64, u64)> {
        let beside = path.with_file_name(format!("temp-{}.rdb", std::process::id()));
        let written = self.write_to(&beside).and_then(|written| {
            std::fs::rename(&beside, path)?;
            // The name is to be on disk as well.
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(written)
        });
        if written.is_err()
            && let Err(error) = std::fs::remove_file(&beside)
        {
            tracing::debug!(%error, "an unfinished snapshot stays");
        }
        written
    }

    fn write_to(&self, path: &Path) -> io::Result<(u64, u64)> {
        let mut writer = FileWriter::new(File::create(path)?, self.redis_version, clock::wall_ms() / 1000);
        for library in self.libraries.snapshot().iter() {
            writer.library(&library.source)?;
        }
        let (writer, keys) = self.keyspace.snapshot(writer)?;
        let file = writer.finish()?;
        file.sync_all()?;
        Ok((keys, file.metadata()?.len()))
    }

    fn load(
        &self,
        path: &Path,
        file: &File,
        is_row: impl Fn(&[u8]) -> bool,
    ) -> Result<(Loaded, Vec<Vec<u8>>), LoadError> {
        // SAFETY: nobody writes to a snapshot's file: another is written beside it and takes its name. Somebody who cuts it
        // off all the same ends this process by SIGBUS, before it has served anybody.
        let bytes = unsafe { Mmap::map(file) }.map_err(|error| LoadError::Io(path.to_owned(), error))?;
        let (now_ms, mut effects) = (clock::wall_ms(), Effects::default());
        let mut view = View::new(self.keyspace, &LockPlan::All, 0, now_ms, &mut effects);
        let (mut loaded, mut fault, mut libraries) = (Loaded::default(), None, Vec::new());
        let databases = view.databases();
        let read = read_file(&bytes, &rdb_limits(&self.settings), |record| match record {
            Record::Library(source) => libraries.push(source.into_owned()),
            Record::Entry { db, .. } if db >= databases => {
                fault = Some(LoadError::Database(path.to_owned(), db));
            }
            Record::Entry { deadline: Some(deadline), .. } if deadline <= now_ms => loaded.expired += 1,
            Record::Entry { key, .. } if is_row(&key) => loaded.rows += 1,
            Record::Entry { db, key, value, deadline } => {
                view.select(db);
                view.put_entry(Entry::decoded(&key, value, deadline), Event::SILENT);
                loaded.keys += 1;
            }
        });
        drop(view);
        read.map_err(|error| LoadError::File(path.to_owned(), error))?;
        fault.map_or(Ok((loaded, libraries)), Err)
    }
}
