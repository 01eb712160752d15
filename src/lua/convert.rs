//! Between replies and Lua values, by Redis's rules.

use std::ffi::CStr;

use super::machine::shared;
use super::stack::{Kind, Stack};
use crate::protocol::{Reply, ReplyError};
use crate::types::number::{parse_f64_lenient, parse_i64};

/// Tables within tables that a reply may have; one that holds itself would have no end.
const MAX_DEPTH: usize = 2000;

/// Pushes what an encoded reply says; returns what is behind it.
pub(super) fn push_reply<'a>(stack: &mut Stack, reply: &'a [u8]) -> &'a [u8] {
    // Replies are as deep as our own handlers make them.
    let _ = stack.has_room(8);
    let (line, rest) = split_line(reply);
    let (mark, text) = (line.first().copied().unwrap_or(b'_'), line.get(1..).unwrap_or_default());
    let number = || parse_i64(text).unwrap_or(0);
    match mark {
        b':' => stack.push_number(number() as f64),
        b'$' | b'*' if number() < 0 => stack.push_boolean(false),
        b'$' => {
            let (bulk, rest) = split_bulk(rest, number());
            stack.push_bytes(bulk);
            return rest;
        }
        b'+' => push_tagged(stack, c"ok", text),
        b'-' => push_error_reply(stack, text),
        b'*' | b'>' => return push_array(stack, number() as usize, rest),
        b'%' | b'~' => return push_map_or_set(stack, mark, number() as usize, rest),
        b'_' => stack.push_nil(),
        b'#' => stack.push_boolean(text == b"t"),
        b',' => {
            stack.push_table(0, 1);
            stack.push_number(parse_f64_lenient(text).unwrap_or(f64::NAN));
            stack.set_field(-2, c"double");
        }
        b'(' => push_tagged(stack, c"big_number", text),
        b'=' => {
            let (bulk, rest) = split_bulk(rest, number());
            stack.push_table(0, 1);
            stack.push_table(0, 2);
            stack.push_bytes(bulk.get(4..).unwrap_or_default());
            stack.set_field(-2, c"string");
            stack.push_bytes(bulk.get(..3).unwrap_or_default());
            stack.set_field(-2, c"format");
            stack.set_field(-2, c"verbatim_string");
            return rest;
        }
        _ => stack.push_nil(),
    }
    rest
}

fn push_tagged(stack: &mut Stack, name: &CStr, text: &[u8]) {
    stack.push_table(0, 1);
    stack.push_bytes(text);
    stack.set_field(-2, name);
}

/// An error of a command: counted where the command ran.
fn push_error_reply(stack: &mut Stack, text: &[u8]) {
    super::api::push_error(stack, &[b"-", text].concat(), true);
}

fn push_array<'a>(stack: &mut Stack, len: usize, mut rest: &'a [u8]) -> &'a [u8] {
    stack.push_table(len, 0);
    for index in 1..=len {
        rest = push_reply(stack, rest);
        stack.set_element(-2, index);
    }
    rest
}

fn push_map_or_set<'a>(stack: &mut Stack, mark: u8, len: usize, mut rest: &'a [u8]) -> &'a [u8] {
    stack.push_table(0, 1);
    stack.push_table(0, len);
    for _ in 0..len {
        rest = push_reply(stack, rest);
        if mark == b'%' {
            rest = push_reply(stack, rest);
        } else {
            stack.push_boolean(true);
        }
        // What cannot be a key of a table does not become one.
        if stack.kind(-2) == Kind::Nil {
            stack.pop(2);
        } else {
            stack.set_entry(-3);
        }
    }
    stack.set_field(-2, if mark == b'%' { c"map" } else { c"set" });
    rest
}

fn split_line(reply: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', reply) {
        Some(end) => (&reply[..end.saturating_sub(1)], &reply[end + 1..]),
        None => (reply, &[]),
    }
}

fn split_bulk(rest: &[u8], len: i64) -> (&[u8], &[u8]) {
    let len = (len as usize).min(rest.len());
    (&rest[..len], rest.get(len + 2..).unwrap_or_default())
}

/// Writes the reply of a run: its result, which the machine keeps. Returns the errors in it that are not counted yet.
pub(super) fn write_reply(stack: &mut Stack, reply: Reply<'_>, is_resp3: bool) -> Vec<ReplyError> {
    super::globals::push_result(stack);
    let mut writer = Writer { reply, is_resp3, errors: Vec::new() };
    write(stack, &mut writer, 0);
    writer.errors
}

struct Writer<'a> {
    reply: Reply<'a>,
    /// Booleans are what they are, rather than 1 and null.
    is_resp3: bool,
    errors: Vec<ReplyError>,
}

/// Writes the value on top, and takes it.
fn write(stack: &mut Stack, writer: &mut Writer<'_>, depth: usize) {
    if depth > MAX_DEPTH || !stack.has_room(8) {
        writer.reply.error(&ReplyError::fixed("ERR reached lua stack limit"));
        return stack.pop(1);
    }
    match stack.kind(-1) {
        Kind::String => writer.reply.bulk(stack.bytes(-1).unwrap_or_default()),
        Kind::Boolean if writer.is_resp3 => writer.reply.boolean(stack.is_true(-1)),
        Kind::Boolean if stack.is_true(-1) => writer.reply.integer(1),
        Kind::Number => writer.reply.integer(truncated(stack.number(-1).unwrap_or_default())),
        Kind::Table => return write_table(stack, writer, depth),
        _ => writer.reply.null(),
    }
    stack.pop(1);
}

