//! The demos of the book: the crate `demos` in WebAssembly, with the modules that draw.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, write::GzEncoder};

use crate::app::{cargo, succeed};

const TARGET: &str = "wasm32-unknown-unknown";
/// A target directory of its own: the demos have their own features and flags.
const TARGET_DIR: &str = "target/demos";
/// The modules that draw.
const MODULES: &str = "book/demos";
/// The largest size of all demos together, compressed as servers do.
const LARGEST: usize = 1_000_000;

/// Compiles the crate `demos`; returns the folder with `wasm.js` and `wasm_bg.wasm`.
///
/// # Errors
/// If the target is not installed.
pub fn compile() -> Result<PathBuf> {
    ensure!(
        has_target()?,
        "the demos of the book need the target {TARGET}: rustup target add {TARGET}"
    );
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "demos", "--profile", "demos"]);
    build.args(["--target", TARGET, "--target-dir", TARGET_DIR]);
    // The workspace compiles for this machine; every browser has WebAssembly's own SIMD.
    build.env("RUSTFLAGS", "-C target-feature=+simd128").env_remove("CARGO_ENCODED_RUSTFLAGS");
    if !Path::new(TARGET_DIR).exists() {
        println!(
            "compiling the demos for {TARGET}, which takes five to ten minutes the first time"
        );
    }
    succeed(&mut build, "the demos do not build")?;
    let out = Path::new(TARGET_DIR).join("engine");
    let mut bind = cargo();
    bind.args(["run", "--quiet", "--package", "bind", "--"]);
    bind.arg(Path::new(TARGET_DIR).join(TARGET).join("demos/demos.wasm")).arg(&out);
    // Successful, it warns that a stripped file does not say which features it uses.
    let bound = bind.output().context("cannot run cargo")?;
    ensure!(
        bound.status.success(),
        "the JavaScript side of the demos cannot be made: {}",
        String::from_utf8_lossy(&bound.stderr)
    );
    Ok(out)
}

/// Copies the compiled demos and the modules that draw them into a folder of the book.
///
/// # Errors
/// If they are too large together.
pub fn put_into(folder: &Path, engine: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for from in [engine, Path::new(MODULES)] {
        for entry in fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
            let path = entry?.path();
            let of_demos = path.extension().is_some_and(|kind| kind == "js" || kind == "wasm");
            // mdBook itself puts the script that starts the demos on every page.
            if let Some(name) = path.file_name().filter(|name| of_demos && *name != "demos.js") {
                fs::copy(&path, folder.join(name))?;
            }
        }
    }
    let mut sizes = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        sizes.push((compressed(&fs::read(&path)?)?, path));
    }
    let total: usize = sizes.iter().map(|(size, _)| size).sum();
    if total > LARGEST {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let list: Vec<String> =
            sizes.iter().map(|(size, path)| format!("{size} {}", path.display())).collect();
        bail!(
            "the demos have {total} bytes compressed, {LARGEST} are allowed:\n{}",
            list.join("\n")
        );
    }
    println!("demos: {} kB compressed", total / 1000);
    Ok(())
}

fn compressed(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

fn has_target() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc")?;
    Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}
