//! Who we are to a broker, and whom we trust: secrets by name, certificates as files. The options hold names, never a secret itself.

use crate::decode::{OptionError, without_line_end};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a secret stands: `{ env = "NAME" }` or `{ file = "path" }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Name of an environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Path of a file; one line end at its end is no part of the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// Certificates of a connection, as PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// Whom to trust: a file with the certificates of authorities. By default those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Our own certificate and those between it and its authority, where the broker asks for one (mTLS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl Secret {
    /// Looks for mistakes in the secret of the key `key` that need no environment and no file.
    pub fn check(&self, key: &str) -> Result<(), OptionError> {
        if self.env.is_some() == self.file.is_some() {
            return Err(mistake(key, "names both or neither of `env` and `file`", Some("{ env = \"NAME\" }")));
        }
        Ok(())
    }

    /// The secret of the key `key` itself. An error says which name has nothing behind it.
    pub fn read(&self, key: &str) -> Result<String, OptionError> {
        self.check(key)?;
        let (of, name, secret) = match (&self.env, &self.file) {
            (Some(name), _) => ("env", name.clone(), std::env::var(name).map_err(|e| e.to_string())),
            (None, path) => {
                let path = path.as_deref().expect("check: one of the two is there");
                ("file", path.display().to_string(), std::fs::read_to_string(path).map_err(|e| e.to_string()))
            }
        };
        let told = |message| mistake(&format!("{key}.{of}"), format!("{name}: {message}"), None);
        let secret = secret.map_err(told)?;
        let secret = if of == "file" { without_line_end(&secret) } else { &secret };
        if secret.is_empty() { Err(told("there is nothing in it".to_owned())) } else { Ok(secret.to_owned()) }
    }
}

impl TlsOptions {
    /// Looks for mistakes that need no file.
    pub(crate) fn check(&self) -> Result<(), OptionError> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err(mistake("tls.certificate", "stands without `key`", None)),
            (None, Some(_)) => Err(mistake("tls.key", "stands without `certificate`", None)),
            _ => Ok(()),
        }
    }
}

/// A mistake at a key.
pub(crate) fn mistake(path: &str, message: impl Into<String>, hint: Option<&str>) -> OptionError {
    OptionError { path: path.into(), message: message.into(), hint: hint.map(Into::into) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "tide\r\n").unwrap();
        assert_eq!(Secret { env: None, file: Some(path.clone()) }.read("password").unwrap(), "tide");
        std::fs::write(&path, "\n").unwrap();
        let nothing = Secret { env: None, file: Some(path) }.read("password").unwrap_err();
        assert!(nothing.path == "password.file" && nothing.message.contains("nothing in it"), "{nothing:?}");
        assert_eq!(Secret { env: None, file: Some("/no/such".into()) }.read("password").unwrap_err().path, "password.file");
        assert_eq!(Secret { env: Some("TIDEGATE_NO_SUCH".into()), file: None }.read("token").unwrap_err().path, "token.env");
        assert!(Secret { env: Some("PATH".into()), file: None }.read("password").is_ok());
    }

    #[test]
    fn a_certificate_has_its_key() {
        let of = |certificate: Option<&str>, key: Option<&str>| {
            let options = TlsOptions { ca: None, certificate: certificate.map(Into::into), key: key.map(Into::into) };
            options.check().err().map(|e| e.path)
        };
        assert_eq!(of(Some("a"), None).as_deref(), Some("tls.certificate"));
        assert_eq!(of(None, Some("a")).as_deref(), Some("tls.key"));
        assert_eq!(of(Some("a"), Some("b")), None);
    }
}
