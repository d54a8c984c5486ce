//! Colour variety where a prompt leaves the colour open: an entropy that measures it, and a reward
//! for it.
//!
//! No prompt of the task leaves the shape open, so there is no entropy of shapes.

use std::collections::BTreeMap;

use super::{Color, Metadata, Shape, detect, verify};
use crate::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};

/// Counts of the chosen colours, by prompt and shape.
type Choices<'a> = BTreeMap<(&'a str, Shape), [usize; Color::ALL.len()]>;

/// Entropy of the colours that prompts leave open, in `[0, 1]`; 0 if no object is recognised,
/// `None` if no prompt leaves a colour open.
///
/// ```text
/// H = −Σ p·ln p / ln 6
/// ```
///
/// over the colours of the recognised objects of one prompt and shape, with the correction `(m −
/// 1)/(2n)` for `m` colours seen on `n` objects (Miller 1955), then the mean over prompts and
/// shapes, weighted by their objects.
///
/// # Panics
/// If an image of such a prompt is not square or has fewer than three channels.
pub fn color_entropy(images: &[Image], prompts: &[&Prompt]) -> Option<f64> {
    let mut choices = Choices::new();
    let mut open = false;
    for (image, prompt) in images.iter().zip(prompts) {
        let Some(metadata) = Metadata::of(prompt) else { continue };
        open |= metadata.leaves_a_color_open();
        for (shape, color) in free_colors(image, &metadata) {
            choices.entry((&prompt.text, shape)).or_default()[color as usize] += 1;
        }
    }
    let chosen: Vec<(f64, f64)> = choices
        .values()
        .map(|counts| (counts.iter().sum::<usize>() as f64, entropy(counts)))
        .collect();
    let objects: f64 = chosen.iter().map(|(objects, _)| objects).sum();
    open.then(|| {
        chosen.iter().map(|(objects, entropy)| objects * entropy).sum::<f64>() / objects.max(1.0)
    })
}

/// Corrected entropy of some counts, relative to the entropy of equal counts.
fn entropy(counts: &[usize; Color::ALL.len()]) -> f64 {
    let n = counts.iter().sum::<usize>() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|&count| count as f64 / n);
    let seen = shares.clone().count() as f64;
    let plain: f64 = shares.map(|share| -share * share.ln()).sum();
    ((plain + (seen - 1.0) / (2.0 * n)) / (counts.len() as f64).ln()).min(1.0)
}

/// Shapes and colours of an image's objects whose colour was left open.
fn free_colors(image: &Image, metadata: &Metadata) -> Vec<(Shape, Color)> {
    let free: Vec<Shape> = metadata
        .include
        .iter()
        .filter(|entry| entry.color.is_none())
        .map(|entry| entry.class)
        .collect();
    if free.is_empty() {
        return Vec::new(); // Most prompts: nothing to look for.
    }
    let objects = detect(image).objects.into_iter();
    objects
        .filter(|object| free.contains(&object.shape))
        .map(|object| (object.shape, object.color))
        .collect()
}

/// Rarity of an image's colours where its prompt leaves them open, in `[0, 1]`: the mean over these
/// objects of one minus the share of their colour among the other right images of the same prompt.
///
/// An image that is not strictly right scores 0, as does every image of a prompt that names all
/// colours. In a group whose colours are evenly spread all right images have the same score; a
/// policy that settles on one colour loses it.
#[derive(Clone, Copy, Debug)]
pub struct ShapesVariety;

