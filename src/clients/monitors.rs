//! `MONITOR`: who is shown every command that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Client, MAX_PUSHES};
use crate::protocol::Args;

/// Who is shown them.
#[derive(Default)]
pub struct Monitors {
    clients: Mutex<Vec<Arc<Client>>>,
    /// How many they are: while there is none, nothing is written.
    count: AtomicUsize,
}

impl Monitors {
    /// Whether there is nobody.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Shows a client what runs from here on.
    pub fn add(&self, client: &Arc<Client>) {
        let mut clients = self.clients.lock();
        clients.push(client.clone());
        client.monitors.store(true, Relaxed);
        self.count.store(clients.len(), Relaxed);
    }

    /// Shows it no more.
    pub fn remove(&self, client: &Client) {
        if client.monitors.swap(false, Relaxed) {
            let mut clients = self.clients.lock();
            clients.retain(|other| other.id != client.id);
            self.count.store(clients.len(), Relaxed);
        }
    }

    /// Shows a command, of which it is said when it ran, in microseconds, in which database and whose it is.
    #[cold]
    pub fn show(&self, micros: u64, db: usize, whose: &str, args: Args<'_>) {
        let mut line =
            format!("+{}.{:06} [{db} {whose}]", micros / 1_000_000, micros % 1_000_000).into_bytes();
        for argument in args.iter() {
            line.extend_from_slice(b" \"");
            argument.iter().for_each(|byte| push_quoted(&mut line, *byte));
            line.push(b'"');
        }
        line.extend_from_slice(b"\r\n");
        self.clients.lock().iter().for_each(|client| client.push_within(&line, MAX_PUSHES));
    }
}

fn push_quoted(line: &mut Vec<u8>, byte: u8) {
    let escaped = match byte {
        b'\\' | b'"' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        7 => b'a',
        8 => b'b',
        b' '..=b'~' => return line.push(byte),
        _ => return line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
    };
    line.extend_from_slice(&[b'\\', escaped]);
}
