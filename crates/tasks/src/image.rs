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
    /// Creates an image from 8-bit RGB values, row by row, three bytes per pixel.
    ///
    /// # Panics
    /// If `rgb` has another length than `3 · width · height`.
    pub fn from_rgb8(rgb: &[u8], width: usize, height: usize) -> Self {
        assert_eq!(rgb.len(), 3 * width * height, "three bytes per pixel");
        let plane = |channel: usize| rgb.iter().skip(channel).step_by(3);
        let pixels = (0..3).flat_map(plane).map(|&byte| f32::from(byte) / 255.0).collect();
        Self { channels: 3, height, width, pixels }
    }

    /// The 8-bit RGB values, row by row, three bytes per pixel, rounded as by [`quantized`].
    ///
    /// # Panics
    /// If the image does not have three channels.
    pub fn rgb8(&self) -> Vec<u8> {
        assert_eq!(self.channels, 3, "an RGB image");
        let byte = |value: f32| step(value) as u8;
        let plane = self.height * self.width;
        (0..plane)
            .flat_map(|pixel| [0, 1, 2].map(|channel| byte(self.pixels[channel * plane + pixel])))
            .collect()
    }

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

/// A value of an 8-bit image: clamped to `[0, 1]`, times 255, rounded to the nearest integer,
/// halves to even, divided by 255. NaN stays NaN.
///
/// Source: the reference code rounds in this way before every reward, `(images * 255).round()
/// .clamp(0, 255)` (`flow_grpo/rewards.py`).
///
/// ```
/// use tasks::image::quantized;
///
/// assert_eq!(quantized(0.5), 128.0 / 255.0); // 127.5 lies between 127 and 128, which is even.
/// assert_eq!(quantized(-3.0), 0.0);
/// assert!(quantized(f32::NAN).is_nan());
/// ```
pub fn quantized(value: f32) -> f32 {
    step(value) / 255.0
}

/// The nearest of the 256 steps of an 8-bit image.
fn step(value: f32) -> f32 {
    (value.clamp(0.0, 1.0) * 255.0).round_ties_even()
}
