//! Images as files in memory: PNG and JPEG, written and read.

use std::io::Cursor;

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{
    DynamicImage, ImageEncoder, ImageError, ImageReader, Limits, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
    error::{LimitError, LimitErrorKind},
    imageops::{FilterType, resize},
};

use crate::{fault::Fault, settings::ImageFormat};

/// Writes an image as a PNG file.
pub(crate) fn png(image: &RgbImage) -> Result<Vec<u8>, Fault> {
    written(image, |file| {
        PngEncoder::new(file).write_image(
            image.as_raw(),
            image.width(),
            image.height(),
            image::ExtendedColorType::Rgb8,
        )
    })
}

/// Writes an image as a JPEG file with chroma at full resolution.
///
/// Deviation: Pillow, which the reference code calls, halves the resolution of chroma; these files
/// are nearer to the image.
pub(crate) fn jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, Fault> {
    written(image, |file| JpegEncoder::new_with_quality(file, quality).encode_image(image))
}

fn written(
    image: &RgbImage,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), ImageError>,
) -> Result<Vec<u8>, Fault> {
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return Err(Fault::Request(format!("an image of {width} x {height} pixels is empty")));
    }
    let mut file = Vec::new();
    match write(&mut file) {
        Ok(()) => Ok(file),
        Err(error) => Err(Fault::Request(format!("an image of {width} x {height}: {error}"))),
    }
}

/// Writes an image in a format, as Base64 text.
pub(crate) fn base64(image: &RgbImage, format: ImageFormat) -> Result<String, Fault> {
    let file = match format {
        ImageFormat::Png => png(image)?,
        ImageFormat::Jpeg => jpeg(image, 95)?,
    };
    Ok(STANDARD.encode(file))
}

/// Writes an image as a data URL with a PNG file.
pub(crate) fn data_url(image: &RgbImage) -> Result<String, Fault> {
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png(image)?)))
}

/// Resizes an image to a square, with the filter of Pillow's default (bicubic, antialiased).
pub(crate) fn squared(image: &RgbImage, side: u32) -> RgbImage {
    if image.dimensions() == (side, side) {
        return image.clone();
    }
    resize(image, side, side, FilterType::CatmullRom)
}

/// Reads a PNG or JPEG file from Base64 text, if no side is longer than `longest`.
///
/// # Errors
/// The reason why it is no such image, for people.
pub(crate) fn from_base64(text: &str, longest: u32) -> Result<RgbImage, String> {
    let file = STANDARD.decode(text).map_err(|error| format!("not Base64: {error}"))?;
    let mut reader = ImageReader::new(Cursor::new(&file))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    if !matches!(reader.format(), Some(image::ImageFormat::Png | image::ImageFormat::Jpeg)) {
        return Err("neither a PNG nor a JPEG file".to_owned());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(longest);
    limits.max_image_height = Some(longest);
    reader.limits(limits);
    reader.decode().map(DynamicImage::into_rgb8).map_err(|error| match error {
        ImageError::Limits(limit) if is_size(&limit) => {
            format!("a side is longer than {longest} pixels")
        }
        other => other.to_string(),
    })
}

fn is_size(limit: &LimitError) -> bool {
    matches!(limit.kind(), LimitErrorKind::DimensionError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([8 * x as u8, 8 * y as u8, 100]))
    }

    #[test]
    fn png_keeps_every_value_and_jpeg_nearly() {
        let image = gradient(20, 12);
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let text = base64(&image, format).expect("written");
            let back = from_base64(&text, 20).expect("read");
            let differ = |(a, b): (&u8, &u8)| a.abs_diff(*b);
            let most = image.iter().zip(back.iter()).map(differ).max();
            let allowed = if format == ImageFormat::Png { 0 } else { 12 };
            assert!(most <= Some(allowed), "{format:?} differs by {most:?}");
        }
    }

    #[test]
    fn files_that_are_too_large_or_no_images_are_refused() {
        let text = base64(&gradient(20, 12), ImageFormat::Png).expect("written");
        assert_eq!(from_base64(&text, 19), Err("a side is longer than 19 pixels".to_owned()));
        assert!(from_base64("###", 20).is_err_and(|reason| reason.contains("not Base64")));
        assert!(from_base64("aGVsbG8=", 20).is_err_and(|reason| reason.contains("neither")));
        let half = &text[..text.len() / 2 / 4 * 4];
        assert!(from_base64(half, 20).is_err());
    }

    #[test]
    fn an_empty_image_is_an_error_not_a_panic() {
        let empty = RgbImage::new(0, 4);
        assert!(png(&empty).is_err() && jpeg(&empty, 75).is_err());
    }

    #[test]
    fn a_square_of_the_right_side_is_kept() {
        let image = gradient(8, 8);
        assert_eq!(squared(&image, 8), image);
        assert_eq!(squared(&image, 16).dimensions(), (16, 16));
    }
}
