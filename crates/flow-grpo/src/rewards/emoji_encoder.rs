//! A small CLIP of our own, for captions of known words: the preference model of the emoji task.
//!
//! The file is safetensors with sizes and words in its metadata. Two are part of the program: the
//! reward, and a second one, trained apart, as gold.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result, ensure};
use burn::prelude::*;
use emoji::{LONGEST_CAPTION, SIDE};
use grpo::images::Decoder;
use models::{
    Vocabulary, VocabularyError, WeightsFile,
    clip::{Clip, ClipModelConfig, VisionConfig, cosine, unit},
    text::clip::{Activation, ClipConfig, WITH_PROJECTION},
    weights::{StoredAs, write_module},
};
use serde::{Deserialize, Serialize};
use tasks::image::Image;

use crate::backend::{Device, Plain};

/// The built-in encoder that is the reward.
const PREFERENCE: &[u8] =
    include_bytes!("../../../../assets/checkpoints/emoji-preference.safetensors");
/// The built-in encoder that is the gold.
const GOLD: &[u8] = include_bytes!("../../../../assets/checkpoints/emoji-gold.safetensors");
/// The metadata key of the card.
const CARD: &str = "flow_grpo_encoder";
/// Images or texts that pass through a tower together.
const BATCH: usize = 64;
/// Largest factor between a cosine and a logit (arXiv 2103.00020, section 2.5).
pub const LARGEST_SCALE: f64 = 100.0;

/// The description of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderCard {
    /// The text tower.
    text: ClipConfig,
    /// The image tower.
    vision: VisionConfig,
    /// The words that it knows.
    vocabulary: Vocabulary,
    /// The origin, for people.
    made_by: String,
}

/// Widths of an encoder.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Features of a token in both towers.
    pub width: usize,
    /// Layers of the image tower; the text tower has two.
    pub depth: usize,
}

/// Features of the space in which the towers meet.
const SPACE: usize = 64;
const HEADS: usize = 4;

impl EncoderCard {
    /// An encoder for the captions of the emoji.
    pub fn new(sizes: Sizes, made_by: String) -> Self {
        let vocabulary = Vocabulary::new(emoji::words());
        let text = ClipConfig {
            architectures: vec![WITH_PROJECTION.to_owned()],
            // The words, the padding, and the end of the text, which has the highest id.
            vocab_size: vocabulary.len() + 1,
            hidden_size: sizes.width,
            intermediate_size: 2 * sizes.width,
            num_hidden_layers: 2,
            num_attention_heads: HEADS,
            max_position_embeddings: LONGEST_CAPTION + 1,
            projection_dim: SPACE,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: vocabulary.len() as i64,
        };
        let vision = VisionConfig {
            hidden_size: sizes.width,
            intermediate_size: 3 * sizes.width,
            num_hidden_layers: sizes.depth,
            num_attention_heads: HEADS,
            num_channels: 3,
            image_size: SIDE,
            patch_size: sizes.patch,
            projection_dim: SPACE,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        };
        Self { text, vision, vocabulary, made_by }
    }

    /// The sizes of the network.
    pub fn sizes(&self) -> ClipModelConfig {
        let (text, vision) = (self.text.clone(), self.vision.clone());
        // ln(1/0.07), as CLIP begins.
        ClipModelConfig { text, vision, logit_scale: 2.6592 }
    }

    /// Number of values in the larger matrices, below the number of all values.
    fn matrices(&self) -> usize {
        let product = |sides: &[usize]| sides.iter().fold(1_usize, |a, b| a.saturating_mul(*b));
        let layers = |depth: usize, width: usize, inner: usize| {
            let mlp = product(&[2, depth, width, inner]);
            product(&[4, depth, width, width]).saturating_add(mlp)
        };
        let (text, vision) = (&self.text, &self.vision);
        let words = product(&[text.vocab_size, text.hidden_size]);
        let places = product(&[text.max_position_embeddings, text.hidden_size]);
        let patch = product(&[3, vision.patch_size, vision.patch_size, vision.hidden_size]);
        let patches = product(&[vision.patches(), vision.hidden_size]);
        let text = layers(text.num_hidden_layers, text.hidden_size, text.intermediate_size);
        let depth = vision.num_hidden_layers;
        let vision = layers(depth, vision.hidden_size, vision.intermediate_size);
        [places, patch, patches, text, vision].into_iter().fold(words, usize::saturating_add)
    }

