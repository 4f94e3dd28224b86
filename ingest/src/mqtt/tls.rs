//! TLS to the broker: whom we trust, and who we are. rustls with its `ring` provider, named here and not found, so that another
//! provider somewhere in the process changes nothing.

use crate::credentials::{TlsOptions, mistake};
use crate::decode::OptionError;
use rumqttc::TlsConfiguration;
use rumqttc::tokio_rustls::rustls::crypto::ring::default_provider;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

impl TlsOptions {
    /// Reads the files. An error names the key whose file is of no use.
    pub(super) fn read(&self) -> Result<TlsConfiguration, OptionError> {
        self.check()?;
        let wrong = |e: rumqttc::tokio_rustls::rustls::Error| mistake("tls.certificate", e.to_string(), None);
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
        let builder = builder.map_err(wrong)?.with_root_certificates(self.roots()?);
        let config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates("tls.certificate", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| mistake("tls.key", format!("{}: {e}", key.display()), None))?;
                builder.with_client_auth_cert(chain, key).map_err(wrong)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(TlsConfiguration::Rustls(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, OptionError> {
        let mut roots = RootCertStore::empty();
        let (place, found) = match &self.ca {
            Some(file) => (file.display().to_string(), certificates("tls.ca", file)?),
            None => ("the system's store".to_owned(), rustls_native_certs::load_native_certs().certs),
        };
        let (_, unusable) = roots.add_parsable_certificates(found);
        if roots.is_empty() {
            let hint = Some("tls = { ca = \"ca.pem\" }");
            return Err(mistake("tls.ca", format!("{place} has no certificate of an authority ({unusable} of no use)"), hint));
        }
        Ok(roots)
    }
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, OptionError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| mistake(key, format!("{}: {e}", file.display()), None))?;
    if found.is_empty() { Err(mistake(key, format!("{} has no certificate in it", file.display()), None)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_no_use_is_named_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").unwrap();
        for ca in [empty, folder.path().join("absent.pem")] {
            let error = TlsOptions { ca: Some(ca.clone()), ..TlsOptions::default() }.read().err().unwrap();
            assert_eq!(error.path, "tls.ca");
            assert!(error.message.contains(ca.to_str().unwrap()), "{}", error.message);
        }
    }
}
