//! `DUMP` and `RESTORE`: values as bytes that Redis understands, and back.

use super::arguments::{Options, integer};
use super::keys::{access::*, key_at};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group, category};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Entry, Event, View, access_record, rdb_limits};
use crate::types::rdb::{self, Invalid};

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("dump", Group::Generic, Exactly(2), dump)
        .readonly()
        .categories(category::KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc(
            "Returns a key's value in Redis's file format.",
            "2.6.0",
            "O(N) in the size of the value",
            "key",
        ),
    CommandSpec::data("restore", Group::Generic, AtLeast(4), restore)
        .write()
        .categories(category::KEYSPACE | category::DANGEROUS)
        .keys(&[key_at(1, OW | UPDATE)])
        .doc(
            "Creates a key from what DUMP returned.",
            "2.6.0",
            "O(N) in the size of the value, times log(N) for sorted sets",
            "key ttl:integer serialized-value [REPLACE@3.0.0] [ABSTTL@5.0.0] \
            [IDLETIME seconds:integer@5.0.0] [FREQ frequency:integer@5.0.0]",
        ),
];

impl From<Invalid> for ReplyError {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Footer => Self::fixed("ERR DUMP payload version or checksum are wrong"),
            Invalid::Data => Self::fixed("ERR Bad data format"),
        }
    }
}

fn dump(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let payload = view.read(args.at(1)).map(|value| rdb::encode(value.source()));
    reply.bulk_or_null(payload.as_deref());
    Ok(())
}

/// What comes behind the payload.
#[derive(Default)]
struct RestoreOptions {
    replaces: bool,
    is_absolute: bool,
    idle: Option<u64>,
    frequency: Option<u8>,
}

impl RestoreOptions {
    fn parse(args: Args<'_>) -> Result<Self, ReplyError> {
        let mut parsed = Self::default();
        let mut options = Options::new(args, 4);
        while !options.is_done() {
            if options.take("replace") {
                parsed.replaces = true;
            } else if options.take("absttl") {
                parsed.is_absolute = true;
            } else if parsed.frequency.is_none() && options.take_with("idletime", 1) {
                let idle = u64::try_from(integer(options.value()?)?);
                let error = ReplyError::fixed("ERR Invalid IDLETIME value, must be >= 0");
                parsed.idle = Some(idle.map_err(|_| error)?);
            } else if parsed.idle.is_none() && options.take_with("freq", 1) {
                let frequency = u8::try_from(integer(options.value()?)?);
                let error = ReplyError::fixed("ERR Invalid FREQ value, must be >= 0 and <= 255");
                parsed.frequency = Some(frequency.map_err(|_| error)?);
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        Ok(parsed)
    }
}

fn restore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, now_ms) = (args.at(1), view.now_ms());
    let options = RestoreOptions::parse(args)?;
    if !options.replaces && view.contains(key) {
        return Err(ReplyError::fixed("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(integer(args.at(2))?)
        .map_err(|_| ReplyError::fixed("ERR Invalid TTL value, must be >= 0"))?;
    let decoded = rdb::decode(args.at(3), &rdb_limits(view.settings()))?;
    let base = if options.is_absolute { 0 } else { now_ms };
    let deadline = (ttl > 0).then(|| ttl.saturating_add(base).min(i64::MAX as u64));
    if deadline.is_some_and(|deadline| deadline <= now_ms) {
        view.delete(key, Event::DEL);
        reply.ok();
        return Ok(());
    }
    let entry = Entry::decoded(key, decoded, deadline);
    view.put_entry(entry, Event::generic("restore"));
    if let Some(access) = access_record(view.settings(), now_ms, options.idle, options.frequency) {
        view.set_access(key, access);
    }
    reply.ok();
    Ok(())
}
