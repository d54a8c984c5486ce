//! Where CubeCL keeps the kernels that it has compiled and the variants that it found fastest.
//!
//! By default it keeps no kernels, and the choices of autotune in one place for all GPUs. Here both
//! are kept in the user's cache directory, apart for every GPU model, driver and NVRTC: PTX is
//! compiled for one architecture, and its key in CubeCL's cache does not say which. What the user's
//! own `cubecl.toml` or `burn.toml` says about caches stands.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::machine::cuda::{Gpu, versions::Version};

/// The name of the directory for a GPU.
pub fn name(gpu: &Gpu, driver: Option<&str>, nvrtc: Option<Version>) -> String {
    let nvrtc = nvrtc.map(|version| version.to_string());
    let of = |what: Option<&str>| what.unwrap_or("unknown").to_owned();
    let parts = [
        gpu.name.clone(),
        gpu.architecture(),
        format!("driver-{}", of(driver)),
        format!("nvrtc-{}", of(nvrtc.as_deref())),
    ];
    let kept = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    parts.map(|part| part.chars().map(kept).collect::<String>()).join("_")
}

/// The user's cache directory, from environment variables. Relative paths do not count (XDG base
/// directory specification).
pub fn home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path("XDG_CACHE_HOME")
        .or_else(|| path("HOME").map(|home| home.join(".cache")))
        .or_else(|| path("LOCALAPPDATA"))
}

/// The user's configuration of CubeCL: the first file that CubeCL would read, in a directory or its
/// parents, with its path.
///
/// # Errors
/// If the file is not TOML.
pub fn of_user(directory: &Path) -> Result<Option<(PathBuf, Table)>> {
    for directory in directory.ancestors() {
        for (file, section) in [
            ("cubecl.toml", None),
            ("CubeCL.toml", None),
            ("burn.toml", SECTION),
            ("Burn.toml", SECTION),
        ] {
            let path = directory.join(file);
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let mut table: Table =
                text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
            match section.map(|section| table.remove(section)) {
                None => return Ok(Some((path, table))),
                Some(Some(Value::Table(table))) => return Ok(Some((path, table))),
                Some(_) => {}
            }
        }
    }
    Ok(None)
}

/// The section of Burn's configuration that is CubeCL's.
const SECTION: Option<&str> = Some("cubecl");

/// A configuration of CubeCL with both caches in a directory, unless it names another place.
pub fn with_caches(mut config: Table, directory: &str) -> Table {
    for section in ["compilation", "autotune"] {
        let section = config.entry(section).or_insert_with(|| Table::new().into());
        if let Value::Table(section) = section {
            let place = Table::from_iter([("file".to_owned(), directory.into())]);
            section.entry("cache").or_insert_with(|| place.into());
        }
    }
    config
}

/// A configuration of CubeCL that reports every launch to the `log` crate.
#[cfg(feature = "cuda")]
fn with_reports(mut config: Table) -> Table {
    let logger = [("level", "minimal"), ("log", "info")];
    let logger = logger.map(|(key, value)| (key.to_owned(), Value::from(value)));
    let profiling = Table::from_iter([("logger".to_owned(), Table::from_iter(logger).into())]);
    config.insert("profiling".to_owned(), profiling.into());
    config
}

/// Tells CubeCL to keep kernels and choices in the directory of this name; without a directory that
/// can be written, it says so and CubeCL compiles anew at every start.
///
/// # Errors
/// If the user's configuration is none of CubeCL.
#[cfg(feature = "cuda")]
pub fn keep(name: &str) -> Result<()> {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let directory = std::env::current_dir().context("the working directory is gone")?;
    let (path, mut config) = of_user(&directory)?.unwrap_or_default();
    match made(name) {
        Ok(directory) => config = with_caches(config, &directory),
        Err(error) => crate::terminal::output::log(format!(
            "note: kernels are compiled at every start, because {error:#}"
        )),
    }
    if crate::machine::counts::started() {
        config = with_reports(config);
    }
    let config: CubeClRuntimeConfig = config
        .try_into()
        .with_context(|| format!("{} is no configuration of CubeCL", path.display()))?;
    CubeClRuntimeConfig::set(config.override_from_env());
    Ok(())
}

