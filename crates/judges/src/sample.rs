//! The unit that judges score: an image with its prompt.

use image::RgbImage;
use serde_json::Value;

/// An image, the prompt that it was made for, and the prompt's metadata.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The image, 8 bits per channel.
    pub image: &'a RgbImage,
    /// The prompt's text.
    pub prompt: &'a str,
    /// The prompt's metadata: a JSON object, or null.
    pub metadata: &'a Value,
}
