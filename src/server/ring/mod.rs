//! Client sockets over io_uring: one receive a socket that goes on by itself, sends handed over in one call for all
//! connections that ran since the last.
//!
//! A thread has one ring, and its runtime watches an eventfd that tells of it. Connections find what came in their
//! [`RingStream`], as if a socket had been read; what they write is copied and sent when all tasks that were ready have
//! run. Of three calls a request two remain for a whole batch. Everything else of the runtime is as before.

mod buffers;
mod inner;
mod slot;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};

use self::inner::Inner;
use super::stream::Accepted;

/// A thread's ring.
pub struct Ring {
    /// Tells when there is something in it while the driver rests. It is never read: each event is an edge.
    event: AsyncFd<OwnedFd>,
    inner: RefCell<Inner>,
}

impl Ring {
    /// Makes the ring of this thread, watched by its runtime.
    ///
    /// # Errors
    /// If the kernel has no io_uring that can do what is needed (6.1), or does not let this process use it.
    pub fn new() -> io::Result<Rc<Self>> {
        let (inner, event) = Inner::new()?;
        // SAFETY: the descriptor is owned by what watches it.
        let event = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) }?;
        Ok(Rc::new(Self { event, inner: RefCell::new(inner) }))
    }

    /// Whether this process may use io_uring here, and it can do what is needed.
    ///
    /// # Errors
    /// The reason why not.
    pub fn probe() -> io::Result<()> {
        Inner::new().map(drop)
    }

    /// Takes a socket in.
    pub fn add(self: &Rc<Self>, socket: Accepted) -> RingStream {
        let place = self.inner.borrow_mut().add(socket);
        RingStream { ring: self.clone(), place }
    }

    /// Hands over what is to be sent and takes in what came, for ever.
    pub async fn drive(self: Rc<Self>) {
        loop {
            let turn = self.inner.borrow_mut().turn();
            match turn {
                // Those that were woken run before it is this task's turn again.
                Ok(true) => step_back().await,
                Ok(false) => self.idle().await,
                Err(error) => {
                    tracing::error!(%error, "io_uring takes nothing: trying again");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
    }

    /// Waits until the kernel or a connection has something.
    async fn idle(&self) {
        std::future::poll_fn(|context| {
            if !self.inner.borrow_mut().rest(context) {
                return Poll::Ready(());
            }
            match ready!(self.event.poll_read_ready(context)) {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => tracing::error!(%error, "the ring is not watched"),
            }
            Poll::Ready(())
        })
        .await;
        self.inner.borrow_mut().rise();
    }
}

/// Goes to the end of the queue of tasks.
async fn step_back() {
    let mut is_back = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut is_back, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A connected socket in a ring.
pub struct RingStream {
    ring: Rc<Ring>,
    place: usize,
}

impl AsyncRead for RingStream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ring.inner.borrow_mut().poll_read(self.place, context, buffer)
    }
}

impl RingStream {
    /// Waits until all that was written went to the kernel, so there is room for more.
    pub async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.ring.inner.borrow_mut().poll_written(self.place, context)).await
    }

    /// Takes what is to be sent, if what it took before is.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.ring.inner.borrow_mut().write(self.place, bytes)
    }
}

impl Drop for RingStream {
    fn drop(&mut self) {
        self.ring.inner.borrow_mut().close(self.place);
    }
}