impl Reward for ShapesVariety {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        Metadata::required(prompt).map(drop)
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let chosen = |(index, (image, prompt)): (usize, (&Image, &&Prompt))| {
            let metadata =
                Metadata::required(prompt).map_err(|reason| Unjudged::image(index, reason))?;
            let right = verify(image, &metadata).strict();
            Ok(if right { free_colors(image, &metadata) } else { Vec::new() })
        };
        let chosen: Vec<Vec<(Shape, Color)>> =
            images.iter().zip(prompts).enumerate().map(chosen).collect::<Result<_, _>>()?;
        let mut choices = Choices::new();
        for (colors, prompt) in chosen.iter().zip(prompts) {
            for &(shape, color) in colors {
                choices.entry((&prompt.text, shape)).or_default()[color as usize] += 1;
            }
        }
        let score = |(own, prompt): (&Vec<(Shape, Color)>, &&Prompt)| {
            let rarity = |&(shape, color): &(Shape, Color)| {
                let counts = &choices[&(prompt.text.as_str(), shape)];
                let own_of = |wanted: Option<Color>| {
                    own.iter()
                        .filter(|object| {
                            object.0 == shape && wanted.is_none_or(|color| object.1 == color)
                        })
                        .count()
                };
                let others = counts.iter().sum::<usize>() - own_of(None);
                let alike = counts[color as usize] - own_of(Some(color));
                1.0 - alike as f32 / others.max(1) as f32
            };
            // Folds from 0: the standard library's sum of no numbers is −0.
            own.iter().map(rarity).fold(0.0, |sum, rarity| sum + rarity) / own.len().max(1) as f32
        };
        Ok(chosen.iter().zip(prompts).map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{Entry, Object, Scene, Tag, render};

    fn prompt(class: Shape, color: Option<Color>) -> Prompt {
        let text = format!("a photo of a {} {}", color.map_or("", Color::word), class.word());
        Prompt::from(Metadata {
            tag: Tag::SingleObject,
            include: vec![Entry { class, count: 1, color, position: None }],
            exclude: Vec::new(),
            prompt: text,
        })
    }

    fn drawn(shape: Shape, color: Color) -> Image {
        render(
            &Scene {
                background: 0.15,
                objects: vec![Object { shape, color, center: (0.5, 0.5), size: 0.4 }],
            },
            24,
        )
    }

    fn of(prompt: &Prompt, colors: &[Color]) -> Option<f64> {
        let images: Vec<Image> = colors.iter().map(|&color| drawn(Shape::Circle, color)).collect();
        color_entropy(&images, &vec![prompt; images.len()])
    }

    #[test]
    fn one_colour_has_no_entropy_and_all_of_them_have_all_of_it() {
        let free = prompt(Shape::Circle, None);
        assert_eq!(of(&free, &[Color::Red; 12]), Some(0.0));
        assert_eq!(of(&free, &[Color::ALL, Color::ALL].concat()), Some(1.0));
        // ln 2 + 1/(2·12), relative to ln 6.
        let two = of(&free, &[[Color::Red; 6], [Color::Blue; 6]].concat()).expect("an open colour");
        assert!((two - (2.0_f64.ln() + 1.0 / 24.0) / 6.0_f64.ln()).abs() < 1e-12, "{two}");
        assert_eq!(of(&prompt(Shape::Circle, Some(Color::Red)), &[Color::Red; 3]), None);
    }

    #[test]
    fn prompts_that_settle_on_a_colour_each_have_no_entropy_together() {
        let prompts = [prompt(Shape::Circle, None), prompt(Shape::Square, None)];
        let images = [drawn(Shape::Circle, Color::Red), drawn(Shape::Square, Color::Blue)];
        let both = [&prompts[0], &prompts[1], &prompts[0], &prompts[1]];
        assert_eq!(color_entropy(&[images.clone(), images].concat(), &both), Some(0.0));
    }

    #[test]
    fn a_rare_colour_of_a_right_image_is_worth_more() {
        let free = prompt(Shape::Circle, None);
        let mut images = vec![drawn(Shape::Circle, Color::Red); 3];
        images.push(drawn(Shape::Circle, Color::Blue));
        images.push(drawn(Shape::Square, Color::Green));
        let scores = ShapesVariety.score(&images, &[&free; 5]).expect("scores");
        // For a red image two of the three other right images are red, for the blue one none is
        // blue; the last image is wrong.
        let asked = [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 1.0, 0.0];
        assert!(
            scores.iter().zip(asked).all(|(score, asked)| (score - asked).abs() < 1e-6),
            "{scores:?}"
        );
        let named = prompt(Shape::Circle, Some(Color::Red));
        assert_eq!(ShapesVariety.score(&images[..1], &[&named]).expect("scores"), [0.0]);
        assert!(ShapesVariety.score(&images[..1], &[&Prompt::plain("a circle")]).is_err());
    }
}
