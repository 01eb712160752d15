//! The ring itself: what is handed to the kernel, and what it answers.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use tokio::io::ReadBuf;

use super::buffers::{Buffers, GROUP, Piece};
use super::slot::{End, Slot};
use crate::server::stream::Accepted;

/// Requests that may wait to be handed over.
const QUEUED: u32 = 256;
/// Answers that there is room for; the kernel keeps what there is none for.
const ANSWERS: u32 = 4096;
/// Above this, replies are written to the socket directly, as far as it takes them: copying them would cost more.
const DIRECT: usize = 16 * 1024;
/// What a send takes of those that the socket does not.
const PIECE: usize = 256 * 1024;
/// Buffers for sends that are kept for the next.
const SPARE: usize = 64;
/// `IORING_ENTER_GETEVENTS`: run what the kernel has put off for this thread.
const GET_EVENTS: u32 = 1;

/// What an operation was, in the low bits of its name.
const READ: u64 = 0;
const SEND: u64 = 1;
const CALL_OFF: u64 = 2;
const KINDS: u64 = 4;

/// A thread's ring with its sockets.
pub(super) struct Inner {
    ring: IoUring,
    buffers: Buffers,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Sockets whose receive ended while somebody waits for it.
    again: Vec<usize>,
    spare: Vec<Vec<u8>>,
    /// There was a turn for what the kernel said it had, and it brought nothing.
    looked_in_vain: bool,
    /// The driver, while it sleeps.
    sleeper: Option<Waker>,
}

