//! Who is told of every change of a key, whichever database it is in: those who keep what clients read.

use std::sync::atomic::Ordering::Relaxed;

use super::keyspace::Keyspace;

/// Somebody who is told of changes, under the lock of the key.
pub trait Listener: Send + Sync {
    /// A key has changed or is gone; by a client's command, or of itself.
    fn changed(&self, key: &[u8], of_itself: bool);
    /// The same by somebody elsewhere, of which only those are told who have read it.
    fn changed_for_readers(&self, key: &[u8]);
    /// The same, for those who want to hear of keys that they have not read.
    fn changed_for_others(&self, key: &[u8]);
    /// Whether there are such.
    fn has_others(&self) -> bool;
    /// They may have missed the change of any key.
    fn missed_by_others(&self);
    /// Any key may have changed.
    fn flushed(&self);
}

impl Keyspace {
    /// Tells `listener` of changes while anybody wants to hear of them. Once, before anybody is served.
    pub fn set_listener(&self, listener: &'static dyn Listener) {
        self.listener.get_or_init(|| listener);
    }

    /// One more wants to hear of changes; whoever reads under a lock from here on will.
    pub fn begin_listening(&self) {
        self.listening.fetch_add(1, Relaxed);
    }

    /// One wants to hear no more.
    pub fn end_listening(&self) {
        self.listening.fetch_sub(1, Relaxed);
    }

    /// Whether anybody wants to hear of changes.
    #[inline]
    pub fn is_listening(&self) -> bool {
        self.listening.load(Relaxed) > 0
    }

    /// A key has changed.
    #[inline]
    pub(super) fn tell_listener(&self, key: &[u8], of_itself: bool) {
        if self.is_listening() {
            self.tell_changed(key, of_itself);
        }
    }

    #[cold]
    fn tell_changed(&self, key: &[u8], of_itself: bool) {
        if let Some(listener) = self.listener.get() {
            listener.changed(key, of_itself);
        }
    }

    /// Any key may have changed.
    #[cold]
    pub(super) fn tell_flushed(&self) {
        if self.is_listening()
            && let Some(listener) = self.listener.get()
        {
            listener.flushed();
        }
    }
}

impl std::fmt::Debug for dyn Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Listener")
    }
}
