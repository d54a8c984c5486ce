//! Presets, and what one says by extending another.

use anyhow::{Context, Result};
use toml::Table;

use crate::{backend::ON_CPU, config::merge::merge};

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

/// The table of a preset or a file with the settings that differ on wgpu and cuda, such as larger
/// batches.
const ON_GPU: &str = "on_gpu";

/// Takes the settings for GPUs out of a table; returns them if they apply to this build.
pub fn take_on_gpu(table: &mut Table) -> Option<Table> {
    taken(table, ON_CPU)
}

fn taken(table: &mut Table, on_cpu: bool) -> Option<Table> {
    // Anything but a table stays, and is refused as an unknown key.
    table.get(ON_GPU)?.as_table()?;
    table.remove(ON_GPU)?.try_into().ok().filter(|_| !on_cpu)
}

impl Preset {
    /// The whole preset, with the values of the preset that it extends.
    ///
    /// # Panics
    /// If a preset of the program is not TOML, or extends one that is not there.
    pub fn table(&self, presets: &[Self]) -> Table {
        self.table_on(presets, ON_CPU)
    }

    fn table_on(&self, presets: &[Self], on_cpu: bool) -> Table {
        let mut own: Table = self.text.parse().expect("a preset is TOML");
        let (on_gpu, base) = (taken(&mut own, on_cpu), own.remove(EXTENDS));
        let mut problems = Vec::new();
        let mut table = match base {
            None => own,
            Some(base) => {
                let base = base.as_str().expect("`extends` names a preset");
                let base = preset(presets, base).expect("`extends` names a preset");
                let mut table = base.table_on(presets, on_cpu);
                merge(&mut table, own, None, "", &mut problems);
                table
            }
        };
        merge(&mut table, on_gpu.unwrap_or_default(), None, "", &mut problems);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{at, resolve},
        pretrain::{config::PretrainConfig, presets::PRETRAIN_PRESETS},
        train::{config::TrainConfig, presets::TRAIN_PRESETS},
    };

    #[test]
    fn on_a_gpu_a_preset_has_its_own_batches_and_otherwise_the_same_settings() {
        let shapes = preset(&TRAIN_PRESETS, "shapes").expect("there is one");
        let on = |on_cpu| shapes.table_on(&TRAIN_PRESETS, on_cpu);
        let batch =
            |table: &Table| at(table, "grpo.rollout_batch").and_then(toml::Value::as_integer);
        assert_eq!([true, false].map(|on_cpu| batch(&on(on_cpu))), [Some(16), Some(256)]);
        let without_batches = |on_cpu| {
            let mut table = on(on_cpu);
            let grpo = table.get_mut("grpo").and_then(toml::Value::as_table_mut).expect("a table");
            grpo.remove("rollout_batch");
            grpo.remove("micro_batch");
            table
        };
        assert_eq!(without_batches(true), without_batches(false));
    }

    #[test]
    fn every_preset_is_valid_on_a_gpu() {
        for preset in TRAIN_PRESETS {
            let table = preset.table_on(&TRAIN_PRESETS, false);
            resolve::<TrainConfig>(table, None, None, &[])
                .unwrap_or_else(|error| panic!("{}: {error:#}", preset.name));
        }
        for preset in PRETRAIN_PRESETS {
            let table = preset.table_on(&PRETRAIN_PRESETS, false);
            resolve::<PretrainConfig>(table, None, None, &[])
                .unwrap_or_else(|error| panic!("{}: {error:#}", preset.name));
        }
    }

    #[test]
    fn settings_for_gpus_are_a_table_or_an_unknown_key() {
        let table = |text: &str| text.parse::<Table>().expect("TOML");
        let mut given = table("[on_gpu.grpo]\nrollout_batch = 7\n[grpo]\nrollout_batch = 1");
        assert_eq!(taken(&mut given.clone(), false), Some(table("[grpo]\nrollout_batch = 7")));
        assert_eq!(taken(&mut given, true), None);
        assert_eq!(given, table("[grpo]\nrollout_batch = 1"));
        let mut wrong = table("on_gpu = true");
        assert_eq!(taken(&mut wrong, false), None);
        assert!(wrong.contains_key(ON_GPU));
    }
}
