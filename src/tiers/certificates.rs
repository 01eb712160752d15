//! Certificates from PEM files: those that are shown, and those of who may vouch for others.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] pem::Error),
    /// One in it is none that can be trusted.
    #[error("{0}")]
    Invalid(#[from] rustls::Error),
    /// There is none in it.
    #[error("holds no certificate")]
    Empty,
}

/// The certificates in a file.
///
/// # Errors
/// If it cannot be read, or holds none.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(CertificateError::Empty) } else { Ok(found) }
}

/// Those who may vouch: who is in a file, or whom the world trusts.
///
/// # Errors
/// As [`read`], and if one of them is no certificate that can be trusted.
pub fn roots(path: Option<&Path>) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    match path {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in read(path)? {
                roots.add(certificate)?;
            }
        }
    }
    Ok(roots)
}
