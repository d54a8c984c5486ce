//! Presets, and what one says by extending another.

use anyhow::{Context, Result};
use toml::Table;

use crate::config::merge::merge;

/// A preset that is part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Name of the preset on the command line.
    pub name: &'static str,
    /// The preset as TOML.
    pub text: &'static str,
}

/// The key by which a preset names the preset that it changes.
const EXTENDS: &str = "extends";

impl Preset {
    /// The whole preset, with the values of the preset that it extends.
    ///
    /// # Panics
    /// If a preset of the program is not TOML, or extends one that is not there.
    pub fn table(&self, presets: &[Self]) -> Table {
        let mut own: Table = self.text.parse().expect("a preset is TOML");
        let Some(base) = own.remove(EXTENDS) else { return own };
        let base = base.as_str().expect("`extends` names a preset");
        let mut table = preset(presets, base).expect("`extends` names a preset").table(presets);
        let mut problems = Vec::new();
        merge(&mut table, own, None, "", &mut problems);
        assert!(problems.is_empty(), "{}: {problems:?}", self.name);
        table
    }

    /// The preset's comment on a dotted key: the lines above it, in this preset or in the one that
    /// it extends.
    pub fn comment(&self, presets: &[Self], key: &str) -> Option<String> {
        let (mut section, mut comment) = (String::new(), Vec::new());
        for line in self.text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix('#') {
                comment.push(text.trim());
                continue;
            }
            let header = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let name = match (header, line.split_once('=')) {
                (Some(name), _) => {
                    section = format!("{name}.");
                    name.to_owned()
                }
                (None, Some((name, _))) => format!("{section}{}", name.trim()),
                (None, None) => String::new(),
            };
            if name == key && !comment.is_empty() {
                return Some(comment.join(" "));
            }
            comment.clear();
        }
        let own: Table = self.text.parse().ok()?;
        preset(presets, own.get(EXTENDS)?.as_str()?).ok()?.comment(presets, key)
    }
}

/// Finds a preset by name.
pub fn preset(presets: &[Preset], name: &str) -> Result<Preset> {
    let names = || presets.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
    presets
        .iter()
        .copied()
        .find(|preset| preset.name == name)
        .with_context(|| format!("there is no preset `{name}`; there are: {}", names()))
}
