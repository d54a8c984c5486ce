//! An image in host memory.

/// One image, channels first; values nominally in `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Colour channels.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// `channels · height · width` values.
    pub pixels: Vec<f32>,
}

impl Image {
    /// The colour of a pixel of a three-channel image, clamped to `[0, 1]`.
    ///
    /// # Panics
    /// If the image has fewer than three channels or the position lies outside.
    pub fn rgb(&self, row: usize, column: usize) -> [f32; 3] {
        let plane = self.height * self.width;
        [0, 1, 2]
            .map(|channel| self.pixels[channel * plane + row * self.width + column].clamp(0.0, 1.0))
    }
}
