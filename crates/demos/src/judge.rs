//! The demo "judge and cheat": a picture of 24 x 24 pixels before the verifier of the shapes task and
//! before the learned reward that stands in for it.

use std::{ops::Range, path::Path};

use burn::{
    backend::Autodiff,
    prelude::*,
    tensor::{activation, backend::BackendTypes},
};
use grpo::images::{Decode, Decoder};
use models::{Classifier, ClassifierConfig, WeightsFile};
use tasks::{
    image::Image,
    shapes::{self, Color, Examination, Metadata, Object, Scene, Shape, Split, Verdict},
};
use training::noise::{Key, Purpose};
use wasm_bindgen::prelude::*;

use crate::Plain;

/// Height and width of a picture.
const SIDE: usize = 24;
/// The grey of an empty picture.
const GREY: f32 = 0.15;
/// How far a pixel moves when the picture follows the proxy's gradient, in steps of 8 bits.
const STRIDE: f64 = 3.0 / 255.0;
/// Most steps up the proxy's gradient.
const MOST_STEPS: usize = 60;
/// The prompts, without `a photo of`.
const PROMPTS: [&str; 8] = [
    "a magenta circle and a cyan cross",
    "a red square and a blue circle",
    "a yellow circle",
    "three red squares",
    "two green triangles",
    "a triangle above a cross",
    "a square",
    "a circle and a cross",
];
/// The epochs of the runs whose pictures are kept.
const EPOCHS: [u32; 6] = [0, 20, 40, 60, 80, 100];
/// The classifier, and the pictures that two runs made for [`PROMPTS`] from the same noise: the one
/// that hacked the classifier, then the one that a KL penalty held; of every epoch of [`EPOCHS`],
/// prompt by prompt (`pictures/cut.py`).
const PROXY: &[u8] = include_bytes!("../../../assets/checkpoints/shapes-proxy.safetensors");
const CARD: &str = "flow_grpo_classifier";
const PICTURES: &[u8] = include_bytes!("../pictures/hacking.rgb");

/// A picture, a prompt, and their judges.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Judge {
    prompts: Vec<Metadata>,
    prompt: usize,
    image: Image,
    /// The pictures on the way up the proxy's gradient, from the drawn one; empty before a climb.
    climbed: Vec<Image>,
    proxy: Classifier<Autodiff<Plain>>,
}

