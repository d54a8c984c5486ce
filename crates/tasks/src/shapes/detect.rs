//! Detects objects in pixels: segmentation, connected components, colour and shape of each.
//!
//! Sees only the image, not the prompt. Anything that is neither background nor a clean shape of a
//! known colour counts as unrecognised.

use super::{Color, Object, Shape, render::coverage};
use crate::{image::Image, pixels::background};

/// One recognised object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Shape of the object.
    pub shape: Shape,
    /// Colour of the object.
    pub color: Color,
    /// Centre (x, y), in shares of the image's side.
    pub center: (f32, f32),
    /// Side of the bounding square, in shares of the image's side.
    pub size: f32,
    /// Fit of the ideal shape: soft intersection over union, in `[0, 1]`.
    pub fit: f32,
}

/// Everything that was found in an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detections {
    /// The recognised objects.
    pub objects: Vec<Detection>,
    /// Number of blobs that are not a clean shape of a known colour. Many specks together count as
    /// one blob, and so does a background that is not plain.
    pub unrecognised: usize,
}

/// A connected part of the foreground, with the measurements that decide whether it is an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Blob {
    /// The indices of its pixels, row-major.
    pub pixels: Vec<usize>,
    /// The known colour that its inner pixels share; `None` if they share none.
    pub color: Option<Color>,
    /// Share of its mass in opaque pixels, `Σo²/Σo`, in `[0, 1]`; 0 without a colour.
    pub sharpness: f32,
    /// Every shape at its best size and place; empty without a colour.
    pub fits: Vec<Detection>,
    /// The object that it is recognised as.
    pub object: Option<Detection>,
}

/// What the verifier sees in an image: its measurements, before any comparison with a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Examination {
    /// The colour of the background, each channel in `[0, 1]`.
    pub background: [f32; 3],
    /// Whether each pixel is foreground, row-major.
    pub foreground: Vec<bool>,
    /// The parts of the foreground that are large enough to count.
    pub blobs: Vec<Blob>,
    /// The pixels of the smaller parts.
    pub specks: Vec<usize>,
    /// Whether the specks together are large enough to count.
    pub speckled: bool,
    /// Whether the background is free of visible structure.
    pub plain: bool,
}

/// RGB distance from the background above which a pixel is foreground.
const FOREGROUND: f32 = 0.3;
/// Smallest blob that counts, in shares of the image: 2 of 24 x 24 pixels. A smaller blob is a
/// speck; specks that together reach this size count as one unrecognised blob.
const SPECK: f32 = 2.0 / 576.0;
/// Largest root mean square distance of the background's pixels from their median, in RGB.
const SPREAD: f32 = 0.07;
/// Largest distance of the mean colour of a background field from the background's median, in RGB;
/// a field is [`FIELD`] of the image wide and high. Anything larger than a field and farther off is
/// visible to a person.
const FAINT: f32 = 0.08;
/// Side of a background field, in shares of the image's side: 3 of 24 pixels.
const FIELD: f32 = 3.0 / 24.0;
/// Smallest and largest size of an object, in shares of the image's side.
const SIZES: std::ops::RangeInclusive<f32> = 5.0 / 24.0..=13.0 / 24.0;
/// Smallest fit at which the best shape is accepted.
pub const FIT: f32 = 0.72;
/// Smallest share of an object's mass that lies in its opaque pixels, `Σo²/Σo`; below it the object
/// is blurred.
const SHARPNESS: f32 = 0.76;
/// Largest RGB distance between the mean colour of an object and the known colour assigned to it.
const COLOR_DISTANCE: f32 = 0.28;
/// Smallest share of an object's pixels that must have its colour.
const ONE_COLOR: f32 = 0.85;

/// Finds the objects of a three-channel image. Values outside `[0, 1]` are clamped; an image with
/// NaN or infinite values has no objects and counts as unrecognised.
///
/// # Panics
/// If the image has fewer than three channels or is not square.
pub fn detect(image: &Image) -> Detections {
    examine(image).map_or(Detections { objects: Vec::new(), unrecognised: 1 }, |examination| {
        let objects: Vec<Detection> =
            examination.blobs.iter().filter_map(|blob| blob.object).collect();
        let unrecognised = examination.blobs.len() - objects.len()
            + usize::from(examination.speckled)
            + usize::from(!examination.plain);
        Detections { objects, unrecognised }
    })
}

