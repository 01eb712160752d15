//! Listening sockets: TCP addresses and the Unix socket, or those that were inherited; every connection is dealt to a worker
//! thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::inherited::Inherited;
use super::stream::Accepted;
use super::tls::Certificates;
use super::workers::{Dealt, Workers};
use crate::clients::Origin;
use crate::clock;
use crate::config::Id;
use crate::instance::Instance;

/// The listening sockets.
pub struct Listeners {
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    certificates: Option<Certificates>,
    unix: Vec<UnixSocket>,
}

struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// We made it, and remove it.
    is_ours: bool,
}

impl Listeners {
    /// Listens by the sockets that were inherited or, if there is none, where the configuration says.
    ///
    /// # Errors
    /// With the address that cannot be listened on.
    pub fn open(instance: &Instance) -> anyhow::Result<Self> {
        let inherited =
            Inherited::take().context("of the sockets that were inherited, one cannot be used")?;
        if inherited.is_empty() { Self::configured(instance) } else { Self::inherited(inherited, instance) }
    }

    fn inherited(sockets: Inherited, instance: &Instance) -> anyhow::Result<Self> {
        let tcp =
            |listeners: Vec<_>| listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>();
        let unix = |listener: std::os::unix::net::UnixListener| {
            let path = listener.local_addr()?.as_pathname().map_or_else(PathBuf::new, Path::to_owned);
            Ok(UnixSocket { listener: UnixListener::from_std(listener)?, path, is_ours: false })
        };
        let certificates =
            (!sockets.tls.is_empty()).then(|| Certificates::read(&instance.settings)).transpose()?;
        let unix = sockets.unix.into_iter().map(unix).collect::<io::Result<_>>()?;
        Ok(Self { tcp: tcp(sockets.tcp)?, tls: tcp(sockets.tls)?, certificates, unix })
    }

    fn configured(instance: &Instance) -> anyhow::Result<Self> {
        let config = &instance.config;
        let listen_at = |port: u16| {
            let bind = config.bind.iter().filter(|_| port != 0);
            let listeners = bind.map(|address| {
                let address = SocketAddr::new(*address, port);
                listen(address, instance).with_context(|| format!("cannot listen on {address}"))
            });
            listeners.collect::<anyhow::Result<Vec<_>>>()
        };
        let tls_port = instance.settings.int(Id::TlsPort) as u16;
        let certificates = (tls_port != 0).then(|| Certificates::read(&instance.settings)).transpose()?;
        let (tcp, tls) = (listen_at(config.port)?, listen_at(tls_port)?);
        let unix = match &config.unixsocket {
            Some(path) => {
                let listener = listen_unix(path, instance);
                let listener = listener.with_context(|| format!("cannot listen on {}", path.display()))?;
                vec![UnixSocket { listener, path: path.clone(), is_ours: true }]
            }
            None => Vec::new(),
        };
        anyhow::ensure!(
            !tcp.is_empty() || !tls.is_empty() || !unix.is_empty(),
            "neither a port nor a Unix socket to listen on"
        );
        Ok(Self { tcp, tls, certificates, unix })
    }

    /// The addresses listened on, for the log.
    pub fn addresses(&self) -> Vec<String> {
        let tcp = self.tcp.iter().chain(&self.tls).filter_map(|listener| listener.local_addr().ok());
        let unix = self.unix.iter().map(|socket| socket.path.display().to_string());
        tcp.map(|address| address.to_string()).chain(unix).collect()
    }

