//! The command table: rows by name.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::FAMILIES;
use super::keys::{Begin, Find};
use super::routing::Routing;
use super::spec::{CommandSpec, Scope};
use crate::protocol::{Args, ReplyError};

/// A row with what follows from it.
pub struct Command {
    /// The row.
    pub spec: &'static CommandSpec,
    /// The full name: `config|get` for a subcommand.
    pub name: String,
    /// Its place in the table, the index of its statistics.
    pub index: usize,
    single_key: Option<usize>,
    /// Where it runs if there is an upstream.
    pub routing: Routing,
    /// The container's place, for a subcommand.
    pub parent: Option<usize>,
    /// The subcommands' places by name.
    subcommands: HashMap<&'static str, usize>,
}

/// All commands.
pub struct CommandTable {
    commands: Vec<Command>,
    /// Names of up to 16 bytes, at their hash's place or behind it.
    slots: Box<[Slot]>,
    /// The longer ones.
    long: HashMap<Vec<u8>, usize>,
}

/// A name, packed into an integer, with its length (a name that ends in zeros is another), and its command's place.
#[derive(Clone, Copy, Default)]
struct Slot {
    name: u128,
    len: u32,
    index: u32,
}

/// The table, built from the rows once.
pub static COMMANDS: LazyLock<CommandTable> = LazyLock::new(CommandTable::build);

const SLOTS: usize = 1024;

impl CommandTable {
    fn build() -> Self {
        let mut commands = Vec::new();
        for spec in FAMILIES.iter().flat_map(|family| family.iter()) {
            let parent = commands.len();
            commands.push(Command::new(spec, spec.name.to_owned(), parent, None));
            for subcommand in spec.subcommands() {
                let index = commands.len();
                let name = format!("{}|{}", spec.name, subcommand.name);
                commands.push(Command::new(subcommand, name, index, Some(parent)));
                commands[parent].subcommands.insert(subcommand.name, index);
            }
        }
        let mut slots = vec![Slot::default(); SLOTS].into_boxed_slice();
        let mut long = HashMap::new();
        for command in commands.iter().filter(|command| command.parent.is_none()) {
            match pack(command.name.as_bytes()) {
                Some(packed) => {
                    let mut slot = slot_of(packed);
                    while slots[slot].len != 0 {
                        slot = (slot + 1) % SLOTS;
                    }
                    let (len, index) = (command.name.len() as u32, command.index as u32);
                    slots[slot] = Slot { name: packed, len, index };
                }
                None => drop(long.insert(command.name.clone().into_bytes(), command.index)),
            }
        }
        Self { commands, slots, long }
    }

