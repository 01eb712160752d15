//! Messages to a client that are no replies. They wait for the replies of what the client has run before.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

/// Messages that are to be sent.
#[derive(Debug, Default)]
pub struct Pushes {
    waits: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

impl Pushes {
    /// Whether there are any.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// Adds one; returns how many bytes wait then.
    pub fn add(&self, message: &[u8]) -> usize {
        let mut bytes = self.bytes.lock();
        bytes.extend_from_slice(message);
        self.waits.store(true, Relaxed);
        bytes.len()
    }

    /// Takes all of them.
    #[cold]
    pub fn take(&self) -> Vec<u8> {
        let mut bytes = self.bytes.lock();
        self.waits.store(false, Relaxed);
        std::mem::take(&mut *bytes)
    }
}
