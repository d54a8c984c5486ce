//! Scores kept by content: an image that a slow reward has scored for a prompt is not scored again.
//!
//! The key is the digest of the image, the prompt and the reward; the scores are in a file, a line
//! for each. For repeated scoring of the same pictures: training never sees an image twice, because
//! every epoch has noise of its own.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use files::{Action, Digest, FileError};

use crate::{
    image::Image,
    prompts::Prompt,
    reward::{Facts, Reward, Unjudged},
};

/// Scores in a file, shared by the rewards of a program.
///
/// A line is the key, 64 hexadecimal digits, and the score's bits, 8 hexadecimal digits. Lines are
/// only appended; one that a kill has cut is passed over.
#[derive(Debug)]
pub struct ScoreCache {
    path: PathBuf,
    scores: Mutex<Scores>,
}

#[derive(Debug)]
struct Scores {
    by_key: HashMap<String, f32>,
    file: File,
}

/// Upper bound on the scores in memory and on those that are added, which take about 200 MB.
const MOST: usize = 1 << 20;

impl ScoreCache {
    /// Opens a file of scores, or makes it.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |action: Action| action.failed_on(path);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed(Action::Write))?;
        let text = files::text_file::read(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed(Action::Write))?;
        }
        let by_key = text.lines().filter_map(entry).take(MOST).collect();
        Ok(Self { path: path.into(), scores: Mutex::new(Scores { by_key, file }) })
    }

    /// The scores of some keys.
    fn get(&self, keys: &[String]) -> Vec<Option<f32>> {
        let scores = self.scores.lock().expect("nothing panics while it holds the scores");
        keys.iter().map(|key| scores.by_key.get(key).copied()).collect()
    }

    /// Adds scores, in the memory and in the file.
    fn add<'a>(&self, new: impl Iterator<Item = (&'a String, f32)>) -> Result<(), FileError> {
        let mut scores = self.scores.lock().expect("nothing panics while it holds the scores");
        let mut lines = String::new();
        for (key, score) in new {
            if scores.by_key.len() < MOST && scores.by_key.insert(key.clone(), score).is_none() {
                lines += &format!("{key} {:08x}\n", score.to_bits());
            }
        }
        scores.file.write_all(lines.as_bytes()).map_err(Action::Write.failed_on(&self.path))
    }
}

/// The key and score of a line, if it is whole.
fn entry(line: &str) -> Option<(String, f32)> {
    let (key, bits) = line.split_once(' ')?;
    let whole = key.len() == 64 && bits.len() == 8;
    let score = f32::from_bits(u32::from_str_radix(bits, 16).ok()?);
    (whole && score.is_finite()).then(|| (key.to_owned(), score))
}

/// A slow reward that asks a cache first.
pub struct Cached {
    reward: Box<dyn Reward>,
    instance: String,
    cache: Arc<ScoreCache>,
}

impl Cached {
    /// Wraps a reward; `instance` is the text of its kind and settings, which tells it apart from
    /// others. A change that the text does not show, of a server or of a model behind a path, is
    /// not noticed.
    ///
    /// # Panics
    /// If the reward is not slow: the score of an image may then depend on the others of its call.
    pub fn new(reward: Box<dyn Reward>, instance: String, cache: Arc<ScoreCache>) -> Self {
        assert!(reward.is_slow(), "only rewards that score every image by itself are cached");
        Self { reward, instance, cache }
    }

    /// The digest of all that a score depends on.
    fn key(&self, image: &Image, prompt: &Prompt) -> String {
        let mut digest = Digest::default();
        // Lengths first, so that no two contents have the same bytes.
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        part(self.instance.as_bytes());
        part(prompt.text.as_bytes());
        part(prompt.metadata.to_string().as_bytes());
        for side in [image.channels, image.height, image.width] {
            part(&(side as u64).to_le_bytes());
        }
        part(&image.pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect::<Vec<u8>>());
        digest.hexadecimal()
    }
}