    /// Accepts one connection and deals it out.
    pub async fn accept(&self, instance: &'static Instance, workers: &mut Workers) {
        let tcp = self.tcp.iter().map(|listener| Box::pin(listener.accept())).collect::<Vec<_>>();
        let tls = self.tls.iter().map(|listener| Box::pin(listener.accept())).collect::<Vec<_>>();
        let unix = self.unix.iter().map(|socket| Box::pin(socket.accept())).collect::<Vec<_>>();
        let mut acceptor = None;
        let accepted = tokio::select! {
            accepted = first(tls) => {
                acceptor = self.certificates.as_ref().map(Certificates::acceptor);
                accepted.map(|(stream, peer)| from_tcp(stream, peer, instance))
            }
            accepted = first(tcp) => accepted.map(|(stream, peer)| from_tcp(stream, peer, instance)),
            accepted = first(unix) => accepted.map(|(stream, path)| from_unix(stream, path)),
        };
        match accepted {
            Ok(Ok((socket, origin))) => admit(instance, workers, (socket, acceptor), origin),
            Ok(Err(error)) => tracing::debug!(%error, "a connection was lost as it came"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors, most likely: trying again at once would spin.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for socket in self.unix.iter().filter(|socket| socket.is_ours) {
            if let Err(error) = std::fs::remove_file(&socket.path) {
                tracing::warn!(%error, "cannot remove the Unix socket");
            }
        }
    }
}

/// The first of several accepts that succeeds or fails; never, if there is none.
async fn first<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(output);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn admit(
    instance: &'static Instance,
    workers: &mut Workers,
    (socket, tls): (Accepted, Option<TlsAcceptor>),
    origin: Origin,
) {
    // What is not encrypted would not be understood.
    let refuse = |text| {
        if tls.is_none() {
            refuse(&socket, text)
        }
    };
    if origin_refused(instance, &origin, refuse) {
        return;
    }
    let limit = instance.settings.int(Id::Maxclients) as usize;
    match instance.clients.add(origin, clock::wall_ms(), limit) {
        Some(client) => workers.deal(Dealt { socket, tls, client }),
        None => {
            instance.telemetry.rejected_connections.fetch_add(1, Relaxed);
            refuse(b"-ERR max number of clients reached\r\n");
        }
    }
}

/// Protected mode: without a password, only this host may connect.
fn origin_refused(instance: &Instance, origin: &Origin, refuse: impl FnOnce(&'static [u8])) -> bool {
    let settings = &instance.settings;
    if settings.int(Id::ProtectedMode) == 0 || origin.is_unix || !instance.acl.is_open() {
        return false;
    }
    let is_local =
        origin.address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    if !is_local {
        refuse(
            b"-DENIED Anteroom is running in protected mode: no password is set, so only this host \
            may connect. Set requirepass, or protected-mode to no.\r\n",
        );
    }
    !is_local
}

/// Sends a last word to a socket that is not taken in; whether it arrives does not matter.
fn refuse(socket: &Accepted, text: &[u8]) {
    use std::io::Write;
    let sent = match socket {
        Accepted::Tcp(stream) => (&*stream).write(text),
        Accepted::Unix(stream) => (&*stream).write(text),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a refused client is gone");
    }
}

fn listen(address: SocketAddr, instance: &Instance) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(instance.settings.int(Id::TcpBacklog) as i32)?;
    TcpListener::from_std(socket.into())
}

fn listen_unix(path: &Path, instance: &Instance) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    // A socket left behind by a process that is gone.
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let mode = instance.settings.int(Id::Unixsocketperm);
    if mode > 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode as u32))?;
    }
    Ok(listener)
}

fn from_tcp(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    instance: &Instance,
) -> io::Result<(Accepted, Origin)> {
    stream.set_nodelay(true)?;
    let keepalive = instance.settings.int(Id::TcpKeepalive);
    if keepalive > 0 {
        let keepalive = TcpKeepalive::new()
            .with_time(std::time::Duration::from_secs(keepalive as u64))
            .with_interval(std::time::Duration::from_secs((keepalive as u64 / 3).max(1)));
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    }
    let local_address = stream.local_addr()?.to_string();
    let fd = stream.as_raw_fd();
    let origin = Origin { address: peer.to_string(), local_address, fd, is_unix: false };
    Ok((Accepted::Tcp(stream.into_std()?), origin))
}

impl UnixSocket {
    async fn accept(&self) -> io::Result<(UnixStream, &Path)> {
        Ok((self.listener.accept().await?.0, &self.path))
    }
}

fn from_unix(stream: UnixStream, path: &Path) -> io::Result<(Accepted, Origin)> {
    let address = format!("{}:0", path.display());
    let fd = stream.as_raw_fd();
    let origin = Origin { address: address.clone(), local_address: address, fd, is_unix: true };
    Ok((Accepted::Unix(stream.into_std()?), origin))
}
