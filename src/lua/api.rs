//! The table `redis` that scripts see, and what becomes of errors.

use std::ffi::CStr;

use super::convert;
use super::machine::{make_reference, place_of_error, shared};
use super::stack::{Kind, NativeFunction, Raise, Stack};
use crate::protocol::{Args, Protocol, Span};
use crate::types::number::{FloatBuf, format_f64};

/// The version that scripts ask for.
const VERSION: (&str, u32) = ("7.2.4", 0x0007_0204);

const FUNCTIONS: &[(&CStr, NativeFunction)] = &[
    (c"call", call),
    (c"pcall", pcall),
    (c"log", log),
    (c"setresp", set_protocol),
    (c"sha1hex", sha1hex),
    (c"error_reply", error_reply),
    (c"status_reply", status_reply),
    (c"set_repl", set_replication),
    (c"acl_check_cmd", may_run),
];
const SCRIPT_FUNCTIONS: &[(&CStr, NativeFunction)] =
    &[(c"breakpoint", breakpoint), (c"debug", debug), (c"replicate_commands", replicate_commands)];
const NUMBERS: &[(&CStr, f64)] = &[
    (c"LOG_DEBUG", 0.0),
    (c"LOG_VERBOSE", 1.0),
    (c"LOG_NOTICE", 2.0),
    (c"LOG_WARNING", 3.0),
    (c"REPL_NONE", 0.0),
    (c"REPL_AOF", 1.0),
    (c"REPL_SLAVE", 2.0),
    (c"REPL_REPLICA", 2.0),
    (c"REPL_ALL", 3.0),
    (c"REDIS_VERSION_NUM", VERSION.1 as f64),
];

/// Pushes the table `redis`: of scripts, of functions, or of libraries while they are loaded.
pub(super) fn push(stack: &mut Stack, kind: ApiKind) {
    stack.push_table(0, 24);
    let mut functions: Vec<(&CStr, NativeFunction)> = FUNCTIONS.to_vec();
    match kind {
        ApiKind::Script => functions.extend(SCRIPT_FUNCTIONS),
        ApiKind::Function => {}
        ApiKind::Loading => functions = vec![(c"register_function", register_function), (c"log", log)],
    }
    for (name, function) in functions {
        stack.push_function(function);
        stack.set_field(-2, name);
    }
    for (name, number) in NUMBERS {
        if kind == ApiKind::Loading && name.to_bytes().starts_with(b"REPL") {
            continue;
        }
        stack.push_number(*number);
        stack.set_field(-2, name);
    }
    stack.push_bytes(VERSION.0.as_bytes());
    stack.set_field(-2, c"REDIS_VERSION");
}

/// Which `redis` a piece of Lua sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiKind {
    Script,
    Function,
    Loading,
}

/// Pushes an error as scripts see it: a table with the text, which begins with a code.
///
/// A text that begins with `-` has its code already. `is_counted`: the statistics know of it.
pub(super) fn push_error(stack: &mut Stack, text: &[u8], is_counted: bool) {
    let text = match text.strip_prefix(b"-") {
        Some(coded) if coded.contains(&b' ') => coded.to_vec(),
        Some(single) => [b"ERR ", single].concat(),
        None => [b"ERR ", text].concat(),
    };
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    stack.push_table(0, 2);
    stack.push_bytes(&text[..end]);
    stack.set_field(-2, c"err");
    if is_counted {
        stack.push_boolean(true);
        stack.set_field(-2, c"ignore_error_stats_update");
    }
}

fn raise<T>(stack: &mut Stack, text: &str) -> Result<T, Raise> {
    push_error(stack, text.as_bytes(), false);
    Err(Raise::Top)
}

/// Takes the arguments of a call as those of a command.
fn take_arguments(stack: &mut Stack) -> Result<(), &'static str> {
    let count = stack.len();
    if count == 0 {
        return Err("Please specify at least one argument for this redis lib call");
    }
    let (mut buffer, mut spans) = {
        let shared = shared(stack);
        (std::mem::take(&mut shared.arguments), std::mem::take(&mut shared.spans))
    };
    buffer.clear();
    spans.clear();
    let mut all = true;
    for index in 1..=count as i32 {
        let start = buffer.len();
        match stack.kind(index) {
            Kind::Number => push_number_text(&mut buffer, stack.number(index).unwrap_or_default()),
            _ => match stack.bytes(index) {
                Some(bytes) => buffer.extend_from_slice(bytes),
                None => {
                    all = false;
                    break;
                }
            },
        }
        spans.push(Span { start: start as u32, len: (buffer.len() - start) as u32 });
    }
    all &= u32::try_from(buffer.len()).is_ok();
    let shared = shared(stack);
    (shared.arguments, shared.spans) = (buffer, spans);
    if all { Ok(()) } else { Err("Lua redis lib command arguments must be strings or integers") }
}

