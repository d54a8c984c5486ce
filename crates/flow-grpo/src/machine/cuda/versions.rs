//! Versions of CUDA's parts, read from what they say about themselves.

use std::fmt;

/// A version of CUDA: major, minor, and the build where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 13 of 13.0.88.
    pub major: u32,
    /// 0 of 13.0.88.
    pub minor: u32,
    /// 88 of 13.0.88.
    pub build: Option<u32>,
}

impl Version {
    /// A version without a build.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, build: None }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        self.build.map_or(Ok(()), |build| write!(f, ".{build}"))
    }
}

/// Branches of the driver, with the newest CUDA that each knows.
///
/// Source: NVIDIA, CUDA Toolkit Release Notes, "CUDA Toolkit and Corresponding Driver Versions".
const BRANCHES: [(u32, Version); 12] = [
    (590, Version::new(13, 1)),
    (580, Version::new(13, 0)),
    (575, Version::new(12, 9)),
    (570, Version::new(12, 8)),
    (565, Version::new(12, 7)),
    (560, Version::new(12, 6)),
    (555, Version::new(12, 5)),
    (550, Version::new(12, 4)),
    (545, Version::new(12, 3)),
    (535, Version::new(12, 2)),
    (530, Version::new(12, 1)),
    (525, Version::new(12, 0)),
];

/// The newest CUDA that a driver is known to know; `None` for drivers before CUDA 12, and for
/// versions that are no numbers.
pub fn cuda_of_driver(driver: &str) -> Option<Version> {
    let branch: u32 = driver.split('.').next()?.trim().parse().ok()?;
    BRANCHES.iter().find(|(from, _)| branch >= *from).map(|(_, cuda)| *cuda)
}

/// The oldest branch of the driver that knows a CUDA version.
pub fn driver_for(cuda: Version) -> Option<u32> {
    let plain = Version { build: None, ..cuda };
    BRANCHES.iter().rev().find(|(_, knows)| *knows >= plain).map(|(branch, _)| *branch)
}

/// The driver's version in `/proc/driver/nvidia/version`: the first word that is a number with
/// dots.
pub fn driver_of_proc(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("NVRM version"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// The compiler's version in the opening comment of PTX: `… release 13.0, V13.0.88`.
pub fn nvrtc_of_ptx(ptx: &str) -> Option<Version> {
    let (_, after) = ptx.split_once("release ")?;
    let version = after.lines().next()?.split_once(", V")?.1;
    let mut numbers = version.trim().split('.').map(|number| number.parse().ok());
    Some(Version { major: numbers.next()??, minor: numbers.next()??, build: numbers.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_parts_say() {
        let proc = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (a@b)  Sun\n\
                    GCC version:  gcc version 12.3.0 (Ubuntu)\n";
        assert_eq!(driver_of_proc(proc).as_deref(), Some("580.65.06"));
        assert_eq!(driver_of_proc("GCC version: 12.3.0"), None);
        let ptx = "//\n// Cuda compilation tools, release 13.0, V13.0.88\n// Based on NVVM 7.0.1\n";
        let nvrtc = nvrtc_of_ptx(ptx).expect("a version");
        assert_eq!((nvrtc.to_string(), nvrtc.major), ("13.0.88".to_owned(), 13));
        assert_eq!(nvrtc_of_ptx("release of pigeons"), None);
    }

    #[test]
    fn a_branch_of_the_driver_knows_cuda_up_to_its_own() {
        assert_eq!(cuda_of_driver("535.183.01"), Some(Version::new(12, 2)));
        assert_eq!(cuda_of_driver("581.42"), Some(Version::new(13, 0)));
        assert_eq!(cuda_of_driver("470.82.01"), None);
        assert_eq!(cuda_of_driver("unknown"), None);
        assert_eq!(driver_for(Version { build: Some(88), ..Version::new(13, 0) }), Some(580));
        assert_eq!(driver_for(Version::new(12, 8)), Some(570));
        assert_eq!(driver_for(Version::new(99, 0)), None);
    }
}
