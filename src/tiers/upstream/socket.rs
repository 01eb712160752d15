//! The socket to upstream: TCP, or TLS over it. Certificates and names are always verified.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::master::Master;
use super::sentinel;
use crate::config::upstream::UpstreamConfig;
use crate::tiers::certificates;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Plain(TcpStream),
    /// TLS.
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// How sockets are made.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<TlsConnector>,
    /// Who the master is.
    pub master: Arc<Master>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.tls.is_some() { "TLS" } else { "TCP" })
    }
}

impl Dialer {
    /// For an upstream.
    ///
    /// # Errors
    /// If the authorities' file cannot be read, or the host is no name that a certificate can have.
    pub fn new(config: &UpstreamConfig, master: Arc<Master>) -> io::Result<Self> {
        if !config.endpoint.tls {
            return Ok(Self { tls: None, master });
        }
        let file = config.tls_ca_cert_file.as_deref();
        let roots = certificates::roots(file).map_err(|error| {
            let path = file.unwrap_or(Path::new("")).display();
            io::Error::other(format!("upstream.tls-ca-cert-file: {path}: {error}"))
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let client = builder.with_root_certificates(roots).with_no_client_auth();
        name(&config.endpoint.host)?;
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(client))), master })
    }

    /// Connects to upstream; says where that is.
    ///
    /// # Errors
    /// If it cannot be reached, or is not who it should be.
    pub async fn dial(&self, config: &UpstreamConfig) -> io::Result<(Socket, (String, u16))> {
        let (host, port) = match &config.endpoint.sentinels {
            Some(sentinels) => sentinel::master(self, sentinels, config.timeout / 4).await?,
            None => (config.endpoint.host.clone(), config.endpoint.port),
        };
        Ok((self.connect(&host, port).await?, (host, port)))
    }

    /// Connects to a server of upstream's: a node, a Sentinel.
    ///
    /// # Errors
    /// If it cannot be reached, or its certificate is not for this host.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<Socket> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Socket::Plain(stream)),
            Some(connector) => Ok(Socket::Encrypted(Box::new(connector.connect(name(host)?, stream).await?))),
        }
    }
}

/// A host as certificates name it.
fn name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, to),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, to),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
