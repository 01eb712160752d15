//! A set of rules that allow a request, if all of it is in the set: commands, keys and channels.

use std::collections::BTreeMap;

use super::{Denied, Wanted};
use crate::types::glob;

/// What is done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Its value is read.
    pub read: bool,
    /// It is changed.
    pub write: bool,
}

/// Keys whose names match, and what may be done to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    /// The pattern.
    pub pattern: Box<[u8]>,
    /// What may be done.
    pub allows: Need,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// A bit for each command that is allowed.
    commands: Vec<u64>,
    /// Whether that is every one.
    pub all_commands: bool,
    /// Whether the rules began with all commands.
    pub from_all: bool,
    /// Commands that are allowed with one of these arguments behind their names.
    pub first_arguments: BTreeMap<usize, Vec<Box<[u8]>>>,
    /// The rules on commands as they were given, behind the first: each with a space before it.
    pub command_rules: String,
    /// All keys, whatever is done to them.
    pub all_keys: bool,
    /// Those of these patterns.
    pub keys: Vec<KeyPattern>,
    /// All channels.
    pub all_channels: bool,
    /// Those of these patterns.
    pub channels: Vec<Box<[u8]>>,
}

impl Selector {
    /// One that allows nothing but, perhaps, all channels.
    pub fn new(all_channels: bool) -> Self {
        Self { all_channels, ..Self::default() }
    }

    /// One that allows everything.
    pub fn all() -> Self {
        Self { all_commands: true, from_all: true, all_keys: true, all_channels: true, ..Self::default() }
    }

    /// Whether it does.
    pub fn is_unrestricted(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels
    }

    /// Allows all commands, those to come too, or none.
    pub fn set_all_commands(&mut self, allowed: bool) {
        (self.all_commands, self.from_all) = (allowed, allowed);
        self.commands.clear();
        self.first_arguments.clear();
        self.command_rules.clear();
    }

    /// Allows a command or not; there are so many.
    pub fn set_command(&mut self, index: usize, allowed: bool, commands: usize) {
        self.first_arguments.remove(&index);
        if self.all_commands && allowed {
            return;
        }
        self.restrict(commands);
        self.commands.resize(commands.div_ceil(64), 0);
        let bit = 1 << (index % 64);
        if allowed {
            self.commands[index / 64] |= bit;
        } else {
            self.commands[index / 64] &= !bit;
        }
    }

    /// Allows all commands that there are, so many, rather than everything there may be.
    pub fn restrict(&mut self, commands: usize) {
        if self.all_commands {
            self.all_commands = false;
            self.commands = vec![u64::MAX; commands.div_ceil(64)];
        }
    }

    /// Whether a command is allowed, whatever its arguments.
    pub fn allows_command(&self, index: usize) -> bool {
        self.all_commands || self.commands.get(index / 64).is_some_and(|bits| bits >> (index % 64) & 1 == 1)
    }

    /// Allows keys of a pattern.
    pub fn add_keys(&mut self, pattern: &[u8], allows: Need) {
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => {
                known.allows.read |= allows.read;
                known.allows.write |= allows.write;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.into(), allows }),
        }
    }

    /// Whether every key may be read.
    pub fn reads_all_keys(&self) -> bool {
        self.all_keys || self.keys.iter().any(|known| *known.pattern == *b"*" && known.allows.read)
    }

    fn allows_key(&self, key: &[u8], need: Need) -> bool {
        self.all_keys
            || self.keys.iter().any(|known| {
                (known.allows.read || !need.read)
                    && (known.allows.write || !need.write)
                    && glob::matches(&known.pattern, key)
            })
    }

    /// Whether a channel may be used; of patterns, those that are given to the letter.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let matches = |known: &[u8]| {
            if is_pattern { known == channel } else { glob::matches(known, channel) }
        };
        self.all_channels || self.channels.iter().any(|known| matches(known))
    }

    fn allows_first_argument(&self, wanted: &Wanted<'_>) -> bool {
        let Some(allowed) = self.first_arguments.get(&wanted.command) else { return false };
        wanted
            .first_argument
            .is_some_and(|given| allowed.iter().any(|known| known.eq_ignore_ascii_case(given)))
    }

    /// Whether a request may run.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, wanted: &Wanted<'_>) -> Result<(), Denied> {
        if !wanted.is_free && !self.allows_command(wanted.command) && !self.allows_first_argument(wanted) {
            return Err(Denied::Command);
        }
        if let Some(at) = wanted.keys.iter().position(|(key, need)| !self.allows_key(key, *need)) {
            return Err(Denied::Key(at));
        }
        let denied = |(channel, is_pattern): &(&[u8], bool)| !self.allows_channel(channel, *is_pattern);
        match wanted.channels.iter().position(denied) {
            Some(at) => Err(Denied::Channel(at)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Need = Need { read: true, write: false };
    const WRITE: Need = Need { read: false, write: true };

    fn wanted<'a>(command: usize, keys: &'a [(&'a [u8], Need)]) -> Wanted<'a> {
        Wanted { command, is_free: false, first_argument: None, keys, channels: &[] }
    }

    #[test]
    fn commands_are_allowed_one_by_one() {
        let mut selector = Selector::default();
        assert_eq!(selector.check(&wanted(70, &[])), Err(Denied::Command));
        selector.set_command(70, true, 200);
        assert_eq!((selector.allows_command(70), selector.allows_command(71)), (true, false));
        selector.set_all_commands(true);
        selector.set_command(5, false, 200);
        assert_eq!((selector.allows_command(5), selector.allows_command(199)), (false, true));
        assert!(selector.from_all && !selector.all_commands);
        selector.first_arguments.insert(5, vec![(*b"one").into()]);
        let named = Wanted { first_argument: Some(b"ONE"), ..wanted(5, &[]) };
        assert_eq!(selector.check(&named), Ok(()));
        assert_eq!(selector.check(&wanted(5, &[])), Err(Denied::Command));
        selector.set_command(5, false, 200);
        assert_eq!(selector.check(&named), Err(Denied::Command));
    }

    #[test]
    fn keys_are_allowed_for_what_is_done_to_them() {
        let mut selector = Selector { all_commands: true, ..Selector::default() };
        selector.add_keys(b"r*", READ);
        selector.add_keys(b"w*", WRITE);
        let check = |key: &'static [u8], need| selector.check(&wanted(0, &[(b"rw", READ), (key, need)]));
        assert_eq!(check(b"r1", READ), Ok(()));
        assert_eq!(check(b"w1", WRITE), Ok(()));
        assert_eq!(check(b"w1", READ), Err(Denied::Key(1)));
        assert_eq!(check(b"x", Need::default()), Err(Denied::Key(1)));
        assert_eq!(check(b"w1", Need::default()), Ok(()));
        selector.add_keys(b"w*", READ);
        assert_eq!(selector.keys.len(), 2);
        assert_eq!(selector.check(&wanted(0, &[(b"w", Need { read: true, write: true })])), Ok(()));
    }

    #[test]
    fn patterns_of_channels_are_allowed_to_the_letter() {
        let selector = Selector { channels: vec![(*b"news.*").into()], ..Selector::default() };
        assert!(selector.allows_channel(b"news.it", false));
        assert!(selector.allows_channel(b"news.*", true));
        assert!(!selector.allows_channel(b"news.it*", true));
        assert!(!selector.allows_channel(b"new", false));
    }
}
