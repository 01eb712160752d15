//! What a request needs of its user, as its row says.

use smallvec::SmallVec;

use super::super::keys::{Keys, access, extract};
use super::super::spec::flag;
use super::super::table::Command;
use crate::acl::{Denied, Need, Rules, Wanted};
use crate::protocol::{Args, ReplyError};

/// Checks a request whose number of arguments is right.
///
/// # Errors
/// What it is denied for.
pub fn check(rules: &Rules, command: &Command, args: Args<'_>) -> Result<(), Denied> {
    with_wanted(command, args, |wanted| rules.check(wanted))
}

/// Whether the user reads all keys by the rules that allow the request.
pub(super) fn reads_all_keys(rules: &Rules, command: &Command, args: Args<'_>) -> bool {
    with_wanted(command, args, |wanted| rules.reads_all_keys(wanted))
}

fn with_wanted<R>(command: &Command, args: Args<'_>, act: impl FnOnce(&Wanted<'_>) -> R) -> R {
    let spec = command.spec;
    let derived = spec.derived_key.map(|derive| derive(args));
    let mut keys: SmallVec<[(&[u8], Need); 8]> =
        keys_of(command, args).iter().map(|(at, flags)| (args.at(*at), need(*flags))).collect();
    if let Some(key) = &derived {
        keys.push((key, Need { read: true, write: spec.has(flag::WRITE) }));
    }
    let channels: SmallVec<[(&[u8], bool); 4]> = spec.channels.map_or_else(SmallVec::new, |channels| {
        args.skip(1).iter().take(channels.count()).map(|channel| (channel, channels.are_patterns())).collect()
    });
    act(&Wanted {
        command: command.index,
        is_free: spec.has(flag::NO_AUTH),
        first_argument: args.get(1 + usize::from(command.parent.is_some())),
        keys: &keys,
        channels: &channels,
    })
}

/// The keys, with what is done to them: that of the arguments, where the row leaves it open.
fn keys_of(command: &Command, args: Args<'_>) -> Keys {
    let mut keys = extract(command.spec, args).unwrap_or_default();
    keys.retain(|(_, flags)| *flags & access::NOT_KEY == 0);
    if let Some(key_flags) = command.spec.key_flags {
        let flags = key_flags(args);
        keys.iter_mut().for_each(|key| key.1 = flags);
    }
    keys
}

fn need(flags: u16) -> Need {
    Need {
        read: flags & access::ACCESS != 0,
        write: flags & (access::INSERT | access::DELETE | access::UPDATE) != 0,
    }
}

/// What was denied: the name of the command, the key, or the channel.
pub fn object_of<'a>(denied: Denied, command: &'a Command, args: Args<'a>) -> Vec<u8> {
    match denied {
        Denied::Command => command.name.clone().into_bytes(),
        Denied::Key(at) => match (keys_of(command, args).get(at), command.spec.derived_key) {
            (Some((at, _)), _) => args.at(*at).to_vec(),
            (None, Some(derive)) => derive(args).to_vec(),
            (None, None) => Vec::new(),
        },
        Denied::Channel(at) => args.get(1 + at).unwrap_or_default().to_vec(),
    }
}

/// The reason, as the client is told.
pub fn reason(denied: Denied, user: &str, command: &Command) -> String {
    match denied {
        Denied::Command => format!("User {user} has no permissions to run the '{}' command", command.name),
        Denied::Key(_) => "No permissions to access a key".to_owned(),
        Denied::Channel(_) => "No permissions to access a channel".to_owned(),
    }
}

/// The same with the key or channel.
pub(super) fn full_reason(denied: Denied, user: &str, command: &Command, args: Args<'_>) -> Vec<u8> {
    let what = match denied {
        Denied::Command => return reason(denied, user, command).into_bytes(),
        Denied::Key(_) => "key",
        Denied::Channel(_) => "channel",
    };
    let object = object_of(denied, command, args);
    [
        format!("User {user} has no permissions to access the '").as_bytes(),
        &object,
        format!("' {what}").as_bytes(),
    ]
    .concat()
}

/// What sorting by other keys is denied for, if the user may not read all of them.
///
/// # Errors
/// That he may not.
pub fn check_sort(rules: &Rules, command: &Command, args: Args<'_>) -> Result<(), ReplyError> {
    if !matches!(command.spec.name, "sort" | "sort_ro") {
        return Ok(());
    }
    let mut at = 2;
    while at + 1 < args.len() {
        let denied = if args.is(at, "by") && args.at(at + 1).contains(&b'*') {
            "ERR BY option of SORT denied due to insufficient ACL permissions."
        } else if args.is(at, "get") {
            "ERR GET option of SORT denied due to insufficient ACL permissions."
        } else {
            at += if args.is(at, "limit") { 3 } else { 1 };
            continue;
        };
        if !reads_all_keys(rules, command, args) {
            return Err(ReplyError::fixed(denied));
        }
        at += 2;
    }
    Ok(())
}
