//! Certificates of our own for brokers that speak TLS.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::Path;

/// An authority (`ca.pem`), and a certificate and key of `localhost` (`broker.pem`, `broker.key`) and of a client (`client.pem`, `client.key`).
pub fn certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a certificate is written");
    let mut params = CertificateParams::new([]).expect("no names are good names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    write("ca.pem", ca.pem());
    for (name, host) in [("broker", "localhost"), ("client", "tidegate")] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a good name");
        // A name of its own: one that is its issuer's too looks self-signed to OpenSSL.
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &ca).expect("a certificate");
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}
