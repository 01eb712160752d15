//! Redis's compact encodings inside of a payload: listpacks and integer sets.

use super::Invalid;
use crate::types::listpack::{Item, Listpack, back_length};

/// Bytes before a listpack's elements: all bytes in four, the count in two.
const HEADER: usize = 6;
/// The count of a listpack with too many elements to say.
const UNKNOWN_COUNT: u16 = u16::MAX;
/// The byte behind a listpack's last element.
const END: u8 = 0xff;

/// A listpack as Redis lays it out.
pub(super) fn listpack(pack: &Listpack) -> Vec<u8> {
    let body = pack.elements();
    let mut bytes = Vec::with_capacity(HEADER + body.len() + 1);
    bytes.extend_from_slice(&((HEADER + body.len() + 1) as u32).to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(pack.len()).unwrap_or(UNKNOWN_COUNT).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes.push(END);
    bytes
}

/// Calls `visit` for each element of a listpack, once all of it is found to be sound.
pub(super) fn read_listpack<'a>(
    bytes: &'a [u8],
    mut visit: impl FnMut(Item<'a>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Invalid::Data)?;
    let (end, mut body) = rest.split_last().ok_or(Invalid::Data)?;
    let total = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    if *end != END || total as usize != bytes.len() {
        return Err(Invalid::Data);
    }
    let mut count = 0usize;
    while !body.is_empty() {
        let (item, size) = element(body).ok_or(Invalid::Data)?;
        visit(item)?;
        body = &body[size..];
        count += 1;
    }
    let said = u16::from_le_bytes([header[4], header[5]]);
    if said != UNKNOWN_COUNT && usize::from(said) != count {
        return Err(Invalid::Data);
    }
    Ok(())
}

/// The first element of these, with the bytes it takes.
fn element(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    let [first, rest @ ..] = bytes else { return None };
    let text = |head: usize, len: usize| {
        let end = head.checked_add(len)?;
        Some((Item::Bytes(bytes.get(head..end)?), end))
    };
    let wide = |count: usize| {
        let mut value = [0; 8];
        value[..count].copy_from_slice(rest.get(..count)?);
        let unused = 64 - 8 * count as u32;
        Some((Item::Int(i64::from_le_bytes(value) << unused >> unused), count + 1))
    };
    let (item, len) = match *first {
        small @ 0..=0x7f => (Item::Int(small.into()), 1),
        mark @ 0x80..=0xbf => text(1, usize::from(mark & 0x3f))?,
        mark @ 0xc0..=0xdf => {
            let bits = u16::from(mark & 0x1f) << 8 | u16::from(*rest.first()?);
            (Item::Int(i64::from((bits << 3) as i16 >> 3)), 2)
        }
        mark @ 0xe0..=0xef => text(2, usize::from(mark & 15) << 8 | usize::from(*rest.first()?))?,
        0xf0 => text(5, u32::from_le_bytes(*rest.first_chunk()?) as usize)?,
        0xf1 => wide(2)?,
        0xf2 => wide(3)?,
        0xf3 => wide(4)?,
        0xf4 => wide(8)?,
        _ => return None,
    };
    let mut back = [0; 5];
    let back = back_length(len, &mut back);
    (bytes.get(len..len + back.len())? == back).then_some((item, len + back.len()))
}

/// An integer set as Redis lays it out: the width of a member, their count, the members.
pub(super) fn integers(members: impl ExactSizeIterator<Item = i64>, width: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + members.len() * width);
    bytes.extend_from_slice(&(width as u32).to_le_bytes());
    bytes.extend_from_slice(&(members.len() as u32).to_le_bytes());
    members.for_each(|member| bytes.extend_from_slice(&member.to_le_bytes()[..width]));
    bytes
}

/// The members of an integer set, which must ascend.
pub(super) fn read_integers(bytes: &[u8]) -> Result<Vec<i64>, Invalid> {
    let (header, body) = bytes.split_first_chunk::<8>().ok_or(Invalid::Data)?;
    let width = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if !matches!(width, 2 | 4 | 8) || count.checked_mul(width) != Some(body.len()) || count == 0 {
        return Err(Invalid::Data);
    }
    let member = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(bytes);
        let unused = 64 - 8 * width as u32;
        i64::from_le_bytes(wide) << unused >> unused
    };
    let members: Vec<i64> = body.chunks_exact(width).map(member).collect();
    if members.is_sorted_by(|a, b| a < b) { Ok(members) } else { Err(Invalid::Data) }
}