    /// The ids of a caption: its words, the end, and padding.
    ///
    /// # Errors
    /// If a word is unknown or there are too many.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, VocabularyError> {
        let words = self.vocabulary.encode(text, self.text.max_position_embeddings - 1)?;
        let mut ids: Vec<u32> = words.iter().map(|&id| id as u32).collect();
        let end = ids.iter().position(|&id| id == 0).unwrap_or(ids.len());
        ids.insert(end, self.vocabulary.len() as u32);
        Ok(ids)
    }
}

/// An encoder with its weights.
pub struct EmojiEncoder {
    card: EncoderCard,
    clip: Clip<Plain>,
    scale: f32,
    device: Device,
}

impl EmojiEncoder {
    /// Puts weights to a card.
    pub fn new(card: EncoderCard, clip: Clip<Plain>, device: &Device) -> Self {
        let scale = clip.scale().into_data().iter::<f32>().next().expect("one number");
        Self { card, clip, scale: scale.min(LARGEST_SCALE as f32), device: device.clone() }
    }

    /// The built-in encoder for a role.
    ///
    /// # Errors
    /// If the program was built with a damaged file.
    pub fn built_in(role: emoji::Encoder, device: &Device) -> Result<Self> {
        let (bytes, name) = match role {
            emoji::Encoder::Preference => (PREFERENCE, "emoji-preference"),
            emoji::Encoder::Gold => (GOLD, "emoji-gold"),
        };
        Self::of(&WeightsFile::from_bytes(bytes.to_vec(), Path::new(name))?, device)
    }