/// A number as an argument of a command: whole if it is, else the shortest digits that read back.
fn push_number_text(buffer: &mut Vec<u8>, number: f64) {
    if number.fract() == 0.0 && number.abs() <= (i64::MAX / 2) as f64 {
        buffer.extend_from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
    } else {
        buffer.extend_from_slice(format_f64(number, &mut FloatBuf::new()));
    }
}

fn call(stack: &mut Stack) -> Result<usize, Raise> {
    if let Err(text) = take_arguments(stack) {
        return raise(stack, text);
    }
    stack.truncate(0);
    if convert::call_host(stack) { Err(Raise::Top) } else { Ok(1) }
}

fn pcall(stack: &mut Stack) -> Result<usize, Raise> {
    match take_arguments(stack) {
        Err(text) => push_error(stack, text.as_bytes(), false),
        Ok(()) => {
            stack.truncate(0);
            convert::call_host(stack);
        }
    }
    Ok(1)
}

fn may_run(stack: &mut Stack) -> Result<usize, Raise> {
    if let Err(text) = take_arguments(stack) {
        return raise(stack, text);
    }
    let shared = shared(stack);
    let (arguments, spans) = (std::mem::take(&mut shared.arguments), std::mem::take(&mut shared.spans));
    let answer = shared.host().and_then(|host| host.may_run(Args::new(&arguments, &spans)));
    (shared.arguments, shared.spans) = (arguments, spans);
    match answer {
        None => raise(stack, "Invalid command passed to redis.acl_check_cmd()"),
        Some(answer) => {
            stack.push_boolean(answer);
            Ok(1)
        }
    }
}

fn log(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.len() < 2 {
        return raise(stack, "redis.log() requires two arguments or more.");
    }
    let Some(level) = stack.number(1) else {
        return raise(stack, "First argument must be a number (log level).");
    };
    if !(0.0..4.0).contains(&level) {
        return raise(stack, "Invalid debug level.");
    }
    let words: Vec<Vec<u8>> = (2..=stack.len() as i32).filter_map(|index| stack.text(index)).collect();
    if let Some(host) = shared(stack).host() {
        host.log(level as i32, &words.join(&b' '));
    }
    Ok(0)
}

fn set_protocol(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.len() != 1 {
        return raise(stack, "redis.setresp() requires one argument.");
    }
    let protocol = match stack.number(1).map(|number| number as i64) {
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        _ => return raise(stack, "RESP version must be 2 or 3."),
    };
    if let Some(host) = shared(stack).host() {
        host.set_protocol(protocol);
    }
    Ok(0)
}

fn sha1hex(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.len() != 1 {
        return raise(stack, "wrong number of arguments");
    }
    let digest = sha1_of(&stack.text(1).unwrap_or_default());
    stack.push_bytes(&digest);
    Ok(1)
}