#[wasm_bindgen]
impl Judge {
    /// Creates the demo with an empty picture.
    ///
    /// # Errors
    /// If the built-in classifier does not load.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Result<Judge, String> {
        let proxy = || {
            let file = WeightsFile::from_bytes(PROXY.to_vec(), Path::new("shapes-proxy"))?;
            let sizes: ClassifierConfig = file.parsed_metadata(CARD)?;
            file.load_into(sizes.init(0, &device()))
        };
        let proxy = proxy().map_err(|error| error.to_string())?;
        Ok(Self { prompts: prompts()?, prompt: 0, image: empty(), climbed: Vec::new(), proxy })
    }

    /// The texts of the prompts.
    pub fn prompts(&self) -> Vec<String> {
        self.prompts.iter().map(|metadata| metadata.prompt.clone()).collect()
    }

    /// Chooses the prompt.
    pub fn choose(&mut self, prompt: usize) {
        self.prompt = prompt.min(self.prompts.len() - 1);
        self.climbed.clear();
    }

    /// The picture as 8-bit RGB, row by row.
    pub fn pixels(&self) -> Vec<u8> {
        self.image.rgb8()
    }

    /// Empties the picture.
    pub fn clear(&mut self) {
        self.set(&empty());
    }

    /// Draws a scene that shows what the prompt asks for.
    pub fn draw_scene(&mut self, seed: u32) {
        let mut rng = Key::new(seed.into(), Purpose::Sampling).rng();
        let scene = Scene::sample(&self.prompts[self.prompt], SIDE, &mut rng);
        self.set(&shapes::render(&scene, SIDE));
    }

    /// The epochs of the runs whose pictures are kept.
    pub fn epochs(&self) -> Vec<u32> {
        EPOCHS.to_vec()
    }

    /// Takes the picture that a run made for the prompt after the epoch of this index of
    /// [`Self::epochs`]: the run that hacked the proxy, or the one that a KL penalty held.
    pub fn take(&mut self, held: bool, epoch: usize) {
        let epoch = epoch.min(EPOCHS.len() - 1);
        let sheet = usize::from(held) * EPOCHS.len() + epoch;
        let bytes = 3 * SIDE * SIDE;
        let first = (sheet * PROMPTS.len() + self.prompt) * bytes;
        if let Some(picture) = PICTURES.get(first..first + bytes) {
            self.set(&Image::from_rgb8(picture, SIDE, SIDE));
        }
    }

    /// Paints a square of `size` x `size` pixels around a pixel, with colour 0 to 5 in the order of
    /// [`Self::palette`], or with the background.
    pub fn paint(&mut self, row: usize, column: usize, size: usize, color: usize) {
        let rgb = Color::ALL.get(color).map_or([GREY; 3], |color| color.rgb());
        let around = |center: usize| -> Range<usize> {
            let first = center.saturating_sub(size.saturating_sub(1) / 2);
            first..first.saturating_add(size).min(SIDE)
        };
        let mut image = self.image.clone();
        for (row, column) in around(row.min(SIDE - 1))
            .flat_map(|row| around(column.min(SIDE - 1)).map(move |column| (row, column)))
        {
            for (channel, value) in rgb.into_iter().enumerate() {
                image.pixels[(channel * SIDE + row) * SIDE + column] = value;
            }
        }
        self.set(&image);
    }

    /// Adds a clean shape, 9 pixels wide, with its centre on a pixel.
    pub fn stamp(&mut self, shape: usize, color: usize, row: usize, column: usize) {
        let (Some(&shape), Some(&color)) = (Shape::ALL.get(shape), Color::ALL.get(color)) else {
            return;
        };
        let place = |pixel: usize| (pixel.min(SIDE - 1) as f32 + 0.5) / SIDE as f32;
        let center = (place(column), place(row));
        let object = Object { shape, color, center, size: 9.0 / SIDE as f32 };
        let mut image = self.image.clone();
        for (pixel, share) in shapes::coverage(&object, SIDE).into_iter().enumerate() {
            for (channel, value) in color.rgb().into_iter().enumerate() {
                let old = &mut image.pixels[channel * SIDE * SIDE + pixel];
                *old += (value - *old) * share;
            }
        }
        self.set(&image);
    }

    /// The colours of the brush, three bytes each; the last one is the background.
    pub fn palette(&self) -> Vec<u8> {
        let colors = Color::ALL.into_iter().map(Color::rgb).chain([[GREY; 3]]);
        colors.flatten().map(|value| (value * 255.0).round() as u8).collect()
    }

    /// The English words of the shapes.
    pub fn shapes(&self) -> Vec<String> {
        Shape::ALL.into_iter().map(|shape| shape.word().to_owned()).collect()
    }

    /// Shows the picture after some steps up the proxy's gradient, counted from the last picture
    /// that was drawn. A step moves every pixel by three steps of 8 bits in the direction in which
    /// the proxy believes more of what the prompt asks for.
    pub fn climb_to(&mut self, steps: usize) {
        let steps = steps.min(MOST_STEPS);
        if self.climbed.is_empty() {
            self.climbed.push(self.image.clone());
        }
        while self.climbed.len() <= steps {
            let next = self.step_up();
            self.image = next.clone();
            self.climbed.push(next);
        }
        self.image = self.climbed[steps].clone();
    }

    /// The verdict: `right`, or the name of the fault.
    pub fn verdict(&self) -> String {
        self.judged().fault.map_or("right", shapes::Fault::name).to_owned()
    }

    /// The partial score of the verifier, in `[0, 1]`.
    pub fn partial(&self) -> f32 {
        self.judged().partial
    }

    /// The proxy's score, in `[0, 1]`.
    pub fn proxy(&self) -> f32 {
        shapes::belief(&self.probabilities(), &self.prompts[self.prompt])
    }

    /// What the proxy is asked for the prompt, in words.
    pub fn questions(&self) -> Vec<String> {
        self.asked().map(|asked| asked.text).collect()
    }

    /// The proxy's probability of yes, question by question.
    pub fn beliefs(&self) -> Vec<f32> {
        let probabilities = self.probabilities();
        self.asked().map(|asked| probabilities[asked.fact]).collect()
    }

    /// The verifier's mask, pixel by pixel: 0 background, 1 speck, then 2, 3, … for the blobs.
    pub fn mask(&self) -> Vec<u8> {
        let mut mask = vec![0; SIDE * SIDE];
        if let Some(seen) = self.seen() {
            seen.specks.iter().for_each(|&pixel| mask[pixel] = 1);
            for (index, blob) in seen.blobs.iter().enumerate() {
                blob.pixels.iter().for_each(|&pixel| mask[pixel] = (index + 2) as u8);
            }
        }
        mask
    }

    /// The fit of every shape to every blob, soft intersection over union in `[0, 1]`, blob by blob;
    /// 0 where the blob has no colour.
    pub fn fits(&self) -> Vec<f32> {
        let of_blob = |blob: shapes::Blob| {
            Shape::ALL.map(|shape| {
                blob.fits.iter().find(|found| found.shape == shape).map_or(0.0, |found| found.fit)
            })
        };
        self.seen().into_iter().flat_map(|seen| seen.blobs).flat_map(of_blob).collect()
    }

    /// What each blob is recognised as: `red circle`, or the reason why it is nothing.
    pub fn names(&self) -> Vec<String> {
        let name = |blob: shapes::Blob| match (blob.object, blob.color) {
            (Some(object), _) => format!("{} {}", object.color.word(), object.shape.word()),
            (None, None) => "unclear: no one color".to_owned(),
            (None, Some(color)) if blob.fits.iter().all(|found| found.fit < shapes::FIT) => {
                format!("unclear: {}, no shape fits", color.word())
            }
            (None, Some(color)) => format!("unclear: {}, blurred or of a wrong size", color.word()),
        };
        self.seen().into_iter().flat_map(|seen| seen.blobs).map(name).collect()
    }

    /// What the verifier holds against the picture besides its blobs; empty if nothing.
    pub fn marks(&self) -> String {
        self.seen().map_or_else(String::new, |seen| {
            let specks = seen.speckled.then_some("specks");
            let ground = (!seen.plain).then_some("a background that is not plain");
            specks.into_iter().chain(ground).collect::<Vec<_>>().join(" and ")
        })
    }

    /// The smallest fit at which the verifier accepts a shape.
    pub fn least_fit(&self) -> f32 {
        shapes::FIT
    }
}

