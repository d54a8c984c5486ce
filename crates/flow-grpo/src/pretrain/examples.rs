//! Training data of the base models: rendered scenes with captions, or points of the plane.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use emoji::{Category, Collection, Emoji, STYLES, faded};
use models::{TokenIds, Vocabulary};
use rand::{Rng, seq::IndexedRandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    prompts::Prompt,
    shapes::{self, Color, Metadata, Scene},
    text::{self, Sign},
    toy,
};

use pipelines::{Architecture, Card};

/// The images that a diffusion transformer learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Scenes of shapes, drawn for their captions.
    #[default]
    Scenes,
    /// Emoji of two art styles.
    Emoji,
    /// Signs with words.
    Signs,
}

impl Data {
    /// The words and letters of the captions.
    pub fn vocabulary(self) -> Vocabulary {
        match self {
            Self::Scenes => Vocabulary::new(shapes::vocabulary()),
            Self::Emoji => Vocabulary::new(emoji::words()),
            Self::Signs => {
                Vocabulary::new(text::vocabulary()).spelling(text::LETTERS, text::LONGEST)
            }
        }
    }

    /// The prompts on which pre-training is evaluated, and the reward there besides the accuracy of
    /// prompts that can be verified.
    pub fn evaluated(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Scenes => ("shapes:validation", None),
            Self::Emoji => ("emoji:validation", Some("emoji_preference")),
            Self::Signs => ("text:validation", Some("ocr")),
        }
    }
}

/// Composition of the images and captions of pre-training; each field is a share in `[0, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExampleConfig {
    /// Images with a detailed caption: shapes, colours and places ([`shapes::detailed`]). Signs have
    /// none.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub detailed: f64,
    /// Images with the caption of a similar but different scene. Of signs, the letters that are
    /// exchanged for random ones.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub wrong: f64,
    /// Of emoji, the pictures that are washed out ([`PALE`]).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub pale: f64,
    /// The share of the updates after which captions are wrong and pictures pale; the updates before
    /// have neither. A model that draws well learns to draw wrong letters faster than a fresh one.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub faults_from: f64,
    /// Images without a caption, for classifier-free guidance.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub dropped: f64,
    /// Of the scenes with two objects and no relation between them: named from left to right, as
    /// people do; the others in any order. Signs have no order.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub reading_order: f64,
}

impl ExampleConfig {
    /// The composition at a point of pre-training, which goes from 0 to 1.
    pub fn at(&self, progress: f64) -> Self {
        if progress < self.faults_from {
            Self { wrong: 0.0, pale: 0.0, ..self.clone() }
        } else {
            self.clone()
        }
    }
}

/// What a washed-out picture keeps of its contrast to white; drawn uniformly for every picture.
pub const PALE: std::ops::Range<f32> = 0.05..0.35;

/// An endless source of images with captions.
pub enum Examples {
    /// Scenes for captions, with every kind equally often, and for detailed captions.
    Scenes {
        /// The prompts of each kind with their metadata.
        by_tag: Vec<Vec<(Metadata, TokenIds)>>,
        /// The detailed captions.
        detailed: Vec<(Metadata, TokenIds)>,
        /// The empty caption.
        empty: TokenIds,
        /// Height and width in pixels.
        image_size: usize,
    },
    /// Signs with random words.
    Signs {
        /// The vocabulary of the captions.
        card: Card,
        /// Height and width in pixels.
        image_size: usize,
    },
    /// Emoji with their captions.
    Emoji(EmojiExamples),
    /// Points of the toy task.
    Points {
        /// The only caption.
        caption: TokenIds,
    },
}

impl Examples {
    /// Creates the training data of a network.
    pub fn new(card: &Card, data: Data) -> Result<Self> {
        let Architecture::Dit(sizes) = &card.architecture else {
            return Ok(Self::Points { caption: card.condition("a point")? });
        };
        match data {
            Data::Scenes => {}
            Data::Emoji => return EmojiExamples::new(card).map(Self::Emoji),
            Data::Signs => {
                return Ok(Self::Signs { card: card.clone(), image_size: sizes.image_size });
            }
        }
        let encode = |prompt: Prompt| -> Result<_> {
            let metadata = Metadata::required(&prompt)
                .map_err(|reason| anyhow!("prompt \"{}\": {reason}", prompt.text))?;
            Ok((metadata, card.condition(&prompt.text)?))
        };
        let mut by_tag: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for prompt in shapes::captions().prompts {
            by_tag.entry(prompt.tag.clone()).or_default().push(encode(prompt)?);
        }
        let detailed = shapes::detailed().prompts.into_iter().map(encode).collect::<Result<_>>()?;
        let (by_tag, empty) = (by_tag.into_values().collect(), card.condition("")?);
        Ok(Self::Scenes { by_tag, detailed, empty, image_size: sizes.image_size })
    }

