//! Sockets that whoever started the process opened for it: systemd's socket activation (`sd_listen_fds(3)`).
//!
//! They take the place of `port`, `tls-port` and `unixsocket`. One that is named `tls` (`FileDescriptorName=tls`) speaks TLS.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

/// A name of a socket that speaks TLS.
const TLS: &str = "tls";

/// Sockets that listen already.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) tls: Vec<TcpListener>,
    pub(super) unix: Vec<UnixListener>,
}

impl Inherited {
    /// Takes those that are meant for this process; none, if there are no such.
    ///
    /// # Errors
    /// That one is neither a TCP nor a Unix socket that listens.
    pub(super) fn take() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..given.len() {
            let is_tls = names.next() == Some(TLS);
            // What is no TCP socket stays where it was, to be tried as the other.
            match given.take_tcp_listener(index) {
                Ok(Some(listener)) => {
                    listener.set_nonblocking(true)?;
                    if is_tls { &mut inherited.tls } else { &mut inherited.tcp }.push(listener);
                }
                Ok(None) => {}
                Err(_) => {
                    if let Some(listener) = given.take_unix_listener(index)? {
                        listener.set_nonblocking(true)?;
                        inherited.unix.push(listener);
                    }
                }
            }
        }
        Ok(inherited)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.tls.is_empty() && self.unix.is_empty()
    }
}