    /// Reads the file of an encoder.
    ///
    /// # Errors
    /// If the file is no encoder, or damaged.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        Self::of(&WeightsFile::read(path)?, device)
    }

    fn of(file: &WeightsFile, device: &Device) -> Result<Self> {
        let card: EncoderCard = file.parsed_metadata(CARD)?;
        let mut problems = card.sizes().problems();
        if card.text.vocab_size != card.vocabulary.len() + 1 {
            problems.push(format!("vocab_size is {}, not 1 + words + 1", card.text.vocab_size));
        }
        if card.text.max_position_embeddings < 2 {
            problems.push("max_position_embeddings must be at least 2".to_owned());
        }
        ensure!(problems.is_empty(), "{}: {}", file.path().display(), problems.join("; "));
        // Before anything of these sizes is allocated.
        ensure!(
            card.matrices() <= file.count(),
            "{}: the sizes and the weights do not belong together",
            file.path().display()
        );
        let clip = file
            .load_into(Clip::<Plain>::init(&card.sizes(), 0, device))
            .with_context(|| file.path().display().to_string())?;
        Ok(Self::new(card, clip, device))
    }

    /// Writes the encoder, in 16 bits.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let card = (CARD, serde_json::to_string(&self.card)?);
        Ok(write_module::<Plain, _>(&self.clip, card, StoredAs::F16, path)?)
    }

    /// `[C, H, W]` of the images that it judges.
    pub fn image_shape(&self) -> [usize; 3] {
        [3, self.card.vision.image_size, self.card.vision.image_size]
    }

    /// Checks that the words of a text are known.
    ///
    /// # Errors
    /// If one is not, or there are too many.
    pub fn check(&self, text: &str) -> Result<(), VocabularyError> {
        self.card.ids(text).map(drop)
    }

    /// The agreement of image `i` with text `i`, in the form of `PickScore`.
    ///
    /// ```text
    /// score = exp(logit scale) · ⟨v/|v|, t/|t|⟩
    /// ```
    ///
    /// Images are rounded to 8 bits first: what nobody could see, the encoder does not see.
    ///
    /// # Errors
    /// If a word is unknown.
    pub fn score(&self, images: &[Image], texts: &[&str]) -> Result<Vec<f32>, VocabularyError> {
        let mut scores = Vec::with_capacity(images.len());
        for (images, texts) in images.chunks(BATCH).zip(texts.chunks(BATCH)) {
            let of_pairs = cosine(self.embed_images(images), self.embed_texts(texts)?);
            scores.extend(of_pairs.into_data().iter::<f32>().map(|cosine| self.scale * cosine));
        }
        Ok(scores)
    }

    /// The cosine of every image with every text, `[images][texts]`.
    ///
    /// # Errors
    /// If a word is unknown.
    pub fn cosines(
        &self,
        images: &[Image],
        texts: &[&str],
    ) -> Result<Vec<Vec<f32>>, VocabularyError> {
        let texts = texts.chunks(BATCH).map(|texts| self.embed_texts(texts));
        let texts = Tensor::cat(texts.collect::<Result<Vec<_>, _>>()?, 0);
        let texts = unit(texts).transpose(); // [D, texts]
        let row = |images: &[Image]| {
            let cosines = unit(self.embed_images(images)).matmul(texts.clone());
            let [_, across] = cosines.dims();
            let values: Vec<f32> = cosines.into_data().iter().collect();
            values.chunks_exact(across).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        Ok(images.chunks(BATCH).flat_map(row).collect())
    }

    fn embed_images(&self, images: &[Image]) -> Tensor<Plain, 2> {
        let seen: Vec<Image> = images
            .iter()
            .map(|image| Image::from_rgb8(&image.rgb8(), image.width, image.height))
            .collect();
        self.clip.embed_images(Decoder::Pixels.encode(&seen, &self.device))
    }

    /// One embedding per text. Equal texts are embedded once.
    fn embed_texts(&self, texts: &[&str]) -> Result<Tensor<Plain, 2>, VocabularyError> {
        let (mut rows, mut ids, mut row_of) = (HashMap::new(), Vec::new(), Vec::new());
        for text in texts {
            if !rows.contains_key(text) {
                rows.insert(*text, ids.len());
                ids.push(self.card.ids(text)?);
            }
            row_of.push(rows[text] as i32);
        }
        let count = row_of.len();
        let row_of = Tensor::from_data(TensorData::new(row_of, [count]), &self.device);
        Ok(self.clip.embed_texts(&ids).select(0, row_of))
    }
}

/// How often the right caption is the nearest to a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieval {
    /// Pictures.
    pub pictures: usize,
    /// Captions to choose from.
    pub captions: usize,
    /// Share of pictures whose own caption is the nearest.
    pub first: f64,
    /// Share of pictures whose own caption is among the five nearest.
    pub five: f64,
}

/// Retrieval of the caption among all captions, for pictures with the index of their caption.
///
/// # Errors
/// If a word is unknown.
pub fn retrieval(
    encoder: &EmojiEncoder,
    pictures: &[(Image, usize)],
    captions: &[&str],
) -> Result<Retrieval, VocabularyError> {
    let images: Vec<Image> = pictures.iter().map(|(image, _)| image.clone()).collect();
    let cosines = encoder.cosines(&images, captions)?;
    let ranks = cosines
        .iter()
        .zip(pictures)
        .map(|(row, (_, right))| row.iter().filter(|cosine| **cosine > row[*right]).count());
    let ranks: Vec<usize> = ranks.collect();
    let share = |most: usize| {
        ranks.iter().filter(|rank| **rank < most).count() as f64 / ranks.len().max(1) as f64
    };
    let (first, five) = (share(1), share(5));
    Ok(Retrieval { pictures: pictures.len(), captions: captions.len(), first, five })
}

