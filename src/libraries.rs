//! Libraries of functions: their sources, and which function is in which.
//!
//! All threads share them as bytecode; each loads those that it calls into its own machine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::lua;
use crate::protocol::ReplyError;
use crate::scripts::{Flags, first_line};

/// The name of a library's source in the places of errors.
pub const SOURCE_NAME: &std::ffi::CStr = c"@user_function";

/// Why a name is none. Redis says so of functions as well.
pub const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one \
    character long";

/// A function as its library registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name.
    pub name: Vec<u8>,
    /// What it does, in its author's words.
    pub description: Option<Vec<u8>>,
    /// What it says of itself.
    pub flags: Flags,
}

/// A library, compiled.
pub struct Library {
    /// Its name.
    pub name: Vec<u8>,
    /// Its source.
    pub source: Vec<u8>,
    /// What machines load.
    pub bytecode: Vec<u8>,
    /// What it registered.
    pub functions: Vec<FunctionInfo>,
}

/// Whether a library or a function may be called so.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Functions are found in any case.
pub fn folded(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase()
}

impl Library {
    /// Compiles a source. What it registers is known only when it has run.
    ///
    /// # Errors
    /// Its first line makes no sense, or it is no Lua.
    pub fn compile(source: &[u8]) -> Result<Self, ReplyError> {
        if !source.starts_with(b"#!") {
            return Err(ReplyError::fixed("ERR Missing library metadata"));
        }
        let invalid = ReplyError::fixed("ERR Invalid library metadata");
        let (words, end) = first_line(source).ok_or(invalid.clone())?;
        let (engine, options) = words.split_first().ok_or(invalid)?;
        let mut name = None;
        for option in options {
            if option.len() < 5 || !option[..5].eq_ignore_ascii_case(b"name=") {
                return Err(ReplyError::showing("ERR Invalid metadata value given: ", option, ""));
            }
            if name.replace(&option[5..]).is_some() {
                return Err(ReplyError::fixed(
                    "ERR Invalid metadata value, name argument was given multiple times",
                ));
            }
        }
        let name = name.ok_or(ReplyError::fixed("ERR Library name was not given"))?;
        if !is_name(name) {
            return Err(ReplyError::new(format!("ERR {BAD_NAME}")));
        }
        if !engine[2..].eq_ignore_ascii_case(b"lua") {
            return Err(ReplyError::showing("ERR Engine '", &engine[2..], "' not found"));
        }
        let bytecode = lua::compile(&source[end..], "user_function")
            .map_err(|error| ReplyError::new(format!("ERR Error compiling function: {error}")))?;
        Ok(Self { name: name.to_vec(), source: source.to_vec(), bytecode, functions: Vec::new() })
    }
}

/// Libraries by name, and functions by theirs.
#[derive(Clone, Default)]
pub struct LibrarySet {
    libraries: BTreeMap<Vec<u8>, Arc<Library>>,
    functions: HashMap<Vec<u8>, Arc<Library>>,
}

impl LibrarySet {
    /// Adds libraries, all or none; `replaces` those of the same names.
    ///
    /// # Errors
    /// A library or a function of a name is there already. `texts` has what is put around the name of a library.
    fn add(
        &mut self,
        added: Vec<Arc<Library>>,
        replaces: bool,
        texts: (&str, &str),
    ) -> Result<(), ReplyError> {
        let mut after = self.clone();
        for library in &added {
            if after.libraries.contains_key(&library.name) {
                if !replaces {
                    return Err(ReplyError::showing(texts.0, &library.name, texts.1));
                }
                after.remove(&library.name);
            }
        }
        for library in added {
            for function in &library.functions {
                if after.functions.insert(folded(&function.name), library.clone()).is_some() {
                    return Err(ReplyError::showing("ERR Function ", &function.name, " already exists"));
                }
            }
            after.libraries.insert(library.name.clone(), library);
        }
        *self = after;
        Ok(())
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        self.functions.retain(|_, library| library.name != name);
        self.libraries.remove(name).is_some()
    }

