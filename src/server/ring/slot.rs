//! One socket of a ring: what came, what goes out, and who waits for either.

use std::io;
use std::task::{Context, Waker};

use smallvec::SmallVec;

use super::buffers::{Buffers, Piece};
use crate::server::stream::Accepted;

/// Input that nobody has read above which no more is asked for.
pub(super) const MAX_AHEAD: usize = 256 * 1024;
/// Buffers for input ahead above this are not kept.
const KEEP_AHEAD: usize = 4 * 1024;

/// How the input ended.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The peer sends no more.
    Closed,
    /// With this error of the system.
    Failed(i32),
}

/// A waker that is kept between waits.
#[derive(Default)]
pub(super) struct Waiter {
    waker: Option<Waker>,
    /// Whether it waits now.
    pub(super) waits: bool,
}

impl Waiter {
    /// The task of `context` waits from now on.
    pub(super) fn wait(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
        self.waits = true;
    }

    /// Wakes it if it waits.
    pub(super) fn wake(&mut self) -> bool {
        if !std::mem::take(&mut self.waits) {
            return false;
        }
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
        true
    }
}

/// A socket of the ring.
#[derive(Default)]
pub(super) struct Slot {
    /// None in a place that is free.
    pub(super) socket: Option<Accepted>,
    /// A receive that goes on by itself is under way.
    pub(super) is_reading: bool,
    /// It is being called off.
    pub(super) is_calling_off: bool,
    /// A send is under way, of `output`.
    pub(super) is_sending: bool,
    /// The connection is gone; the place is free when nothing is under way.
    pub(super) is_closing: bool,
    /// What came for a reader who waited, where the kernel put it.
    held: SmallVec<[Piece; 1]>,
    /// What came when nobody waited, and was copied.
    ahead: Vec<u8>,
    /// The end, after all that.
    pub(super) end: Option<End>,
    /// The error of a send.
    pub(super) failure: Option<i32>,
    /// What is being sent.
    pub(super) output: Vec<u8>,
    /// How much of it was.
    pub(super) sent: usize,
    pub(super) reader: Waiter,
    pub(super) writer: Waiter,
}

impl Slot {
    /// Takes what came. Nothing stays in the kernel's buffers but for a reader who waited and is about to run: they are
    /// few.
    pub(super) fn accept(&mut self, piece: Piece, buffers: &mut Buffers) {
        if (self.reader.waits || !self.held.is_empty()) && self.ahead.is_empty() {
            self.held.push(piece);
            return;
        }
        self.spill(buffers);
        self.ahead.extend_from_slice(buffers.bytes(&piece));
        buffers.recycle(piece);
    }

    /// Gives the kernel's buffers back.
    pub(super) fn spill(&mut self, buffers: &mut Buffers) {
        for piece in self.held.drain(..) {
            self.ahead.extend_from_slice(buffers.bytes(&piece));
            buffers.recycle(piece);
        }
    }

    /// Whether enough came for now.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.len() + self.held.iter().map(Piece::len).sum::<usize>() >= MAX_AHEAD
    }

    /// Gives what came to `take`, which says how many bytes it took of what it is shown; the number in all.
    pub(super) fn read(&mut self, buffers: &mut Buffers, mut take: impl FnMut(&[u8]) -> usize) -> usize {
        let mut read = 0;
        while let Some(piece) = self.held.first_mut() {
            let taken = take(buffers.bytes(piece));
            read += taken;
            piece.advance(taken);
            if piece.len() > 0 {
                return read;
            }
            buffers.recycle(self.held.remove(0));
        }
        if !self.ahead.is_empty() {
            let taken = take(&self.ahead);
            self.ahead.drain(..taken);
            if self.ahead.is_empty() && self.ahead.capacity() > KEEP_AHEAD {
                self.ahead = Vec::new();
            }
            read += taken;
        }
        read
    }

    /// The end as a reader is told of it: with no bytes, or with an error.
    pub(super) fn ended(&self) -> Option<io::Result<()>> {
        self.end.map(|end| match end {
            End::Closed => Ok(()),
            End::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
        })
    }

    /// Forgets what came.
    pub(super) fn forget_input(&mut self, buffers: &mut Buffers) {
        self.held.drain(..).for_each(|piece| buffers.recycle(piece));
        self.ahead = Vec::new();
    }
}
