//! The reader: an RGB image in, its lines of text out.

use std::{fmt, fs, path::Path, sync::Arc};

use rten::ThreadPool;

use crate::{
    Channels, DETECTOR, Image, Lines, MAX_SIDE, OcrError, Options, Point, RECOGNISER, Resize,
    crop::crop,
    detect,
    network::{Network, Pools, broken},
    recognise::{HEIGHT, Reading, Recogniser},
};

/// A line of text in an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// Mean probability of the characters, in `[0, 1]`.
    pub score: f32,
    /// Corners of the box, `[x, y]` in pixels of the image: top left, top right, bottom right,
    /// bottom left.
    pub polygon: [[f32; 2]; 4],
}

/// Four corners, as of [`Line::polygon`].
type Polygon = [Point; 4];

/// Finds and reads the text in images.
///
/// A reader is `Send` and `Sync`: several threads can read with one. Equal images give equal
/// lines, whatever the number of threads.
pub struct Reader {
    pub(crate) detector: Network,
    pub(crate) recogniser: Recogniser,
    pub(crate) pools: Pools,
    options: Options,
}

impl Reader {
    /// Opens the networks that are part of the program, PP-OCRv6 tiny.
    ///
    /// # Errors
    /// If an option is outside its range.
    pub fn built_in(options: Options) -> Result<Self, OcrError> {
        let detector = include_bytes!("../../../assets/ocr/detector.onnx").to_vec();
        let recogniser = include_bytes!("../../../assets/ocr/recogniser.onnx").to_vec();
        Self::from_bytes(detector, recogniser, Path::new("(built in)"), options)
    }

    /// Opens the networks of a directory: `detector.onnx` and `recogniser.onnx`, PaddleOCR models in
    /// ONNX format. The alphabet is the metadata `character` of the recogniser.
    ///
    /// # Errors
    /// If a file is missing, damaged or of another kind, or an option is outside its range.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OcrError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).map_err(|source| OcrError::File { path, source })
        };
        Self::from_bytes(read(DETECTOR)?, read(RECOGNISER)?, directory, options)
    }

    fn from_bytes(
        detector: Vec<u8>,
        recogniser: Vec<u8>,
        directory: &Path,
        options: Options,
    ) -> Result<Self, OcrError> {
        options.check()?;
        let path = directory.join(RECOGNISER);
        let network = Network::open("recogniser", recogniser, &path)?;
        let Some(characters) = network.characters() else {
            return Err(broken(&path, "the metadata has no alphabet `character`".to_owned()));
        };
        let alphabet = characters.split('\n').chain([" "]).map(str::to_owned).collect();
        let reader = Self {
            detector: Network::open("detector", detector, &directory.join(DETECTOR))?,
            recogniser: Recogniser { network, alphabet },
            pools: Pools::new(options.threads),
            options,
        };
        reader.try_networks(directory)?;
        Ok(reader)
    }

    /// Runs both networks once on black images, so that wrong ones are noticed before a run.
    fn try_networks(&self, directory: &Path) -> Result<(), OcrError> {
        let black =
            |side: usize| Image { width: side, height: side, pixels: vec![0; 3 * side * side] };
        let small = Resize { shortest: 0, longest: 32 };
        let in_file =
            |name: &str, error: OcrError| broken(&directory.join(name), error.to_string());
        self.pools.with(|pool| {
            detect::probability(&black(32), &self.detector, small, pool)
                .map_err(|error| in_file(DETECTOR, error))?;
            self.recogniser
                .probabilities(&black(HEIGHT), HEIGHT, pool)
                .map_err(|error| in_file(RECOGNISER, error))?;
            Ok(())
        })
    }

    /// Reads an image: the lines of text from top to bottom, and from left to right.
    ///
    /// `rgb` holds `height` rows of `width` pixels of three bytes. Text is found in boxes of at least
    /// 4 pixels.
    ///
    /// # Errors
    /// If a side is 0 or larger than [`MAX_SIDE`], `rgb` has another length than
    /// `3 · width · height`, or a network fails.
    pub fn read(&self, rgb: &[u8], width: usize, height: usize) -> Result<Vec<Line>, OcrError> {
        let image = self.image(rgb, width, height)?;
        self.pools.with(|pool| {
            let lines = match self.options.lines {
                Lines::Detected => self.detected(&image, pool)?,
                Lines::Whole => vec![(self.recogniser.read_whole(&image, pool)?, frame(&image))],
            };
            Ok(lines
                .into_iter()
                .filter(|(reading, _)| reading.score >= self.options.drop_score)
                .map(|(reading, polygon)| Line {
                    text: reading.text,
                    score: reading.score,
                    polygon,
                })
                .collect())
        })
    }

    /// Finds lines and reads them, with their boxes.
    fn detected(
        &self,
        image: &Image,
        pool: &Arc<ThreadPool>,
    ) -> Result<Vec<(Reading, Polygon)>, OcrError> {
        let mut boxes = detect::detect(image, &self.detector, &self.options, pool)?;
        detect::sort(&mut boxes);
        let crops: Vec<Image> = boxes.iter().map(|corners| crop(image, corners)).collect();
        let readings = self.recogniser.read(&crops, self.options.lines_per_batch, pool)?;
        Ok(readings.into_iter().zip(boxes).collect())
    }

    /// The image with the channels in the order of the networks.
    fn image(&self, rgb: &[u8], width: usize, height: usize) -> Result<Image, OcrError> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(OcrError::Sides { width, height });
        }
        let expected = 3 * width * height;
        if rgb.len() != expected {
            return Err(OcrError::Bytes { width, height, expected, found: rgb.len() });
        }
        let mut pixels = rgb.to_vec();
        if self.options.channels == Channels::Bgr {
            pixels.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
        }
        Ok(Image { width, height, pixels })
    }
}

/// The corners of an image.
fn frame(image: &Image) -> Polygon {
    let (right, bottom) = (image.width as f32, image.height as f32);
    [[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]]
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reader").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The text of all lines, joined with nothing in between, as the reward takes it.
///
/// Source: `flow_grpo/ocr.py` of the public Flow-GRPO code. It keeps lines of a score above 0.
pub fn text(lines: &[Line]) -> String {
    lines.iter().filter(|line| line.score > 0.0).map(|line| line.text.as_str()).collect()
}
