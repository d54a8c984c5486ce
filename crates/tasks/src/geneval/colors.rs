//! What GenEval's colour classifier looks at: the crop of an object, and the texts of a colour.
//!
//! The classifier itself is a CLIP model elsewhere. Source: djghosh13/geneval,
//! `evaluate_images.py`, and the zero-shot classifier of LAION's CLIP benchmark.

use super::{Class, Color, Detection, Mask, Metadata, THRESHOLD};
use crate::image::Image;

/// The grey outside of an object's mask, `#999999`.
const GREY: f32 = 153.0 / 255.0;

/// The texts of a colour and a class. The vector of the colour is the mean of their normalised
/// embeddings, normalised again.
pub fn color_texts(color: Color, class: Class) -> [String; 3] {
    let color = color.name();
    [
        format!("a photo of a {color} {class}"),
        format!("a photo of a {color}-colored {class}"),
        format!("a photo of a {color} object"),
    ]
}

/// Whether the colour of a detection decides: it has none, the prompt asks for the colour of its
/// class, and it may count.
pub fn needs_color(metadata: &Metadata, detection: &Detection) -> bool {
    let asked = metadata.include.iter().any(|it| it.class == detection.class && it.color.is_some());
    asked && detection.color.is_none() && detection.score > THRESHOLD
}

/// The crop of an object: the image inside its box, grey where the mask, if there is one, has no
/// object. Corners are rounded, halves to even; what lies outside of the image is black.
///
/// # Errors
/// If the image is not RGB, the box has no pixel after rounding or is larger than the image, or the
/// mask has another size than the image.
pub fn crop(image: &Image, corners: [f32; 4], mask: Option<&Mask>) -> Result<Image, String> {
    if image.channels != 3 {
        return Err(format!("an image of {} channels has no colours", image.channels));
    }
    let whole = [image.height, image.width];
    if let Some(mask) = mask.filter(|mask| mask.size() != whole) {
        let ([height, width], [of_height, of_width]) = (whole, mask.size());
        return Err(format!(
            "the mask has {of_height} x {of_width} pixels, the image {height} x {width}"
        ));
    }
    let [x0, y0, x1, y1] = corners.map(|corner| f64::from(corner).round_ties_even() as i64);
    let sides = [y1.saturating_sub(y0), x1.saturating_sub(x0)];
    let fits = |(side, most): (i64, usize)| side >= 1 && side <= 2 * most as i64;
    if !sides.into_iter().zip(whole).all(fits) {
        return Err(format!(
            "the box {corners:?} is no part of an image of {} x {} pixels",
            image.height, image.width
        ));
    }
    let inside: Option<Vec<bool>> = mask.map(|mask| mask.columns().collect());
    let value = |channel: usize, y: i64, x: i64| {
        let (Ok(row), Ok(column)) = (usize::try_from(y), usize::try_from(x)) else { return 0.0 };
        if row >= image.height || column >= image.width {
            return 0.0;
        }
        match &inside {
            Some(inside) if !inside[column * image.height + row] => GREY,
            _ => image.pixels[(channel * image.height + row) * image.width + column],
        }
    };
    let rows = |channel| (y0..y1).flat_map(move |y| (x0..x1).map(move |x| (channel, y, x)));
    let pixels = (0..3).flat_map(rows).map(|(channel, y, x)| value(channel, y, x)).collect();
    let [height, width] = sides.map(|side| side as usize);
    Ok(Image { channels: 3, height, width, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of 2 x 3 pixels whose values count up.
    fn image() -> Image {
        let pixels = (0..18_u8).map(|value| f32::from(value) / 255.0).collect();
        Image { channels: 3, height: 2, width: 3, pixels }
    }

    #[test]
    fn a_crop_rounds_its_corners_to_even_and_is_black_outside() {
        let one = crop(&image(), [0.5, 0.4, 1.5, 1.4], None).expect("a crop");
        assert_eq!((one.height, one.width, one.rgb8()), (1, 2, vec![0, 6, 12, 1, 7, 13]));
        let beyond = crop(&image(), [2.0, 1.0, 4.0, 2.0], None).expect("a crop");
        assert_eq!(beyond.rgb8(), [5, 11, 17, 0, 0, 0]);
    }

    #[test]
    fn outside_of_its_mask_an_object_is_grey() {
        let mask = Mask::new([2, 3], vec![2, 1, 3]).expect("a mask");
        let seen = crop(&image(), [0.0, 0.0, 2.0, 2.0], Some(&mask)).expect("a crop");
        let grey = [153; 3];
        assert_eq!(seen.rgb8(), [grey, [1, 7, 13], grey, grey].concat());
    }

    #[test]
    fn boxes_and_masks_that_do_not_fit_are_refused() {
        let refused = |corners, mask: Option<&Mask>| crop(&image(), corners, mask).is_err();
        assert!(refused([0.0, 0.0, 0.4, 2.0], None), "no column");
        assert!(refused([2.0, 0.0, 1.0, 2.0], None));
        assert!(refused([f32::NAN, 0.0, f32::INFINITY, 2.0], None));
        assert!(refused([-1e30, 0.0, 1e30, 2.0], None));
        let mask = Mask::new([3, 2], vec![6]).expect("a mask");
        assert!(refused([0.0, 0.0, 1.0, 1.0], Some(&mask)), "another size");
    }

    #[test]
    fn only_a_colour_that_decides_is_needed() {
        let metadata = Metadata::from_value(&serde_json::json!({
            "tag": "colors", "prompt": "a photo of a red bench",
            "include": [{"class": "bench", "count": 1, "color": "red"}],
        }))
        .expect("metadata");
        let found = |class: &str, score, color| Detection {
            class: Class::named(class).expect("a class"),
            corners: [0.0; 4],
            score,
            color,
            mask: None,
        };
        assert!(needs_color(&metadata, &found("bench", 0.31, None)));
        assert!(!needs_color(&metadata, &found("bench", 0.3, None)));
        assert!(!needs_color(&metadata, &found("dog", 0.9, None)));
        assert!(!needs_color(&metadata, &found("bench", 0.9, Some(Color::Blue))));
    }
}
