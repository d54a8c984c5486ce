//! The registry of rewards: one line per kind.
//!
//! A configuration names instances: `rewards.NAME = 1.0` is an instance of the kind `NAME`, and
//! `rewards.NAME = { kind = "…", weight = 1.0, … }` is an instance with its own settings.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, de::DeserializeOwned};
use tasks::{
    cache::{Cached, ScoreCache},
    jpeg::JpegCompressibility,
    reward::{Darkness, Reward, Weighted, WeightedReward},
    shapes::{ShapesPartial, ShapesStrict, ShapesVariety},
    toy::FirstMode,
};
use toml::{Table, Value};

use crate::{backend::Device, named};

pub mod colors;
mod config;
pub mod emoji_encoder;
mod emoji_preference;
mod judge;
mod preference;
pub mod shapes_proxy;
mod text_rendering;

pub use config::RewardConfig;
use emoji_preference::EmojiReward;
use judge::Judge;
use shapes_proxy::ShapesProxy;
use text_rendering::TextRendering;

/// A kind of reward.
pub struct Kind {
    /// The name in configurations.
    pub name: &'static str,
    /// One line for people: the quantity, its range, its settings.
    pub about: &'static str,
    /// Opens an instance.
    open: fn(Table, &Surroundings<'_>) -> Result<Box<dyn Reward>>,
}

/// The run in which a reward judges.
pub struct Surroundings<'a> {
    /// The shape of the run's images, `[C, H, W]`.
    pub image_shape: [usize; 3],
    /// The device for rewards with a network.
    pub device: &'a Device,
    /// The cached scores of slow rewards.
    pub cache: Option<Arc<ScoreCache>>,
}

const SHAPES_PROXY: &str = "shapes_proxy";
const EMOJI_PREFERENCE: &str = "emoji_preference";
const EMOJI_GOLD: &str = "emoji_gold";

/// All kinds of reward.
pub const REWARDS: &[Kind] = &[
    Kind {
        name: "shapes_partial",
        about: "share of a shapes prompt that the image satisfies, 0 to 1",
        open: |settings, _| plain(settings, ShapesPartial),
    },
    Kind {
        name: "shapes_strict",
        about: "1 if the image satisfies a shapes prompt, otherwise 0",
        open: |settings, _| plain(settings, ShapesStrict),
    },
    Kind {
        name: "shapes_variety",
        about: "rarity of the colours that a shapes prompt leaves open, 0 to 1",
        open: |settings, _| plain(settings, ShapesVariety),
    },
    Kind {
        name: SHAPES_PROXY,
        about: "a classifier's belief in a shapes prompt, 0 to 1; can be hacked",
        open: |settings, run| plain(settings, ShapesProxy::built_in(run.image_shape, run.device)?),
    },
    Kind {
        name: "darkness",
        about: "1 - 2 x the mean of the image, -1 to 1",
        open: |settings, _| plain(settings, Darkness),
    },
    Kind {
        name: "jpeg_compressibility",
        about: "-1/500 of the size as a JPEG in kB",
        open: |settings, _| plain(settings, JpegCompressibility),
    },
    // ANCHOR: ocr
    Kind {
        name: "ocr",
        about: "share of the text in the prompt's quotes that is read in the image, 0 to 1; \
                `model`, `swapped`, `detect`",
        open: |settings, _| Ok(Box::new(TextRendering::open(settings)?)),
    },
    // ANCHOR_END: ocr
    Kind {
        name: "clipscore",
        about: "the cosine of CLIP between image and prompt, -1 to 1; `model`",
        open: |settings, run| Ok(Box::new(preference::clip_score(settings, run.device)?)),
    },
    Kind {
        name: "pickscore",
        about: "PickScore / 26, about 0.8; `model`",
        open: |settings, run| Ok(Box::new(preference::pick_score(settings, run.device)?)),
    },
    Kind {
        name: "hpsv2",
        about: "HPSv2 or HPSv2.1, -1 to 1; `model`",
        open: |settings, run| Ok(Box::new(preference::hpsv2(settings, run.device)?)),
    },
    Kind {
        name: "aesthetic",
        about: "LAION's aesthetic predictor, about 1 to 10; ignores the prompt; `model`",
        open: |settings, run| Ok(Box::new(preference::aesthetic(settings, run.device)?)),
    },
    Kind {
        name: EMOJI_PREFERENCE,
        about: "scale x cosine of image and prompt by a small CLIP of emoji, means of about 20 for real pictures and about 0 for white ones; `model`",
        open: |settings, run| {
            Ok(Box::new(EmojiReward::open(settings, emoji::Encoder::Preference, run)?))
        },
    },
    Kind {
        name: EMOJI_GOLD,
        about: "`emoji_preference` by a second, independent CLIP: its gold reward; `model`",
        open: |settings, run| Ok(Box::new(EmojiReward::open(settings, emoji::Encoder::Gold, run)?)),
    },
    Kind {
        name: "geneval",
        about: "GenEval's partial score, 0 to 1, from the reference code's server; \
                `url`, `service`, `channels`, and the settings of `judge`",
        open: |settings, _| Ok(Box::new(Judge::geneval(settings)?)),
    },
    Kind {
        name: "judge",
        about: "a judge behind HTTP; `url`, `protocol`, `batch_size`, `concurrency`, \
                `timeout_seconds`, `retries`, `token_variable`",
        open: |settings, _| Ok(Box::new(Judge::open(settings)?)),
    },
    Kind {
        name: "toy_mode",
        about: "nearness of a point to the first cluster of the toy task, 0 to 1",
        open: |settings, _| plain(settings, FirstMode),
    },
];