/// A SHA-1 digest in hexadecimal.
fn sha1_of(bytes: &[u8]) -> Vec<u8> {
    use sha1::Digest;
    sha1::Sha1::digest(bytes).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn error_reply(stack: &mut Stack) -> Result<usize, Raise> {
    match single_string(stack) {
        None => push_error(stack, b"wrong number or type of arguments", false),
        Some(text) if text.starts_with(b"-") => push_error(stack, &text, false),
        Some(text) => push_error(stack, &[b"-", text.as_slice()].concat(), false),
    }
    Ok(1)
}

fn status_reply(stack: &mut Stack) -> Result<usize, Raise> {
    match single_string(stack) {
        None => push_error(stack, b"wrong number or type of arguments", false),
        Some(text) => {
            stack.push_table(0, 1);
            stack.push_bytes(&text);
            stack.set_field(-2, c"ok");
        }
    }
    Ok(1)
}

fn single_string(stack: &Stack) -> Option<Vec<u8>> {
    (stack.len() == 1).then(|| stack.bytes(1).map(<[u8]>::to_vec)).flatten()
}

/// There is no replication to choose; the argument is checked.
fn set_replication(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.len() != 1 {
        return raise(stack, "redis.set_repl() requires one argument.");
    }
    match stack.number(1).map_or(0, |number| number as i64) {
        0..=3 => Ok(0),
        _ => raise(stack, "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."),
    }
}

/// There is no debugger.
fn breakpoint(stack: &mut Stack) -> Result<usize, Raise> {
    stack.push_boolean(false);
    Ok(1)
}

fn debug(_: &mut Stack) -> Result<usize, Raise> {
    Ok(0)
}

fn replicate_commands(stack: &mut Stack) -> Result<usize, Raise> {
    stack.push_boolean(true);
    Ok(1)
}

/// `pcall`: an error that is a table with a text becomes the text.
pub(super) fn lua_pcall(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.is_empty() {
        return Err(Stack::bad_argument(1, "pcall", "value expected"));
    }
    let arguments = stack.len() - 1;
    if stack.call(arguments, None) {
        stack.push_boolean(true);
        stack.insert(1);
        return Ok(stack.len());
    }
    if stack.kind(-1) == Kind::Table {
        stack.field(-1, c"err");
        if stack.kind(-1) == Kind::String {
            stack.remove(-2);
        } else {
            stack.pop(1);
        }
    }
    in_redis_words(stack);
    stack.push_boolean(false);
    stack.insert(-2);
    Ok(2)
}

/// Puts the few texts of Luau's that scripts and tests look at into the words of Lua 5.1 as Redis builds it.
fn in_redis_words(stack: &mut Stack) {
    const OURS: &[u8] = b"attempt to modify a readonly table";
    let Some(text) = stack.bytes(-1) else { return };
    if let Some(at) = memchr::memmem::find(text, OURS) {
        let mut text = text.to_vec();
        text[at] = b'A';
        stack.pop(1);
        stack.push_bytes(&text);
    }
}

/// What becomes of an error that nothing caught: a table with its text and its place.
pub(super) fn on_error(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.kind(1) != Kind::Table {
        stack.truncate(1);
        in_redis_words(stack);
        let text = stack.text(1).unwrap_or_else(|| match stack.kind(1) {
            Kind::Nil => b"nil".to_vec(),
            Kind::Boolean => {
                if stack.is_true(1) {
                    b"true".to_vec()
                } else {
                    b"false".to_vec()
                }
            }
            _ => format!("{}: 0x0", stack.type_name(1)).into_bytes(),
        });
        stack.truncate(0);
        stack.push_table(0, 3);
        stack.push_bytes(&[b"ERR ", text.as_slice()].concat());
        stack.set_field(-2, c"err");
    } else if stack.is_readonly(1) {
        return Ok(1);
    }
    if let Some((source, line)) = place_of_error(stack) {
        stack.push_bytes(format!("@{source}").as_bytes());
        stack.set_field(1, c"source");
        stack.push_number(f64::from(line));
        stack.set_field(1, c"line");
    }
    stack.truncate(1);
    Ok(1)
}

/// `redis.register_function(name, callback)` or with a table of named arguments.
fn register_function(stack: &mut Stack) -> Result<usize, Raise> {
    let count = stack.len();
    if !(1..=2).contains(&count) {
        return raise(stack, "wrong number of arguments to redis.register_function");
    }
    let named = match count {
        1 => named_registration(stack),
        _ => positional_registration(stack),
    };
    let (name, description, flags, function) = match named {
        Ok(parts) => parts,
        Err(text) => return raise(stack, text),
    };
    let result = match shared(stack).host() {
        Some(host) => host.register(name, description, flags, function),
        None => Err(b"redis.register_function can only be called on FUNCTION LOAD command".to_vec()),
    };
    match result {
        Ok(()) => Ok(0),
        Err(text) => {
            push_error(stack, &text, false);
            Err(Raise::Top)
        }
    }
}

type Registration = (Vec<u8>, Option<Vec<u8>>, Vec<Vec<u8>>, super::Function);

fn positional_registration(stack: &mut Stack) -> Result<Registration, &'static str> {
    let name = stack.text(1).ok_or("first argument to redis.register_function must be a string")?;
    if stack.kind(2) != Kind::Function {
        return Err("second argument to redis.register_function must be a function");
    }
    Ok((name, None, Vec::new(), make_reference(stack, 2)))
}

fn named_registration(stack: &mut Stack) -> Result<Registration, &'static str> {
    if stack.kind(1) != Kind::Table {
        return Err(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        );
    }
    let (mut name, mut description, mut flags, mut function) = (None, None, Vec::new(), None);
    stack.push_nil();
    while stack.next(1) {
        let Some(key) = stack.text(-2) else {
            return Err("named argument key given to redis.register_function is not a string");
        };
        match key.as_slice() {
            b"function_name" => {
                name = Some(
                    stack
                        .text(-1)
                        .ok_or("function_name argument given to redis.register_function must be a string")?,
                );
            }
            b"description" => {
                description = Some(
                    stack
                        .text(-1)
                        .ok_or("description argument given to redis.register_function must be a string")?,
                );
            }
            b"callback" => {
                if stack.kind(-1) != Kind::Function {
                    return Err("callback argument given to redis.register_function must be a function");
                }
                function = Some(make_reference(stack, -1));
            }
            b"flags" => flags = read_flags(stack)?,
            _ => return Err("unknown argument given to redis.register_function"),
        }
        stack.pop(1);
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let function = function.ok_or("redis.register_function must get a callback argument")?;
    Ok((name, description, flags, function))
}

fn read_flags(stack: &mut Stack) -> Result<Vec<Vec<u8>>, &'static str> {
    if stack.kind(-1) != Kind::Table {
        return Err("flags argument to redis.register_function must be a table representing function flags");
    }
    let mut flags = Vec::new();
    for index in 1.. {
        stack.element(-1, index);
        let kind = stack.kind(-1);
        let text = stack.bytes(-1).map(<[u8]>::to_vec);
        stack.pop(1);
        match text {
            _ if kind == Kind::Nil => break,
            Some(text) => flags.push(text),
            None => return Err("unknown flag given"),
        }
    }
    Ok(flags)
}
