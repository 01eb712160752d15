//! Where the master is: Sentinels are asked before each connection, the first that answers is believed. They are reached as
//! the master is: by TLS if that is.
//!
//! That what they name is a master, the connection checks for itself (`connect`): for a moment after a failover, some
//! still name the old one.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::encode;
use super::frame::{self, Scanner};
use super::socket::Dialer;
use crate::config::upstream::Sentinels;

/// No answer is longer.
const MAX_ANSWER: usize = 64 * 1024;

/// The master's address, from the first Sentinel that knows it; none may take longer than `limit`.
///
/// # Errors
/// If none does.
pub async fn master(dialer: &Dialer, sentinels: &Sentinels, limit: Duration) -> io::Result<(String, u16)> {
    let mut faults = Vec::new();
    for (host, port) in &sentinels.addresses {
        match tokio::time::timeout(limit, ask(dialer, (host, *port), &sentinels.master)).await {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(error)) => faults.push(format!("{host}:{port}: {error}")),
            Err(_) => faults.push(format!("{host}:{port}: no answer")),
        }
    }
    let text = format!("no Sentinel knows where '{}' is ({})", sentinels.master, faults.join("; "));
    Err(io::Error::other(text))
}

async fn ask(dialer: &Dialer, (host, port): (&str, u16), master: &str) -> io::Result<(String, u16)> {
    let mut stream = dialer.connect(host, port).await?;
    let mut request = Vec::new();
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master];
    encode(words.iter().map(|word| word.as_bytes()), &mut request);
    stream.write_all(&request).await?;
    stream.flush().await?;
    let (mut answer, mut scanner) = (Vec::new(), Scanner::default());
    loop {
        if let Some(end) = scanner.next(&answer).map_err(io::Error::other)? {
            return read(&answer[..end]).ok_or_else(|| {
                io::Error::other(format!("says {}", String::from_utf8_lossy(&answer[..end]).trim()))
            });
        }
        if answer.len() > MAX_ANSWER || stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn read(answer: &[u8]) -> Option<(String, u16)> {
    let parts = frame::elements(answer)?;
    let [host, port] = parts[..] else { return None };
    let text = |frame| frame::text(frame).and_then(|text| std::str::from_utf8(text).ok());
    Some((text(host)?.to_owned(), text(port)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(read(b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n"), Some(("127.0.0.1".to_owned(), 6379)));
        assert_eq!(read(b"*-1\r\n"), None);
        assert_eq!(read(b"-ERR unknown command\r\n"), None);
    }
}
