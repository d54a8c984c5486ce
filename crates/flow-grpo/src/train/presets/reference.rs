//! Presets and profile have the numbers of the reference code.

use super::{PROFILES, TRAIN_PRESETS, tests::keys};
use crate::{
    config::{self, Preset},
    train::{config::TrainConfig, tuning::Tuning},
};

/// Values of the reference code (`yifan123/flow_grpo`, commit ac4c86e) with file and line; an
/// entry for one configuration begins with its name.
const REFERENCE: [(&str, &str, &str); 58] = [
    ("seed", "42", "config/base.py:11"),
    ("evaluate_every", "60", "config/grpo.py:58"),
    ("evaluation_guidance", "4.5", "config/base.py:43, scripts/train_sd3.py:254"),
    ("tuning.kind", "'lora'", "config/base.py:25"),
    ("tuning.rank", "32", "scripts/train_sd3.py:430"),
    ("tuning.alpha", "64.0", "scripts/train_sd3.py:431"),
    ("tuning.init", "'gaussian'", "scripts/train_sd3.py:432"),
    (
        "tuning.targets",
        "['attn.to_q', 'attn.to_k', 'attn.to_v', 'attn.to_out.0', 'attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj', \
         'attn.to_add_out']",
        "scripts/train_sd3.py:419-428",
    ),
    ("model.resolution", "512", "config/grpo.py:40"),
    ("model.max_sequence_length", "128", "scripts/train_sd3.py:625"),
    ("model.t5", "true", "scripts/train_sd3.py:387"),
    ("grpo.groups", "48", "config/grpo.py:43: 4 batches x 9 x 32 GPUs / 24"),
    ("sd35m-ocr-1gpu grpo.groups", "8", "config/grpo.py:235: 8 batches x 8 / 8"),
    (
        "grpo.group_size",
        "24",
        "config/grpo.py:42; 8 in general_ocr_sd3_1gpu, line 234: too few (arXiv 2505.05470, section 5.3)",
    ),
    ("grpo.updates_per_epoch", "2", "config/grpo.py:48"),
    ("grpo.warm_up", "0", "scripts/train_sd3.py:465-471: no scheduler"),
    ("grpo.cool_down", "0", "scripts/train_sd3.py:465-471: no scheduler"),
    ("grpo.rollout.steps", "10", "config/grpo.py:36"),
    ("grpo.rollout.grid.kind", "'sd3_double_shift'", "diffusers' FlowMatchEulerDiscreteScheduler"),
    ("grpo.rollout.grid.shift", "3.0", "scheduler_config.json of SD3.5-Medium"),
    (
        "grpo.rollout.transition.kind",
        "'flow_sde'",
        "flow_grpo/diffusers_patch/sd3_sde_with_logprob.py:58-66",
    ),
    ("grpo.rollout.transition.noise_level", "0.7", "config/base.py:54"),
    (
        "grpo.rollout.random_steps",
        "10",
        "flow_grpo/diffusers_patch/sd3_pipeline_with_logprob.py:137-167",
    ),
    ("grpo.rollout.log_prob", "'mean'", "flow_grpo/diffusers_patch/sd3_sde_with_logprob.py:68"),
    ("grpo.rollout.guidance", "4.5", "config/grpo.py:38"),
    ("grpo.trained_steps.kind", "'all_but_last'", "config/grpo.py:50, scripts/train_sd3.py:345"),
    ("grpo.advantage.combine", "'sum_then_normalize'", "flow_grpo/rewards.py:393-398"),
    ("grpo.advantage.spread", "'epoch'", "config/grpo.py:54, flow_grpo/stat_tracking.py:27"),
    ("grpo.advantage.epsilon", "1e-4", "flow_grpo/stat_tracking.py:27"),
    ("grpo.advantage.clip", "5.0", "config/base.py:84"),
    ("grpo.objective.kind", "'clipped'", "scripts/train_sd3.py:886-893"),
    ("grpo.objective.clip_range_low", "1e-4", "config/base.py:86"),
    ("grpo.objective.clip_range_high", "1e-4", "config/base.py:86"),
    ("grpo.objective.step_weight", "'equal'", "scripts/train_sd3.py:893"),
    ("sd35m-geneval grpo.objective.kl_weight", "0.04", "config/grpo.py:91"),
    ("sd35m-ocr grpo.objective.kl_weight", "0.04", "config/grpo.py:52"),
    ("sd35m-ocr-1gpu grpo.objective.kl_weight", "0.04", "config/grpo.py:244"),
    ("sd35m-pickscore grpo.objective.kl_weight", "0.01", "config/grpo.py:128"),
    ("grpo.objective.kl_controller.kind", "'fixed'", "scripts/train_sd3.py:897"),
    ("grpo.objective.kl_form", "'reference'", "scripts/train_sd3.py:895"),
    (
        "grpo.objective.kl_ode_steps",
        "0",
        "scripts/train_sd3.py:345: every trained step draws noise",
    ),
    (
        "grpo.objective.guidance_gradient",
        "'both'",
        "scripts/train_sd3.py:189-195 at ed4e82b and 74db691; detached at ac4c86e",
    ),
    ("grpo.optimizer.learning_rate", "3e-4", "config/base.py:63"),
    ("grpo.optimizer.beta1", "0.9", "config/base.py:65"),
    ("grpo.optimizer.beta2", "0.999", "config/base.py:67"),
    ("grpo.optimizer.weight_decay", "1e-4", "config/base.py:69"),
    ("grpo.optimizer.epsilon", "1e-8", "config/base.py:71"),
    ("grpo.optimizer.max_gradient_norm", "1.0", "config/base.py:76"),
    ("grpo.muon", "'none'", "scripts/train_sd3.py:463: AdamW alone"),
    ("grpo.ema.decay", "0.9", "scripts/train_sd3.py:445"),
    ("grpo.ema.every", "8", "scripts/train_sd3.py:445"),
    ("grpo.ema.repeat", "2", "config/grpo.py:43, scripts/train_sd3.py:955: half of 4 batches"),
    (
        "sd35m-ocr-1gpu grpo.ema.repeat",
        "4",
        "config/grpo.py:235, scripts/train_sd3.py:955: half of 8 batches",
    ),
    ("sd35m-geneval best_by", "'rewards.geneval'", "config/grpo.py:98"),
    ("sd35m-ocr best_by", "'rewards.ocr'", "config/grpo.py:61"),
    ("sd35m-ocr-1gpu best_by", "'rewards.ocr'", "config/grpo.py:252"),
    ("sd35m-pickscore best_by", "'rewards.pickscore'", "config/grpo.py:134"),
    ("prompts.unseen", "'none'", "scripts/train_sd3.py:604"),
];