    /// The command of this name, in any case.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Command> {
        let Some(packed) = pack(name) else {
            return self.long.get(&name.to_ascii_lowercase()).map(|&index| &self.commands[index]);
        };
        let mut slot = slot_of(packed);
        loop {
            let found = self.slots[slot];
            if found.name == packed && found.len as usize == name.len() {
                return Some(&self.commands[found.index as usize]);
            }
            if found.len == 0 {
                return None;
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The command of a full name, `config|get` for a subcommand, in any case.
    pub fn find(&self, name: &[u8]) -> Option<&Command> {
        match name.iter().position(|byte| *byte == b'|') {
            None => self.get(name),
            Some(at) => self.get(&name[..at]).and_then(|command| self.subcommand(command, &name[at + 1..])),
        }
    }

    /// The command a request names: the subcommand, if it names one.
    ///
    /// # Errors
    /// That there is no such command or subcommand, in Redis's words.
    #[inline]
    pub fn resolve(&self, args: Args<'_>) -> Result<&Command, ReplyError> {
        let Some(command) = self.get(args.at(0)) else { return Err(unknown_command(args)) };
        if command.subcommands.is_empty() || args.len() < 2 {
            return Ok(command);
        }
        self.subcommand(command, args.at(1)).ok_or_else(|| {
            let shown = &args.at(1)[..args.at(1).len().min(128)];
            let help = command.name.to_uppercase();
            ReplyError::showing("ERR unknown subcommand '", shown, &format!("'. Try {help} HELP."))
        })
    }

    /// A container's subcommand of this name, in any case.
    pub fn subcommand(&self, container: &Command, name: &[u8]) -> Option<&Command> {
        let name = name.to_ascii_lowercase();
        let index = container.subcommands.get(std::str::from_utf8(&name).ok()?)?;
        Some(&self.commands[*index])
    }

    /// The command at a place.
    pub fn at(&self, index: usize) -> &Command {
        &self.commands[index]
    }

    /// All of them, subcommands right behind their containers.
    pub fn iter(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// Those that are no subcommands.
    pub fn top_level(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(|command| command.parent.is_none())
    }

    /// How many there are, subcommands included.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is none, which never is.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

impl Command {
    fn new(spec: &'static CommandSpec, name: String, index: usize, parent: Option<usize>) -> Self {
        let single_key = match spec.keys {
            [one] if spec.get_keys.is_none() && matches!(spec.scope, Scope::Keys) => {
                match (one.begin, one.find) {
                    (Begin::Index(index), Find::Range { last: 0, .. }) => Some(index),
                    _ => None,
                }
            }
            _ => None,
        };
        let routing = Routing::of(spec);
        Self { spec, name, index, single_key, routing, parent, subcommands: HashMap::new() }
    }
}

impl Command {
    /// Whether its name alone says which command it is, without the argument behind it.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.parent.is_none() && self.subcommands.is_empty()
    }

    /// The argument that is its only key and decides what it locks, in the common case.
    #[inline]
    pub fn single_key(&self) -> Option<usize> {
        self.single_key
    }
}

/// A name of up to 16 bytes in lower case as one integer.
#[inline]
fn pack(name: &[u8]) -> Option<u128> {
    let len = name.len();
    // Two overlapping words cover each length without a loop.
    let packed = match len {
        8..=16 => {
            let low = u64::from_le_bytes(*name.first_chunk()?);
            let high = u64::from_le_bytes(*name.last_chunk()?);
            u128::from(lower(low)) | u128::from(lower(high)) << ((len - 8) * 8)
        }
        4..=7 => {
            let low = u64::from(u32::from_le_bytes(*name.first_chunk()?));
            let high = u64::from(u32::from_le_bytes(*name.last_chunk()?));
            u128::from(lower(low | high << ((len - 4) * 8)))
        }
        _ => match *name {
            [a] => u128::from(lower(u64::from(a))),
            [a, b] => u128::from(lower(u64::from(u16::from_le_bytes([a, b])))),
            [a, b, c] => u128::from(lower(u64::from(u32::from_le_bytes([a, b, c, 0])))),
            _ => return None,
        },
    };
    Some(packed)
}

/// Eight bytes in lower case.
#[inline]
fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let seven = word & (EACH * 0x7f);
    let from_a = seven + EACH * (0x80 - b'A' as u64);
    let beyond_z = seven + EACH * (0x80 - b'Z' as u64 - 1);
    let upper = (from_a ^ beyond_z) & !word & (EACH * 0x80);
    word | upper >> 2
}

#[inline]
fn slot_of(packed: u128) -> usize {
    let folded = (packed as u64) ^ ((packed >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize % SLOTS
}

#[cold]
fn unknown_command(args: Args<'_>) -> ReplyError {
    // Redis prints them as C strings, which end at a zero.
    let shown = |bytes: &[u8], limit: usize| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes[..end.min(limit)].to_vec()
    };
    let mut beginning = Vec::new();
    for argument in args.skip(1).iter() {
        if beginning.len() >= 128 {
            break;
        }
        let rest = 128 - beginning.len();
        beginning.extend([b"'", shown(argument, rest).as_slice(), b"' "].concat());
    }
    let name = shown(args.at(0), 128);
    let parts: [&[u8]; 4] = [b"ERR unknown command '", &name, b"', with args beginning with: ", &beginning];
    ReplyError::new(parts.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Names are found by the bytes that they have, in any case, and by no others.
        #[test]
        fn packing_is_lower_case_of_the_same_bytes(name in prop::collection::vec(any::<u8>(), 0..20)) {
            let expected = (1..=16).contains(&name.len()).then(|| {
                let mut bytes = [0; 16];
                bytes[..name.len()].copy_from_slice(&name.to_ascii_lowercase());
                u128::from_le_bytes(bytes)
            });
            prop_assert_eq!(pack(&name), expected);
        }
    }

    #[test]
    fn a_name_is_another_with_a_zero_behind_it() {
        assert_eq!(COMMANDS.get(b"GeT").map(|command| &*command.name), Some("get"));
        for other in [&b"get\0"[..], b"get ", b"", b"\0", b"ge", b"client\0list", b"DB\x0eFLUSH"] {
            assert!(COMMANDS.get(other).is_none(), "{}", other.escape_ascii());
        }
        for command in COMMANDS.top_level() {
            let found = COMMANDS.get(command.name.to_uppercase().as_bytes());
            assert_eq!(found.map(|found| found.index), Some(command.index));
        }
    }
}
