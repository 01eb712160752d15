//! `cmsgpack`: MessagePack from Lua values and back.

use std::ffi::CStr;

use super::super::stack::{Kind, NativeFunction, Raise, Stack};

/// The library.
pub const FUNCTIONS: &[(&CStr, NativeFunction)] = &[
    (c"pack", pack),
    (c"unpack", |stack| unpack(stack, 0, 0, false)),
    (c"unpack_one", |stack| {
        let offset = optional(stack, 2, 0)?;
        unpack(stack, 1, offset, true)
    }),
    (c"unpack_limit", |stack| {
        let limit = stack.check_number(2, "unpack_limit")? as i64;
        let offset = optional(stack, 3, 0)?;
        unpack(stack, limit, offset, true)
    }),
];

/// Tables deeper than this are written as nil.
const MAX_NESTING: usize = 16;
/// Values within one another that are read.
const MAX_READ_DEPTH: usize = 1000;

fn optional(stack: &Stack, index: usize, default: i64) -> Result<i64, Raise> {
    match stack.kind(index as i32) {
        Kind::None | Kind::Nil => Ok(default),
        _ => Ok(stack.check_number(index, "unpack")? as i64),
    }
}

fn pack(stack: &mut Stack) -> Result<usize, Raise> {
    let count = stack.len();
    if count == 0 {
        return Err(Stack::bad_argument(0, "pack", "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for index in 1..=count as i32 {
        if !stack.has_room(2) {
            return Err("stack overflow (in function mp_check)".into());
        }
        stack.copy(index);
        write(stack, &mut out, 0)?;
    }
    stack.push_bytes(&out);
    Ok(1)
}

/// Appends the value on top, and takes it.
fn write(stack: &mut Stack, out: &mut Vec<u8>, level: usize) -> Result<(), Raise> {
    match stack.kind(-1) {
        Kind::String => {
            let bytes = stack.bytes(-1).unwrap_or_default();
            match bytes.len() {
                len @ 0..32 => out.push(0xA0 | len as u8),
                len => write_len(out, len, [0xD9, 0xDA, 0xDB]),
            }
            out.extend_from_slice(bytes);
        }
        Kind::Boolean => out.push(if stack.is_true(-1) { 0xC3 } else { 0xC2 }),
        Kind::Number => write_number(out, stack.number(-1).unwrap_or_default()),
        Kind::Table if level < MAX_NESTING => {
            if !stack.has_room(5) {
                return Err("stack overflow (in function mp_encode_lua_table_as_map)".into());
            }
            write_table(stack, out, level)?;
        }
        _ => out.push(0xC0),
    }
    stack.pop(1);
    Ok(())
}

fn write_len(out: &mut Vec<u8>, len: usize, [one, two, four]: [u8; 3]) {
    match len {
        0..=0xFF if one != 0 => out.extend_from_slice(&[one, len as u8]),
        0..=0xFFFF => {
            out.push(two);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(four);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: f64) {
    if number.fract() == 0.0 && (-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(&number) {
        return write_integer(out, number as i64);
    }
    let single = number as f32;
    if f64::from(single) == number {
        out.push(0xCA);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xCB);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    let bytes = number.to_be_bytes();
    let (mark, len) = match number {
        -32..=127 => return out.push(number as u8),
        128..=0xFF => (0xCC, 1),
        0x100..=0xFFFF => (0xCD, 2),
        0x1_0000..=0xFFFF_FFFF => (0xCE, 4),
        0x1_0000_0000.. => (0xCF, 8),
        -128..=-33 => (0xD0, 1),
        -32_768..=-129 => (0xD1, 2),
        -2_147_483_648..=-32_769 => (0xD2, 4),
        _ => (0xD3, 8),
    };
    out.push(mark);
    out.extend_from_slice(&bytes[8 - len..]);
}

fn write_table(stack: &mut Stack, out: &mut Vec<u8>, level: usize) -> Result<(), Raise> {
    let (mut entries, mut max, mut is_array) = (0usize, 0.0f64, true);
    stack.push_nil();
    while stack.next(-2) {
        stack.pop(1);
        entries += 1;
        match stack.number(-1) {
            Some(key) if stack.kind(-1) == Kind::Number && key > 0.0 && key.fract() == 0.0 => {
                max = max.max(key)
            }
            _ => is_array = false,
        }
    }
    if is_array && max == entries as f64 {
        match entries {
            len @ 0..16 => out.push(0x90 | len as u8),
            len => write_len(out, len, [0, 0xDC, 0xDD]),
        }
        for index in 1..=entries {
            stack.element(-1, index);
            write(stack, out, level + 1)?;
        }
        return Ok(());
    }
    match entries {
        len @ 0..16 => out.push(0x80 | len as u8),
        len => write_len(out, len, [0, 0xDE, 0xDF]),
    }
    stack.push_nil();
    while stack.next(-2) {
        stack.copy(-2);
        write(stack, out, level + 1)?;
        write(stack, out, level + 1)?;
    }
    Ok(())
}

fn unpack(stack: &mut Stack, limit: i64, offset: i64, tells_offset: bool) -> Result<usize, Raise> {
    let data = stack.check_text(1, "unpack")?;
    if offset < 0 || limit < 0 {
        return Err(format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            data.len()
        )
        .into());
    }
    if offset > data.len() as i64 {
        return Err(format!("Start offset {offset} greater than input length {}.", data.len()).into());
    }
    let limit = if limit == 0 && !tells_offset { i64::MAX } else { limit };
    let mut reader = Reader { rest: &data[offset as usize..] };
    if tells_offset {
        // Its place among the results; the number comes at the end.
        stack.push_nil();
    }
    let place = stack.len();
    let mut count = 0;
    while count < limit && !reader.rest.is_empty() {
        reader.value(stack, 0)?;
        count += 1;
    }
    if tells_offset {
        let next = if reader.rest.is_empty() { -1.0 } else { (data.len() - reader.rest.len()) as f64 };
        stack.push_number(next);
        stack.insert(place as i32);
        stack.remove(place as i32 + 1);
        return Ok(count as usize + 1);
    }
    Ok(count as usize)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Raise> {
        if self.rest.len() < len {
            return Err("Missing bytes in input.".into());
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    fn unsigned(&mut self, len: usize) -> Result<u64, Raise> {
        Ok(self.take(len)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, len: usize) -> Result<i64, Raise> {
        let unused = 64 - 8 * len as u32;
        Ok(((self.unsigned(len)? << unused) as i64) >> unused)
    }

    fn value(&mut self, stack: &mut Stack, depth: usize) -> Result<(), Raise> {
        if depth > MAX_READ_DEPTH || !stack.has_room(4) {
            return Err("too many return values at once; use unpack_one or unpack_limit instead.".into());
        }
        let mark = self.take(1)?[0];
        match mark {
            0x00..=0x7F => stack.push_number(mark.into()),
            0xE0..=0xFF => stack.push_number((mark as i8).into()),
            0x80..=0x8F => return self.map(stack, usize::from(mark & 15), depth),
            0x90..=0x9F => return self.array(stack, usize::from(mark & 15), depth),
            0xA0..=0xBF => stack.push_bytes(self.take(usize::from(mark & 31))?),
            0xC0 => stack.push_nil(),
            0xC2 | 0xC3 => stack.push_boolean(mark == 0xC3),
            0xCA => {
                let bits = self.unsigned(4)? as u32;
                stack.push_number(f32::from_bits(bits).into());
            }
            0xCB => {
                let bits = self.unsigned(8)?;
                stack.push_number(f64::from_bits(bits));
            }
            0xCC..=0xCF => {
                let value = self.unsigned(1 << (mark - 0xCC))?;
                stack.push_number(value as f64);
            }
            0xD0..=0xD3 => {
                let value = self.signed(1 << (mark - 0xD0))?;
                stack.push_number(value as f64);
            }
            0xD9..=0xDB => {
                let len = self.unsigned(1 << (mark - 0xD9))? as usize;
                stack.push_bytes(self.take(len)?);
            }
            0xDC | 0xDD => {
                let len = self.unsigned(2 << (mark - 0xDC))? as usize;
                return self.array(stack, len, depth);
            }
            0xDE | 0xDF => {
                let len = self.unsigned(2 << (mark - 0xDE))? as usize;
                return self.map(stack, len, depth);
            }
            _ => return Err("Bad data format in input.".into()),
        }
        Ok(())
    }

    fn array(&mut self, stack: &mut Stack, len: usize, depth: usize) -> Result<(), Raise> {
        stack.push_table(len.min(self.rest.len()), 0);
        for index in 1..=len {
            self.value(stack, depth + 1)?;
            stack.set_element(-2, index);
        }
        Ok(())
    }

    fn map(&mut self, stack: &mut Stack, len: usize, depth: usize) -> Result<(), Raise> {
        stack.push_table(0, len.min(self.rest.len()));
        for _ in 0..len {
            self.value(stack, depth + 1)?;
            self.value(stack, depth + 1)?;
            if matches!(stack.kind(-2), Kind::Nil) || stack.number(-2).is_some_and(f64::is_nan) {
                return Err("table index is nil".into());
            }
            stack.set_entry(-3);
        }
        Ok(())
    }
}
