//! Strings as arrays of bits.

use super::arguments::{Options, integer};
use super::keys::{KeySpec, access::*, key_at, keys_in};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, Expiry, View};
use crate::types::bits::{self, Field, Operation, Overflow};
use crate::types::listpack::NumBuf;
use crate::types::number::parse_i64;

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const WRITE: &[KeySpec] = &[key_at(1, RW | ACCESS | UPDATE)];

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("setbit", Group::Bitmap, Exactly(4), setbit).write().keys(WRITE).doc(
        "Writes a bit.",
        "2.2.0",
        "O(1)",
        "key offset:integer value:integer",
    ),
    CommandSpec::data("getbit", Group::Bitmap, Exactly(3), getbit).readonly().fast().keys(READ).doc(
        "Reads a bit.",
        "2.2.0",
        "O(1)",
        "key offset:integer",
    ),
    CommandSpec::data("bitcount", Group::Bitmap, AtLeast(2), bitcount).readonly().keys(READ).doc(
        "Counts the bits that are set.",
        "2.6.0",
        "O(N)",
        "key [range(start:integer end:integer [unit<BYTE | BIT>@7.0.0])]",
    ),
    CommandSpec::data("bitpos", Group::Bitmap, AtLeast(3), bitpos).readonly().keys(READ).doc(
        "Finds the first bit of a value.",
        "2.8.7",
        "O(N)",
        "key bit:integer [range(start:integer [end-unit-block(end:integer [unit<BYTE | \
            BIT>@7.0.0])])]",
    ),
    CommandSpec::data("bitop", Group::Bitmap, AtLeast(4), bitop)
        .write()
        .keys(&[key_at(2, OW | UPDATE), keys_in(3, -1, 1, RO | ACCESS)])
        .doc(
            "Combines strings bit by bit and stores the result.",
            "2.6.0",
            "O(N)",
            "operation<AND | OR | XOR | NOT> destkey:key key...",
        ),
    CommandSpec::data("bitfield", Group::Bitmap, AtLeast(2), bitfield)
        .write()
        .keys(&[key_at(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS)])
        .key_flags(bitfield_key_flags)
        .doc(
            "Reads and writes integers of any width.",
            "3.2.0",
            "O(1) per operation",
            "key [operation<GET get-block(encoding offset:integer) | write([OVERFLOW \
            overflow-block<WRAP | SAT | FAIL>] write-operation<SET set-block(encoding \
            offset:integer value:integer) | INCRBY incrby-block(encoding offset:integer \
            increment:integer)>)>...]",
        ),
    CommandSpec::data("bitfield_ro", Group::Bitmap, AtLeast(2), bitfield_ro)
        .readonly()
        .fast()
        .keys(READ)
        .doc(
            "Reads integers of any width.",
            "6.0.0",
            "O(1) per operation",
            "key [GET get-block(encoding offset:integer)...+]",
        ),
];

/// `BITFIELD` with nothing but `GET`s reads.
fn bitfield_key_flags(args: Args<'_>) -> u16 {
    let options: Vec<&[u8]> = args.skip(2).iter().collect();
    let reads = |option: &[&[u8]]| option[0].eq_ignore_ascii_case(b"get") && option.len() == 3;
    if options.chunks(3).all(reads) { RO | ACCESS } else { RW | ACCESS | UPDATE }
}

/// Reads a bit's offset; `#n` counts in fields of `width` bits where that is allowed.
fn offset(view: &View<'_>, argument: &[u8], width: Option<u32>) -> Result<usize, ReplyError> {
    const BAD: ReplyError = ReplyError::fixed("ERR bit offset is not an integer or out of range");
    let (text, factor) = match (argument, width) {
        ([b'#', text @ ..], Some(width)) => (text, i64::from(width)),
        (text, _) => (text, 1),
    };
    let offset = parse_i64(text).and_then(|offset| offset.checked_mul(factor)).ok_or(BAD)?;
    let limit = view.settings().int(Id::ProtoMaxBulkLen);
    if offset < 0 || offset >> 3 >= limit {
        return Err(BAD);
    }
    Ok(offset as usize)
}

