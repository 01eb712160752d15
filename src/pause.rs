//! `CLIENT PAUSE`: commands that come meanwhile are held, each with its connection, until the pause is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::tiers::local::{Waiter, WaiterOutcome};

/// The pause, if there is one.
#[derive(Default)]
pub struct Pause {
    /// Whether there may be one: all that an unpaused server looks at.
    is_set: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Wall-clock milliseconds of its end.
    end_ms: u64,
    /// Reads go on.
    only_writes: bool,
    held: Vec<Arc<Waiter>>,
}

impl Pause {
    /// Begins a pause or changes it; a longer one that is there already keeps its end.
    pub fn begin(&self, end_ms: u64, only_writes: bool) {
        let mut state = self.state.lock();
        state.end_ms = state.end_ms.max(end_ms);
        let is_milder = only_writes && !state.only_writes;
        state.only_writes = only_writes;
        self.is_set.store(true, Relaxed);
        if is_milder {
            state.release();
        }
    }

    /// Ends it.
    pub fn end(&self) {
        let mut state = self.state.lock();
        self.is_set.store(false, Relaxed);
        state.end_ms = 0;
        state.release();
    }

    /// Whether there may be a pause.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.is_set.load(Relaxed)
    }

    /// Whether there is one, of any kind: then nothing expires or is evicted.
    pub fn is_on(&self, now_ms: u64) -> bool {
        self.is_set() && self.state.lock().end_ms > now_ms
    }

    /// Holds a command if there is a pause for it: the waiter is finished when it must be looked at again. Returns
    /// the milliseconds until the pause ends by itself.
    pub fn hold(
        &self,
        is_write: bool,
        now_ms: u64,
        make: impl FnOnce() -> Waiter,
    ) -> Option<(Arc<Waiter>, u64)> {
        let mut state = self.state.lock();
        if state.end_ms <= now_ms {
            self.is_set.store(false, Relaxed);
            state.held.clear();
            return None;
        }
        if state.only_writes && !is_write {
            return None;
        }
        let waiter = Arc::new(make());
        state.held.push(waiter.clone());
        Some((waiter, state.end_ms - now_ms))
    }

    /// Forgets a command that is held no more.
    pub fn forget(&self, waiter: &Arc<Waiter>) {
        self.state.lock().held.retain(|other| !Arc::ptr_eq(other, waiter));
    }
}

impl State {
    fn release(&mut self) {
        for waiter in self.held.drain(..) {
            waiter.finish(WaiterOutcome::Unblocked { with_error: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{OwnedArgs, Protocol};

    fn waiter() -> Waiter {
        Waiter::new(1, 0, Vec::new(), 0, OwnedArgs::default(), Protocol::Resp2)
    }

    #[test]
    fn holds_what_it_is_for_until_it_ends() {
        let pause = Pause::default();
        assert!(pause.hold(true, 0, waiter).is_none());
        pause.begin(100, false);
        pause.begin(50, false);
        let (read, millis) = pause.hold(false, 20, waiter).unwrap();
        assert_eq!(millis, 80);
        pause.begin(60, true);
        assert!(read.is_finished(), "reads go on");
        assert!(pause.hold(false, 20, waiter).is_none());
        let (write, _) = pause.hold(true, 20, waiter).unwrap();
        assert!(pause.is_on(99) && !pause.is_on(100));
        pause.end();
        assert!(write.is_finished() && !pause.is_set());
        pause.begin(100, false);
        assert!(pause.hold(true, 100, waiter).is_none() && !pause.is_set());
    }
}
