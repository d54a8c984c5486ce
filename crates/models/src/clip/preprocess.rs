//! From an image to the numbers that CLIP's image tower reads: resizing, cropping or padding, and
//! normalisation.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    resize::{Window, resized, resized_f32},
    rgb8::Rgb8,
    storage::{ModelError, read_json},
};

/// Mean of each channel in OpenAI's training data.
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of each channel in OpenAI's training data.
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// How an image becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The shorter side gets the size, in 8 bits, and the centre is cut out. A margin of an odd
    /// number of pixels is halved as transformers does it, downwards.
    Crop,
    /// [`Self::Crop`], with a margin of an odd number of pixels halved as torchvision and OpenCLIP
    /// do it, to the even number.
    CropToEven,
    /// The longer side gets the size, in f32, and black is added around the centre. HPSv2 does it.
    Pad,
}

/// Makes an image the input of CLIP's image tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Side of the square, in pixels.
    pub size: usize,
    /// How an image becomes a square.
    pub fit: Fit,
    /// Subtracted from each channel, whose values lie in `[0, 1]`.
    pub mean: [f32; 3],
    /// Divides each channel.
    pub std: [f32; 3],
}

impl Preprocess {
    /// Preprocessing with OpenAI's mean and standard deviation.
    pub fn openai(size: usize, fit: Fit) -> Self {
        Self { size, fit, mean: MEAN, std: STD }
    }

    /// The numbers of an image.
    ///
    /// ```text
    /// y = (x/255 − mean) / std
    /// ```
    ///
    /// Source: transformers, `CLIPImageProcessor`; for [`Fit::Pad`] tgxs002/HPSv2,
    /// `src/open_clip/transform.py`, with torchvision's antialiasing (the default since 0.17).
    ///
    /// # Shapes
    /// the result: `[3, size, size]`
    pub fn apply(&self, image: &Rgb8) -> Vec<f32> {
        let square = match self.fit {
            Fit::Crop => self.cropped(image, |margin| margin / 2),
            Fit::CropToEven => self.cropped(image, |margin| {
                // 1.5 becomes 2 and 2.5 too.
                margin / 2 + usize::from(margin % 4 == 3)
            }),
            Fit::Pad => self.padded(image),
        };
        let plane = |channel: usize| {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let values = square.iter().skip(channel).step_by(3);
            values.map(move |value| (value - mean) / std)
        };
        (0..3).flat_map(plane).collect()
    }

    /// The centre of the image, whose shorter side is resized to `size`, `[size, size, 3]`.
    fn cropped(&self, image: &Rgb8, before: impl Fn(usize) -> usize) -> Vec<f32> {
        let (height, width) = (image.height(), image.width());
        let short = height.min(width);
        // Truncated, as Python's `int` does.
        let size = [height, width].map(|side| self.size * side / short);
        let [rows, columns] = size.map(|side| {
            let begin = before(side - self.size);
            begin..begin + self.size
        });
        let square = resized(image, size, &Window { rows, columns });
        square.pixels().iter().map(|byte| f32::from(*byte) / 255.0).collect()
    }

    /// The image, whose longer side is resized to `size`, on black, `[size, size, 3]`.
    ///
    /// An image whose longer side has the size already is padded too; HPSv2 forgets to, and fails.
    fn padded(&self, image: &Rgb8) -> Vec<f32> {
        let from = [image.height(), image.width()];
        let scale = self.size as f64 / from[0].max(from[1]) as f64;
        // A long thin image keeps one pixel; HPSv2 fails.
        let to = from.map(|side| ((side as f64 * scale).round_ties_even() as usize).max(1));
        let values: Vec<f32> = image.pixels().iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let inner = if to == from { values } else { resized_f32(&values, from, to) };
        let [top, left] = to.map(|side| (self.size - side) / 2);
        let mut square = vec![0.0; 3 * self.size * self.size];
        for (row, line) in inner.chunks_exact(3 * to[1]).enumerate() {
            let begin = 3 * ((top + row) * self.size + left);
            square[begin..begin + line.len()].copy_from_slice(line);
        }
        square
    }

