//! Rules as they are written: `on >password ~keys:* &channel +@read -debug (+get ~other:*)`.

use super::super::categories::{CATEGORIES, categories};
use super::super::table::{COMMANDS, Command};
use crate::acl::{Need, Rules, Selector, hash_of};

/// Commands of Redis 7.2 that have no row here.
const FOREIGN: &[&str] = &[
    "asking",
    "bgrewriteaof",
    "cluster",
    "failover",
    "migrate",
    "module",
    "psync",
    "readonly",
    "readwrite",
    "replconf",
    "replicaof",
    "restore-asking",
    "slaveof",
    "sync",
    "waitaof",
];

/// Why a rule was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It is none.
    #[error("Syntax error")]
    Syntax,
    /// It names what there is not.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// A pattern of keys behind the one of all.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AllKeys,
    /// A pattern of channels behind the one of all.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AllChannels,
    /// A password to be removed that there is not.
    #[error("The password you are trying to remove from the user does not exist")]
    NoPassword,
    /// A hash of a password that is none.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    BadHash,
    /// An argument of a subcommand.
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgument,
}

/// Puts words together that stand in one pair of parentheses.
///
/// # Errors
/// The word with the parenthesis that has no other.
pub fn merge_selectors<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for word in words {
        match &mut open {
            None if word.starts_with(b"(") && !word.ends_with(b")") => open = Some(word.to_vec()),
            None => merged.push(word.to_vec()),
            Some(selector) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                if word.ends_with(b")") {
                    merged.extend(open.take());
                }
            }
        }
    }
    match open {
        None => Ok(merged),
        Some(selector) => Err(selector),
    }
}

/// Applies one rule.
///
/// # Errors
/// Why it was not taken; the rules are as before, then.
pub fn apply(rules: &mut Rules, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
    let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
    if is("on") {
        rules.is_on = true;
    } else if is("off") {
        rules.is_on = false;
    } else if is("nopass") {
        rules.any_password = true;
        rules.passwords.clear();
    } else if is("resetpass") {
        rules.any_password = false;
        rules.passwords.clear();
    } else if is("sanitize-payload") {
        rules.sanitizes = true;
    } else if is("skip-sanitize-payload") {
        rules.sanitizes = false;
    } else if is("clearselectors") {
        rules.selectors.clear();
    } else if is("reset") {
        *rules = Rules::new(all_channels);
    } else if let [b'>', password @ ..] = rule {
        add_password(rules, hash_of(password));
    } else if let [b'#', hash @ ..] = rule {
        add_password(rules, checked_hash(hash)?);
    } else if let [b'<', password @ ..] = rule {
        remove_password(rules, &hash_of(password))?;
    } else if let [b'!', hash @ ..] = rule {
        remove_password(rules, &checked_hash(hash)?)?;
    } else if let [b'(', inner @ .., b')'] = rule {
        rules.selectors.push(selector(inner, all_channels)?);
    } else {
        apply_to_selector(&mut rules.root, rule)?;
    }
    Ok(())
}

fn checked_hash(hash: &[u8]) -> Result<String, RuleError> {
    let is_hexadecimal = hash.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(hash).ok().filter(|hash| hash.len() == 64 && is_hexadecimal);
    text.map(str::to_owned).ok_or(RuleError::BadHash)
}

fn add_password(rules: &mut Rules, hash: String) {
    if !rules.passwords.contains(&hash) {
        rules.passwords.push(hash);
    }
    rules.any_password = false;
}

fn remove_password(rules: &mut Rules, hash: &str) -> Result<(), RuleError> {
    let at = rules.passwords.iter().position(|known| known == hash).ok_or(RuleError::NoPassword)?;
    rules.passwords.remove(at);
    Ok(())
}

fn selector(inner: &[u8], all_channels: bool) -> Result<Selector, RuleError> {
    let mut selector = Selector::new(all_channels);
    for rule in inner.split(|byte| *byte == b' ').filter(|rule| !rule.is_empty()) {
        apply_to_selector(&mut selector, rule)?;
    }
    Ok(selector)
}

