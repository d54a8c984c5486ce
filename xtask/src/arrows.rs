//! The arrows between crates, and between the modules of a crate: they have no circles.
//!
//! A crate may use the crates that its line in [`CRATES`] names, all from lines above. A module is
//! what a crate's root declares, a file or a folder; whether modules use each other in a circle is
//! read from the paths that begin with `crate::`. Tests may use anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::app::cargo;

/// The crates of the workspace, from the ground up, each with those that it may use; the reasons
/// are in ARCHITECTURE.md.
const CRATES: [(&str, &[&str]); 20] = [
    ("files", &[]),
    ("hub", &["files"]),
    ("kernels", &[]),
    ("settings", &[]),
    ("flow", &[]),
    ("ocr", &[]),
    ("judges", &[]),
    ("tasks", &["files"]),
    ("emoji", &["files", "tasks"]),
    ("run", &["files", "tasks"]),
    ("training", &["kernels"]),
    ("models", &["files", "flow", "kernels", "settings"]),
    ("grpo", &["flow", "settings", "tasks", "training"]),
    ("pipelines", &["files", "flow", "grpo", "kernels", "models", "settings", "tasks"]),
    (
        "flow-grpo",
        &[
            "emoji",
            "files",
            "flow",
            "grpo",
            "hub",
            "judges",
            "kernels",
            "models",
            "ocr",
            "pipelines",
            "run",
            "settings",
            "tasks",
            "training",
        ],
    ),
    ("demos", &["flow", "grpo", "models", "tasks", "training"]),
    ("bind", &[]),
    ("exercises", &[]),
    ("xtask", &[]),
    (
        "tests",
        &["files", "flow", "grpo", "hub", "kernels", "models", "settings", "tasks", "training"],
    ),
];

/// Arrows between modules that close a circle and stay: the crate, an arrow, and the reason.
const CIRCLES: [(&str, [&str; 2], &str); 11] = [
    ("grpo", ["algorithm", "config"], "the settings name an algorithm, which reads its own"),
    ("grpo", ["algorithm", "metrics"], "the metrics of an epoch hold the outcomes of algorithms"),
    ("grpo", ["algorithm", "trainer"], "an algorithm refuses an epoch by the trainer's error"),
    ("grpo", ["algorithm", "update"], "a replay runs any algorithm, which asks the replay"),
    ("judges", ["wire", "transport"], "a protocol judges the transport's answer about health"),
    ("kernels", ["host", "attention"], "the host makes every operation one of the graph"),
    ("kernels", ["host", "convolution"], "the convolution reads the host's numbers in place"),
    ("kernels", ["host", "elementwise"], "the host makes every operation one of the graph"),
    ("kernels", ["host", "group_norm"], "the host makes every operation one of the graph"),
    ("kernels", ["host", "heads"], "the host makes every operation one of the graph"),
    ("kernels", ["host", "layer_norm"], "the host makes every operation one of the graph"),
];

/// Checks the arrows of every crate of the workspace.
///
/// # Errors
/// If a crate uses one that its line does not name, or modules use each other in a circle.
pub fn check() -> Result<()> {
    let crates = crates()?;
    let mut problems = problems_of_crates(&crates);
    for one in &crates {
        let mut arrows = arrows_of_modules(&one.root)?;
        for (_, [from, to], _) in CIRCLES.iter().filter(|(of, ..)| *of == one.name) {
            if !arrows.get_mut(*from).is_some_and(|uses| uses.remove(*to)) {
                problems
                    .push(format!("{}: {from} → {to} is allowed in CIRCLES and gone", one.name));
            }
        }
        problems.extend(circle(&arrows).map(|circle| {
            let circle = circle.join(" → ");
            format!("{}: modules use each other in a circle: {circle}", one.name)
        }));
    }
    ensure!(problems.is_empty(), "xtask/src/arrows.rs:\n  - {}", problems.join("\n  - "));
    Ok(())
}

/// A crate of the workspace.
struct Crate {
    name: String,
    /// The crates of the workspace that it uses outside its tests.
    uses: BTreeSet<String>,
    /// The file of its root module.
    root: PathBuf,
}

/// The crates of the workspace, from cargo.
fn crates() -> Result<Vec<Crate>> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let one = |package: &Value| {
        let local = list(&package["dependencies"]);
        let local = local
            .iter()
            .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev");
        let targets = list(&package["targets"]);
        let root = targets.iter().find(|target| {
            list(&target["kind"]).iter().any(|kind| ["lib", "bin"].contains(&&*text(kind)))
        });
        let root = root.or(targets.first()).context("a package has a target")?;
        Ok::<_, anyhow::Error>(Crate {
            name: text(&package["name"]),
            uses: local.map(|dependency| text(&dependency["name"])).collect(),
            root: text(&root["src_path"]).into(),
        })
    };
    list(&metadata["packages"]).iter().map(one).collect()
}

/// What the crates use against [`CRATES`].
fn problems_of_crates(crates: &[Crate]) -> Vec<String> {
    let mut problems = Vec::new();
    for one in crates {
        let line = CRATES.iter().position(|(name, _)| *name == one.name);
        let allowed = line.map_or(&[][..], |line| CRATES[line].1);
        if line.is_none() {
            problems.push(format!("{}: the crate has no line in CRATES", one.name));
        }
        for used in one.uses.iter().filter(|used| !allowed.contains(&used.as_str())) {
            problems
                .push(format!("{} uses {used}, which its line in CRATES does not allow", one.name));
        }
        for used in allowed {
            if !one.uses.contains(*used) {
                problems.push(format!("{} may use {used} by CRATES and does not", one.name));
            }
            let above = CRATES.iter().position(|(name, _)| name == used) < line;
            if !above {
                problems.push(format!("{used} must stand above {} in CRATES", one.name));
            }
        }
    }
    problems
}