impl Judge {
    /// Keeps a new picture as its file would: in 8 bits.
    fn set(&mut self, image: &Image) {
        self.image = Image::from_rgb8(&image.rgb8(), SIDE, SIDE);
        self.climbed.clear();
    }

    fn step_up(&self) -> Image {
        let pixels = self.encoded().require_grad();
        let logits = self.proxy.logits(pixels.clone());
        let asked: Vec<i32> = self.asked().map(|asked| asked.fact as i32).collect();
        let asked = logits.select(1, Tensor::from_ints(asked.as_slice(), &device()));
        let gradients = activation::log_sigmoid(asked).sum().backward();
        let gradient =
            pixels.grad(&gradients).unwrap_or_else(|| pixels.clone().inner().zeros_like());
        // The proxy sees pixels in [−1, 1], which is twice as wide.
        let moved = (pixels.inner() + gradient.sign() * (2.0 * STRIDE)).clamp(-1.0, 1.0);
        Decoder::Pixels.decode(moved).pop().unwrap_or_else(empty)
    }

    fn judged(&self) -> Verdict {
        shapes::verify(&self.image, &self.prompts[self.prompt])
    }

    fn seen(&self) -> Option<Examination> {
        shapes::examine(&self.image)
    }

    fn asked(&self) -> impl Iterator<Item = shapes::Asked> {
        shapes::asked(&self.prompts[self.prompt]).into_iter().flatten()
    }

    fn encoded<B: Backend>(&self) -> Tensor<B, 4>
    where
        B::Device: Default,
    {
        Decoder::Pixels.encode(std::slice::from_ref(&self.image), &B::Device::default())
    }

    fn probabilities(&self) -> Vec<f32> {
        let logits = self.proxy.logits(self.encoded()).inner();
        activation::sigmoid(logits).into_data().iter().collect()
    }
}

/// The prompts of the demo in the task's own words.
fn prompts() -> Result<Vec<Metadata>, String> {
    let splits = [Split::Train, Split::Validation, Split::Test, Split::Unseen];
    let known: Vec<Metadata> = splits
        .into_iter()
        .flat_map(|split| shapes::prompts(split).prompts)
        .filter_map(|prompt| Metadata::of(&prompt))
        .collect();
    let find = |text: &str| {
        let found = known.iter().find(|metadata| metadata.prompt == format!("a photo of {text}"));
        found.cloned().ok_or_else(|| format!("the shapes task has no prompt `{text}`"))
    };
    PROMPTS.into_iter().map(find).collect()
}

fn empty() -> Image {
    Image::from_rgb8(&[(GREY * 255.0).round() as u8; 3 * SIDE * SIDE], SIDE, SIDE)
}