fn apply_to_selector(selector: &mut Selector, rule: &[u8]) -> Result<(), RuleError> {
    let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
    if is("allkeys") || rule == b"~*" {
        selector.all_keys = true;
        selector.keys.clear();
    } else if is("resetkeys") {
        selector.all_keys = false;
        selector.keys.clear();
    } else if is("allchannels") || rule == b"&*" {
        selector.all_channels = true;
        selector.channels.clear();
    } else if is("resetchannels") {
        selector.all_channels = false;
        selector.channels.clear();
    } else if is("allcommands") || is("+@all") {
        selector.set_all_commands(true);
    } else if is("nocommands") || is("-@all") {
        selector.set_all_commands(false);
    } else {
        match rule {
            [b'~' | b'%', ..] => add_keys(selector, rule)?,
            [b'&', channel @ ..] => add_channel(selector, channel)?,
            [sign @ (b'+' | b'-'), b'@', category @ ..] => set_category(selector, *sign == b'+', category)?,
            [sign @ (b'+' | b'-'), name @ ..] => set_command(selector, *sign == b'+', name)?,
            _ => return Err(RuleError::Syntax),
        }
    }
    Ok(())
}

fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 11 || *byte == 0)
}

fn add_keys(selector: &mut Selector, rule: &[u8]) -> Result<(), RuleError> {
    if selector.all_keys {
        return Err(RuleError::AllKeys);
    }
    let mut allows = Need { read: true, write: true };
    let mut pattern = &rule[1..];
    if rule[0] == b'%' {
        let tilde = pattern.iter().position(|byte| *byte == b'~').ok_or(RuleError::Syntax)?;
        allows = Need::default();
        for letter in &pattern[..tilde] {
            let allowed = match letter.to_ascii_uppercase() {
                b'R' => &mut allows.read,
                b'W' => &mut allows.write,
                _ => return Err(RuleError::Syntax),
            };
            if std::mem::replace(allowed, true) {
                return Err(RuleError::Syntax);
            }
        }
        if allows == Need::default() {
            return Err(RuleError::Syntax);
        }
        pattern = &pattern[tilde + 1..];
        if pattern == b"*" && allows == (Need { read: true, write: true }) {
            return apply_to_selector(selector, b"~*");
        }
    }
    if has_spaces(pattern) {
        return Err(RuleError::Syntax);
    }
    selector.add_keys(pattern, allows);
    Ok(())
}

fn add_channel(selector: &mut Selector, channel: &[u8]) -> Result<(), RuleError> {
    if selector.all_channels {
        return Err(RuleError::AllChannels);
    }
    if has_spaces(channel) {
        return Err(RuleError::Syntax);
    }
    if !selector.channels.iter().any(|known| **known == *channel) {
        selector.channels.push(channel.into());
    }
    Ok(())
}

/// The command, and what belongs to it if it is a container.
fn set_with_subcommands(selector: &mut Selector, command: &Command, allowed: bool) {
    selector.set_command(command.index, allowed, COMMANDS.len());
    for subcommand in COMMANDS.iter().filter(|other| other.parent == Some(command.index)) {
        selector.set_command(subcommand.index, allowed, COMMANDS.len());
    }
}

fn set_category(selector: &mut Selector, allowed: bool, category: &[u8]) -> Result<(), RuleError> {
    let name = category.to_ascii_lowercase();
    let name = CATEGORIES.iter().find(|known| known.as_bytes() == name).ok_or(RuleError::Unknown)?;
    for command in COMMANDS.iter().filter(|command| categories(command.spec).contains(name)) {
        set_with_subcommands(selector, command, allowed);
    }
    note_rule(selector, allowed, &format!("@{name}"));
    Ok(())
}

fn set_command(selector: &mut Selector, allowed: bool, name: &[u8]) -> Result<(), RuleError> {
    let lower = String::from_utf8_lossy(name).to_lowercase();
    let mut words = lower.splitn(3, '|');
    let (container, subcommand, more) = (words.next().unwrap_or_default(), words.next(), words.next());
    let Some(command) = COMMANDS.get(container.as_bytes()) else {
        return set_foreign(selector, allowed, &lower);
    };
    let Some(subcommand) = subcommand else {
        set_with_subcommands(selector, command, allowed);
        note_rule(selector, allowed, &lower);
        return Ok(());
    };
    if subcommand.is_empty() {
        return Err(RuleError::Syntax);
    }
    if let Some(found) = COMMANDS.subcommand(command, subcommand.as_bytes()) {
        if more.is_some() {
            return Err(if allowed { RuleError::FirstArgument } else { RuleError::Unknown });
        }
        selector.set_command(found.index, allowed, COMMANDS.len());
        note_rule(selector, allowed, &lower);
        return Ok(());
    }
    // An argument, which only Redis before version 7 gave a meaning of its own.
    if !allowed || more.is_some() || !command.spec.subcommands().is_empty() {
        return Err(RuleError::Unknown);
    }
    if !selector.allows_command(command.index) {
        let known = selector.first_arguments.entry(command.index).or_default();
        if !known.iter().any(|known| **known == *subcommand.as_bytes()) {
            known.push(subcommand.as_bytes().into());
        }
    }
    note_rule(selector, allowed, &lower);
    Ok(())
}