/// Which module of a crate uses which.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The arrows between the modules that the root of a crate declares.
fn arrows_of_modules(root: &Path) -> Result<Arrows> {
    let text = read(root)?;
    let modules = declared(&text);
    let exported = exported(&text, &modules);
    let folder = root.parent().context("a root lies in a folder")?;
    let mut arrows = Arrows::new();
    for module in &modules {
        let uses = arrows.entry(module.clone()).or_default();
        let mut files = vec![folder.join(format!("{module}.rs"))];
        files.extend(files_under(&folder.join(module))?);
        for file in files.iter().filter(|file| file.exists()) {
            let names = names_after_crate(&read(file)?);
            let used = names.iter().filter_map(|name| exported.get(name).or(modules.get(name)));
            uses.extend(used.filter(|used| *used != module).cloned());
        }
    }
    Ok(arrows)
}

/// The code of a file, without comments and without its tests, which come last.
fn read(file: &Path) -> Result<String> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    Ok(code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n")
        .collect())
}

fn files_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                files.extend(files_under(&path)?);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// The modules that a root declares, besides those of tests.
fn declared(root: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let mut before = "";
    for line in root.lines() {
        let line_of_module = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let name = line_of_module.strip_prefix("mod ");
        if let Some(name) =
            name.and_then(|name| name.strip_suffix(';')).filter(|_| before != "#[cfg(test)]")
        {
            modules.insert(name.to_owned());
        }
        before = line;
    }
    modules
}

/// The names that a root exports from its modules, each with its module.
fn exported(root: &str, modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut exported = BTreeMap::new();
    for statement in root.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let mut names = statement.split(|c: char| !is_of_name(c)).filter(|name| !name.is_empty());
        if let Some(module) = names.next().filter(|name| modules.contains(*name)) {
            exported.extend(names.map(|name| (name.to_owned(), module.to_owned())));
        }
    }
    exported
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that follow `crate::` in a code, alone or in braces.
fn names_after_crate(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| is_of_name(*c)).collect()
    };
    let mut names = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        let Some(braces) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let mut depth = 1;
        names.insert(name(braces));
        for (at, c) in braces.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    names.insert(name(&braces[at + 1..]));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names.remove(""); // A comma before the closing brace.
    names
}

/// A circle of arrows, from a module back to itself, if there is one.
fn circle(arrows: &Arrows) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|module| circle_from(module, arrows, &mut Vec::new(), &mut done))
}

fn circle_from(
    module: &str,
    arrows: &Arrows,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(start) = way.iter().position(|before| before == module) {
        return Some(
            way[start..].iter().map(String::as_str).chain([module]).map(str::to_owned).collect(),
        );
    }
    if !done.insert(module.to_owned()) {
        return None;
    }
    way.push(module.to_owned());
    let mut uses = arrows.get(module).into_iter().flatten();
    let found = uses.find_map(|used| circle_from(used, arrows, way, done));
    way.pop();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(of: &[(&str, &[&str])]) -> Arrows {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        of.iter().map(|(module, uses)| ((*module).to_owned(), owned(uses))).collect()
    }

    #[test]
    fn the_workspace_has_no_circle_and_no_arrow_that_nobody_allowed() {
        check().unwrap_or_else(|error| panic!("{error:#}"));
    }

    #[test]
    fn a_crate_uses_what_its_line_allows() {
        let uses = |name: &str, used: &[&str]| {
            let uses = used.iter().map(|used| (*used).to_owned()).collect();
            problems_of_crates(&[Crate { name: name.to_owned(), uses, root: PathBuf::new() }])
        };
        assert!(uses("run", &["files", "tasks"]).is_empty());
        assert_eq!(
            uses("run", &["files", "grpo", "tasks"]),
            ["run uses grpo, which its line in CRATES does not allow"]
        );
        assert_eq!(uses("tasks", &[]), ["tasks may use files by CRATES and does not"]);
        assert_eq!(uses("new", &[]), ["new: the crate has no line in CRATES"]);
    }

    #[test]
    fn a_circle_is_found_and_a_diamond_is_none() {
        let diamond = arrows(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]);
        assert_eq!(circle(&diamond), None);
        let round = arrows(&[("a", &["b"]), ("b", &["c", "d"]), ("c", &[]), ("d", &["b"])]);
        assert_eq!(circle(&round).expect("a circle"), ["b", "d", "b"]);
    }

    #[test]
    fn paths_name_modules_alone_in_braces_and_by_what_the_root_exports() {
        let code = "use crate::{\n    one::{self, X, two::Y},\n    Name,\n};\nuse crate::three;\nlet x = crate::four::x();";
        let names: Vec<String> = names_after_crate(code).into_iter().collect();
        assert_eq!(names, ["Name", "four", "one", "three"]);
        let root =
            "pub mod one;\nmod two;\n#[cfg(test)]\nmod fuzz;\npub use two::{Name, inner::Other};";
        let modules = declared(root);
        assert_eq!(modules.iter().map(String::as_str).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(exported(root, &modules)["Name"], "two");
    }
}
