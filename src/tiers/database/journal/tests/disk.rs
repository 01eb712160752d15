//! A disk in memory that can lose power, run out of space and fail.
//!
//! When the power goes, what was synced stays. Of what was not, either the first so many changes (the last of them
//! perhaps in part), or any sectors of it, since the kernel writes in any order.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::super::{Handle, Storage};

const SECTOR: usize = 16;

/// Files without their history, by name.
pub type Image = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    locked: Arc<AtomicBool>,
    /// Bytes that fit.
    space: Option<usize>,
    /// Syncs of files that fail from now on, and writes.
    failing_syncs: usize,
    failing_writes: usize,
    /// Changes left until the power goes.
    power: Option<usize>,
    pub syncs: usize,
}

#[derive(Default, Clone)]
struct File {
    content: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Remove(String),
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            content.resize(content.len().max(at + bytes.len()), 0);
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Truncate(len) => content.truncate(*len),
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Set(name, file) => {
            names.retain(|_, other| other != file);
            names.insert(name.clone(), *file);
        }
        NameChange::Remove(name) => drop(names.remove(name)),
    }
}

impl Disk {
    pub fn of(image: &Image) -> Self {
        let disk = Self::default();
        let mut state = disk.0.lock();
        for (index, (name, content)) in image.iter().enumerate() {
            state.names.insert(name.clone(), index);
            let (content, synced) = (content.clone(), content.clone());
            state.files.push(File { content, synced, changes: Vec::new() });
        }
        state.durable_names = state.names.clone();
        drop(state);
        disk
    }

    /// What a process sees.
    pub fn image(&self) -> Image {
        let state = self.0.lock();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].content.clone())).collect()
    }

    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    pub fn set_space(&self, bytes: Option<usize>) {
        self.0.lock().space = bytes;
    }

    pub fn used(&self) -> usize {
        self.0.lock().used()
    }

    pub fn fail_syncs(&self, count: usize) {
        self.0.lock().failing_syncs = count;
    }

    pub fn fail_writes(&self, count: usize) {
        self.0.lock().failing_writes = count;
    }

    pub fn cut_power_after(&self, changes: usize) {
        self.0.lock().power = Some(changes);
    }

    /// What is on the disk when the power has gone, which it has now.
    pub fn after_power_cut(&self, seed: u64, in_order: bool) -> Image {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = self.0.lock();
        state.power = Some(0);
        let mut names = state.durable_names.clone();
        let kept = random.usize(..=state.name_changes.len());
        state.name_changes[..kept].iter().for_each(|change| apply_name(&mut names, change));
        names
            .into_iter()
            .map(|(name, file)| (name, state.files[file].survivor(&mut random, in_order)))
            .collect()
    }
}

impl File {
    fn survivor(&self, random: &mut fastrand::Rng, in_order: bool) -> Vec<u8> {
        let mut content = self.synced.clone();
        let mut left = if in_order { random.usize(..=self.changes.len()) } else { self.changes.len() };
        for change in &self.changes {
            let last = left == 0;
            match change {
                Change::Write(at, bytes) if in_order && last => {
                    let part = bytes[..random.usize(..=bytes.len())].to_vec();
                    apply(&mut content, &Change::Write(*at, part));
                }
                Change::Write(at, bytes) if !in_order => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let end = ((at + start) / SECTOR * SECTOR + SECTOR - at).min(bytes.len());
                        if random.bool() {
                            apply(&mut content, &Change::Write(at + start, bytes[start..end].to_vec()));
                        }
                        start = end;
                    }
                }
                Change::Truncate(_) if last && in_order || !in_order && random.bool() => {}
                change => apply(&mut content, change),
            }
            if in_order && last {
                break;
            }
            left = left.saturating_sub(1);
        }
        content
    }
}

impl State {
    fn used(&self) -> usize {
        self.names.values().map(|file| self.files[*file].content.len()).sum()
    }

    /// Counts a change; without power there is none.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.name_changes.push(change);
    }
}

/// A lock that ends with its holder.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct Open(Disk, usize);

impl Storage for Disk {
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let locked = Arc::clone(&self.0.lock().locked);
        if locked.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        Ok(Some(Box::new(Guard(locked))))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str, limit: u64, into: &mut Vec<u8>) -> io::Result<u64> {
        let state = self.0.lock();
        let content = &state.files[state.file(name)?].content;
        into.clear();
        into.extend_from_slice(&content[..content.len().min(limit as usize)]);
        Ok(content.len() as u64)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        let file = self.0.lock().file(name)?;
        Ok(Arc::new(Open(self.clone(), file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Handle>> {
        let mut state = self.0.lock();
        state.change()?;
        state.files.push(File::default());
        let file = state.files.len() - 1;
        state.change_name(NameChange::Set(name.to_owned(), file));
        Ok(Arc::new(Open(self.clone(), file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        let file = state.file(from)?;
        state.change_name(NameChange::Set(to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        state.file(name)?;
        state.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change()?;
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }
}

impl Handle for Open {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.change()?;
        let (used, at) = (state.used(), offset as usize);
        let len = state.files[self.1].content.len();
        let grows = (at + bytes.len()).saturating_sub(len);
        let short = state.space.map_or(0, |space| (used + grows).saturating_sub(space)).min(grows);
        let failing = state.failing_writes > 0;
        let part = if failing { bytes.len() / 2 } else { bytes.len() - short };
        let change = Change::Write(at, bytes[..part].to_vec());
        apply(&mut state.files[self.1].content, &change);
        state.files[self.1].changes.push(change);
        if failing {
            state.failing_writes -= 1;
            return Err(io::Error::other("bad write"));
        }
        if short > 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.change()?;
        let change = Change::Truncate(len as usize);
        apply(&mut state.files[self.1].content, &change);
        state.files[self.1].changes.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.0.lock();
        state.change()?;
        state.syncs += 1;
        if state.failing_syncs > 0 {
            state.failing_syncs -= 1;
            // As kernels do: the pages are taken for clean, and are not on the disk.
            state.files[self.1].changes.clear();
            return Err(io::Error::other("bad sync"));
        }
        let file = &mut state.files[self.1];
        let changes = std::mem::take(&mut file.changes);
        changes.iter().for_each(|change| apply(&mut file.synced, change));
        Ok(())
    }
}
