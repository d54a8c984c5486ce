//! An image of 8 bits per channel in host memory, as image files and preprocessing know it.

use thiserror::Error;

/// An RGB image of 8 bits per channel, with at least one pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    height: usize,
    width: usize,
    /// Row by row, red, green, blue.
    pixels: Vec<u8>,
}

impl Rgb8 {
    /// Makes an image of `height·width` pixels, row by row, red, green, blue.
    ///
    /// # Errors
    /// If the number of bytes is not `height·width·3`, or is zero.
    pub fn new([height, width]: [usize; 2], pixels: Vec<u8>) -> Result<Self, Rgb8Error> {
        let wanted = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(3));
        if wanted != Some(pixels.len()) || pixels.is_empty() {
            return Err(Rgb8Error::Size { height, width, values: pixels.len() });
        }
        Ok(Self { height, width, pixels })
    }

    /// Rounds an image of values in `[0, 1]` to 8 bits.
    ///
    /// ```text
    /// byte = min(max(round(255·x), 0), 255)        in f32; halves go to the even number
    /// ```
    ///
    /// Source: `yifan123/flow_grpo`, `rewards.py`; the rounding is PyTorch's.
    ///
    /// # Shapes
    /// `planes`: `[3, H, W]`, red, green, blue
    ///
    /// # Errors
    /// If the number of values is not `3·height·width`, or a value is not finite.
    pub fn quantized([height, width]: [usize; 2], planes: &[f32]) -> Result<Self, Rgb8Error> {
        if let Some(value) = planes.iter().find(|value| !value.is_finite()) {
            return Err(Rgb8Error::NotFinite { value: *value });
        }
        let plane = height.saturating_mul(width);
        if plane == 0 || plane.checked_mul(3) != Some(planes.len()) {
            return Err(Rgb8Error::Size { height, width, values: planes.len() });
        }
        let byte = |value: f32| (value * 255.0).round_ties_even().clamp(0.0, 255.0) as u8;
        let pixel = |index: usize| [0, 1, 2].map(|channel| byte(planes[channel * plane + index]));
        Ok(Self { height, width, pixels: (0..plane).flat_map(pixel).collect() })
    }

    /// Rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All bytes, row by row, red, green, blue.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// Numbers are not an image.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Rgb8Error {
    /// The number of values does not fit the sides.
    #[error("an RGB image of {height} x {width} pixels cannot have {values} values")]
    Size {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
        /// Number of values given.
        values: usize,
    },
    /// A value is NaN or infinite.
    #[error("the image has a pixel value of {value}")]
    NotFinite {
        /// The value.
        value: f32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest_byte_and_halves_to_the_even_one() {
        let halves = [0.5, 1.5, 2.5].map(|byte: f32| byte / 255.0);
        assert_eq!(halves.map(|value| value * 255.0), [0.5, 1.5, 2.5], "exact in f32");
        let image = Rgb8::quantized([1, 1], &halves).expect("an image");
        assert_eq!(image.pixels(), [0, 2, 2]);
        let image = Rgb8::quantized([1, 2], &[-0.2, 1.7, 0.0, 1.0, 0.1, 0.2]).expect("an image");
        assert_eq!(image.pixels(), [0, 0, 26, 255, 255, 51]);
    }

    #[test]
    fn numbers_that_are_no_image_are_refused() {
        assert!(Rgb8::new([2, 2], vec![0; 11]).is_err());
        assert!(Rgb8::new([0, 7], Vec::new()).is_err());
        assert!(Rgb8::new([usize::MAX, 2], vec![0; 3]).is_err());
        let not_finite = Rgb8::quantized([1, 1], &[0.0, f32::NAN, 0.0]);
        assert!(not_finite.expect_err("NaN").to_string().contains("NaN"));
    }
}
