//! `bit`: operations on 32-bit integers, as BitOp has them.

use std::ffi::CStr;

use super::super::stack::{NativeFunction, Raise, Stack};

/// The library.
pub const FUNCTIONS: &[(&CStr, NativeFunction)] = &[
    (c"tobit", |stack| unary(stack, "tobit", |bits| bits)),
    (c"bnot", |stack| unary(stack, "bnot", |bits| !bits)),
    (c"bswap", |stack| unary(stack, "bswap", u32::swap_bytes)),
    (c"band", |stack| fold(stack, "band", |left, right| left & right)),
    (c"bor", |stack| fold(stack, "bor", |left, right| left | right)),
    (c"bxor", |stack| fold(stack, "bxor", |left, right| left ^ right)),
    (c"lshift", |stack| shift(stack, "lshift", |bits, by| bits << by)),
    (c"rshift", |stack| shift(stack, "rshift", |bits, by| bits >> by)),
    (c"arshift", |stack| shift(stack, "arshift", |bits, by| ((bits as i32) >> by) as u32)),
    (c"rol", |stack| shift(stack, "rol", u32::rotate_left)),
    (c"ror", |stack| shift(stack, "ror", u32::rotate_right)),
    (c"tohex", to_hex),
];

/// A number's lowest 32 bits, rounded to the nearest whole one.
fn bits(stack: &Stack, index: usize, name: &str) -> Result<u32, Raise> {
    let number = stack.check_number(index, name)?;
    // Adding 2^52 + 2^51 leaves the whole number in the lowest bits of the fraction.
    Ok((number + 6_755_399_441_055_744.0).to_bits() as u32)
}

fn push(stack: &mut Stack, bits: u32) -> Result<usize, Raise> {
    stack.push_number(f64::from(bits as i32));
    Ok(1)
}

fn unary(stack: &mut Stack, name: &str, operation: fn(u32) -> u32) -> Result<usize, Raise> {
    let value = bits(stack, 1, name)?;
    push(stack, operation(value))
}

fn fold(stack: &mut Stack, name: &str, operation: fn(u32, u32) -> u32) -> Result<usize, Raise> {
    let mut value = bits(stack, 1, name)?;
    for index in 2..=stack.len() {
        value = operation(value, bits(stack, index, name)?);
    }
    push(stack, value)
}

fn shift(stack: &mut Stack, name: &str, operation: fn(u32, u32) -> u32) -> Result<usize, Raise> {
    let (value, by) = (bits(stack, 1, name)?, bits(stack, 2, name)? & 31);
    push(stack, operation(value, by))
}

fn to_hex(stack: &mut Stack) -> Result<usize, Raise> {
    let value = bits(stack, 1, "tohex")?;
    let digits = if stack.len() < 2 { 8 } else { bits(stack, 2, "tohex")? as i32 };
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let digits = digits.unsigned_abs().min(8) as usize;
    stack.push_bytes(&text.as_bytes()[8 - digits..]);
    Ok(1)
}
