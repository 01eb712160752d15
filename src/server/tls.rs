//! TLS for clients: what the settings say, and a connection that speaks it.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock;
use crate::config::{Id, Settings};
use crate::tiers::certificates;

/// Who has not agreed on keys after this time is let go.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often it is looked whether the files have changed, at most, and only if somebody comes.
const LOOK: Duration = Duration::from_secs(1);

/// What makes TLS of connections: by the files that the settings name, and by those that take their place while it runs.
pub(super) struct Certificates {
    settings: Arc<Settings>,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    /// What the files were like when they were last read.
    stamps: [Stamp; 3],
    looked: Instant,
}

/// What tells that a file is another than it was: when it was written, its length, which it is. Nothing, if it is not there.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Which of them is missing or cannot be used.
    pub(super) fn read(settings: &Arc<Settings>) -> anyhow::Result<Self> {
        // Before they are read: what changes meanwhile is seen the next time.
        let stamps = stamps(settings);
        let current = Current { acceptor: acceptor(settings)?, stamps, looked: clock::monotonic() };
        Ok(Self { settings: settings.clone(), current: Mutex::new(current) })
    }

    /// For a connection that has come. Files that have changed and cannot be used are said in the log, and those before them
    /// stay: a certificate and its key are seldom replaced at once.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock();
        let now = clock::monotonic();
        if now - current.looked >= LOOK {
            current.looked = now;
            let stamps = stamps(&self.settings);
            if stamps != current.stamps {
                current.stamps = stamps;
                match acceptor(&self.settings) {
                    Ok(acceptor) => {
                        current.acceptor = acceptor;
                        tracing::info!("the certificates have changed: new connections get the new ones");
                    }
                    Err(error) => {
                        tracing::warn!("the certificates have changed, and those before stay: {error:#}");
                    }
                }
            }
        }
        current.acceptor.clone()
    }
}

fn stamps(settings: &Settings) -> [Stamp; 3] {
    [Id::TlsCertFile, Id::TlsKeyFile, Id::TlsCaCertFile].map(|file| {
        let metadata = std::fs::metadata(&*settings.text(file)).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    })
}

fn acceptor(settings: &Settings) -> anyhow::Result<TlsAcceptor> {
    let (certificate, key) = (settings.text(Id::TlsCertFile), settings.text(Id::TlsKeyFile));
    if certificate.is_empty() || key.is_empty() {
        bail!("tls-port is set: tls-cert-file and tls-key-file must be too");
    }
    let chain = certificates::read(Path::new(&*certificate));
    let chain = chain.with_context(|| format!("tls-cert-file {certificate}"))?;
    let key = PrivateKeyDer::from_pem_file(&*key).with_context(|| format!("tls-key-file {key}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let authority = settings.text(Id::TlsCaCertFile);
    // The words of the directive: no, yes, optional.
    let builder = match settings.int(Id::TlsAuthClients) {
        0 => builder.with_no_client_auth(),
        _ if authority.is_empty() => bail!(
            "clients must show certificates (tls-auth-clients), and tls-ca-cert-file does not say who vouches for them: \
             set it, or tls-auth-clients to no"
        ),
        asks => {
            let roots = certificates::roots(Some(Path::new(&*authority)));
            let roots = roots.with_context(|| format!("tls-ca-cert-file {authority}"))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if asks == 1 { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let config =
        builder.with_single_cert(chain, key).with_context(|| format!("tls-cert-file {certificate}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection that speaks TLS. What was written may lie encrypted here until the socket takes it: whoever reads or waits
/// for room sends it on.
pub struct Encrypted(RefCell<Box<TlsStream<TcpStream>>>);

impl Encrypted {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(RefCell::new(Box::new(stream)))
    }

    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Its waker is told when there is room for what could not be sent.
        if let Poll::Ready(Err(error)) = self.poll_sent(context) {
            return Poll::Ready(Err(error));
        }
        match ready!(Pin::new(&mut **self.0.borrow_mut()).poll_read(context, buffer)) {
            // Many just close the socket.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }

    /// Ready when nothing waits to be sent.
    pub(super) fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.0.borrow_mut()).poll_flush(context)
    }

    /// Writes what there is room for.
    pub(super) fn try_write(&self, buffer: &[u8]) -> io::Result<usize> {
        let mut stream = self.0.borrow_mut();
        let mut context = Context::from_waker(Waker::noop());
        let written = match Pin::new(&mut **stream).poll_write(&mut context, buffer) {
            Poll::Ready(written) => written?,
            Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
        };
        match Pin::new(&mut **stream).poll_flush(&mut context) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(written),
        }
    }
}