/// The reference code's value of a key, in the configuration that a preset stands for.
fn reference(preset: &str, key: &str) -> Option<toml::Value> {
    let of =
        |name: &str| REFERENCE.iter().find(|(key, ..)| *key == name).map(|(_, value, _)| *value);
    let value = of(&format!("{preset} {key}")).or_else(|| of(key))?;
    Some(format!("v = {value}").parse::<toml::Table>().expect("TOML")["v"].clone())
}

#[test]
fn presets_and_profile_have_the_numbers_of_the_reference_code() {
    let profile: toml::Table = PROFILES[0].text.parse().expect("TOML");
    let presets: Vec<Preset> =
        TRAIN_PRESETS.into_iter().filter(|preset| preset.name.starts_with("sd35m")).collect();
    assert_eq!(presets.len(), 4);
    for preset in presets {
        let config: TrainConfig =
            config::resolve(preset.table(&TRAIN_PRESETS), None, None, &[]).expect("valid");
        let config = toml::Table::try_from(&config).expect("plain data");
        for (key, _, source) in REFERENCE {
            let key = key.strip_prefix(preset.name).map_or(key, str::trim_start);
            // An entry for another preset.
            if key.contains(' ') {
                continue;
            }
            let want = reference(preset.name, key);
            let want = want.as_ref().filter(|want| want.as_str() != Some("none"));
            assert_eq!(config::at(&config, key), want, "{}: {key}, {source}", preset.name);
        }
    }
    // The profile is the configuration of GenEval and text rendering on 32 GPUs, without the
    // settings of task and machine.
    for key in keys("", &profile) {
        let want = reference("sd35m-ocr", &key)
            .unwrap_or_else(|| panic!("the profile has {key}, the table has not"));
        assert_eq!(config::at(&profile, &key), Some(&want), "the profile: {key}");
    }
    let named = keys("", &profile);
    for (key, _, source) in REFERENCE {
        let of_task = ["seed", "tuning.targets", "model.", "grpo.group", "prompts."];
        if !key.contains(' ') && !of_task.iter().any(|prefix| key.starts_with(prefix)) {
            assert!(named.iter().any(|name| name == key), "the profile lacks {key}, {source}");
        }
    }
}

#[test]
fn the_profile_makes_a_preset_of_any_kind_that_of_the_reference_code() {
    let profile = Some(PROFILES[0].text);
    let changed: TrainConfig =
        config::resolve(TRAIN_PRESETS[0].table(&TRAIN_PRESETS), profile, None, &[]).expect("valid");
    assert_eq!(changed.grpo.rollout.grid, flow::GridKind::Sd3DoubleShift { shift: 3.0 });
    assert_eq!(
        (changed.grpo.warm_up, changed.grpo.cool_down, changed.grpo.optimizer.learning_rate),
        (0, 0, 3e-4)
    );
    assert_eq!(changed.tuning, Tuning::Full { layers: None }, "it trains all weights still");
    for preset in TRAIN_PRESETS.iter().filter(|preset| preset.name.starts_with("sd35m")) {
        let own = preset.table(&TRAIN_PRESETS);
        let mut other = own.clone();
        other["tuning"]["rank"] = 8.into();
        other["grpo"]["optimizer"]["learning_rate"] = 1e-5.into();
        let resolve = |table: toml::Table, layer| {
            config::resolve::<TrainConfig>(table, layer, None, &[]).expect("valid")
        };
        let (own, mut changed) = (resolve(own, None), resolve(other, profile));
        // The task and the machine decide these.
        let grpo::Objective::Clipped(objective) = &mut changed.grpo.objective else {
            unreachable!("the reference's")
        };
        objective.kl_weight = own.grpo.objective.kl_weight();
        changed.grpo.ema.repeat = own.grpo.ema.repeat;
        assert_eq!(changed, own, "{}", preset.name);
    }
}
