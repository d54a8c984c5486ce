//! The order of the colour channels in which a detector sees an image.

use serde::{Deserialize, Serialize};

use crate::image::Image;

/// The image that the detector sees. Colours are classified on the true image in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// The true image, as in the official script.
    #[default]
    Official,
    /// Red and blue exchanged. The public reward servers pass RGB arrays to a detector that takes
    /// arrays for BGR, so their rewards come from such images.
    RedBlueSwapped,
}

impl Channels {
    /// The image to detect objects in. An image without three channels stays as it is.
    #[must_use]
    pub fn for_detector(self, image: &Image) -> Image {
        let mut seen = image.clone();
        let plane = image.height * image.width;
        if self == Self::RedBlueSwapped
            && image.channels >= 3
            && let Some((first, last)) = seen.pixels.split_at_mut_checked(2 * plane)
        {
            for (red, blue) in first.iter_mut().zip(last).take(plane) {
                std::mem::swap(red, blue);
            }
        }
        seen
    }
}