/// Makes the directory and tries to write in it.
#[cfg(feature = "cuda")]
fn made(name: &str) -> Result<String> {
    let home = home(|variable| std::env::var_os(variable))
        .context("neither XDG_CACHE_HOME nor HOME names a directory")?;
    let directory = home.join("flow-grpo").join("cuda").join(name);
    let context = || format!("{} cannot be written", directory.display());
    std::fs::create_dir_all(&directory).with_context(context)?;
    std::fs::write(directory.join("README"), README).with_context(context)?;
    directory.to_str().map(str::to_owned).with_context(context)
}

/// What lies in the directory, for who finds it.
#[cfg(feature = "cuda")]
const README: &str = "Kernels that flow-grpo compiled for this GPU, driver and NVRTC (cuda), and the variants that it found\n\
                      fastest (autotune). The directory may be deleted: the next start makes them again.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_driver_and_compiler_has_its_own_directory() {
        let gpu =
            |name: &str, capability| Gpu { name: name.to_owned(), capability, ..Gpu::default() };
        let h100 = gpu("NVIDIA H100 80GB HBM3", (9, 0));
        let nvrtc = Version { build: Some(88), ..Version::new(13, 0) };
        assert_eq!(
            name(&h100, Some("580.65.06"), Some(nvrtc)),
            "NVIDIA-H100-80GB-HBM3_sm_90a_driver-580.65.06_nvrtc-13.0.88"
        );
        assert_eq!(
            name(&gpu("../x y/é", (8, 6)), None, None),
            "..-x-y--_sm_86_driver-unknown_nvrtc-unknown"
        );
        let others = [
            name(&gpu("NVIDIA H200", (9, 0)), Some("580.65.06"), Some(nvrtc)),
            name(&h100, Some("580.82.07"), Some(nvrtc)),
            name(&h100, Some("580.65.06"), Some(Version::new(12, 8))),
        ];
        assert!(others.iter().all(|other| *other != name(&h100, Some("580.65.06"), Some(nvrtc))));
    }

    #[test]
    fn the_cache_directory_is_the_users() {
        let of = |set: &[(&str, &str)]| {
            home(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(of(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), Some("/c".into()));
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.cache".into()));
        assert_eq!(of(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]), Some("/h/.cache".into()));
        assert_eq!(of(&[("HOME", "")]), None);
    }

    #[test]
    fn what_the_user_says_about_caches_stands() {
        let of = |text: &str| {
            let config = with_caches(text.parse().expect("TOML"), "/c");
            ["compilation", "autotune"].map(|section| config[section]["cache"].to_string())
        };
        let ours = "{ file = \"/c\" }";
        assert_eq!(of(""), [ours, ours]);
        assert_eq!(of("[autotune]\nlevel = \"full\""), [ours, ours]);
        assert_eq!(of("[autotune]\ncache = \"target\""), [ours, "\"target\""]);
        assert_eq!(of("[compilation]\ncache = \"local\""), ["\"local\"", ours]);
    }

    #[test]
    fn the_nearest_configuration_of_cubecl_is_found() {
        let root = tempfile::tempdir().expect("a directory");
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        let write = |path: &str, text: &str| {
            std::fs::write(root.path().join(path), text).expect("written");
        };
        let found = || of_user(&below).map(|found| found.map(|(path, _)| path));
        write("a/burn.toml", "[other]\nx = 1");
        write("burn.toml", "[cubecl.autotune]\nlevel = \"full\"");
        assert_eq!(found().expect("TOML"), Some(root.path().join("burn.toml")));
        let (_, table) = of_user(&below).expect("TOML").expect("found");
        assert_eq!(table["autotune"]["level"].as_str(), Some("full"));
        write("a/cubecl.toml", "");
        assert_eq!(found().expect("TOML"), Some(root.path().join("a/cubecl.toml")));
        write("a/b/cubecl.toml", "= 1");
        let error = format!("{:#}", found().expect_err("not TOML"));
        assert!(error.contains("cubecl.toml is not TOML"), "{error}");
    }
}
