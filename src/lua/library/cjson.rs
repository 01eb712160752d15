//! `cjson`: JSON from Lua values, and the settings that scripts may change. Reading is in `cjson_read.rs`.

use std::ffi::CStr;

use super::super::machine::shared;
use super::super::stack::{Kind, NativeFunction, Raise, Stack};
use super::cjson_read::decode;
use crate::types::number::{FloatBuf, format_general};

/// The library.
pub const FUNCTIONS: &[(&CStr, NativeFunction)] = &[
    (c"encode", encode),
    (c"decode", decode),
    (c"encode_max_depth", |stack| integer_setting(stack, |json| &mut json.encode_depth, i32::MAX)),
    (c"decode_max_depth", |stack| integer_setting(stack, |json| &mut json.decode_depth, i32::MAX)),
    (c"encode_number_precision", |stack| integer_setting(stack, |json| &mut json.precision, 14)),
    (c"encode_sparse_array", sparse_setting),
    (c"encode_invalid_numbers", |stack| {
        word_setting(stack, |json| &mut json.encode_invalid, &["off", "on", "null"])
    }),
    (c"decode_invalid_numbers", |stack| word_setting(stack, |json| &mut json.decode_invalid, &["off", "on"])),
    (c"encode_keep_buffer", |stack| word_setting(stack, |json| &mut json.keep_buffer, &["off", "on"])),
    (c"new", new),
];

/// What scripts may set; it lasts for as long as the machine, as in Redis.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub(super) encode_depth: i32,
    pub(super) decode_depth: i32,
    pub(super) precision: i32,
    pub(super) sparse_converts: i32,
    pub(super) sparse_ratio: i32,
    pub(super) sparse_safe: i32,
    /// 0 off, 1 on, 2 null.
    pub(super) encode_invalid: i32,
    pub(super) decode_invalid: i32,
    pub(super) keep_buffer: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            encode_depth: 1000,
            decode_depth: 1000,
            precision: 14,
            sparse_converts: 0,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_invalid: 0,
            decode_invalid: 1,
            keep_buffer: 1,
        }
    }
}

/// No setting lets a table nest deeper than the machine's stack can follow.
const MAX_DEPTH: i32 = 2000;

fn at_most(stack: &Stack, count: usize, function: &str) -> Result<(), Raise> {
    if stack.len() > count {
        return Err(Stack::bad_argument(count + 1, function, "found too many arguments"));
    }
    Ok(())
}

type Setting = fn(&mut Settings) -> &mut i32;

fn set_integer(stack: &mut Stack, index: usize, setting: Setting, low: i32, high: i32) -> Result<(), Raise> {
    if !matches!(stack.kind(index as i32), Kind::None | Kind::Nil) {
        let value = stack.check_number(index, "?")? as i64;
        if !(i64::from(low)..=i64::from(high)).contains(&value) {
            let text = format!("expected integer between {low} and {high}");
            return Err(Stack::bad_argument(1, "?", &text));
        }
        *setting(&mut shared(stack).json) = value as i32;
    }
    Ok(())
}

fn integer_setting(stack: &mut Stack, setting: Setting, high: i32) -> Result<usize, Raise> {
    at_most(stack, 1, "?")?;
    set_integer(stack, 1, setting, 1, high)?;
    let value = *setting(&mut shared(stack).json);
    stack.push_number(value.into());
    Ok(1)
}

fn word_setting(stack: &mut Stack, setting: Setting, words: &[&str]) -> Result<usize, Raise> {
    at_most(stack, 1, "?")?;
    set_word(stack, setting, words)?;
    match *setting(&mut shared(stack).json) {
        value @ (0 | 1) => stack.push_boolean(value == 1),
        value => stack.push_bytes(words[value as usize].as_bytes()),
    }
    Ok(1)
}

fn set_word(stack: &mut Stack, setting: Setting, words: &[&str]) -> Result<(), Raise> {
    let value = match stack.kind(1) {
        Kind::None | Kind::Nil => return Ok(()),
        Kind::Boolean => i32::from(stack.is_true(1)),
        _ => {
            let text = stack.check_text(1, "?")?;
            match words.iter().position(|word| word.as_bytes() == text) {
                Some(index) => index as i32,
                None => {
                    let text = format!("invalid option '{}'", String::from_utf8_lossy(&text));
                    return Err(Stack::bad_argument(1, "?", &text));
                }
            }
        }
    };
    *setting(&mut shared(stack).json) = value;
    Ok(())
}

fn sparse_setting(stack: &mut Stack) -> Result<usize, Raise> {
    at_most(stack, 3, "?")?;
    set_word(stack, |json| &mut json.sparse_converts, &["off", "on"])?;
    set_integer(stack, 2, |json| &mut json.sparse_ratio, 0, i32::MAX)?;
    set_integer(stack, 3, |json| &mut json.sparse_safe, 0, i32::MAX)?;
    let json = shared(stack).json;
    stack.push_boolean(json.sparse_converts == 1);
    stack.push_number(json.sparse_ratio.into());
    stack.push_number(json.sparse_safe.into());
    Ok(3)
}