/// The bytes of the string at a key, empty if there is none.
fn bytes_of(view: &mut View<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, ReplyError> {
    Ok(view.string(key)?.map(|item| item.to_vec()))
}

/// Runs on the bytes of the string at a key without copying them; `None` if there is no key.
fn with_bytes<R>(
    view: &mut View<'_>,
    key: &[u8],
    run: impl FnOnce(&[u8]) -> R,
) -> Result<Option<R>, ReplyError> {
    Ok(view.string(key)?.map(|item| run(item.to_bytes(&mut NumBuf::new()))))
}

fn setbit(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let offset = offset(view, args.at(2), None)?;
    let value = match args.at(3) {
        b"0" => false,
        b"1" => true,
        _ => return Err(ReplyError::fixed("ERR bit is not an integer or out of range")),
    };
    let old = view.edit_string(args.at(1), Event::string("setbit"), |bytes| {
        let len = bytes.len();
        let old = bits::set(bytes, offset, value);
        (old, old != value || bytes.len() != len)
    })?;
    reply.integer(old.into());
    Ok(())
}

fn getbit(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let offset = offset(view, args.at(2), None)?;
    let bit = with_bytes(view, args.at(1), |bytes| bits::get(bytes, offset))?;
    reply.integer(bit.unwrap_or(false).into());
    Ok(())
}

/// A range of bytes or bits, as `BITCOUNT` and `BITPOS` take it.
struct BitRange {
    start: i64,
    end: i64,
    in_bits: bool,
}

impl BitRange {
    /// The bits from the first to the last, if the range is not empty.
    fn resolve(&self, len: usize) -> Option<(usize, usize)> {
        let total = if self.in_bits { len as i64 * 8 } else { len as i64 };
        if self.start < 0 && self.end < 0 && self.start > self.end {
            return None;
        }
        let from_end = |index: i64| if index < 0 { index.saturating_add(total).max(0) } else { index };
        let (start, end) = (from_end(self.start), from_end(self.end).min(total - 1));
        if start > end || total == 0 {
            return None;
        }
        let (start, end) = (start as usize, end as usize);
        Some(if self.in_bits { (start, end) } else { (start * 8, end * 8 + 7) })
    }
}

fn unit(argument: Option<&[u8]>) -> Result<bool, ReplyError> {
    match argument {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case(b"byte") => Ok(false),
        Some(word) if word.eq_ignore_ascii_case(b"bit") => Ok(true),
        Some(_) => Err(ReplyError::SYNTAX),
    }
}

fn bitcount(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if view.string(args.at(1))?.is_none() {
        reply.integer(0);
        return Ok(());
    }
    let range = match args.len() {
        2 => BitRange { start: 0, end: -1, in_bits: false },
        4 | 5 => {
            let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
            BitRange { start, end, in_bits: unit(args.get(4))? }
        }
        _ => return Err(ReplyError::SYNTAX),
    };
    let count = with_bytes(view, args.at(1), |bytes| {
        range.resolve(bytes.len()).map_or(0, |(start, end)| bits::count(bytes, start, end))
    })?;
    reply.count(count.unwrap_or(0));
    Ok(())
}

fn bitpos(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let value = match integer(args.at(2))? {
        0 => false,
        1 => true,
        _ => return Err(ReplyError::fixed("ERR The bit argument must be 1 or 0.")),
    };
    if view.string(args.at(1))?.is_none() {
        reply.integer(if value { -1 } else { 0 });
        return Ok(());
    }
    if args.len() > 6 {
        return Err(ReplyError::SYNTAX);
    }
    let start = args.get(3).map(integer).transpose()?.unwrap_or(0);
    let in_bits = unit(args.get(5))?;
    let end = args.get(4).map(integer).transpose()?;
    let range = BitRange { start, end: end.unwrap_or(-1), in_bits };
    let found = with_bytes(view, args.at(1), |bytes| {
        let Some((first, last)) = range.resolve(bytes.len()) else { return -1 };
        match bits::position(bytes, value, first, last) {
            Some(position) => position as i64,
            // Behind a string without an end in sight there are only zeros.
            None if !value && end.is_none() => last as i64 + 1,
            None => -1,
        }
    })?;
    reply.integer(found.unwrap_or(if value { -1 } else { 0 }));
    Ok(())
}

fn bitop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let operation = match args.at(1).to_ascii_lowercase().as_slice() {
        b"and" => Operation::And,
        b"or" => Operation::Or,
        b"xor" => Operation::Xor,
        b"not" => Operation::Not,
        _ => return Err(ReplyError::SYNTAX),
    };
    if operation == Operation::Not && args.len() != 4 {
        return Err(ReplyError::fixed("ERR BITOP NOT must be called with a single source key."));
    }
    let operands = args.skip(3).iter().map(|key| Ok(bytes_of(view, key)?.unwrap_or_default()));
    let result = bits::combine(operation, &operands.collect::<Result<Vec<_>, ReplyError>>()?);
    reply.count(result.len());
    if result.is_empty() {
        view.delete(args.at(2), Event::DEL);
    } else {
        view.set_string(args.at(2), &result, Expiry::Never, Event::string("set"));
    }
    Ok(())
}