/// A command that has no row here: files of Redis name it. It is run for nobody who may not do everything.
fn set_foreign(selector: &mut Selector, allowed: bool, name: &str) -> Result<(), RuleError> {
    let container = name.split('|').next().unwrap_or_default();
    if !FOREIGN.contains(&container) {
        return Err(RuleError::Unknown);
    }
    if !allowed {
        selector.restrict(COMMANDS.len());
    }
    note_rule(selector, allowed, name);
    Ok(())
}

/// Adds a rule to the text; earlier ones that it makes void go.
fn note_rule(selector: &mut Selector, allowed: bool, rule: &str) {
    let is_void = |known: &str| {
        let known = &known[1..];
        known == rule || known.strip_prefix(rule).is_some_and(|rest| rest.starts_with('|'))
    };
    let kept: Vec<&str> =
        selector.command_rules.split(' ').filter(|known| !known.is_empty() && !is_void(known)).collect();
    let mut text: String = kept.iter().flat_map(|rule| [" ", rule]).collect();
    text.push_str(if allowed { " +" } else { " -" });
    text.push_str(rule);
    selector.command_rules = text;
}

/// The rules on commands, as `ACL LIST` shows them.
pub(super) fn command_rules(selector: &Selector) -> String {
    format!("{}@all{}", if selector.from_all { '+' } else { '-' }, selector.command_rules)
}

/// The patterns of keys, one behind the other.
pub(super) fn key_rules(selector: &Selector) -> Vec<u8> {
    if selector.all_keys {
        return b"~*".to_vec();
    }
    let rule = |known: &crate::acl::KeyPattern| {
        let mark: &[u8] = match (known.allows.read, known.allows.write) {
            (true, true) => b"~",
            (true, false) => b"%R~",
            _ => b"%W~",
        };
        [mark, &known.pattern].concat()
    };
    selector.keys.iter().map(rule).collect::<Vec<_>>().join(&b' ')
}

/// The patterns of channels, one behind the other.
pub(super) fn channel_rules(selector: &Selector) -> Vec<u8> {
    if selector.all_channels {
        return b"&*".to_vec();
    }
    selector.channels.iter().map(|channel| [b"&", &**channel].concat()).collect::<Vec<_>>().join(&b' ')
}

fn describe_selector(selector: &Selector) -> Vec<u8> {
    let mut parts = vec![key_rules(selector)];
    // A list that begins with no channel says so, as rules are added to what a new user has.
    let channels = channel_rules(selector);
    parts.push(if selector.all_channels { channels } else { [&b"resetchannels "[..], &channels].concat() });
    parts.push(command_rules(selector).into_bytes());
    let parts: Vec<Vec<u8>> =
        parts.into_iter().map(|part| part.trim_ascii().to_vec()).filter(|part| !part.is_empty()).collect();
    parts.join(&b' ')
}

/// The flags, as `ACL GETUSER` shows them.
pub(super) fn flags(rules: &Rules) -> Vec<&'static str> {
    let mut flags = vec![if rules.is_on { "on" } else { "off" }];
    if rules.any_password {
        flags.push("nopass");
    }
    flags.push(if rules.sanitizes { "sanitize-payload" } else { "skip-sanitize-payload" });
    flags
}

/// All rules of a user: what makes the same of a new one.
pub(super) fn describe(rules: &Rules) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = flags(rules).iter().map(|flag| flag.as_bytes().to_vec()).collect();
    parts.extend(rules.passwords.iter().map(|hash| format!("#{hash}").into_bytes()));
    parts.push(describe_selector(&rules.root));
    parts.extend(
        rules.selectors.iter().map(|selector| [b"(", &describe_selector(selector)[..], b")"].concat()),
    );
    parts.join(&b' ')
}