/// Opens a kind that has no settings.
fn plain(settings: Table, reward: impl Reward + 'static) -> Result<Box<dyn Reward>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoSettings {}
    parsed::<NoSettings>(settings)?;
    Ok(Box::new(reward))
}

/// Parses the settings of a kind.
fn parsed<T: DeserializeOwned>(settings: Table) -> Result<T> {
    Value::Table(settings).try_into().map_err(|error| anyhow!("{}", error.message()))
}

/// Whether one of these kinds judges images of one shape only.
pub fn depend_on_shape(names: &[String]) -> bool {
    let of_one_shape = [SHAPES_PROXY, EMOJI_PREFERENCE, EMOJI_GOLD];
    names.iter().any(|name| of_one_shape.contains(&name.as_str()))
}

/// The names of all kinds.
pub fn names() -> Vec<&'static str> {
    REWARDS.iter().map(|kind| kind.name).collect()
}

/// A table of all kinds, for people.
pub fn table() -> String {
    REWARDS.iter().map(|kind| format!("  {:<22}{}\n", kind.name, kind.about)).collect()
}

/// Opens the rewards of a configuration; `key` is their place in it.
///
/// # Errors
/// If a reward's settings are wrong, or it cannot be opened.
pub fn open(
    key: &str,
    rewards: &BTreeMap<String, RewardConfig>,
    surroundings: &Surroundings<'_>,
) -> Result<WeightedReward> {
    let open = |(name, config): (&String, &RewardConfig)| {
        let opened = || -> Result<Box<dyn Reward>> {
            let kind = config.kind(name)?;
            let reward = (kind.open)(named::reward(config.settings.clone())?, surroundings)?;
            Ok(match &surroundings.cache {
                Some(cache) if reward.is_slow() => {
                    let instance = format!("{}\n{}", kind.name, config.settings);
                    Box::new(Cached::new(reward, instance, Arc::clone(cache)))
                }
                _ => reward,
            })
        };
        let reward = opened().with_context(|| format!("{key}.{name}"))?;
        Ok(Weighted { name: name.clone(), weight: config.weight, reward })
    };
    Ok(WeightedReward::new(rewards.iter().map(open).collect::<Result<_>>()?))
}

/// Opens a reward by its kind, without settings.
///
/// # Errors
/// If there is no such kind, or it cannot be opened.
pub fn by_name(name: &str, surroundings: &Surroundings<'_>) -> Result<WeightedReward> {
    let config = RewardConfig { weight: 1.0, kind: None, settings: Table::new() };
    open("reward", &BTreeMap::from([(name.to_owned(), config)]), surroundings)
}

#[cfg(test)]
mod tests {
    use tasks::reward::Part;

    use super::*;

    fn config(text: &str) -> RewardConfig {
        let mut table: Table = format!("it = {text}").parse().expect("TOML");
        table.remove("it").expect("it").try_into().expect("a reward")
    }

    fn opened(name: &str, text: &str) -> Result<WeightedReward> {
        let surroundings =
            Surroundings { image_shape: [3, 2, 2], device: &Device::default(), cache: None };
        open("rewards", &BTreeMap::from([(name.to_owned(), config(text))]), &surroundings)
    }

    #[test]
    fn the_book_lists_every_kind() {
        let book = include_str!("../../../book/src/rewards.md");
        for name in names() {
            assert!(book.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn an_instance_has_a_name_of_its_own() {
        let black = tasks::image::Image { channels: 3, height: 1, width: 1, pixels: vec![0.0; 3] };
        let reward = opened("night", "{ kind = \"darkness\", weight = 3 }").expect("a kind");
        let prompt = tasks::prompts::Prompt::plain("night");
        let scores = reward.score(&[black], &[&prompt]).expect("a score");
        assert_eq!(
            (scores.parts, scores.total),
            (vec![Part { name: "night".to_owned(), weight: 3.0, scores: vec![1.0] }], vec![3.0])
        );
    }

    #[test]
    fn unknown_kinds_settings_and_weights_are_refused() {
        let problems = |text: &str| config(text).problems("beauty").join("; ");
        assert!(problems("1").contains("there is no reward `beauty`; there are: shapes_partial"));
        assert!(problems("{ kind = \"darknes\" }").contains("no reward `darknes`"));
        assert!(problems("{ kind = \"darkness\", weight = nan }").contains("finite number"));
        let refused = opened("darkness", "{ size = 3 }").err().expect("no settings");
        assert!(format!("{refused:#}").contains("rewards.darkness: unknown field `size`"));
        let refused = opened("shapes_proxy", "1").err().expect("another size");
        assert!(format!("{refused:#}").contains("rewards.shapes_proxy: it judges images of"));
    }
}