impl Reward for Cached {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        self.reward.check(prompt)
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let keys: Vec<String> =
            images.iter().zip(prompts).map(|(image, prompt)| self.key(image, prompt)).collect();
        let known = self.cache.get(&keys);
        let missing: Vec<usize> = (0..images.len()).filter(|&i| known[i].is_none()).collect();
        let asked: Vec<Image> = missing.iter().map(|&index| images[index].clone()).collect();
        let of: Vec<&Prompt> = missing.iter().map(|&index| prompts[index]).collect();
        let of_call =
            |error: Unjudged| Unjudged { image: error.image.map(|index| missing[index]), ..error };
        let new = if asked.is_empty() {
            Vec::new()
        } else {
            self.reward.score(&asked, &of).map_err(of_call)?
        };
        if new.len() != missing.len() {
            let (scores, images) = (new.len(), missing.len());
            return Err(Unjudged::batch(format!("{scores} scores for {images} images")));
        }
        let added = missing.iter().map(|&index| &keys[index]).zip(new.iter().copied());
        self.cache.add(added.filter(|(_, score)| score.is_finite())).map_err(Unjudged::batch)?;
        let mut new = new.into_iter();
        Ok(known.into_iter().filter_map(|known| known.or_else(|| new.next())).collect())
    }

    fn facts(&self, image: &Image, prompt: &Prompt) -> Result<Facts, Unjudged> {
        self.reward.facts(image, prompt)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A slow reward that counts the images that it scores.
    struct Counting(Arc<AtomicUsize>);

    impl Reward for Counting {
        fn is_slow(&self) -> bool {
            true
        }

        fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
            self.0.fetch_add(images.len(), Ordering::SeqCst);
            if let Some(index) = images.iter().position(|image| image.pixels[0] == 0.5) {
                return Err(Unjudged::image(index, "torn"));
            }
            let score = |(image, prompt): (&Image, &&Prompt)| {
                // Bits that no short decimal has.
                image.pixels.iter().sum::<f32>() / 3.7 + prompt.text.len() as f32 / 7.3
            };
            Ok(images.iter().zip(prompts).map(score).collect())
        }
    }

    struct Setup {
        asked: Arc<AtomicUsize>,
        directory: tempfile::TempDir,
    }

    impl Setup {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            Self { asked: Arc::default(), directory }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("scores")
        }

        /// A reward with the cache as the file has it.
        fn reward(&self, instance: &str) -> Cached {
            let cache = ScoreCache::open(&self.path()).expect("a file");
            let reward = Box::new(Counting(Arc::clone(&self.asked)));
            Cached::new(reward, instance.to_owned(), Arc::new(cache))
        }

        /// The images that the reward itself was asked for since the last call.
        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::SeqCst)
        }
    }

    fn image(value: f32) -> Image {
        Image { channels: 3, height: 1, width: 1, pixels: vec![value, 0.25, 1.0] }
    }

    #[test]
    fn a_score_is_given_once_and_a_hit_changes_no_bit() {
        let setup = Setup::new();
        let images: Vec<Image> = (1..6_u8).map(|n| image(f32::from(n) / 255.0)).collect();
        let prompts: Vec<Prompt> = ["a", "bb", "a", "ccc", "a"].map(Prompt::plain).into();
        let prompts: Vec<&Prompt> = prompts.iter().collect();
        let plain = Counting(Arc::default()).score(&images, &prompts).expect("scores");
        let first = setup.reward("r");
        assert_eq!(first.score(&images[..3], &prompts[..3]), Ok(plain[..3].to_vec()));
        assert_eq!(setup.asked(), 3);
        // Known and new ones mixed, in memory and then from the file.
        assert_eq!(first.score(&images[1..], &prompts[1..]), Ok(plain[1..].to_vec()));
        assert_eq!(setup.asked(), 2);
        assert_eq!(setup.reward("r").score(&images, &prompts), Ok(plain.clone()));
        assert_eq!(setup.asked(), 0);
        let reversed: Vec<Image> = images.iter().rev().cloned().collect();
        let scores = setup.reward("r").score(&reversed, &[prompts[0]; 5]).expect("scores");
        assert_eq!((scores[0], scores[4], setup.asked()), (plain[4], plain[0], 2));
    }

    #[test]
    fn another_image_prompt_or_reward_is_another_score() {
        let setup = Setup::new();
        let (known, prompt) = (image(0.75), Prompt::plain("a cat"));
        let score = |instance: &str, image: &Image, prompt: &Prompt| {
            setup.reward(instance).score(std::slice::from_ref(image), &[prompt]).expect("a score");
            setup.asked()
        };
        assert_eq!((score("r", &known, &prompt), score("r", &known, &prompt)), (1, 0));
        let turned = Image { height: 3, channels: 1, ..known.clone() };
        let counted = Prompt { metadata: serde_json::json!({"count": 2}), ..prompt.clone() };
        assert_eq!(score("r", &image(0.751), &prompt), 1);
        assert_eq!(score("r", &turned, &prompt), 1);
        assert_eq!(score("r", &known, &Prompt::plain("a cat ")), 1);
        assert_eq!(score("r", &known, &counted), 1);
        assert_eq!(score("s", &known, &prompt), 1);
    }

    #[test]
    fn a_fault_names_its_image_and_is_not_kept_and_a_cut_line_is_passed_over() {
        let setup = Setup::new();
        let prompt = Prompt::plain("p");
        let images = [image(0.1), image(0.2), image(0.5)];
        let reward = setup.reward("r");
        reward.score(&images[..2], &[&prompt; 2]).expect("scores");
        let failed = reward.score(&images, &[&prompt; 3]).expect_err("a torn image");
        assert_eq!(failed.image, Some(2));
        let text = std::fs::read_to_string(setup.path()).expect("a file");
        std::fs::write(setup.path(), &text[..text.len() - 4]).expect("written");
        setup.asked();
        let scores = setup.reward("r").score(&images[..2], &[&prompt; 2]).expect("scores");
        assert_eq!((setup.asked(), scores.len()), (1, 2));
        setup.reward("r").score(&images[..2], &[&prompt; 2]).expect("scores");
        assert_eq!(setup.asked(), 0, "the line after the cut one is whole");
    }

    #[test]
    fn a_line_whose_score_is_no_number_is_passed_over() {
        let setup = Setup::new();
        let (prompt, images) = (Prompt::plain("p"), [image(0.1)]);
        let first = setup.reward("r").score(&images, &[&prompt]).expect("a score");
        let text = std::fs::read_to_string(setup.path()).expect("a file");
        let key = text.split(' ').next().expect("a key");
        for bad in [f32::NAN, f32::INFINITY] {
            std::fs::write(setup.path(), format!("{key} {:08x}\n", bad.to_bits()))
                .expect("written");
            setup.asked();
            let again = setup.reward("r").score(&images, &[&prompt]).expect("a score");
            assert_eq!((setup.asked(), again), (1, first.clone()), "{bad}");
        }
    }
}