    /// All libraries by their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Library>> {
        self.libraries.values()
    }
}

/// What happens to the libraries that are there when others are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// They stay; a name that is there already is an error.
    Append,
    /// Those of the same names go.
    Replace,
    /// All go.
    Flush,
}

/// The libraries of the server.
#[derive(Default)]
pub struct Libraries {
    set: RwLock<LibrarySet>,
    generation: AtomicU64,
}

impl Libraries {
    /// How often they changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The library of a function.
    pub fn of_function(&self, name: &[u8]) -> Option<Arc<Library>> {
        self.set.read().functions.get(&folded(name)).cloned()
    }

    /// The library of a name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Library>> {
        self.set.read().libraries.get(name).cloned()
    }

    /// All of them, as they are now.
    pub fn snapshot(&self) -> LibrarySet {
        self.set.read().clone()
    }

    fn change<T>(&self, change: impl FnOnce(&mut LibrarySet) -> T) -> T {
        let mut set = self.set.write();
        let result = change(&mut set);
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// Adds a library.
    ///
    /// # Errors
    /// Its name or that of one of its functions is taken.
    pub fn add(&self, library: Arc<Library>, replaces: bool) -> Result<(), ReplyError> {
        self.change(|set| set.add(vec![library], replaces, ("ERR Library '", "' already exists")))
    }

    /// Adds libraries, all or none.
    ///
    /// # Errors
    /// A name is taken.
    pub fn restore(&self, libraries: Vec<Arc<Library>>, how: Restore) -> Result<(), ReplyError> {
        self.change(|set| {
            let mut base = if how == Restore::Flush { LibrarySet::default() } else { set.clone() };
            base.add(libraries, how == Restore::Replace, ("ERR Library ", " already exists"))?;
            *set = base;
            Ok(())
        })
    }

    /// Removes a library; whether it was there.
    pub fn remove(&self, name: &[u8]) -> bool {
        self.change(|set| set.remove(name))
    }

    /// Removes all.
    pub fn flush(&self) {
        self.change(|set| *set = LibrarySet::default());
    }

    /// How many libraries and functions there are, and the bytes they take.
    pub fn usage(&self) -> (usize, usize, usize) {
        let set = self.set.read();
        let bytes = |library: &Arc<Library>| {
            size_of::<Library>()
                + library.source.len()
                + library.bytecode.len()
                + library.functions.len() * size_of::<FunctionInfo>()
        };
        (set.libraries.len(), set.functions.len(), set.iter().map(bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, functions: &[&str]) -> Arc<Library> {
        let mut library = Library::compile(format!("#!lua name={name}\n").as_bytes()).unwrap();
        let info = |name: &&str| FunctionInfo {
            name: name.as_bytes().to_vec(),
            description: None,
            flags: Flags::default(),
        };
        library.functions = functions.iter().map(info).collect();
        Arc::new(library)
    }

    #[test]
    fn names_are_taken_once_and_nothing_changes_on_an_error() {
        let libraries = Libraries::default();
        libraries.add(library("one", &["a", "b"]), false).unwrap();
        assert_eq!(
            libraries.add(library("one", &["c"]), false).unwrap_err().to_string(),
            "ERR Library 'one' already exists"
        );
        assert_eq!(
            libraries.add(library("two", &["c", "A"]), false).unwrap_err().to_string(),
            "ERR Function A already exists"
        );
        assert_eq!((libraries.usage().0, libraries.usage().1), (1, 2));
        libraries.add(library("one", &["c"]), true).unwrap();
        assert!(libraries.of_function(b"a").is_none() && libraries.of_function(b"C").is_some());
        let two = vec![library("one", &["x"]), library("two", &["y"])];
        assert!(libraries.restore(two.clone(), Restore::Append).is_err());
        libraries.restore(two.clone(), Restore::Replace).unwrap();
        libraries.restore(two, Restore::Flush).unwrap();
        assert!(libraries.remove(b"two") && !libraries.remove(b"two"));
        assert_eq!((libraries.usage().0, libraries.usage().1), (1, 1));
    }
}
