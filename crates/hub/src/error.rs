//! Reasons why a model could not be found or downloaded.

use std::path::PathBuf;

use files::FileError;
use thiserror::Error;

/// A model could not be found or downloaded.
#[derive(Debug, Error)]
pub enum HubError {
    /// A text is no name of a model.
    #[error(
        "`{text}` is no name of a model: write hub:OWNER/NAME, hub:OWNER/NAME@REVISION, or \
         hub:OWNER/NAME/FILE for one file"
    )]
    Name {
        /// The text.
        text: String,
    },
    /// The model's licence has not been accepted, or the token does not show that it has.
    #[error(
        "{repository} is gated: log in, accept its licence at {page}, and {} ({message})",
        if *with_token { "use a token of that account; this one has no access" }
        else { "set HF_TOKEN to a token of that account" }
    )]
    Gated {
        /// `OWNER/NAME`.
        repository: String,
        /// The address of the model's page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
        /// The hub's own words.
        message: String,
    },
    /// The hub refuses the token.
    #[error(
        "{page}: the hub refuses access ({status} {message}); is HF_TOKEN right, and may it read \
         this model?"
    )]
    Denied {
        /// The address of the model's page.
        page: String,
        /// The HTTP status.
        status: u16,
        /// The hub's own words.
        message: String,
    },
    /// There is no such repository, or it is private.
    #[error(
        "there is no model {repository} at {endpoint}, or it is private; check the name{}",
        if *with_token { "" } else { ", and set HF_TOKEN for a private model" }
    )]
    NoRepository {
        /// `OWNER/NAME`.
        repository: String,
        /// The address of the hub.
        endpoint: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such revision.
    #[error("{repository} has no branch, tag or commit `{revision}`")]
    NoRevision {
        /// `OWNER/NAME`.
        repository: String,
        /// The revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repository} has no file {file}")]
    NoFile {
        /// `OWNER/NAME`.
        repository: String,
        /// The file.
        file: String,
    },
    /// The repository has no weights that can be used, or several.
    #[error("{repository} {reason}")]
    Choice {
        /// `OWNER/NAME`.
        repository: String,
        /// Description of what was found, and advice.
        reason: String,
    },
    /// The network or the hub does not answer.
    #[error("{endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// The address of the hub.
        endpoint: String,
        /// Description of the fault.
        reason: String,
    },
    /// The network must not be used, and the cache does not have the model.
    #[error(
        "{name} is not, or not whole, in {}, and HF_HUB_OFFLINE forbids the network",
        cache.display()
    )]
    Offline {
        /// The name.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub answered with something that it should not.
    #[error("{url}: {reason}")]
    Answer {
        /// The address.
        url: String,
        /// Description of the answer.
        reason: String,
    },
    /// A download ended early, again and again.
    #[error(
        "{file}: the download broke off after {have} of {size} bytes ({reason}); run the \
             command again, and it goes on from there"
    )]
    Broken {
        /// The file.
        file: String,
        /// Bytes that are there.
        have: u64,
        /// Bytes of the whole file.
        size: u64,
        /// Description of the fault.
        reason: String,
    },
    /// The downloaded bytes are not those that the hub states; they were removed.
    #[error("{file}: what was downloaded is not what the hub states ({reason}); it was removed")]
    Corrupt {
        /// The file.
        file: String,
        /// What differs.
        reason: String,
    },
    /// The disk is full.
    #[error(
        "{} has no room for {file}, which needs {needed} more bytes; make room, or set \
         HF_HUB_CACHE to a directory on another disk",
        cache.display()
    )]
    DiskFull {
        /// The cache.
        cache: PathBuf,
        /// The file.
        file: String,
        /// Bytes that are missing.
        needed: u64,
    },
    /// The download was stopped.
    #[error("the download of {file} was stopped; run the command again, and it goes on from there")]
    Stopped {
        /// The file.
        file: String,
    },
    /// The certificates of this system cannot be read.
    #[error("https needs the certificates of this system, which cannot be read: {0}")]
    Certificates(String),
    /// A file of the cache cannot be used.
    #[error("{}: {}", .0, .0.source)]
    File(#[from] FileError),
}

impl PartialEq for HubError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