#[cfg(test)]
mod tests {
    use emoji::{Collection, Encoder, STYLES};

    use super::*;

    fn held_out(role: Encoder) -> (Vec<(Image, usize)>, Vec<String>) {
        let emoji = Collection::built_in().expect("the built-in emoji").emoji;
        let mut pictures = Vec::new();
        for (index, emoji) in emoji.iter().enumerate() {
            let out = STYLES.iter().filter(|style| role.holds_out(&emoji.caption, **style));
            pictures.extend(out.map(|style| (emoji.picture(*style), index)));
        }
        (pictures, emoji.into_iter().map(|emoji| emoji.caption).collect())
    }

    #[test]
    fn encoders_find_the_captions_of_pictures_they_never_saw() {
        for role in [Encoder::Preference, Encoder::Gold] {
            let encoder = EmojiEncoder::built_in(role, &Device::default()).expect("built in");
            let (pictures, captions) = held_out(role);
            let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
            let found = retrieval(&encoder, &pictures, &captions).expect("known words");
            // Chance is 5 of 969, so this is thirty times as often.
            assert!(found.pictures > 150 && found.five > 0.155, "{role:?}: {found:?}");
        }
    }

    #[test]
    fn a_caption_ends_after_its_words_and_unknown_words_are_named() {
        let card = EncoderCard::new(Sizes { patch: 8, width: 32, depth: 1 }, String::new());
        let ids = card.ids("red apple").expect("known words");
        assert_eq!(
            (ids.len(), ids[2], ids[3]),
            (LONGEST_CAPTION + 1, card.text.vocab_size as u32 - 1, 0)
        );
        assert!(card.ids("red aardvark").expect_err("unknown").to_string().contains("`aardvark`"));
    }

    /// The bytes of a small encoder's file, whose card `change` has changed.
    fn file(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let device = Device::default();
        let card = EncoderCard::new(Sizes { patch: 8, width: 8, depth: 1 }, String::new());
        let clip = Clip::init(&card.sizes(), 1, &device);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("encoder.safetensors");
        EmojiEncoder::new(card, clip, &device).write(&path).expect("written");
        let bytes = std::fs::read(&path).expect("read");
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
        let mut header: serde_json::Value =
            serde_json::from_slice(&bytes[8..end]).expect("a header");
        let card = header["__metadata__"][CARD].as_str().expect("a card");
        let mut card: serde_json::Value = serde_json::from_str(card).expect("JSON");
        change(&mut card);
        header["__metadata__"][CARD] = card.to_string().into();
        let header = header.to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[end..]].concat()
    }

    fn opened(bytes: Vec<u8>) -> Result<EmojiEncoder> {
        EmojiEncoder::of(&WeightsFile::from_bytes(bytes, Path::new("changed"))?, &Device::default())
    }

    #[test]
    fn a_lie_about_the_sizes_is_refused_before_anything_is_allocated() {
        assert!(opened(file(|_| {})).is_ok());
        for (tower, names) in [
            ("text", &["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"][..]),
            ("text", &["num_attention_heads", "max_position_embeddings", "projection_dim"]),
            ("vision", &["hidden_size", "intermediate_size", "num_hidden_layers", "image_size"]),
            ("vision", &["num_attention_heads", "num_channels", "patch_size", "projection_dim"]),
        ] {
            for name in names {
                for lie in [0_u64, 1, 3, 5, 64, 4097, 1 << 40, u64::MAX] {
                    let mut truth = None;
                    let changed = file(|card| {
                        truth = card[tower][name].as_u64();
                        card[tower][name] = lie.into();
                    });
                    // One head fits any width.
                    let fits = truth == Some(lie) || (*name == "num_attention_heads" && lie == 1);
                    assert_eq!(
                        opened(changed).is_ok(),
                        fits,
                        "{tower}.{name} = {lie}, not {truth:?}"
                    );
                }
            }
        }
    }
}