/// Measures what [`detect`] decides by; `None` if the image has NaN or infinite values.
///
/// # Panics
/// If the image has fewer than three channels or is not square.
pub fn examine(image: &Image) -> Option<Examination> {
    assert!(
        image.channels >= 3 && image.height == image.width,
        "the verifier needs square RGB images"
    );
    if !image.pixels.iter().all(|value| value.is_finite()) {
        return None;
    }
    let pixels = Pixels::new(image);
    let is_speck = |blob: &Vec<usize>| (blob.len() as f32) < SPECK * pixels.rgb.len() as f32;
    let (specks, blobs): (Vec<_>, Vec<_>) = pixels.components().into_iter().partition(is_speck);
    let blobs = blobs.into_iter().map(|blob| pixels.measure(blob)).collect();
    let specks = specks.concat();
    let (speckled, plain) = (!is_speck(&specks), pixels.background_is_plain());
    let Pixels { background, foreground, .. } = pixels;
    Some(Examination { background, foreground, blobs, specks, speckled, plain })
}

/// An image with its background and foreground separated.
struct Pixels {
    side: usize,
    rgb: Vec<[f32; 3]>,
    background: [f32; 3],
    foreground: Vec<bool>,
}

impl Pixels {
    fn new(image: &Image) -> Self {
        let side = image.height;
        let rgb: Vec<[f32; 3]> =
            (0..side * side).map(|index| image.rgb(index / side, index % side)).collect();
        let background = background(image);
        let foreground =
            rgb.iter().map(|&pixel| distance(pixel, background) > FOREGROUND).collect();
        Self { side, rgb, background, foreground }
    }

    /// The foreground's connected components, as lists of pixel indices.
    fn components(&self) -> Vec<Vec<usize>> {
        let mut seen = vec![false; self.foreground.len()];
        let mut components = Vec::new();
        for start in 0..self.foreground.len() {
            if !self.foreground[start] || seen[start] {
                continue;
            }
            seen[start] = true;
            let mut component = vec![start];
            let mut next = 0;
            while let Some(&index) = component.get(next) {
                next += 1;
                for neighbour in self.neighbours(index) {
                    if self.foreground[neighbour] && !std::mem::replace(&mut seen[neighbour], true)
                    {
                        component.push(neighbour);
                    }
                }
            }
            components.push(component);
        }
        components
    }

    /// The up to four pixels that share an edge with this one.
    fn neighbours(&self, index: usize) -> impl Iterator<Item = usize> {
        let (side, row, column) = (self.side, index / self.side, index % self.side);
        let up = (row > 0).then(|| index - side);
        let down = (row + 1 < side).then(|| index + side);
        let left = (column > 0).then(|| index - 1);
        let right = (column + 1 < side).then(|| index + 1);
        [up, down, left, right].into_iter().flatten()
    }

    /// Whether the background is free of visible structure.
    fn background_is_plain(&self) -> bool {
        let open: Vec<bool> = (0..self.rgb.len()).map(|index| self.is_open(index)).collect();
        let apart = |index: usize| difference(self.rgb[index], self.background);
        let squares: Vec<f32> = (0..open.len())
            .filter(|&index| open[index])
            .map(|index| dot(apart(index), apart(index)))
            .collect();
        let spread = (squares.iter().sum::<f32>() / squares.len().max(1) as f32).sqrt();
        let field = ((FIELD * self.side as f32).round() as usize).max(1);
        let faint = |corner: usize| {
            let pixels = (0..field * field).map(|i| corner + i / field * self.side + i % field);
            let inside = pixels.filter(|&index| open[index]).collect::<Vec<_>>();
            let sum = inside.iter().fold([0.0; 3], |sum, &index| difference(sum, apart(index)));
            inside.len() == field * field && dot(sum, sum).sqrt() > FAINT * inside.len() as f32
        };
        let corners = (0..=self.side - field)
            .flat_map(|row| (0..=self.side - field).map(move |column| row * self.side + column));
        spread <= SPREAD && !corners.into_iter().any(faint)
    }

    /// Whether a pixel and its eight neighbours are background, so that the pixel is not on an
    /// object's anti-aliased rim.
    fn is_open(&self, index: usize) -> bool {
        let (row, column) = (index / self.side, index % self.side);
        let around = |place: usize| place.saturating_sub(1)..=(place + 1).min(self.side - 1);
        around(row)
            .all(|row| around(column).all(|column| !self.foreground[row * self.side + column]))
    }

