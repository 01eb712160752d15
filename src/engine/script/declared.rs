//! Whether a script provably reaches no keys but those that it is given, so that it need not lock all others.
//!
//! Looks at the source's tokens and believes little: every call must name its command, and wherever that has a key there
//! must stand `KEYS[1]` or the like, or a local variable that is set to it once. Most scripts of rate limiters and locks
//! are so. All others run under the locks of all shards.

use crate::commands::keys::{Begin, Find};
use crate::commands::spec::{Run, Scope};
use crate::commands::table::{COMMANDS, Command};

/// Names through which a script could reach `redis` or `KEYS` in another way.
const DISTRUSTED: &[&str] = &[
    "_G",
    "getfenv",
    "setfenv",
    "loadstring",
    "load",
    "rawset",
    "rawget",
    "setmetatable",
    "getmetatable",
    "newproxy",
    "function",
    "__redis__err__handler",
];
/// Commands without keys that touch none.
const KEYLESS: &[&str] = &["time", "ping", "echo"];
/// Behind these a name begins an expression, or is compared.
const BEFORE_VALUE: &[&str] =
    &["(", ",", "=", "return", "==", "~=", "..", "<", ">", "<=", ">=", "and", "or", "not", "[", "{"];
/// With these an expression goes on.
const CONTINUES: &[&str] = &[
    "..", "+", "-", "*", "/", "%", "^", ".", "[", "(", ":", "and", "or", "==", "~=", "<", ">", "<=", ">=",
    "{", ",",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A name or a keyword.
    Name(&'a str),
    Number,
    /// A string without escapes.
    Text(&'a str),
    /// Any other string.
    OddText,
    Sign(&'a str),
}

impl<'a> Token<'a> {
    fn is(&self, text: &str) -> bool {
        matches!(self, Self::Name(name) | Self::Sign(name) if *name == text)
    }

    fn is_one_of(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.is(text))
    }

    fn name(&self) -> Option<&'a str> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }
}

/// Whether the script keeps to its keys.
pub(super) fn keeps_to_keys(source: &[u8]) -> bool {
    std::str::from_utf8(source).ok().and_then(tokens).is_some_and(|tokens| Script::new(&tokens).is_sound())
}

struct Script<'a> {
    tokens: &'a [Token<'a>],
    /// How many brackets each token is in.
    depths: Vec<usize>,
    /// Locals that are a key.
    keys: Vec<&'a str>,
}

impl<'a> Script<'a> {
    fn new(tokens: &'a [Token<'a>]) -> Self {
        let mut depth = 0usize;
        let depths = tokens
            .iter()
            .map(|token| {
                if token.is_one_of(&[")", "}", "]"]) {
                    depth = depth.saturating_sub(1);
                }
                let here = depth;
                if token.is_one_of(&["(", "{", "["]) {
                    depth += 1;
                }
                here
            })
            .collect();
        let mut script = Self { tokens, depths, keys: Vec::new() };
        script.keys = script.key_locals();
        script
    }

    fn at(&self, index: usize) -> Token<'a> {
        self.tokens.get(index).copied().unwrap_or(Token::Sign(";"))
    }

    fn before(&self, index: usize) -> Token<'a> {
        index.checked_sub(1).map_or(Token::Sign(";"), |index| self.at(index))
    }

    /// Whether `KEYS[number]` is at an index, with a `]` as its last token.
    fn is_key(&self, index: usize) -> bool {
        self.at(index).is("KEYS")
            && self.at(index + 1).is("[")
            && self.at(index + 2) == Token::Number
            && self.at(index + 3).is("]")
    }

    /// `local name = KEYS[number]`, where the name is set nowhere else.
    fn key_locals(&self) -> Vec<&'a str> {
        let set = |index: usize| {
            let name = self.at(index + 1).name()?;
            let is_set = self.at(index).is("local")
                && self.at(index + 2).is("=")
                && self.is_key(index + 3)
                && !self.at(index + 7).is_one_of(CONTINUES);
            is_set.then_some(name)
        };
        (0..self.tokens.len())
            .filter_map(set)
            .filter(|name| {
                let others = (0..self.tokens.len())
                    .filter(|&index| self.at(index).is(name) && !self.before(index).is_one_of(&[".", ":"]));
                let mut definitions = 0;
                let all_sound = others.into_iter().all(|index| {
                    if index > 0 && set(index - 1).is_some() {
                        definitions += 1;
                        return true;
                    }
                    self.is_only_read(index, index)
                });
                all_sound && definitions == 1
            })
            .collect()
    }

    /// Whether the expression from one token to another is read, not set.
    fn is_only_read(&self, first: usize, last: usize) -> bool {
        let (before, after) = (self.before(first), self.at(last + 1));
        let in_list = before.is(",") || after.is(",");
        before.is_one_of(BEFORE_VALUE) && !after.is("=") && !(in_list && self.depths[first] == 0)
    }

    fn is_sound(&self) -> bool {
        (0..self.tokens.len()).all(|index| match self.at(index) {
            Token::Name(_) if self.before(index).is_one_of(&[".", ":"]) => true,
            Token::Name(name) if DISTRUSTED.contains(&name) => false,
            Token::Name("KEYS") => {
                self.is_key(index) && self.is_only_read(index, index + 3)
                    || self.before(index) == Token::Sign("#") && !self.at(index + 1).is("[")
            }
            Token::Name("redis") => self.is_sound_use(index),
            _ => true,
        })
    }

    /// Whether a use of `redis` calls a command on declared keys, or something harmless.
    fn is_sound_use(&self, index: usize) -> bool {
        if !self.at(index + 1).is(".") {
            return false;
        }
        match self.at(index + 2).name() {
            Some("call" | "pcall") => self.at(index + 3).is("(") && self.is_sound_call(index + 3),
            Some("sha1hex" | "log" | "error_reply" | "status_reply" | "replicate_commands" | "setresp") => {
                self.at(index + 3).is("(")
            }
            Some(name) => name.starts_with("LOG_") || name.starts_with("REDIS_VERSION"),
            None => false,
        }
    }

    /// Whether the call whose arguments begin at a bracket has its keys from `KEYS`.
    fn is_sound_call(&self, open: usize) -> bool {
        let Some(arguments) = self.arguments(open) else { return false };
        let (Some(&(first, end)), true) = (arguments.first(), arguments.len() < 64) else { return false };
        let Token::Text(name) = self.at(first) else { return false };
        if end != first + 1 {
            return false;
        }
        if KEYLESS.contains(&name.to_ascii_lowercase().as_str()) {
            return true;
        }
        let Some(command) = COMMANDS.get(name.as_bytes()) else { return false };
        let is_key = |&(first, end): &(usize, usize)| {
            self.is_key(first) && end == first + 4
                || end == first + 1 && self.at(first).name().is_some_and(|name| self.keys.contains(&name))
        };
        key_places(command, arguments.len())
            .is_some_and(|places| places.iter().all(|&place| arguments.get(place).is_some_and(is_key)))
    }

    /// Where each argument begins and ends.
    fn arguments(&self, open: usize) -> Option<Vec<(usize, usize)>> {
        let depth = self.depths[open] + 1;
        let mut arguments = Vec::new();
        let mut start = open + 1;
        for index in open + 1..self.tokens.len() {
            let ends = self.at(index).is(")") && self.depths[index] + 1 == depth;
            if ends || self.at(index).is(",") && self.depths[index] == depth {
                arguments.push((start, index));
                start = index + 1;
            }
            if ends {
                return Some(arguments);
            }
        }
        None
    }
}