/// A library of its own; the settings are those of all.
fn new(stack: &mut Stack) -> Result<usize, Raise> {
    stack.push_table(0, FUNCTIONS.len() + 1);
    for (name, function) in FUNCTIONS {
        stack.push_function(*function);
        stack.set_field(-2, name);
    }
    stack.push_null();
    stack.set_field(-2, c"null");
    Ok(1)
}

fn encode(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.len() != 1 {
        return Err(Stack::bad_argument(1, "encode", "expected 1 argument"));
    }
    let settings = shared(stack).json;
    let mut writer = Writer { stack, settings, out: Vec::new() };
    writer.value(0)?;
    let out = writer.out;
    stack.push_bytes(&out);
    Ok(1)
}

struct Writer<'a> {
    stack: &'a mut Stack,
    settings: Settings,
    out: Vec<u8>,
}

impl Writer<'_> {
    /// Appends the value on top, which stays.
    fn value(&mut self, depth: i32) -> Result<(), Raise> {
        match self.stack.kind(-1) {
            Kind::String => self.string(-1),
            Kind::Number => return self.number(-1),
            Kind::Boolean => {
                let text: &[u8] = if self.stack.is_true(-1) { b"true" } else { b"false" };
                self.out.extend_from_slice(text);
            }
            Kind::Nil | Kind::Pointer => self.out.extend_from_slice(b"null"),
            Kind::Table => return self.table(depth + 1),
            _ => return Err(self.refuse(-1, "type not supported")),
        }
        Ok(())
    }

    fn refuse(&self, index: i32, reason: &str) -> Raise {
        format!("Cannot serialise {}: {reason}", self.stack.type_name(index)).into()
    }

    fn string(&mut self, index: i32) {
        let Some(bytes) = self.stack.bytes(index) else { return };
        self.out.reserve(bytes.len() + 2);
        self.out.push(b'"');
        for &byte in bytes {
            match byte {
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'/' => self.out.extend_from_slice(b"\\/"),
                8 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                12 => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0..0x20 | 0x7F => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }

    fn number(&mut self, index: i32) -> Result<(), Raise> {
        let number = self.stack.number(index).unwrap_or_default();
        if !number.is_finite() {
            match self.settings.encode_invalid {
                0 => return Err(self.refuse(index, "must not be NaN or Inf")),
                1 if number.is_nan() => self.out.extend_from_slice(b"nan"),
                1 => self.out.extend_from_slice(if number < 0.0 { b"-inf" } else { b"inf" }),
                _ => self.out.extend_from_slice(b"null"),
            }
            return Ok(());
        }
        let mut buffer = FloatBuf::new();
        self.out.extend_from_slice(format_general(number, self.settings.precision as usize, &mut buffer));
        Ok(())
    }

    fn table(&mut self, depth: i32) -> Result<(), Raise> {
        if depth > self.settings.encode_depth.min(MAX_DEPTH) || !self.stack.has_room(4) {
            return Err(format!("Cannot serialise, excessive nesting ({depth})").into());
        }
        match self.array_len()? {
            Some(len) if len > 0 => {
                self.out.push(b'[');
                for index in 1..=len {
                    if index > 1 {
                        self.out.push(b',');
                    }
                    self.stack.element(-1, index);
                    self.value(depth)?;
                    self.stack.pop(1);
                }
                self.out.push(b']');
                Ok(())
            }
            _ => self.object(depth),
        }
    }

    fn object(&mut self, depth: i32) -> Result<(), Raise> {
        self.out.push(b'{');
        let mut is_first = true;
        self.stack.push_nil();
        while self.stack.next(-2) {
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            match self.stack.kind(-2) {
                Kind::Number => {
                    self.out.push(b'"');
                    self.number(-2)?;
                    self.out.push(b'"');
                }
                Kind::String => self.string(-2),
                _ => return Err(self.refuse(-2, "table key must be a number or string")),
            }
            self.out.push(b':');
            self.value(depth)?;
            self.stack.pop(1);
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The greatest index of the table on top, if all keys are indices.
    fn array_len(&mut self) -> Result<Option<usize>, Raise> {
        let (mut max, mut items) = (0.0f64, 0.0f64);
        self.stack.push_nil();
        while self.stack.next(-2) {
            let key = if self.stack.kind(-2) == Kind::Number { self.stack.number(-2) } else { None };
            match key {
                Some(key) if key >= 1.0 && key.fract() == 0.0 && key < f64::from(i32::MAX) => {
                    max = max.max(key);
                    items += 1.0;
                    self.stack.pop(1);
                }
                _ => {
                    self.stack.pop(2);
                    return Ok(None);
                }
            }
        }
        let ratio = f64::from(self.settings.sparse_ratio);
        if ratio > 0.0 && max > items * ratio && max > f64::from(self.settings.sparse_safe) {
            if self.settings.sparse_converts == 0 {
                return Err(self.refuse(-1, "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok(Some(max as usize))
    }
}
