//! `struct`: values to bytes and back, by a format string.

use std::ffi::CStr;

use super::super::stack::{Kind, NativeFunction, Raise, Stack};

/// The library.
pub const FUNCTIONS: &[(&CStr, NativeFunction)] = &[(c"pack", pack), (c"unpack", unpack), (c"size", size)];

const MAX_INTEGER: usize = 32;
/// The greatest alignment that `!` stands for without a number.
const MAX_ALIGNMENT: usize = 8;

/// A format that is read letter by letter.
struct Format {
    letters: std::iter::Peekable<std::vec::IntoIter<u8>>,
    is_big: bool,
    alignment: usize,
}

/// A letter with the bytes that its value takes.
struct Item {
    letter: u8,
    size: usize,
}

impl Format {
    fn new(text: Vec<u8>) -> Self {
        // As in C, where it ends at a zero.
        let letters: Vec<u8> = text.into_iter().take_while(|byte| *byte != 0).collect();
        Self { letters: letters.into_iter().peekable(), is_big: false, alignment: 1 }
    }

    fn number(&mut self, default: usize) -> Result<usize, Raise> {
        let mut number = None;
        while let Some(digit) = self.letters.next_if(u8::is_ascii_digit) {
            let next = number.unwrap_or(0) * 10 + usize::from(digit - b'0');
            if next > i32::MAX as usize {
                return Err("integral size overflow".into());
            }
            number = Some(next);
        }
        Ok(number.unwrap_or(default))
    }

    fn next(&mut self) -> Result<Option<Item>, Raise> {
        let Some(letter) = self.letters.next() else { return Ok(None) };
        let size = match letter {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > MAX_INTEGER {
                    return Err(format!("integral size {size} is larger than limit of {MAX_INTEGER}").into());
                }
                size
            }
            _ => 0,
        };
        Ok(Some(Item { letter, size }))
    }

    /// Bytes before a value that begins at `position` so that it is aligned.
    fn padding(&self, position: usize, item: &Item) -> usize {
        if item.size == 0 || item.letter == b'c' {
            return 0;
        }
        let size = item.size.min(self.alignment);
        (size.wrapping_sub(position & size.wrapping_sub(1))) & size.wrapping_sub(1)
    }

    /// A letter that stands for no value.
    fn control(&mut self, letter: u8, function: &str) -> Result<(), Raise> {
        match letter {
            b' ' => {}
            b'>' => self.is_big = true,
            b'<' => self.is_big = false,
            b'!' => {
                let alignment = self.number(MAX_ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    return Err(format!("alignment {alignment} is not a power of 2").into());
                }
                self.alignment = alignment;
            }
            other => {
                let text = format!("invalid format option '{}'", char::from(other));
                return Err(Stack::bad_argument(1, function, &text));
            }
        }
        Ok(())
    }

    fn ordered(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.is_big {
            bytes.reverse();
        }
        bytes
    }
}

fn pack(stack: &mut Stack) -> Result<usize, Raise> {
    let mut format = Format::new(stack.check_text(1, "pack")?);
    let (mut packed, mut argument) = (Vec::new(), 2);
    while let Some(item) = format.next()? {
        packed.resize(packed.len() + format.padding(packed.len(), &item), 0);
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = stack.check_number(argument, "pack")?;
                let value = if number < 0.0 { number as i64 as u64 } else { number as u64 };
                // Beyond eight bytes there are zeros, whatever the sign.
                let mut bytes = value.to_le_bytes().to_vec();
                bytes.resize(item.size.max(8), 0);
                bytes.truncate(item.size);
                packed.extend(format.ordered(bytes));
                argument += 1;
            }
            b'x' => packed.push(0),
            b'f' => {
                let number = stack.check_number(argument, "pack")? as f32;
                packed.extend(format.ordered(number.to_le_bytes().to_vec()));
                argument += 1;
            }
            b'd' => {
                let number = stack.check_number(argument, "pack")?;
                packed.extend(format.ordered(number.to_le_bytes().to_vec()));
                argument += 1;
            }
            b'c' | b's' => {
                let text = stack.check_text(argument, "pack")?;
                argument += 1;
                let size = if item.size == 0 { text.len() } else { item.size };
                if text.len() < size {
                    return Err(Stack::bad_argument(argument, "pack", "string too short"));
                }
                packed.extend_from_slice(&text[..size]);
                if item.letter == b's' {
                    packed.push(0);
                }
            }
            letter => format.control(letter, "pack")?,
        }
    }
    stack.push_bytes(&packed);
    Ok(1)
}

