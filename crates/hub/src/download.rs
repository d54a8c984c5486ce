//! Downloads files: each into a part beside the whole ones, which becomes whole when its size and
//! digest are right.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    thread,
    time::Duration,
};

use files::{Action, sync_directory};
use sha1::{Digest as _, Sha1};

use crate::{
    HubError, Watch,
    cache::{Cached, make_parent},
    wire::{Stated, Wire, says},
};

/// A download of files of one commit.
pub(crate) struct Download<'a> {
    pub wire: &'a Wire<'a>,
    pub cached: &'a Cached<'a>,
    pub commit: &'a str,
    pub watch: &'a dyn Watch,
}

/// Attempts in a row that bring nothing.
const ATTEMPTS: u32 = 4;
/// Bytes that are read together.
const TOGETHER: usize = 1 << 20;
/// Time before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(250);

impl Download<'_> {
    /// Downloads the files that are not in the commit's snapshot.
    pub fn files(&self, files: &[String]) -> Result<(), HubError> {
        let missing = files.iter().filter(|file| !self.cached.place(self.commit, file).exists());
        let missing = missing.map(|file| Ok((file, self.wire.stated(self.commit, file)?)));
        let missing: Vec<(&String, Stated)> = missing.collect::<Result<_, HubError>>()?;
        let bytes = missing.iter().map(|(_, stated)| self.left(stated)).sum();
        if bytes > 0 {
            self.watch.begin(self.cached.name(), bytes);
        }
        missing.iter().try_for_each(|(file, stated)| self.file(file, stated))
    }

    /// Bytes of a file that are not in the cache.
    fn left(&self, stated: &Stated) -> u64 {
        if self.is_whole(stated) {
            return 0;
        }
        let have = fs::metadata(self.cached.incomplete(&stated.digest));
        stated.size.saturating_sub(have.map_or(0, |part| part.len()))
    }

    fn is_whole(&self, stated: &Stated) -> bool {
        let blob = fs::metadata(self.cached.blob(&stated.digest));
        blob.is_ok_and(|blob| blob.is_file() && blob.len() == stated.size)
    }

    /// Downloads a file, or the rest of it.
    fn file(&self, file: &str, stated: &Stated) -> Result<(), HubError> {
        let _lock = self.cached.lock(&stated.digest)?;
        if !self.is_whole(stated) {
            let part = self.cached.incomplete(&stated.digest);
            make_parent(&part)?;
            self.fill(&part, file, stated)?;
            let whole = self.cached.blob(&stated.digest);
            fs::rename(&part, &whole).map_err(Action::Rename.failed_on(&part))?;
            sync_directory(files::directory_of(&whole))?;
        }
        self.cached.link(&stated.digest, self.commit, file)
    }

    /// Completes a part of a file, and removes it if its bytes are wrong.
    fn fill(&self, part: &Path, file: &str, stated: &Stated) -> Result<(), HubError> {
        let (mut failures, mut pause) = (0, PAUSE);
        loop {
            let before = length(part);
            if before == stated.size && part.exists() {
                break;
            }
            let reason = match self.append(part, file, stated) {
                Ok(()) => continue,
                Err(HubError::Unreachable { reason, .. }) => reason,
                Err(other) => return Err(other),
            };
            failures = if length(part) > before { 1 } else { failures + 1 };
            if failures == ATTEMPTS {
                let (have, size, file) = (length(part), stated.size, file.to_owned());
                return Err(HubError::Broken { file, have, size, reason });
            }
            thread::sleep(pause);
            pause *= 2;
        }
        check(part, stated).map_err(|failed| match failed {
            Ok(error) => error.into(),
            Err(reason) => {
                // The next attempt begins anew; if the part stays, that attempt fails again.
                let _ = fs::remove_file(part);
                HubError::Corrupt { file: file.to_owned(), reason }
            }
        })
    }

    /// Appends what the hub sends to a part.
    fn append(&self, part: &Path, file: &str, stated: &Stated) -> Result<(), HubError> {
        // A part that is longer than the whole is of no use.
        let have = Some(length(part)).filter(|have| *have < stated.size).unwrap_or(0);
        let (mut bytes, resumed) = self.wire.bytes(self.commit, file, have)?;
        let from = if resumed { have } else { 0 };
        let write = || Action::Write.failed_on(part);
        let mut out = File::options().create(true).write(true).truncate(false).open(part);
        let out = out.as_mut().map_err(|error| write()(error.kind().into()))?;
        out.set_len(from).map_err(write())?;
        io::Seek::seek(out, io::SeekFrom::End(0)).map_err(write())?;
        let (mut buffer, mut have) = (vec![0; TOGETHER], from);
        while have < stated.size {
            if self.watch.interrupted() {
                return Err(HubError::Stopped { file: file.to_owned() });
            }
            let unreachable = |reason: String| HubError::Unreachable {
                endpoint: self.wire.endpoint().to_owned(),
                reason,
            };
            let room = TOGETHER.min((stated.size - have) as usize);
            let read =
                bytes.read(&mut buffer[..room]).map_err(|error| unreachable(says(&error)))?;
            if read == 0 {
                return Err(unreachable("the connection was closed".to_owned()));
            }
            out.write_all(&buffer[..read]).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                    cache: self.cached.root.to_owned(),
                    file: file.to_owned(),
                    needed: stated.size - have,
                },
                _ => write()(error).into(),
            })?;
            have += read as u64;
            self.watch.advance(read as u64);
        }
        out.sync_all().map_err(write())?;
        Ok(())
    }
}

/// Length of a file; 0 if it is not there.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.len())
}

/// Compares a file with what the hub states. An error is that of the file, or a description of the
/// difference.
fn check(path: &Path, stated: &Stated) -> Result<(), Result<files::FileError, String>> {
    let digest = digest(path, stated).map_err(|error| Ok(Action::Read.failed_on(path)(error)))?;
    if digest == stated.digest {
        return Ok(());
    }
    Err(Err(format!("its digest is {digest}, not {}", stated.digest)))
}

/// The digest of a file: SHA-256, or git's digest of a small one.
///
/// ```text
/// git's digest = SHA-1("blob " + size + "\0" + bytes)
/// ```
fn digest(path: &Path, stated: &Stated) -> io::Result<String> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; TOGETHER]);
    let (mut sha256, mut sha1) = (files::Digest::default(), Sha1::new());
    let large = stated.digest.len() == 64;
    sha1.update(format!("blob {}\0", stated.size));
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if large {
            sha256.update(&buffer[..read]);
        } else {
            sha1.update(&buffer[..read]);
        }
    }
    if large {
        return Ok(sha256.hexadecimal());
    }
    Ok(sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
