//! TLS for clients: what the settings say, and a connection that speaks it.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Id, Settings};

/// Who has not agreed on keys after this time is let go.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// What makes TLS of a connection, by the settings.
///
/// # Errors
/// Which file is missing or cannot be used.
pub(super) fn acceptor(settings: &Settings) -> anyhow::Result<TlsAcceptor> {
    let (certificate, key) = (settings.text(Id::TlsCertFile), settings.text(Id::TlsKeyFile));
    if certificate.is_empty() || key.is_empty() {
        bail!("tls-port is set: tls-cert-file and tls-key-file must be too");
    }
    let chain = certificates(&certificate)?;
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
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&authority)? {
                roots.add(certificate).with_context(|| format!("tls-ca-cert-file {authority}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if asks == 1 { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let config =
        builder.with_single_cert(chain, key).with_context(|| format!("tls-cert-file {certificate}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(Path::new(path)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.with_context(|| format!("cannot read the certificates in {path}"))?;
    anyhow::ensure!(!found.is_empty(), "there is no certificate in {path}");
    Ok(found)
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