    fn measure(&self, pixels: Vec<usize>) -> Blob {
        let Some(color) = self.color(&pixels) else {
            return Blob { pixels, color: None, sharpness: 0.0, fits: Vec::new(), object: None };
        };
        let opacity = self.opacity(&pixels, color);
        let sharpness =
            opacity.iter().map(|share| share * share).sum::<f32>() / opacity.iter().sum::<f32>();
        let fits: Vec<Detection> =
            Shape::ALL.into_iter().filter_map(|shape| self.fit(shape, color, &opacity)).collect();
        let best = fits.iter().copied().max_by(|a, b| a.fit.total_cmp(&b.fit));
        let object = best
            .filter(|best| sharpness >= SHARPNESS && best.fit >= FIT && SIZES.contains(&best.size));
        Blob { pixels, color: Some(color), sharpness, fits, object }
    }

    /// The known colour of a component, judged by its inner pixels, which do not blend with the
    /// background; `None` if there is no such colour.
    fn color(&self, component: &[usize]) -> Option<Color> {
        let inner = |&&index: &&usize| {
            self.neighbours(index).filter(|&neighbour| self.foreground[neighbour]).count() == 4
        };
        let mut pixels: Vec<[f32; 3]> =
            component.iter().filter(inner).map(|&index| self.rgb[index]).collect();
        if pixels.len() < 3 {
            pixels = component.iter().map(|&index| self.rgb[index]).collect();
        }
        let n = pixels.len() as f32;
        let mean =
            [0, 1, 2].map(|channel| pixels.iter().map(|pixel| pixel[channel]).sum::<f32>() / n);
        let color = nearest(mean);
        let same = pixels.iter().filter(|&&pixel| nearest(pixel) == color).count() as f32 / n;
        (distance(mean, color.rgb()) <= COLOR_DISTANCE && same >= ONE_COLOR).then_some(color)
    }

    /// Opacity of every pixel if this component was painted in this colour over the background; 0
    /// away from the component.
    fn opacity(&self, component: &[usize], color: Color) -> Vec<f32> {
        let paint = difference(color.rgb(), self.background);
        let length = dot(paint, paint);
        let mut opacity = vec![0.0; self.rgb.len()];
        let own = |index: usize| {
            (dot(difference(self.rgb[index], self.background), paint) / length).clamp(0.0, 1.0)
        };
        for &index in component {
            opacity[index] = own(index);
            // The anti-aliased rim lies below the foreground threshold.
            for neighbour in self.neighbours(index).filter(|&neighbour| !self.foreground[neighbour])
            {
                opacity[neighbour] = own(neighbour);
            }
        }
        opacity
    }

    /// Fits an object of this shape to the component's area and centre of mass, and measures the
    /// fit.
    fn fit(&self, shape: Shape, color: Color, opacity: &[f32]) -> Option<Detection> {
        let pixels = self.side as f32;
        let mass: f32 = opacity.iter().sum();
        let moment = |place: fn(usize, usize) -> usize| {
            let weighted = opacity
                .iter()
                .enumerate()
                .map(|(index, share)| share * (place(index, self.side) as f32 + 0.5));
            weighted.sum::<f32>() / mass / pixels
        };
        let (x, y) = (moment(|index, side| index % side), moment(|index, side| index / side));
        let Moments { area, below } = moments(shape);
        let size = (mass / area).sqrt() / pixels;
        let object = Object { shape, color, center: (x, y - below * size), size };
        // A blob as large as the image is not an object, and its template would lie outside.
        (size < 1.0).then(|| {
            let ideal = coverage(&object, self.side);
            let (shared, total) =
                opacity.iter().zip(&ideal).fold((0.0, 0.0), |(shared, total), (&a, &b)| {
                    (shared + a.min(b), total + a.max(b))
                });
            Detection { shape, color, center: object.center, size, fit: shared / total }
        })
    }
}

/// Area of a shape in a bounding square of side 1, and depth of its centre of mass below the
/// middle.
struct Moments {
    area: f32,
    below: f32,
}

/// The moments of the shapes that `render` draws.
fn moments(shape: Shape) -> Moments {
    match shape {
        Shape::Circle => Moments { area: std::f32::consts::FRAC_PI_4, below: 0.0 },
        Shape::Square => Moments { area: 0.81, below: 0.0 },
        Shape::Triangle => Moments { area: 0.5, below: 1.0 / 6.0 },
        Shape::Cross => Moments { area: 0.5644, below: 0.0 },
    }
}

fn nearest(pixel: [f32; 3]) -> Color {
    let closer =
        |a: &Color, b: &Color| distance(pixel, a.rgb()).total_cmp(&distance(pixel, b.rgb()));
    Color::ALL.into_iter().min_by(closer).expect("there are colours")
}

fn difference(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    let d = difference(a, b);
    dot(d, d).sqrt()
}
