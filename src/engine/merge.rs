//! One reply out of those of several nodes.

use super::spread::MOST_NODES;
use crate::tiers::upstream::{elements, integer, text};

/// How replies become one; an error among them is the reply.
#[derive(Debug, Clone, Copy)]
pub(super) enum Merge {
    /// Their sum.
    Sum,
    /// Any: all say the same.
    AllOk,
    /// All their elements.
    Concatenated,
    /// A page of this node, of so many.
    Scan { index: usize, count: usize },
}

impl Merge {
    /// The reply; `replies` are no errors.
    pub fn write(self, replies: &[&[u8]], out: &mut Vec<u8>) {
        match self {
            Self::Sum => {
                let sum: i64 = replies.iter().filter_map(|reply| integer(reply)).sum();
                out.extend_from_slice(format!(":{sum}\r\n").as_bytes());
            }
            Self::AllOk => out.extend_from_slice(replies.first().copied().unwrap_or_default()),
            Self::Concatenated => {
                let parts: Vec<&[u8]> =
                    replies.iter().flat_map(|reply| elements(reply).unwrap_or_default()).collect();
                out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
                parts.iter().for_each(|part| out.extend_from_slice(part));
            }
            Self::Scan { index, count } => {
                let reply = replies.first().copied().unwrap_or_default();
                let parts = elements(reply).unwrap_or_default();
                let cursor = parts.first().and_then(|part| text(part));
                let cursor = cursor.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
                let (Some(cursor), [_, keys]) = (cursor, &parts[..]) else {
                    return out.extend_from_slice(reply);
                };
                let next = match cursor {
                    0 if index + 1 < count => index as u64 + 1,
                    0 => 0,
                    cursor => cursor.wrapping_mul(MOST_NODES) + index as u64,
                }
                .to_string();
                out.extend_from_slice(format!("*2\r\n${}\r\n{next}\r\n", next.len()).as_bytes());
                out.extend_from_slice(keys);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(merge: Merge, replies: &[&[u8]]) -> String {
        let mut out = Vec::new();
        merge.write(replies, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_become_one() {
        assert_eq!(merged(Merge::Sum, &[b":2\r\n", b":3\r\n"]), ":5\r\n");
        assert_eq!(merged(Merge::AllOk, &[b"+OK\r\n", b"+OK\r\n"]), "+OK\r\n");
        let keys = merged(Merge::Concatenated, &[b"*1\r\n$1\r\na\r\n", b"*0\r\n", b"*1\r\n$1\r\nb\r\n"]);
        assert_eq!(keys, "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    }

    #[test]
    fn a_scan_goes_from_node_to_node() {
        let scan = |index, page: &[u8]| merged(Merge::Scan { index, count: 2 }, &[page]);
        assert_eq!(scan(0, b"*2\r\n$1\r\n5\r\n*0\r\n"), "*2\r\n$4\r\n5120\r\n*0\r\n");
        assert_eq!(scan(0, b"*2\r\n$1\r\n0\r\n*0\r\n"), "*2\r\n$1\r\n1\r\n*0\r\n");
        assert_eq!(scan(1, b"*2\r\n$1\r\n3\r\n*0\r\n"), "*2\r\n$4\r\n3073\r\n*0\r\n");
        assert_eq!(scan(1, b"*2\r\n$1\r\n0\r\n*0\r\n"), "*2\r\n$1\r\n0\r\n*0\r\n");
    }
}