    /// Draws an image with its caption.
    pub fn draw(&self, shares: &ExampleConfig, rng: &mut impl Rng) -> (Image, TokenIds) {
        match self {
            Self::Points { caption } => (toy::sample(rng), caption.clone()),
            Self::Signs { card, image_size } => {
                let (word, color) = (text::random_word(rng), *Color::ALL.choose(rng).expect("six"));
                let shown = text::misspelt(&word, shares.wrong, rng);
                let dropped = rng.random_bool(shares.dropped);
                let caption = if dropped { String::new() } else { text::prompt(&word, color) };
                let caption = card.condition(&caption).expect("the task's own words");
                (text::render(&Sign::sample(&shown, color, rng), *image_size), caption)
            }
            Self::Emoji(examples) => examples.draw(shares, rng),
            Self::Scenes { by_tag, detailed, empty, image_size } => {
                let of_a_kind = by_tag.choose(rng).expect("there are kinds of prompts");
                let prompts = if rng.random_bool(shares.detailed) { detailed } else { of_a_kind };
                let (metadata, caption) = prompts.choose(rng).expect("every kind has prompts");
                let shown = if rng.random_bool(shares.wrong) {
                    metadata.similar(rng)
                } else {
                    metadata.clone()
                };
                let scene = sample(&shown, *image_size, rng.random_bool(shares.reading_order), rng);
                let caption = if rng.random_bool(shares.dropped) { empty } else { caption };
                (shapes::render(&scene, *image_size), caption.clone())
            }
        }
    }
}

/// Emoji, with their captions encoded for a network.
pub struct EmojiExamples {
    emoji: Vec<(Emoji, TokenIds)>,
    /// The emoji of every category.
    by_category: Vec<Vec<usize>>,
    /// The empty caption.
    empty: TokenIds,
}

impl EmojiExamples {
    fn new(card: &Card) -> Result<Self> {
        let encode = |emoji: Emoji| -> Result<_> {
            let caption = card.condition(&emoji.caption)?;
            Ok((emoji, caption))
        };
        let emoji: Vec<(Emoji, TokenIds)> =
            Collection::built_in()?.emoji.into_iter().map(encode).collect::<Result<_>>()?;
        let of_category = |category: Category| {
            (0..emoji.len()).filter(|&index| emoji[index].0.category == category).collect()
        };
        let by_category = Category::ALL.map(of_category).into();
        Ok(Self { by_category, emoji, empty: card.condition("")? })
    }

    /// Draws a picture in either style; a wrong caption is that of another emoji of the category.
    fn draw(&self, shares: &ExampleConfig, rng: &mut impl Rng) -> (Image, TokenIds) {
        let (emoji, right) = self.emoji.choose(rng).expect("there are emoji");
        let mut picture = emoji.picture(*STYLES.choose(rng).expect("there are styles"));
        if rng.random_bool(shares.pale) {
            picture = faded(&picture, rng.random_range(PALE));
        }
        let caption = if rng.random_bool(shares.wrong) {
            let alike = &self.by_category[emoji.category as usize];
            &self.emoji[*alike.choose(rng).expect("the emoji itself")].1
        } else {
            right
        };
        let caption = if rng.random_bool(shares.dropped) { &self.empty } else { caption };
        (picture, caption.clone())
    }
}

/// Draws a scene; with `in_order`, the objects stand from left to right as they are named.
fn sample(metadata: &Metadata, image_size: usize, in_order: bool, rng: &mut impl Rng) -> Scene {
    loop {
        let scene = Scene::sample(metadata, image_size, rng);
        if !in_order || named_from_left(metadata, &scene) {
            return scene;
        }
    }
}

