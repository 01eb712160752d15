//! Replies of RESP3 in the words of RESP2, as the same Redis would have said them.
//!
//! Clients of RESP2 read through the connection that invalidations come by, which must speak RESP3. What differs is
//! known for each command whose row says how ([`Rewrite`]); others have a RESP2 connection.

use memchr::memchr;

/// How a command's reply differs beside the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// Not at all.
    Plain,
    /// Pairs within the reply are not nested.
    Flat,
    /// A null in place of the whole reply is a null array.
    NullArray,
    /// Nulls within the reply are null arrays.
    InnerNullArrays,
}

/// The reply in RESP2.
pub fn rewrite(frame: &[u8], how: Rewrite) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + 16);
    let whole: &[u8] = if how == Rewrite::NullArray { b"*-1\r\n" } else { b"$-1\r\n" };
    let inner: &[u8] = if how == Rewrite::InnerNullArrays { b"*-1\r\n" } else { b"$-1\r\n" };
    let is_aggregate = matches!(frame.first(), Some(b'*' | b'~' | b'%' | b'>'));
    if how == Rewrite::Flat && is_aggregate && flatten(frame, &mut out) {
        return out;
    }
    let mut rest = frame;
    while let Some(head) = memchr(b'\n', rest).map(|at| at + 1) {
        let is_whole = rest.len() == frame.len();
        rest = element(rest, head, if is_whole { whole } else { inner }, &mut out);
    }
    out
}

/// Writes one header, scalar or bulk string; returns what is behind it.
fn element<'a>(rest: &'a [u8], head: usize, null: &[u8], out: &mut Vec<u8>) -> &'a [u8] {
    let number = || crate::types::number::parse_i64(&rest[1..head - 2]).unwrap_or(0);
    match rest[0] {
        b'_' => out.extend_from_slice(null),
        b'#' => out.extend_from_slice(if rest[1] == b't' { b":1\r\n" } else { b":0\r\n" }),
        b',' | b'(' => bulk(&rest[1..head - 2], out),
        b'$' | b'=' => {
            let end = head + number().max(-2) as usize + 2;
            let end = if number() < 0 { head } else { end.min(rest.len()) };
            if rest[0] == b'=' {
                // Three letters of format and a colon.
                bulk(rest.get(head + 4..end - 2).unwrap_or_default(), out);
            } else {
                out.extend_from_slice(&rest[..end]);
            }
            return &rest[end..];
        }
        b'%' => header(number() * 2, out),
        b'~' | b'>' => header(number(), out),
        _ => out.extend_from_slice(&rest[..head]),
    }
    &rest[head..]
}

/// Writes an array of pairs as one flat array, if it is one.
fn flatten(frame: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(pairs) = super::frame::elements(frame) else { return false };
    let Some(pairs) = pairs.iter().map(|pair| super::frame::elements(pair)).collect::<Option<Vec<_>>>()
    else {
        return false;
    };
    header(pairs.iter().map(Vec::len).sum::<usize>() as i64, out);
    for part in pairs.iter().flatten() {
        out.extend_from_slice(&rewrite(part, Rewrite::Plain));
    }
    true
}

fn bulk(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn header(count: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{count}\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_those_of_resp2() {
        for (from, to) in [
            (&b"+OK\r\n"[..], &b"+OK\r\n"[..]),
            (b"_\r\n", b"$-1\r\n"),
            (b"#t\r\n", b":1\r\n"),
            (b",1.5\r\n", b"$3\r\n1.5\r\n"),
            (b"=6\r\ntxt:hi\r\n", b"$2\r\nhi\r\n"),
            (b"%1\r\n$1\r\nk\r\n_\r\n", b"*2\r\n$1\r\nk\r\n$-1\r\n"),
            (b"~2\r\n$2\r\n_\r\r\n:1\r\n", b"*2\r\n$2\r\n_\r\r\n:1\r\n"),
            (b"$0\r\n\r\n", b"$0\r\n\r\n"),
        ] {
            assert_eq!(rewrite(from, Rewrite::Plain), to, "{from:?}");
        }
    }

    #[test]
    fn shapes_are_those_of_the_command() {
        assert_eq!(rewrite(b"_\r\n", Rewrite::NullArray), b"*-1\r\n");
        assert_eq!(rewrite(b"*1\r\n_\r\n", Rewrite::NullArray), b"*1\r\n$-1\r\n");
        assert_eq!(rewrite(b"*1\r\n_\r\n", Rewrite::InnerNullArrays), b"*1\r\n*-1\r\n");
        assert_eq!(rewrite(b"*1\r\n*2\r\n$1\r\na\r\n,2\r\n", Rewrite::Flat), b"*2\r\n$1\r\na\r\n$1\r\n2\r\n");
        assert_eq!(rewrite(b"*1\r\n$1\r\na\r\n", Rewrite::Flat), b"*1\r\n$1\r\na\r\n");
        assert_eq!(rewrite(b"*0\r\n", Rewrite::Flat), b"*0\r\n");
        assert_eq!(rewrite(b"*2\r\n$1\r\na\r\n,2\r\n", Rewrite::Flat), b"*2\r\n$1\r\na\r\n$1\r\n2\r\n");
    }
}
