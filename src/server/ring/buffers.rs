//! The buffers that the kernel puts input into: a ring of them that both sides know (`io_uring_register_buf_ring(3)`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// How many buffers a thread has. A batch seldom brings more pieces than the kernel runs of its tasks at once.
const COUNT: u16 = 64;
/// Bytes of a buffer.
const SIZE: usize = 16 * 1024;
/// The group they are registered as.
pub(super) const GROUP: u16 = 0;
/// What the kernel wants the ring to lie at.
const PAGE: usize = 4096;

/// Input in a buffer that was not handed back yet.
pub(super) struct Piece {
    buffer: u16,
    start: usize,
    end: usize,
}

impl Piece {
    /// What the kernel says it put into a buffer.
    pub(super) fn new(buffer: u16, len: usize) -> Self {
        assert!(buffer < COUNT && len <= SIZE, "the kernel names a buffer that it was not given");
        Self { buffer, start: 0, end: len }
    }

    /// Bytes not taken yet.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// So many are taken.
    pub(super) fn advance(&mut self, taken: usize) {
        self.start += taken;
        debug_assert!(self.start <= self.end);
    }
}

/// The buffers and the ring that names them. The memory must outlive the kernel's use of it: see `Inner::drop`.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    fn entries_layout() -> Layout {
        let bytes = usize::from(COUNT) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE).expect("the size and alignment are constants")
    }

    fn bytes_layout() -> Layout {
        Layout::from_size_align(usize::from(COUNT) * SIZE, PAGE)
            .expect("the size and alignment are constants")
    }

    /// Allocates the buffers, not touching them, and hands them all out.
    pub(super) fn new() -> Self {
        // SAFETY: both layouts have a size above zero. Zeroed bytes are valid entries.
        let (entries, bytes) =
            unsafe { (alloc_zeroed(Self::entries_layout()), alloc_zeroed(Self::bytes_layout())) };
        let Some(entries) = NonNull::new(entries) else { handle_alloc_error(Self::entries_layout()) };
        let Some(bytes) = NonNull::new(bytes) else { handle_alloc_error(Self::bytes_layout()) };
        let mut buffers = Self { entries: entries.cast(), bytes, tail: 0 };
        for buffer in 0..COUNT {
            buffers.give_back(buffer);
        }
        buffers
    }

    /// Tells the kernel of them.
    ///
    /// # Errors
    /// If it knows no such rings.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the entries are page-aligned, `COUNT` of them, and live until the ring has ended (`Inner::drop`).
        unsafe { submitter.register_buf_ring_with_flags(self.entries.as_ptr() as u64, COUNT, GROUP, 0) }
    }

    /// What a piece holds.
    pub(super) fn bytes(&self, piece: &Piece) -> &[u8] {
        let start = usize::from(piece.buffer) * SIZE + piece.start;
        // SAFETY: `Piece::new` and `advance` keep it within its buffer, which the kernel does not touch before it is given
        // back; that takes the piece by value. The memory was zeroed or written by the kernel.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().add(start), piece.len()) }
    }

    /// Hands a piece's buffer back to the kernel.
    pub(super) fn recycle(&mut self, piece: Piece) {
        self.give_back(piece.buffer);
    }

    fn give_back(&mut self, buffer: u16) {
        let place = usize::from(self.tail % COUNT);
        // SAFETY: the place is within the ring, and the kernel reads it only after the tail has passed it. The fields are
        // written one by one: the first entry's last two bytes are the tail itself.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.bytes.as_ptr().add(usize::from(buffer) * SIZE) as u64);
            entry.set_len(SIZE as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned `u16` in the ring, which only this thread writes, and the kernel reads with
        // acquire order (`io_uring_buf_ring_advance(3)`).
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with these layouts; no operation that could write to them is under way any more.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout());
            dealloc(self.bytes.as_ptr(), Self::bytes_layout());
        }
    }
}