/// A number as C casts it to 64 bits on x86.
fn truncated(number: f64) -> i64 {
    if number.is_nan() || !(-9.3e18..9.223_372_036_854_776e18).contains(&number) {
        return i64::MIN;
    }
    number as i64
}

fn write_table(stack: &mut Stack, writer: &mut Writer<'_>, depth: usize) {
    if !write_tagged(stack, writer, depth) {
        let mut len = 0;
        loop {
            stack.element(-1, len + 1);
            let is_end = stack.kind(-1) == Kind::Nil;
            stack.pop(1);
            if is_end {
                break;
            }
            len += 1;
        }
        writer.reply.array(len);
        for index in 1..=len {
            stack.element(-1, index);
            write(stack, writer, depth + 1);
        }
    }
    stack.pop(1);
}

/// Writes a table that stands for something else than an array; `false` if it does not.
fn write_tagged(stack: &mut Stack, writer: &mut Writer<'_>, depth: usize) -> bool {
    stack.field(-1, c"err");
    // A number counts as a string here, as everywhere in Lua.
    let error = stack.bytes(-1).map(<[u8]>::to_vec);
    stack.pop(1);
    if let Some(text) = error {
        let error = ReplyError::new(text);
        writer.reply.error(&error);
        stack.field(-1, c"ignore_error_stats_update");
        if !stack.is_true(-1) {
            writer.errors.push(error);
        }
        stack.pop(1);
        return true;
    }
    let mut text = |name| {
        stack.field(-1, name);
        let text = stack.bytes(-1).map(without_line_breaks);
        stack.pop(1);
        text
    };
    if let Some(text) = text(c"ok") {
        writer.reply.raw(&[b"+", text.as_slice(), b"\r\n"].concat());
        return true;
    }
    stack.field(-1, c"double");
    let double = (stack.kind(-1) == Kind::Number).then(|| stack.number(-1)).flatten();
    stack.pop(1);
    if let Some(double) = double {
        writer.reply.double(double);
        return true;
    }
    stack.field(-1, c"big_number");
    let number = stack.bytes(-1).map(without_line_breaks);
    stack.pop(1);
    if let Some(number) = number {
        writer.reply.big_number(&number);
        return true;
    }
    if let Some((format, text)) = verbatim(stack) {
        let mut three = format;
        three.resize(3, b' ');
        writer.reply.verbatim(&String::from_utf8_lossy(&three), &text);
        return true;
    }
    for (name, is_map) in [(c"map", true), (c"set", false)] {
        stack.field(-1, name);
        if stack.kind(-1) == Kind::Table {
            write_entries(stack, writer, depth, is_map);
            stack.pop(1);
            return true;
        }
        stack.pop(1);
    }
    false
}

fn verbatim(stack: &mut Stack) -> Option<(Vec<u8>, Vec<u8>)> {
    stack.field(-1, c"verbatim_string");
    let mut parts = (None, None);
    if stack.kind(-1) == Kind::Table {
        stack.field(-1, c"format");
        stack.field(-2, c"string");
        parts = (stack.bytes(-2).map(<[u8]>::to_vec), stack.bytes(-1).map(<[u8]>::to_vec));
        stack.pop(2);
    }
    stack.pop(1);
    parts.0.zip(parts.1)
}

fn write_entries(stack: &mut Stack, writer: &mut Writer<'_>, depth: usize, is_map: bool) {
    let deferred = writer.reply.deferred();
    let mut len = 0;
    stack.push_nil();
    while stack.next(-2) {
        if !is_map {
            stack.pop(1);
        }
        // The key stays for the next step; a copy of it is written.
        stack.copy(if is_map { -2 } else { -1 });
        write(stack, writer, depth + 1);
        if is_map {
            write(stack, writer, depth + 1);
        }
        len += 1;
    }
    if is_map {
        writer.reply.end_map(deferred, len);
    } else {
        writer.reply.end_set(deferred, len);
    }
}

fn without_line_breaks(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect()
}

/// Runs what `redis.call` was given, and pushes what came of it; says whether that is an error.
pub(super) fn call_host(stack: &mut Stack) -> bool {
    let shared = shared(stack);
    let (arguments, spans) = (std::mem::take(&mut shared.arguments), std::mem::take(&mut shared.spans));
    let mut reply = std::mem::take(&mut shared.reply);
    reply.clear();
    let args = crate::protocol::Args::new(&arguments, &spans);
    let result = match shared.host() {
        Some(host) => host.call(args, &mut reply),
        None => Err(ReplyError::fixed("ERR redis.call can only be called inside a script invocation")),
    };
    let is_error = match result {
        Err(error) => {
            super::api::push_error(stack, &[b"-", error.text()].concat(), true);
            true
        }
        Ok(()) => {
            push_reply(stack, &reply);
            reply.first() == Some(&b'-')
        }
    };
    let shared = super::machine::shared(stack);
    (shared.arguments, shared.spans) = (arguments, spans);
    if reply.capacity() <= 64 * 1024 {
        shared.reply = reply;
    }
    is_error
}
