//! The disk, as far as the journal needs it: a seam at which tests put faults.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOCK: &str = "lock";

/// A directory with the files of one journal.
pub trait Storage: Send + Sync {
    /// Takes the directory for this process until the guard is dropped; `None` if another has it.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Replaces the contents of the buffer by those of the file, up to a limit; returns the file's length.
    fn read(&self, name: &str, limit: u64, into: &mut Vec<u8>) -> io::Result<u64>;
    /// An existing file for writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>>;
    /// A new, empty file for writing; an old one of this name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Handle>>;
    /// Gives a file another name, in place of what had that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renamings and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file that can be written.
pub trait Handle: Send + Sync {
    /// Writes all bytes; on error some of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts it off.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the contents durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at this path, made if it is not there.
    pub fn create(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self::at(path))
    }

    /// The directory at this path.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Storage for Directory {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let path = self.path.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, name: &str, limit: u64, into: &mut Vec<u8>) -> io::Result<u64> {
        let file = File::open(self.path.join(name))?;
        let len = file.metadata()?.len();
        into.clear();
        into.reserve_exact(len.min(limit) as usize);
        file.take(limit).read_to_end(into)?;
        Ok(len)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        Ok(Arc::new(OpenOptions::new().write(true).open(self.path.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        Ok(Arc::new(File::create(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Handle for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