fn unpack(stack: &mut Stack) -> Result<usize, Raise> {
    let mut format = Format::new(stack.check_text(1, "unpack")?);
    let data = stack.check_text(2, "unpack")?;
    let first = if stack.len() < 3 { 1.0 } else { stack.check_number(3, "unpack")? };
    if first < 1.0 {
        return Err(Stack::bad_argument(3, "unpack", "offset must be 1 or greater"));
    }
    let mut position = first as usize - 1;
    let mut results = 0;
    let too_short = || Stack::bad_argument(2, "unpack", "data string too short");
    while let Some(item) = format.next()? {
        position = position.saturating_add(format.padding(position, &item));
        let fits = |size: usize| size <= data.len() && position <= data.len() - size;
        if !fits(item.size) {
            return Err(too_short());
        }
        if !stack.has_room(2) {
            return Err("stack overflow (too many results)".into());
        }
        let bytes = || format.ordered(data[position..position + item.size].to_vec());
        let mut size = item.size;
        match item.letter {
            letter @ (b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I') => {
                stack.push_number(read_integer(&bytes(), letter.is_ascii_lowercase()));
            }
            b'x' => results -= 1,
            b'f' => {
                let mut four = [0; 4];
                four.copy_from_slice(&bytes());
                stack.push_number(f32::from_le_bytes(four).into());
            }
            b'd' => {
                let mut eight = [0; 8];
                eight.copy_from_slice(&bytes());
                stack.push_number(f64::from_le_bytes(eight));
            }
            b'c' => {
                if size == 0 {
                    if results == 0 || stack.kind(-1) != Kind::Number {
                        return Err("format 'c0' needs a previous size".into());
                    }
                    size = stack.number(-1).unwrap_or_default() as usize;
                    stack.pop(1);
                    results -= 1;
                    if !fits(size) {
                        return Err(too_short());
                    }
                }
                stack.push_bytes(&data[position..position + size]);
            }
            b's' => {
                let Some(len) = memchr::memchr(0, &data[position..]) else {
                    return Err("unfinished string in data".into());
                };
                stack.push_bytes(&data[position..position + len]);
                size = len + 1;
            }
            letter => {
                format.control(letter, "unpack")?;
                results -= 1;
            }
        }
        results += 1;
        position += size;
    }
    stack.push_number((position + 1) as f64);
    Ok(results as usize + 1)
}

/// An integer of little-endian bytes; of more than eight the lowest count.
fn read_integer(bytes: &[u8], is_signed: bool) -> f64 {
    let mut eight = [0; 8];
    let len = bytes.len().min(8);
    eight[..len].copy_from_slice(&bytes[..len]);
    let value = u64::from_le_bytes(eight);
    if !is_signed {
        return value as f64;
    }
    let unused = 64 - 8 * len as u32;
    if unused == 64 { 0.0 } else { (((value << unused) as i64) >> unused) as f64 }
}

fn size(stack: &mut Stack) -> Result<usize, Raise> {
    let mut format = Format::new(stack.check_text(1, "size")?);
    let mut position = 0usize;
    while let Some(item) = format.next()? {
        position = position.saturating_add(format.padding(position, &item));
        match item.letter {
            b's' => return Err(Stack::bad_argument(1, "size", "option 's' has no fixed size")),
            b'c' if item.size == 0 => {
                return Err(Stack::bad_argument(1, "size", "option 'c0' has no fixed size"));
            }
            letter if !letter.is_ascii_alphanumeric() => format.control(letter, "size")?,
            _ => {}
        }
        position = position.saturating_add(item.size);
    }
    stack.push_number(position as f64);
    Ok(1)
}