/// Whether two objects without a relation stand in the order of their names; true of every other
/// scene.
fn named_from_left(metadata: &Metadata, scene: &Scene) -> bool {
    let placed = metadata.include.iter().any(|entry| entry.position.is_some());
    match (&metadata.include[..], &scene.objects[..]) {
        ([_, _], [first, second]) if !placed => first.center.0 < second.center.0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use training::noise::{Key, Purpose};

    use super::*;

    #[test]
    fn two_objects_are_named_from_the_left_in_the_asked_share_of_images() {
        let mut rng = Key::new(1, Purpose::Pretraining).rng();
        let pair = shapes::captions().prompts.into_iter().find_map(|prompt| {
            Metadata::of(&prompt).filter(|metadata| metadata.tag == shapes::Tag::TwoObject)
        });
        let pair = pair.expect("there are prompts with two objects");
        let mut share = |reading_order: f64| {
            let in_order = |_| {
                let scene = sample(&pair, 24, rng.random_bool(reading_order), &mut rng);
                f64::from(u8::from(scene.objects[0].center.0 < scene.objects[1].center.0))
            };
            (0..400).map(in_order).sum::<f64>() / 400.0
        };
        assert_eq!(share(1.0), 1.0);
        assert!((share(0.5) - 0.75).abs() < 0.08 && (share(0.0) - 0.5).abs() < 0.08);
    }

    /// The card of a preset's network.
    fn card_of(preset: &str, data: Data) -> Card {
        let mut table: toml::Table = preset.parse().expect("TOML");
        let architecture = table.remove("model").expect("sizes").try_into().expect("a network");
        Card { architecture, vocabulary: data.vocabulary(), made_by: String::new() }
    }

    /// The card of a small network for signs.
    fn card() -> Card {
        card_of(include_str!("../../../../assets/presets/text-base.toml"), Data::Signs)
    }

    /// Wrong captions and pale pictures from half of pre-training on.
    fn faulty(wrong: f64, pale: f64) -> ExampleConfig {
        ExampleConfig {
            detailed: 0.0,
            wrong,
            pale,
            faults_from: 0.5,
            dropped: 0.0,
            reading_order: 0.0,
        }
    }

    #[test]
    fn emoji_are_washed_out_in_the_asked_share_of_images_and_late() {
        let preset = include_str!("../../../../assets/presets/emoji-base.toml");
        let card = card_of(preset, Data::Emoji);
        let examples = Examples::new(&card, Data::Emoji).expect("the task's own words");
        let mut rng = Key::new(1, Purpose::Pretraining).rng();
        let mut pale_of_200 = |pale: f64, progress: f64| {
            let shares = faulty(0.0, pale).at(progress);
            let is_pale = |_| {
                let (image, _) = examples.draw(&shares, &mut rng);
                image.pixels.iter().all(|&value| value >= 1.0 - PALE.end)
            };
            (0..200).map(is_pale).filter(|pale| *pale).count()
        };
        let [none, half, all, early] = [
            pale_of_200(0.0, 0.5),
            pale_of_200(0.5, 0.5),
            pale_of_200(1.0, 0.5),
            pale_of_200(1.0, 0.4),
        ];
        assert!(none < 20 && early < 20 && (80..130).contains(&half), "{none}, {early}, {half}");
        assert_eq!(all, 200);
    }

    #[test]
    fn every_prompt_of_the_text_task_has_ids_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for split in [text::Split::Train, text::Split::Validation, text::Split::Test] {
            for prompt in text::prompts(split).prompts {
                let ids = card().condition(&prompt.text).expect("known words");
                assert!(ids.iter().all(|id| *id > 0), "{}: all tokens are used", prompt.text);
                assert!(seen.insert(ids), "{}", prompt.text);
            }
        }
    }

    /// Read back from the picture, because a wrong caption shows nowhere else.
    #[test]
    fn a_sign_shows_its_caption_until_letters_are_exchanged() {
        let (card, reader) = (card(), ocr::Reader::built_in(ocr::Options::default()));
        let reader = reader.expect("a reader");
        let examples = Examples::new(&card, Data::Signs).expect("the task's own words");
        let mut rng = Key::new(1, Purpose::Pretraining).rng();
        let mut agreeing = |wrong: f64, progress: f64| {
            let shares = faulty(wrong, 0.0).at(progress);
            let agrees = |_| {
                let (image, caption) = examples.draw(&shares, &mut rng);
                let lines = reader.read(&image.rgb8(), image.width, image.height);
                let word = format!("\"{}\"", ocr::text(&lines.expect("an image")));
                card.condition(&word).is_ok_and(|ids| ids[..3] == caption[5..])
            };
            (0..60).map(agrees).filter(|agrees| *agrees).count()
        };
        let [right, wrong, early] = [agreeing(0.0, 0.5), agreeing(1.0, 0.5), agreeing(1.0, 0.49)];
        assert!(right > 50 && wrong < 10 && early > 50, "{right}, {wrong} and {early} of 60");
    }
}
