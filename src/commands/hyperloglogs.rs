//! HyperLogLog: counting distinct elements in 12 KiB.

use super::keys::{access::*, key_at, keys_in};
use super::routing::Route;
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group, category, flag};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::hyperloglog::{self, Invalid, Registers};

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("pfadd", Group::HyperLogLog, AtLeast(2), pfadd)
        .write()
        .fast()
        .keys(&[key_at(1, RW | INSERT)])
        .doc("Adds elements to a HyperLogLog.", "2.8.9", "O(1) per element", "key [element...]"),
    CommandSpec::data("pfcount", Group::HyperLogLog, AtLeast(2), pfcount)
        .uncached()
        .readonly()
        .keys(&[keys_in(1, -1, 1, RW | ACCESS)])
        .doc("Estimates how many distinct elements there are.", "2.8.9", "O(1) per key", "key..."),
    CommandSpec::data("pfmerge", Group::HyperLogLog, AtLeast(2), pfmerge)
        .write()
        .keys(&[key_at(1, RW | ACCESS | INSERT), keys_in(2, -1, 1, RO | ACCESS)])
        .doc("Merges HyperLogLogs into one.", "2.8.9", "O(1) per key", "destkey:key [sourcekey:key...]"),
    CommandSpec::data("pfdebug", Group::HyperLogLog, Exactly(3), pfdebug)
        .route(Route::Shared)
        .write()
        .with(flag::ADMIN | flag::SYSTEM)
        .categories(category::DANGEROUS)
        .keys(&[key_at(2, RW | ACCESS)])
        .doc("Looks into a HyperLogLog.", "2.8.9", "O(1)", "subcommand key"),
    CommandSpec::data("pfselftest", Group::HyperLogLog, Exactly(1), pfselftest)
        .with(flag::ADMIN | flag::OFFLOAD | flag::SYSTEM)
        .categories(category::DANGEROUS)
        .doc("Runs the tests of the HyperLogLog on this server.", "2.8.9", "N/A", ""),
];

impl From<Invalid> for ReplyError {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::NotOne => Self::fixed("WRONGTYPE Key is not a valid HyperLogLog string value."),
            Invalid::Corrupted => Self::fixed("INVALIDOBJ Corrupted HLL object detected"),
        }
    }
}

/// The bytes at a key, checked.
fn bytes_of(view: &mut View<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, ReplyError> {
    let Some(bytes) = view.string(key)?.map(|item| item.to_vec()) else { return Ok(None) };
    hyperloglog::validate(&bytes)?;
    Ok(Some(bytes))
}

fn pfadd(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let max_sparse = view.settings().int(Id::HllSparseMaxBytes) as usize;
    let is_new = !view.contains(args.at(1));
    let changed = view.edit_string(args.at(1), Event::string("pfadd"), |bytes| {
        let mut changed = is_new;
        if changed {
            *bytes = hyperloglog::create();
        }
        let result = hyperloglog::validate(bytes).and_then(|()| {
            for element in args.skip(2).iter() {
                changed |= hyperloglog::add(bytes, element, max_sparse)?;
            }
            Ok(())
        });
        if changed && result.is_ok() {
            hyperloglog::invalidate(bytes);
        }
        (result.map(|()| changed), changed && result.is_ok())
    })??;
    reply.integer(changed.into());
    Ok(())
}

fn pfcount(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 2 {
        let union = union_of(view, args.skip(1))?.0;
        reply.integer(hyperloglog::estimate(&union) as i64);
        return Ok(());
    }
    let Some(bytes) = bytes_of(view, args.at(1))? else {
        reply.integer(0);
        return Ok(());
    };
    let count = match hyperloglog::cached(&bytes) {
        Some(count) => count,
        None => {
            let count = hyperloglog::count(&bytes)?;
            view.edit_string(args.at(1), Event::string("pfcount"), |bytes| {
                hyperloglog::set_cached(bytes, count);
                ((), true)
            })?;
            count
        }
    };
    reply.integer(count as i64);
    Ok(())
}

/// The union of those that exist, and whether all of them are sparse.
fn union_of(view: &mut View<'_>, keys: Args<'_>) -> Result<(Box<Registers>, bool), ReplyError> {
    let mut union = hyperloglog::registers(&hyperloglog::create())?;
    let mut all_sparse = true;
    for key in keys.iter() {
        if let Some(bytes) = bytes_of(view, key)? {
            all_sparse &= hyperloglog::is_sparse(&bytes);
            hyperloglog::merge_from(&mut union, &bytes)?;
        }
    }
    Ok((union, all_sparse))
}

fn pfmerge(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let max_sparse = view.settings().int(Id::HllSparseMaxBytes) as usize;
    let (union, all_sparse) = union_of(view, args.skip(1))?;
    let is_new = !view.contains(args.at(1));
    view.edit_string(args.at(1), Event::string("pfadd"), |bytes| {
        if is_new {
            *bytes = hyperloglog::create();
        }
        (hyperloglog::store(bytes, &union, !all_sparse, max_sparse), true)
    })??;
    reply.ok();
    Ok(())
}

fn pfdebug(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(bytes) = bytes_of(view, args.at(2))? else {
        return Err(ReplyError::fixed("ERR The specified key does not exist"));
    };
    let is_sparse = hyperloglog::is_sparse(&bytes);
    match args.at(1).to_ascii_lowercase().as_slice() {
        b"getreg" => {
            let registers = hyperloglog::registers(&bytes)?;
            reply.array(registers.len());
            registers.iter().for_each(|value| reply.integer(i64::from(*value)));
        }
        b"decode" => match hyperloglog::describe(&bytes) {
            Some(runs) => reply.bulk(runs.as_bytes()),
            None => return Err(ReplyError::fixed("ERR HLL encoding is not sparse")),
        },
        b"encoding" => reply.simple(if is_sparse { "sparse" } else { "dense" }),
        b"todense" => {
            let changed = view.edit_string(args.at(2), Event::string("pfdebug"), |bytes| {
                let changed = hyperloglog::make_dense(bytes);
                (changed, changed == Ok(true))
            })??;
            reply.integer(changed.into());
        }
        _ => {
            return Err(ReplyError::showing("ERR Unknown PFDEBUG subcommand '", args.at(1), "'"));
        }
    }
    Ok(())
}

fn pfselftest(view: &mut View<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let max_sparse = view.settings().int(Id::HllSparseMaxBytes) as usize;
    hyperloglog::self_test(fastrand::u64(..), max_sparse).map_err(ReplyError::new)?;
    reply.ok();
    Ok(())
}