fn device() -> <Plain as BackendTypes>::Device {
    burn_flex::FlexDevice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Judge {
        Judge::new().expect("the built-in classifier loads")
    }

    #[test]
    fn the_verdict_is_that_of_the_verifier() {
        let mut demo = demo();
        for prompt in 0..PROMPTS.len() {
            demo.choose(prompt);
            for picture in 0..12 {
                match picture {
                    0 => demo.take(false, 5),
                    1 => demo.take(true, prompt),
                    2 => demo.clear(),
                    _ => demo.draw_scene(picture),
                }
                if picture > 7 {
                    demo.paint(3 * picture as usize - 20, 9, 3, picture as usize % 7);
                }
                let image = Image::from_rgb8(&demo.pixels(), SIDE, SIDE);
                let verdict = shapes::verify(&image, &demo.prompts[prompt]);
                assert_eq!(demo.verdict(), verdict.fault.map_or("right", shapes::Fault::name));
                assert_eq!(demo.partial(), verdict.partial);
                let found = shapes::detect(&image);
                let objects =
                    demo.names().iter().filter(|name| !name.starts_with("unclear")).count();
                assert_eq!(objects, found.objects.len());
                let blobs = demo.mask().into_iter().max().unwrap_or(0).saturating_sub(1);
                assert_eq!(
                    (demo.names().len(), demo.fits().len()),
                    (blobs.into(), 4 * usize::from(blobs))
                );
            }
        }
    }

    #[test]
    fn a_drawn_scene_is_right_and_the_proxy_believes_it() {
        let mut demo = demo();
        let mut beliefs = Vec::new();
        for (prompt, text) in PROMPTS.iter().enumerate() {
            demo.choose(prompt);
            for seed in 0..10 {
                demo.draw_scene(seed);
                assert_eq!(demo.verdict(), "right", "{text} {seed}");
                beliefs.push(f64::from(demo.proxy()));
            }
        }
        let center = grpo::advantage::mean(&beliefs);
        assert!(center > 0.5, "{center}");
    }

    #[test]
    fn climbing_the_proxy_convinces_it_of_a_picture_that_shows_nothing() {
        let mut demo = demo();
        for text in ["two green triangles", "a triangle above a cross", "a square"] {
            demo.choose(PROMPTS.iter().position(|prompt| *prompt == text).expect("a prompt"));
            demo.clear();
            let before = demo.proxy();
            demo.climb_to(20);
            assert!(demo.proxy() > 0.9 && demo.verdict() != "right", "{text}: {}", demo.proxy());
            // The way back is the same picture again.
            demo.climb_to(0);
            assert_eq!((demo.proxy(), demo.pixels()), (before, empty().rgb8()));
        }
    }

    #[test]
    fn the_score_of_the_proxy_is_the_mean_of_its_beliefs() {
        let mut demo = demo();
        for prompt in 0..PROMPTS.len() {
            demo.choose(prompt);
            for held in [false, true] {
                demo.take(held, 5);
                assert!((0.0..=1.0).contains(&demo.proxy()));
            }
        }
        // Of a circle, a magenta one, and a cross, a cyan one.
        demo.choose(0);
        let beliefs = demo.beliefs();
        assert_eq!((beliefs.len(), demo.questions().len()), (4, 4));
        assert!((beliefs.iter().sum::<f32>() / 4.0 - demo.proxy()).abs() < 1e-6);
    }

    #[test]
    fn the_last_pictures_are_those_of_the_figures_of_the_book() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/src/figures");
        for (held, name) in [(false, "hacked.png"), (true, "held.png")] {
            let figure = image::open(folder.join(name)).expect("a figure of the book").into_rgb8();
            for prompt in 0..PROMPTS.len() {
                let mut demo = demo();
                demo.choose(prompt);
                demo.take(held, EPOCHS.len() - 1);
                // A prompt has a row of the figure; a pixel has 5 x 5 (`cut.py`).
                let top = 8 + 156 * prompt as u32;
                let places = (0..SIDE as u32).flat_map(|y| (0..SIDE as u32).map(move |x| (x, y)));
                let of_figure =
                    places.flat_map(|(x, y)| figure.get_pixel(10 + 5 * x, top + 5 * y + 2).0);
                let far = of_figure.zip(demo.pixels()).any(|(a, b)| a.abs_diff(b) > 5);
                assert!(!far, "{name}, prompt {prompt}: run crates/demos/pictures/cut.py");
            }
        }
    }

    #[test]
    fn both_runs_begin_with_the_pictures_of_the_base_model_and_part() {
        let mut demo = demo();
        for prompt in 0..PROMPTS.len() {
            demo.choose(prompt);
            let mut taken = |held, epoch| {
                demo.take(held, epoch);
                demo.pixels()
            };
            assert!(taken(false, 0) == taken(true, 0), "prompt {prompt}");
            assert!(taken(false, 5) != taken(true, 5), "prompt {prompt}");
        }
    }

    #[test]
    fn a_stamped_shape_is_recognised() {
        let mut demo = demo();
        for (shape, color) in (0..4).flat_map(|shape| (0..6).map(move |color| (shape, color))) {
            demo.clear();
            demo.stamp(shape, color, 12, 11);
            let name = format!("{} {}", Color::ALL[color].word(), Shape::ALL[shape].word());
            assert_eq!(demo.names(), [name]);
        }
        demo.stamp(9, 9, 0, 0);
        demo.paint(usize::MAX, 0, usize::MAX / 4, 9);
    }
}
