//! What upstream says of its commands: those that have no row here (modules, newer versions) are routed by it.

use std::collections::HashMap;

use super::frame::{elements, integer, text};

/// A command of upstream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCommand {
    /// As `COMMAND` has it: negative for so many or more.
    pub arity: i64,
    /// Changes data.
    pub is_write: bool,
    /// Only reads.
    pub is_readonly: bool,
    /// May block.
    pub is_blocking: bool,
    /// Its keys cannot be found by position.
    pub has_movable_keys: bool,
    /// The first key, the last (from the end if negative), and the distance between keys; 0 if there is none.
    pub positions: (i64, i64, i64),
}

/// Commands by their names in lower case.
#[derive(Debug, Default)]
pub struct Catalogue(HashMap<Vec<u8>, ForeignCommand>);

impl Catalogue {
    /// Reads the reply to `COMMAND`; what cannot be read is left out.
    pub fn read(reply: &[u8]) -> Self {
        let commands = elements(reply).unwrap_or_default();
        Self(commands.iter().filter_map(|command| ForeignCommand::read(command)).collect())
    }

    /// The command of this name.
    pub fn get(&self, name: &[u8]) -> Option<&ForeignCommand> {
        self.0.get(&name.to_ascii_lowercase())
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ForeignCommand {
    fn read(command: &[u8]) -> Option<(Vec<u8>, Self)> {
        let fields = elements(command)?;
        let [name, arity, flags, first, last, step, ..] = fields[..] else { return None };
        // A set in RESP3, an array in RESP2: the flags are the simple strings in it.
        let flags: Vec<&[u8]> = flags.split(|byte| *byte == b'\n').collect();
        let has = |flag: &str| {
            flags.iter().any(|line| {
                line.strip_prefix(b"+").and_then(|line| line.strip_suffix(b"\r")) == Some(flag.as_bytes())
            })
        };
        let command = Self {
            arity: integer(arity)?,
            is_write: has("write"),
            is_readonly: has("readonly"),
            is_blocking: has("blocking"),
            has_movable_keys: has("movablekeys"),
            positions: (integer(first)?, integer(last)?, integer(step)?),
        };
        Some((text(name)?.to_ascii_lowercase(), command))
    }

    /// Which of so many arguments are keys; `None` if positions do not tell.
    pub fn keys(&self, arguments: usize) -> Option<Vec<usize>> {
        if self.has_movable_keys {
            return None;
        }
        let (first, last, step) = self.positions;
        if first <= 0 || step <= 0 {
            return Some(Vec::new());
        }
        let last = if last < 0 { arguments as i64 + last } else { last };
        Some((first..=last.min(arguments as i64 - 1)).step_by(step as usize).map(|at| at as usize).collect())
    }

    /// Whether it takes so many arguments, its name included.
    pub fn accepts(&self, arguments: usize) -> bool {
        let arguments = arguments as i64;
        if self.arity >= 0 { arguments == self.arity } else { arguments >= -self.arity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_both_protocols() {
        for set in ["*2", "~2"] {
            let reply = format!(
                "*1\r\n*10\r\n$4\r\nxadd\r\n:-5\r\n{set}\r\n+write\r\n+denyoom\r\n:1\r\n:-1\r\n:2\r\n*0\r\n*0\r\n*0\r\n*0\r\n"
            );
            let catalogue = Catalogue::read(reply.as_bytes());
            let command = catalogue.get(b"XADD").unwrap();
            assert!(command.is_write && !command.is_readonly && !command.is_blocking);
            assert_eq!(
                (command.keys(6), command.accepts(5), command.accepts(4)),
                (Some(vec![1, 3, 5]), true, false)
            );
        }
        assert!(Catalogue::read(b"-NOPERM\r\n").is_empty());
    }
}