    /// Reads the `preprocessor_config.json` of a CLIP model.
    ///
    /// # Errors
    /// If the file is missing or does not parse, or asks for something else than a bicubic resize
    /// to a size, a crop of the same size, and a normalisation.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file: File = read_json(path)?;
        file.preprocess().map_err(|reason| ModelError::unreadable(path, reason))
    }

    /// Reads the `preprocess_cfg` of an `open_clip_config.json`, for images of `size` pixels.
    ///
    /// # Errors
    /// If it asks for something else than a bicubic resize, a crop and a normalisation.
    pub(crate) fn open_clip(config: &Value, size: usize) -> Result<Self, String> {
        let file: OpenClip = if config.is_null() {
            OpenClip::default()
        } else {
            Deserialize::deserialize(config).map_err(|error| format!("preprocess_cfg: {error}"))?
        };
        for (name, value, known) in [
            ("interpolation", &file.interpolation, "bicubic"),
            ("resize_mode", &file.resize_mode, "shortest"),
        ] {
            if value != known {
                return Err(format!("{name} is `{value}`; only `{known}` is supported"));
            }
        }
        checked(Self { size, fit: Fit::CropToEven, mean: file.mean, std: file.std })
    }
}

/// `preprocess_cfg` of OpenCLIP.
#[derive(Deserialize)]
#[serde(default)]
struct OpenClip {
    mean: [f32; 3],
    std: [f32; 3],
    interpolation: String,
    resize_mode: String,
}

impl Default for OpenClip {
    fn default() -> Self {
        Self {
            mean: MEAN,
            std: STD,
            interpolation: "bicubic".to_owned(),
            resize_mode: "shortest".to_owned(),
        }
    }
}

/// Refuses a size that is out of range and a standard deviation that is not positive.
fn checked(preprocess: Preprocess) -> Result<Preprocess, String> {
    if !(1..=LARGEST_SIDE).contains(&preprocess.size) {
        return Err(format!("size is {}; it must be at most {LARGEST_SIDE}", preprocess.size));
    }
    if !preprocess.std.iter().all(|std| *std > 0.0) {
        return Err(format!("the standard deviation is {:?}; it must be positive", preprocess.std));
    }
    Ok(preprocess)
}

/// `preprocessor_config.json`; a missing entry has the value of `CLIPImageProcessor`.
#[derive(Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own layout")]
struct File {
    do_resize: bool,
    do_center_crop: bool,
    do_rescale: bool,
    do_normalize: bool,
    resample: u8,
    rescale_factor: f64,
    size: Value,
    crop_size: Value,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

/// Pillow's number for bicubic.
const BICUBIC: u8 = 3;

impl Default for File {
    fn default() -> Self {
        Self {
            do_resize: true,
            do_center_crop: true,
            do_rescale: true,
            do_normalize: true,
            resample: BICUBIC,
            rescale_factor: 1.0 / 255.0,
            size: 224.into(),
            crop_size: 224.into(),
            image_mean: MEAN,
            image_std: STD,
        }
    }
}

impl File {
    fn preprocess(&self) -> Result<Preprocess, String> {
        let steps = [
            ("do_resize", self.do_resize),
            ("do_center_crop", self.do_center_crop),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
        ];
        if let Some((name, _)) = steps.into_iter().find(|(_, done)| !done) {
            return Err(format!("{name} is false, which this program does not support"));
        }
        if self.resample != BICUBIC {
            return Err(format!(
                "resample is {}; only {BICUBIC} (bicubic) is supported",
                self.resample
            ));
        }
        if (self.rescale_factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(format!("rescale_factor is {}, not 1/255", self.rescale_factor));
        }
        let size = shortest(&self.size, &["shortest_edge"])
            .ok_or_else(|| format!("size is {}, not the length of the shortest edge", self.size))?;
        let crop = shortest(&self.crop_size, &["height", "width"])
            .ok_or_else(|| format!("crop_size is {}, not a square", self.crop_size))?;
        if size != crop {
            return Err(format!("size is {size} and crop_size {crop}; they must be equal"));
        }
        checked(Preprocess { size, fit: Fit::Crop, mean: self.image_mean, std: self.image_std })
    }
}

/// Upper bound on the side of an input.
const LARGEST_SIDE: usize = 4096;

/// A length that is given as a number, or under all these names of an object.
fn shortest(value: &Value, names: &[&str]) -> Option<usize> {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    if let Some(number) = number(value) {
        return Some(number);
    }
    let sides: Vec<usize> =
        names.iter().map(|name| value.get(name).and_then(number)).collect::<Option<_>>()?;
    sides.iter().all(|side| *side == sides[0]).then_some(sides[0])
}
