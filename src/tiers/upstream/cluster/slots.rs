//! Hash slots: which of the 16384 a key belongs to, and what `CLUSTER SLOTS` says of them.

use super::super::frame;

/// The number of slots.
pub const SLOTS: usize = 16384;

/// A node's host and port.
pub type Address = (String, u16);

/// CRC16 of the XMODEM kind: polynomial 0x1021, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |mut crc, byte| {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
        crc
    })
}

/// The slot of a key: of what stands in its first braces, if that is not empty.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let length = memchr::memchr(b'}', &key[open + 1..])?;
        (length > 0).then(|| &key[open + 1..open + 1 + length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// The master of each slot; `asked` is the host that said so, which stands for a host that is left out.
pub fn read(reply: &[u8], asked: &str) -> Option<Vec<(std::ops::RangeInclusive<u16>, Address)>> {
    let mut ranges = Vec::new();
    for range in frame::elements(reply)? {
        let parts = frame::elements(range)?;
        let [first, last, master, ..] = parts[..] else { return None };
        let slot = |frame| u16::try_from(frame::integer(frame)?).ok().filter(|slot| (*slot as usize) < SLOTS);
        let master = frame::elements(master)?;
        let host = frame::text(master.first()?).and_then(|host| std::str::from_utf8(host).ok());
        let host = host.filter(|host| !host.is_empty() && *host != "?").unwrap_or(asked);
        let port = u16::try_from(frame::integer(master.get(1)?)?).ok()?;
        ranges.push((slot(first)?..=slot(last)?, (host.to_owned(), port)));
    }
    Some(ranges)
}

/// What a node says in place of an answer, not having run the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirection {
    /// The slot is another node's.
    Moved(u16, Address),
    /// The key may be at another node, which is to be told `ASKING`.
    Ask(Address),
    /// Keys are on their way between nodes, or nobody serves the slot: later it may go.
    Later,
}

impl Redirection {
    /// What an error says; `asked` is the host that it comes from.
    pub fn of(reply: &[u8], asked: &str) -> Option<Self> {
        let line = reply.strip_prefix(b"-")?;
        if line.starts_with(b"TRYAGAIN ") || line.starts_with(b"CLUSTERDOWN ") {
            return Some(Self::Later);
        }
        if !line.starts_with(b"MOVED ") && !line.starts_with(b"ASK ") {
            return None;
        }
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let is_ask = words.next()? == "ASK";
        let slot = words.next()?.parse().ok().filter(|slot| (*slot as usize) < SLOTS)?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        let host = if host.is_empty() { asked } else { host };
        let address = (host.to_owned(), port.parse().ok()?);
        Some(if is_ask { Self::Ask(address) } else { Self::Moved(slot, address) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [(&b"foo"[..], 12182), (b"{foo}bar", 12182), (b"a{foo}{bar}", 12182), (b"", 0)] {
            assert_eq!(slot_of(key), slot, "{key:?}");
        }
        assert_eq!(slot_of(b"{}foo"), crc16(b"{}foo") % 16384);
        assert_eq!(slot_of(b"{foo"), crc16(b"{foo") % 16384);
    }

    #[test]
    fn maps_and_redirections_are_read() {
        let reply = b"*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$0\r\n\r\n:7000\r\n";
        assert_eq!(read(reply, "h"), Some(vec![(0..=5, ("h".to_owned(), 7000))]));
        assert_eq!(read(b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$0\r\n\r\n:7000\r\n", "h"), None);
        let at = |host: &str, port| (host.to_owned(), port);
        for (said, redirection) in [
            ("-MOVED 3 ::1:7001\r\n", Some(Redirection::Moved(3, at("::1", 7001)))),
            ("-ASK 3 :7001\r\n", Some(Redirection::Ask(at("h", 7001)))),
            ("-TRYAGAIN x\r\n", Some(Redirection::Later)),
            ("-MOVED 20000 a:1\r\n", None),
            ("-ERR MOVED\r\n", None),
            ("+MOVED 1 a:1\r\n", None),
        ] {
            assert_eq!(Redirection::of(said.as_bytes(), "h"), redirection, "{said}");
        }
    }
}
