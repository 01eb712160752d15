//! A client's socket: TCP or Unix, watched by the runtime or in the thread's ring.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::ring::{Ring, RingStream};
use super::tls::{Encrypted, HANDSHAKE};

/// A connected socket, registered with this thread's runtime or ring.
///
/// Reading is waiting and reading at once: a read that does not fill its buffer is known to have emptied the socket, so
/// the next one waits without asking the kernel in vain.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// Either, in the thread's ring.
    Ring(RingStream),
    /// TCP with TLS, by the runtime.
    Tls(Encrypted),
}

/// A connected socket on its way to a worker thread.
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// Unix.
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Puts the socket into the ring of this thread or, if there is none, registers it with its runtime. Of TLS, what has
    /// to be agreed on is agreed on first.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket, or there was no agreement.
    pub async fn into_stream(self, ring: Option<&Rc<Ring>>, tls: Option<TlsAcceptor>) -> io::Result<Stream> {
        let socket = match (self, tls) {
            (Self::Tcp(stream), Some(acceptor)) => {
                let accepted = acceptor.accept(TcpStream::from_std(stream)?);
                let stream = tokio::time::timeout(HANDSHAKE, accepted).await;
                return Ok(Stream::Tls(Encrypted::new(stream.map_err(|_| io::ErrorKind::TimedOut)??)));
            }
            (socket, _) => socket,
        };
        match (ring, socket) {
            (Some(ring), socket) => Ok(Stream::Ring(ring.add(socket))),
            (None, Self::Tcp(stream)) => TcpStream::from_std(stream).map(Stream::Tcp),
            (None, Self::Unix(stream)) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

impl AsRawFd for Accepted {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Ring(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => stream.poll_read(context, buffer),
        }
    }
}

impl Stream {
    /// Waits until there is room to write.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
            Self::Ring(stream) => stream.writable().await,
            Self::Tls(stream) => poll_fn(|context| stream.poll_sent(context)).await,
        }
    }

    /// Waits until what was written is with the kernel, so that it is sent whatever becomes of the connection.
    pub async fn sent(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Ring(stream) => stream.writable().await,
            Self::Tls(stream) => poll_fn(|context| stream.poll_sent(context)).await,
        }
    }

    /// Writes what fits.
    #[inline]
    pub fn try_write(&self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(buffer),
            Self::Unix(stream) => stream.try_write(buffer),
            Self::Ring(stream) => stream.try_write(buffer),
            Self::Tls(stream) => stream.try_write(buffer),
        }
    }
}