/// One operation of `BITFIELD`.
enum FieldOperation {
    Get,
    Set(i64),
    Increment(i64),
}

type FieldStep = (FieldOperation, Field, usize, Overflow);

fn parse_field(argument: &[u8]) -> Result<Field, ReplyError> {
    const BAD: ReplyError = ReplyError::fixed(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    );
    let (signed, bits) = match argument {
        [b'i', bits @ ..] => (true, bits),
        [b'u', bits @ ..] => (false, bits),
        _ => return Err(BAD),
    };
    let limit = if signed { 64 } else { 63 };
    let bits = parse_i64(bits).filter(|bits| (1..=limit).contains(bits)).ok_or(BAD)?;
    Ok(Field { signed, bits: bits as u32 })
}

fn parse_steps(view: &View<'_>, args: Args<'_>) -> Result<Vec<FieldStep>, ReplyError> {
    let (mut steps, mut overflow) = (Vec::new(), Overflow::Wrap);
    let mut options = Options::new(args, 2);
    while !options.is_done() {
        let kind = if options.take_with("overflow", 1) {
            overflow = match options.value()?.to_ascii_lowercase().as_slice() {
                b"wrap" => Overflow::Wrap,
                b"sat" => Overflow::Saturate,
                b"fail" => Overflow::Fail,
                _ => return Err(ReplyError::fixed("ERR Invalid OVERFLOW type specified")),
            };
            continue;
        } else if options.take_with("get", 2) {
            0
        } else if options.take_with("set", 3) {
            1
        } else if options.take_with("incrby", 3) {
            2
        } else {
            return Err(ReplyError::SYNTAX);
        };
        let field = parse_field(options.value()?)?;
        let at = offset(view, options.value()?, Some(field.bits))?;
        let operation = match kind {
            0 => FieldOperation::Get,
            1 => FieldOperation::Set(integer(options.value()?)?),
            _ => FieldOperation::Increment(integer(options.value()?)?),
        };
        steps.push((operation, field, at, overflow));
    }
    Ok(steps)
}

fn bitfield(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let steps = parse_steps(view, args)?;
    if steps.iter().all(|(operation, ..)| matches!(operation, FieldOperation::Get)) {
        return read_fields(view, args.at(1), &steps, reply);
    }
    let results = view.edit_string(args.at(1), Event::string("setbit"), |bytes| {
        // The string is as long as the farthest write asks, whether or not that fails.
        let writes = steps.iter().filter(|(operation, ..)| !matches!(operation, FieldOperation::Get));
        let len = writes.map(|(_, field, at, _)| (at + field.bits as usize).div_ceil(8)).max().unwrap_or(0);
        let grows = len > bytes.len();
        if grows {
            bytes.resize(len, 0);
        }
        let (mut results, mut changed) = (Vec::with_capacity(steps.len()), grows);
        for (operation, field, at, overflow) in &steps {
            let old = field.read(bytes, *at);
            let (new, result) = match operation {
                FieldOperation::Get => (None, Some(old)),
                FieldOperation::Set(value) => {
                    let new = field.fit_value(*value, *overflow);
                    (new, new.map(|_| old))
                }
                FieldOperation::Increment(by) => {
                    let new = field.fit(old, *by, *overflow);
                    (new, new)
                }
            };
            if let Some(new) = new {
                field.write(bytes, *at, new);
                changed |= new != old;
            }
            results.push(result);
        }
        (results, changed)
    })?;
    reply.array(results.len());
    for result in results {
        match result {
            Some(value) => reply.integer(value),
            None => reply.null(),
        }
    }
    Ok(())
}

fn bitfield_ro(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let steps = parse_steps(view, args)?;
    if steps.iter().any(|(operation, ..)| !matches!(operation, FieldOperation::Get)) {
        return Err(ReplyError::fixed("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(view, args.at(1), &steps, reply)
}

fn read_fields(view: &mut View<'_>, key: &[u8], steps: &[FieldStep], reply: &mut Reply<'_>) -> CommandResult {
    let read =
        |bytes: &[u8]| steps.iter().map(|(_, field, at, _)| field.read(bytes, *at)).collect::<Vec<_>>();
    let values = with_bytes(view, key, read)?.unwrap_or_else(|| vec![0; steps.len()]);
    reply.array(values.len());
    values.into_iter().for_each(|value| reply.integer(value));
    Ok(())
}
