//! GenEval's colours: CLIP names the colour of each object that a prompt asks the colour of.

use std::collections::{HashMap, hash_map::Entry};

use anyhow::Result;
use models::{
    preference::{Classes, ZeroShot},
    rgb8::Rgb8,
};
use tasks::{
    geneval::{Class, Color, Detection, Metadata, color_texts, crop, needs_color},
    image::Image,
};

use crate::{
    backend::{Device, Plain},
    named,
};

/// The classifier of colours.
pub struct Colors {
    clip: ZeroShot<Plain>,
    /// The vectors of the ten colours, by the class of the object.
    vectors: HashMap<Class, Classes<Plain>>,
}

impl Colors {
    /// Opens a directory of CLIP, by its path or its name; the published one is
    /// `openai/clip-vit-large-patch14`.
    ///
    /// # Errors
    /// If it is no CLIP model, or cannot be downloaded.
    pub fn open(model: &str, device: &Device) -> Result<Self> {
        let clip = ZeroShot::open(&named::path(model, &[])?, device)?;
        Ok(Self { clip, vectors: HashMap::new() })
    }

    /// Gives a colour to each detection in an image whose colour decides and that has none.
    ///
    /// # Errors
    /// If a box or a mask does not fit the image.
    pub fn name(
        &mut self,
        image: &Image,
        metadata: &Metadata,
        detections: &mut [Detection],
    ) -> Result<(), String> {
        for (index, detection) in detections.iter_mut().enumerate() {
            if needs_color(metadata, detection) {
                let Detection { class, corners, mask, .. } = &*detection;
                let of_this =
                    |problem: String| format!("detections[{index}] (`{class}`): {problem}");
                let crop = crop(image, *corners, mask.as_ref()).map_err(of_this)?;
                let logits = self.logits(&crop, *class).map_err(of_this)?;
                detection.color = Some(largest(&logits));
            }
        }
        Ok(())
    }

    /// The logits of the ten colours for a crop.
    fn logits(&mut self, crop: &Image, class: Class) -> Result<Vec<f32>, String> {
        let vectors = match self.vectors.entry(class) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let texts = Color::ALL.map(|color| color_texts(color, class).to_vec());
                new.insert(self.clip.classes(&texts).map_err(|error| error.to_string())?)
            }
        };
        let crop = Rgb8::new([crop.height, crop.width], crop.rgb8());
        let crop = crop.map_err(|error| error.to_string())?;
        Ok(self.clip.logits(&[crop], vectors).remove(0))
    }
}

/// The colour of the largest logit; of equal ones the first.
fn largest(logits: &[f32]) -> Color {
    let first = (0, f32::NEG_INFINITY);
    let larger = |best: (usize, f32), (index, &logit): (usize, &f32)| {
        if logit > best.1 { (index, logit) } else { best }
    };
    Color::ALL[logits.iter().enumerate().fold(first, larger).0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colour_is_that_of_the_first_largest_logit() {
        let mut logits = [1.0; 10];
        assert_eq!(largest(&logits), Color::Red);
        (logits[4], logits[7]) = (3.0, 3.0);
        assert_eq!(largest(&logits), Color::Blue);
    }
}