/// Which of so many arguments are keys, if the command's row says all of them.
fn key_places(command: &Command, count: usize) -> Option<Vec<usize>> {
    let spec = command.spec;
    let is_plain = matches!(spec.run, Run::Data(_) | Run::Blocking(_) | Run::Limit(_))
        && matches!(spec.scope, Scope::Keys)
        && spec.get_keys.is_none()
        && spec.derived_key.is_none()
        && !spec.keys.is_empty();
    if !is_plain {
        return None;
    }
    let mut places = Vec::new();
    for key_spec in spec.keys {
        let (Begin::Index(begin), Find::Range { last, step, limit: 0 }) = (key_spec.begin, key_spec.find)
        else {
            return None;
        };
        // From the end on: all arguments, so that none can be a key that is not looked at.
        let (end, step) =
            if last >= 0 { (begin + last as usize, step) } else { (count.max(begin + 1) - 1, 1) };
        places.extend((begin..=end).step_by(step.max(1)));
    }
    Some(places)
}

/// The tokens of a source; `None` if there is something that is not expected.
fn tokens(source: &str) -> Option<Vec<Token<'_>>> {
    const SIGNS: &[&str] = &["...", "..", "==", "~=", "<=", ">=", "::"];
    const SINGLE: &str = "+-*/%^#<>=(){}[];:,.";
    let mut rest = source;
    if rest.starts_with("#!") {
        rest = &rest[rest.find('\n')?..];
    }
    let mut tokens = Vec::new();
    while let Some(letter) = rest.chars().next() {
        let len = match letter {
            _ if letter.is_ascii_whitespace() => {
                rest = &rest[1..];
                continue;
            }
            '-' if rest.starts_with("--") => {
                let comment = &rest[2..];
                let end = match long_bracket(comment) {
                    Some(end) => end?,
                    None => comment.find('\n').unwrap_or(comment.len()),
                };
                rest = &comment[end..];
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let len =
                    rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                tokens.push(Token::Name(&rest[..len]));
                len
            }
            '0'..='9' => {
                tokens.push(Token::Number);
                rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'.').count()
            }
            '"' | '\'' => {
                let end = 1 + rest[1..].find([letter, '\\', '\n'])?;
                if rest[end..].starts_with(letter) {
                    tokens.push(Token::Text(&rest[1..end]));
                    end + 1
                } else {
                    tokens.push(Token::OddText);
                    short_string(rest)?
                }
            }
            '[' if long_bracket(rest).is_some() => {
                tokens.push(Token::OddText);
                long_bracket(rest)??
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign)).map_or(1, |sign| sign.len());
                if sign == 1 && !SINGLE.contains(letter) {
                    return None;
                }
                tokens.push(Token::Sign(&rest[..sign]));
                sign
            }
        };
        rest = &rest[len..];
    }
    Some(tokens)
}

