//! The published packages of the pictures: fetched once from npm, checked, and kept.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use files::FileError;
use thiserror::Error;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// A package of npm in one version.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Name and version.
    pub name: &'static str,
    /// The archive, a gzipped tar.
    pub url: &'static str,
    /// SHA-256 of the archive, in hexadecimal.
    pub sha256: &'static str,
    /// Bytes of the archive.
    pub bytes: u64,
}

/// Google's Noto Emoji at 64 pixels, and the list of all emoji.
pub const NOTO: Package = Package {
    name: "emoji-datasource-google-16.0.0",
    url: "https://registry.npmjs.org/emoji-datasource-google/-/emoji-datasource-google-16.0.0.tgz",
    sha256: "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    bytes: 74_344_091,
};

/// Microsoft's Fluent Emoji at 256 pixels.
pub const FLUENT: Package = Package {
    name: "fluent-emoji-3d-1.1.0",
    url: "https://registry.npmjs.org/@lobehub/fluent-emoji-3d/-/fluent-emoji-3d-1.1.0.tgz",
    sha256: "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    bytes: 15_792_027,
};

/// Longest time that a package may take.
const TIMEOUT: Duration = Duration::from_mins(15);

/// A package could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The network or the server failed.
    #[error(
        "{url} cannot be fetched: {reason}. Is there a network? The file can also be put into {} by hand",
        path.display()
    )]
    Network {
        /// The address.
        url: &'static str,
        /// Description of the problem.
        reason: String,
        /// The place where the archive is kept.
        path: PathBuf,
    },
    /// The archive is another one than the pinned one.
    #[error("{name} has SHA-256 {found}, {wanted} is expected: it is another file; {advice}")]
    Digest {
        /// The package or the file.
        name: String,
        /// SHA-256 of the archive.
        found: String,
        /// The pinned SHA-256.
        wanted: &'static str,
        /// The way out.
        advice: &'static str,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Package {
    /// The place of the archive in a directory.
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.tgz", self.name))
    }

    /// The bytes of the archive: those in the directory, or fetched and put there atomically.
    ///
    /// # Errors
    /// If the archive is not there and cannot be fetched, or has another digest.
    pub fn get(&self, directory: &Path) -> Result<Vec<u8>, FetchError> {
        let path = self.path(directory);
        match files::read_whole(&path, self.bytes) {
            Ok(bytes) => {
                self.check(&bytes, path.display().to_string(), "remove it and try again")?;
                return Ok(bytes);
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        let failed =
            |reason: String| FetchError::Network { url: self.url, reason, path: path.clone() };
        let bytes = self.fetch().map_err(failed)?;
        self.check(&bytes, self.url.to_owned(), "try again later")?;
        files::write_atomically(&path, &bytes)?;
        Ok(bytes)
    }

    fn check(&self, bytes: &[u8], name: String, advice: &'static str) -> Result<(), FetchError> {
        let found = files::sha256(bytes);
        if found == self.sha256 {
            return Ok(());
        }
        Err(FetchError::Digest { name, found, wanted: self.sha256, advice })
    }

    fn fetch(&self) -> Result<Vec<u8>, String> {
        let config = Agent::config_builder()
            .https_only(true)
            .user_agent("flow-grpo")
            .timeout_global(Some(TIMEOUT))
            .tls_config(tls()?)
            .build();
        let response =
            config.new_agent().get(self.url).call().map_err(|error| error.to_string())?;
        let body = response.into_body().into_with_config().limit(self.bytes + 1);
        body.read_to_vec().map_err(|error| error.to_string())
    }
}

/// TLS with the root certificates of the system.
fn tls() -> Result<TlsConfig, String> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        return Err("the system has no root certificates".to_owned());
    }
    let certificate = |bytes: &_| Certificate::from_der(bytes).to_owned();
    let certificates: Vec<Certificate<'static>> =
        loaded.certs.iter().map(|bytes| certificate(bytes)).collect();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address at which nobody listens.
    const NOWHERE: Package = Package {
        name: "small",
        url: "https://127.0.0.1:1/small.tgz",
        // Of the bytes `abc`.
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        bytes: 3,
    };

    #[test]
    fn a_kept_archive_needs_no_network_and_another_file_in_its_place_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(NOWHERE.path(directory.path()), "abc").expect("a file");
        assert_eq!(NOWHERE.get(directory.path()).expect("kept"), b"abc");
        std::fs::write(NOWHERE.path(directory.path()), "abd").expect("a file");
        let error = NOWHERE.get(directory.path()).expect_err("another file").to_string();
        assert!(error.contains("another file; remove it"), "{error}");
    }

    #[test]
    fn without_a_network_the_error_names_the_address_and_the_way_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = NOWHERE.get(directory.path()).expect_err("nobody listens").to_string();
        assert!(error.contains("127.0.0.1:1/small.tgz") && error.contains("by hand"), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }
}