impl Inner {
    /// Makes a ring, and an eventfd that tells when there is something in it while its driver rests.
    ///
    /// The ring's own descriptor does not: what is put off until this thread asks for it does not count there.
    ///
    /// # Errors
    /// If the kernel cannot do what is needed.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            // What the kernel has to do for a socket is done when this thread asks for it, all at once.
            .setup_defer_taskrun()
            // It does only so much at once, and says whether there is more: the descriptor tells of it once only.
            .setup_taskrun_flag()
            .setup_cqsize(ANSWERS)
            .dontfork()
            .build(QUEUED)?;
        let buffers = Buffers::new();
        buffers.register(&ring.submitter())?;
        // SAFETY: makes a descriptor, and passes no memory.
        let event = match unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: it was just made, so nobody else owns it.
            descriptor => unsafe { OwnedFd::from_raw_fd(descriptor) },
        };
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let inner = Self {
            ring,
            buffers,
            slots: Vec::new(),
            free: Vec::new(),
            again: Vec::new(),
            spare: Vec::new(),
            looked_in_vain: false,
            sleeper: None,
        };
        Ok((inner, event))
    }

    /// Takes a socket in; its place.
    pub(super) fn add(&mut self, socket: Accepted) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.slots[place].socket = Some(socket);
        place
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Hands over what is queued and takes in what is done. Whether a task was woken.
    ///
    /// # Errors
    /// If the kernel takes nothing.
    pub(super) fn turn(&mut self) -> io::Result<bool> {
        for place in std::mem::take(&mut self.again) {
            if self.slots[place].reader.waits {
                self.ask(place);
            }
        }
        self.enter()?;
        Ok(self.take_in())
    }

    /// Whether the driver may sleep; it is woken when something is queued.
    pub(super) fn rest(&mut self, context: &Context<'_>) -> bool {
        self.sleeper = Some(context.waker().clone());
        self.ring.completion().enable_eventfd();
        // What came before the kernel sees that is seen here.
        fence(Ordering::SeqCst);
        if !self.ring.completion().is_empty() || !self.again.is_empty() {
            return false;
        }
        let submission = self.ring.submission();
        let (is_submitted, may_have_more) =
            (submission.is_empty(), submission.taskrun() || submission.cq_overflow());
        drop(submission);
        if is_submitted && may_have_more {
            // Another turn costs less, and is mostly enough.
            if !std::mem::replace(&mut self.looked_in_vain, true) {
                return false;
            }
            self.do_all();
        }
        is_submitted && self.ring.completion().is_empty()
    }

    /// Has the kernel do all that it put off. That there is something may be wrong: it is said a moment after it is put
    /// off, and so, sometimes, when it is done already, and is not taken back then.
    fn do_all(&self) {
        let now = types::Timespec::new();
        let all = types::SubmitArgs::new().timespec(&now);
        // It waits for so many answers for no time, and until then does what there is.
        if let Err(error) = self.ring.submitter().submit_with_args(ANSWERS as usize, &all)
            && ![libc::ETIME, libc::EINTR].contains(&error.raw_os_error().unwrap_or(0))
        {
            tracing::error!(%error, "io_uring does nothing");
        }
    }

    /// The driver sleeps no more.
    pub(super) fn rise(&mut self) {
        self.sleeper = None;
        self.ring.completion().disable_eventfd();
    }

    fn enter(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no signal mask is passed; what is queued names buffers that live until its answer is here (`push`).
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GET_EVENTS, None) };
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // Interrupted, or no room for answers: they are taken in now, and the rest is handed over next time.
            Err((Some(libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Queues an operation. Whatever it names must live until its answer is taken in.
    fn push(&mut self, operation: squeue::Entry) {
        loop {
            // SAFETY: receives name the ring's own buffers; sends the output of a slot, which is not touched while
            // `is_sending`, nor moved: a `Vec` that moves leaves its bytes where they are. Sockets stay open until
            // nothing is under way (`release`), and `drop` waits for everything.
            if unsafe { self.ring.submission().push(&operation) }.is_ok() {
                break;
            }
            if let Err(error) = self.enter() {
                tracing::error!(%error, "io_uring takes nothing");
                std::thread::yield_now();
            }
        }
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Asks for what comes, until further notice.
    fn ask(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        let Some(socket) = slot.socket.as_ref().filter(|_| !slot.is_reading && slot.end.is_none()) else {
            return;
        };
        let receive = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), GROUP).build();
        slot.is_reading = true;
        self.push(receive.user_data(name(place, READ)));
    }

    /// Sends what is left of a slot's output.
    fn send(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        let Some(socket) = &slot.socket else { return };
        let rest = &slot.output[slot.sent..];
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        slot.is_sending = true;
        self.push(send.user_data(name(place, SEND)));
    }

    /// Takes in what the kernel has done. Whether a task was woken.
    fn take_in(&mut self) -> bool {
        let mut has_woken = false;
        loop {
            // One by one: what an answer leads to may queue something, and the queue be full.
            let Some(answer) = self.ring.completion().next() else { return has_woken };
            self.looked_in_vain = false;
            let place = (answer.user_data() / KINDS) as usize;
            match answer.user_data() % KINDS {
                READ => has_woken |= self.received(place, answer.result(), answer.flags()),
                SEND => has_woken |= self.was_sent(place, answer.result()),
                _ => {}
            }
        }
    }

    fn received(&mut self, place: usize, result: i32, flags: u32) -> bool {
        let slot = &mut self.slots[place];
        if !cqueue::more(flags) {
            slot.is_reading = false;
            slot.is_calling_off = false;
        }
        let piece = cqueue::buffer_select(flags).map(|buffer| Piece::new(buffer, result.max(0) as usize));
        let mut is_news = false;
        match (result, piece) {
            (1.., Some(piece)) if !slot.is_closing => {
                slot.accept(piece, &mut self.buffers);
                is_news = true;
            }
            (_, Some(piece)) => self.buffers.recycle(piece),
            (0, None) => {
                slot.end = Some(End::Closed);
                is_news = true;
            }
            // All buffers hold what connections did not read.
            (result, None) if result == -libc::ENOBUFS => {
                for slot in &mut self.slots {
                    slot.spill(&mut self.buffers);
                }
            }
            (result, None) if [-libc::ECANCELED, -libc::EINTR, -libc::EAGAIN].contains(&result) => {}
            (result, None) => {
                slot.end = Some(End::Failed(-result));
                is_news = true;
            }
        }
        let slot = &mut self.slots[place];
        if slot.is_closing {
            self.release(place);
            return false;
        }
        if is_news {
            let was_waiting = slot.reader.wake();
            if slot.is_ahead() && slot.is_reading && !slot.is_calling_off {
                slot.is_calling_off = true;
                let call_off = opcode::AsyncCancel::new(name(place, READ)).build();
                self.push(call_off.user_data(name(place, CALL_OFF)));
            }
            return was_waiting;
        }
        if !slot.is_reading && slot.reader.waits {
            self.again.push(place);
        }
        false
    }

    fn was_sent(&mut self, place: usize, result: i32) -> bool {
        let slot = &mut self.slots[place];
        slot.is_sending = false;
        match result {
            0.. => slot.sent += result as usize,
            _ if [-libc::EINTR, -libc::EAGAIN].contains(&result) => {}
            _ => slot.failure = Some(-result),
        }
        if slot.failure.is_none() && slot.sent < slot.output.len() && !slot.is_closing {
            self.send(place);
            return false;
        }
        let mut output = std::mem::take(&mut slot.output);
        if output.capacity() <= DIRECT && self.spare.len() < SPARE {
            output.clear();
            self.spare.push(output);
        }
        if slot.is_closing {
            self.release(place);
            return false;
        }
        slot.writer.wake()
    }

    /// Gives a reader what came, or lets it wait.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        place: usize,
        context: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let slot = &mut self.slots[place];
        let read = slot.read(&mut self.buffers, |bytes| {
            let taken = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..taken]);
            taken
        });
        if read > 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(ended) = slot.ended() {
            return Poll::Ready(ended);
        }
        slot.reader.wait(context);
        if !slot.is_reading {
            self.ask(place);
        }
        Poll::Pending
    }

    /// Takes bytes to be sent.
    #[inline]
    pub(super) fn write(&mut self, place: usize, bytes: &[u8]) -> io::Result<usize> {
        let slot = &mut self.slots[place];
        if let Some(errno) = slot.failure {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if slot.is_sending {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if bytes.len() > DIRECT {
            let written = match &slot.socket {
                Some(Accepted::Tcp(socket)) => (&*socket).write(bytes),
                Some(Accepted::Unix(socket)) => (&*socket).write(bytes),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            if !written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return written;
            }
        }
        let taken = bytes.len().min(PIECE);
        slot.output = self.spare.pop().unwrap_or_default();
        slot.output.extend_from_slice(&bytes[..taken]);
        slot.sent = 0;
        self.send(place);
        Ok(taken)
    }

    /// Whether all that was taken is sent.
    pub(super) fn poll_written(&mut self, place: usize, context: &Context<'_>) -> Poll<io::Result<()>> {
        let slot = &mut self.slots[place];
        if let Some(errno) = slot.failure {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        if !slot.is_sending {
            return Poll::Ready(Ok(()));
        }
        slot.writer.wait(context);
        Poll::Pending
    }

    /// Ends a connection. What was written goes out if the socket takes it now.
    pub(super) fn close(&mut self, place: usize) {
        if self.slots[place].is_sending
            && !self.ring.submission().is_empty()
            && let Err(error) = self.enter()
        {
            tracing::error!(%error, "io_uring takes nothing");
        }
        let slot = &mut self.slots[place];
        slot.is_closing = true;
        slot.forget_input(&mut self.buffers);
        if let Some(socket) = slot.socket.as_ref().filter(|_| slot.is_reading || slot.is_sending) {
            // What is under way ends by this.
            if let Err(error) = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Both) {
                tracing::debug!(%error, "the peer is gone");
            }
            if let Some(sleeper) = self.sleeper.take() {
                sleeper.wake();
            }
        }
        self.release(place);
    }

    /// Closes the socket of a connection that is gone once nothing is under way with it.
    fn release(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        if slot.is_closing && !slot.is_reading && !slot.is_sending && slot.socket.is_some() {
            *slot = Slot::default();
            self.free.push(place);
        }
    }
}

/// The name of an operation.
fn name(place: usize, kind: u64) -> u64 {
    place as u64 * KINDS + kind
}

impl Drop for Inner {
    /// Waits for what is under way: the kernel must not write to memory that is given back.
    fn drop(&mut self) {
        for place in 0..self.slots.len() {
            if self.slots[place].socket.is_some() {
                self.close(place);
            }
        }
        while self.slots.iter().any(|slot| slot.socket.is_some()) {
            if let Err(error) = self.ring.submit_and_wait(1)
                && error.raw_os_error() != Some(libc::EINTR)
            {
                // It cannot be said what the kernel still does.
                tracing::error!(%error, "the ring does not end");
                std::process::abort();
            }
            self.take_in();
        }
    }
}