/// The length of a string in quotes that has escapes.
fn short_string(text: &str) -> Option<usize> {
    let quote = text.as_bytes()[0];
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'\n' => return None,
            byte if byte == quote => return Some(index + 1),
            _ => {}
        }
    }
    None
}

/// The length of a text in long brackets, if one begins here; `None` within if it has no end.
fn long_bracket(text: &str) -> Option<Option<usize>> {
    let inner = text.strip_prefix('[')?;
    let level = inner.bytes().take_while(|byte| *byte == b'=').count();
    inner[level..].strip_prefix('[')?;
    let close = format!("]{}]", "=".repeat(level));
    Some(text[level + 2..].find(&close).map(|at| level + 2 + at + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_limiters_and_locks_keep_to_their_keys() {
        for source in [
            "return redis.call('incr', KEYS[1])",
            "#!lua flags=no-writes\nreturn redis.call('get', KEYS[1])",
            "-- a comment\nlocal key = KEYS[1]\nlocal n = redis.call(\"INCR\", key)\nif n == 1 then redis.call('pexpire', key, ARGV[1]) end return {n, redis.call('pttl', KEYS[1])}",
            "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end",
            "redis.call('set', KEYS[1], 0, 'EX', ARGV[2], 'NX') local c = redis.call('incrby', KEYS[1], ARGV[1]) return {c, redis.call('time')[1]}",
            "--[[ long\ncomment ]] return redis.call('mget', KEYS[1], KEYS[2])",
            "return redis.call('rename', KEYS[1], KEYS[2])",
            "return #KEYS",
            "return 'redis.call(\"get\", \"x\")'",
            "local t = {key = KEYS[1], [1] = KEYS[2]} return redis.pcall('hset', KEYS[1], 'a', t[1])",
        ] {
            assert!(keeps_to_keys(source.as_bytes()), "{source}");
        }
    }

    #[test]
    fn others_do_not_provably() {
        for source in [
            "return redis.call('get', 'fixed')",
            "return redis.call('get', KEYS[1] .. ':x')",
            "return redis.call('get', ARGV[1])",
            "KEYS[1] = 'x' return redis.call('get', KEYS[1])",
            "a, KEYS[1] = 1, 'x' return redis.call('get', KEYS[1])",
            "KEYS[1], a = 'x', 1 return redis.call('get', KEYS[1])",
            "x = 1 a, KEYS[1], b = 1, 'x', 2 return redis.call('get', KEYS[1])",
            "local k = KEYS k[1] = 'x' return redis.call('get', KEYS[1])",
            "table.insert(KEYS, 1, 'x') return redis.call('get', KEYS[1])",
            "local key = KEYS[1] key = 'x' return redis.call('get', key)",
            "local key = KEYS[1] local key = 'x' return redis.call('get', key)",
            "local key = KEYS[1] local a, key = 1, 'x' return redis.call('get', key)",
            "local key = KEYS[1] for key = 1, 2 do redis.call('get', key) end",
            "local key = KEYS[1] for a, key in pairs({}) do redis.call('get', key) end",
            "local key = KEYS[1] .. 'x' return redis.call('get', key)",
            "local key = KEYS[1] or 'x' return redis.call('get', key)",
            "local key = KEYS[1], 2 return redis.call('get', key)",
            "local call = redis.call return call('get', 'x')",
            "local r = redis return r.call('get', 'x')",
            "return redis['call']('get', 'x')",
            "return _G.redis.call('get', 'x')",
            "return getfenv().redis.call('get', 'x')",
            "return pcall(redis.call, 'get', 'x')",
            "return redis.call('mset', KEYS[1], 1, 'x', 2)",
            "return redis.call('del', unpack(KEYS))",
            "return redis.call('sort', KEYS[1], 'by', 'x*')",
            "return redis.call('dbsize')",
            "return redis.call('select', 1)",
            "return redis.call('zunionstore', 'x', 1, KEYS[1])",
            "return redis.call('geoadd' .. '', KEYS[1])",
            "return redis.call('g\\101t', 'x')",
            "return redis.call(ARGV[1], 'x')",
            "return redis.call 'ping'",
            "local f = function(key) return redis.call('get', key) end return f('x')",
            "local key = KEYS[1] local function f(key) return redis.call('get', key) end return f('x')",
            "return redis.call('scan', 0)",
            "return redis.call('eval', 'x', 0)",
            "return redis.call('config', 'get', 'x')",
            "return redis.call('ratelimit.check', KEYS[1], 'x')",
            "return loadstring('return redis')().call('get', 'x')",
            "return `{redis}`",
        ] {
            assert!(!keeps_to_keys(source.as_bytes()), "{source}");
        }
    }
}
