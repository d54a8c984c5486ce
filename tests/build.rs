//! Applies every patch of the book to the example that it changes: the tests compile the results.
//! Sets `on_gpu` where the backend under test is a GPU's.

use std::{env, error::Error, fs, path::Path};

const EXAMPLE: &str = "../crates/grpo/examples/whole_loop.rs";
const PATCHES: &str = "../book/src/patches";

/// The old and the new lines of every hunk of a patch.
fn hunks(patch: &str) -> Vec<[String; 2]> {
    let body = |hunk: &str| {
        let lines = || hunk.lines().skip(1);
        let without = |sign: char| {
            let kept = lines().filter(|line| !line.starts_with(sign));
            kept.map(|line| line.get(1..).unwrap_or("").to_owned() + "\n").collect::<String>()
        };
        [without('+'), without('-')]
    };
    patch.split("\n@@").skip(1).map(body).collect()
}

/// The source under a patch. Every hunk has exactly one place, and changes something.
fn patched(source: &str, name: &str, patch: &str) -> Result<String, String> {
    let hunks = hunks(patch);
    if hunks.is_empty() {
        return Err(format!("{name}.patch has no hunk"));
    }
    hunks.into_iter().try_fold(source.to_owned(), |source, [old, new]| {
        let places = source.matches(&old).count();
        if places != 1 || old == new {
            return Err(format!(
                "{name}.patch: a hunk has {places} places, or changes nothing:\n{old}"
            ));
        }
        Ok(source.replacen(&old, &new, 1))
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(on_gpu)");
    let chosen = |backend: &str| env::var_os(format!("CARGO_FEATURE_{backend}")).is_some();
    if (chosen("WGPU") || chosen("CUDA")) && !chosen("NDARRAY") && !chosen("FLEX") {
        println!("cargo::rustc-cfg=on_gpu");
    }
    println!("cargo::rerun-if-changed={EXAMPLE}");
    println!("cargo::rerun-if-changed={PATCHES}");
    let example = fs::read_to_string(EXAMPLE)?;
    // The example's own test trains; the patched programs are compiled only.
    let source = example.split("#[cfg(test)]").next().unwrap_or_default();
    let out = env::var("OUT_DIR")?;
    let (mut modules, mut names) = (String::new(), Vec::new());
    for entry in fs::read_dir(PATCHES)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("the name of a patch")?;
        let file = Path::new(&out).join(format!("{name}.rs"));
        fs::write(&file, patched(source, name, &fs::read_to_string(&path)?)?)?;
        let file = file.to_str().ok_or("a path that is UTF-8")?;
        modules += &format!("#[path = {file:?}]\nmod {};\n", name.replace('-', "_"));
        names.push(name.to_owned());
    }
    names.sort();
    modules += &format!("const NAMES: &[&str] = &{names:?};\n");
    Ok(fs::write(Path::new(&out).join("patched.rs"), modules)?)
}
