//! PNG, JPEG and `.npy` files as planar bytes.

use super::npz;
use crate::error::{Error, Result};
use image::imageops::FilterType;
use image::{DynamicImage, ImageError, ImageReader, Limits};
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

/// Decodes an image and brings it to `[C, H, W]`: grey for one channel, RGB for three;
/// resized with a triangle filter where its size differs. Transparency is dropped. A `.npy`
/// file has to have the size already.
///
/// # Errors
/// If the file cannot be read or decoded, or `C` is neither 1 nor 3.
pub fn load(path: &Path, shape: [usize; 3]) -> Result<Vec<u8>> {
    if is_npy(path) {
        return npz::image(path, shape);
    }
    planar(path, decode(path)?, shape)
}

fn is_npy(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}

/// As [`load`], of a file's bytes; `name` stands for it in messages.
///
/// # Errors
/// As [`load`], and if the image has more than [`LARGEST_SIDE`] rows or columns.
pub fn from_bytes(name: &str, bytes: &[u8], shape: [usize; 3]) -> Result<Vec<u8>> {
    let path = Path::new(name);
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| Error::io(path, "read", e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    reader.limits(limits);
    let image = reader
        .decode()
        .map_err(|e| Error::data(path, format!("cannot be decoded as PNG or JPEG: {e}")))?;
    planar(path, image, shape)
}

/// Most rows and columns of an image that comes as bytes: a small file may unpack to a
/// huge image.
pub const LARGEST_SIDE: u32 = 8192;

/// Checks a file as far as its head tells whether [`load`] can bring it to `shape`.
///
/// # Errors
/// As [`load`].
pub(super) fn check(path: &Path, shape: [usize; 3]) -> Result<()> {
    if is_npy(path) {
        return npz::image(path, shape).map(drop);
    }
    open(path)?
        .into_dimensions()
        .map_err(|e| undecodable(path, &e))?;
    check_channels(path, shape[0])
}

/// Decodes an image as it is.
pub(super) fn decode(path: &Path) -> Result<DynamicImage> {
    open(path)?.decode().map_err(|e| undecodable(path, &e))
}

fn open(path: &Path) -> Result<ImageReader<BufReader<File>>> {
    let fail = |e| Error::io(path, "read", e);
    let reader = ImageReader::open(path).map_err(fail)?;
    reader.with_guessed_format().map_err(fail)
}

fn undecodable(path: &Path, error: &ImageError) -> Error {
    let problem = format!("cannot be decoded as PNG or JPEG: {error}; mend or remove the file");
    Error::data(path, problem)
}

fn check_channels(path: &Path, channels: usize) -> Result<()> {
    match channels {
        1 | 3 => Ok(()),
        other => Err(Error::data(
            path,
            format!("images have 1 channel (grey) or 3 (RGB), the model wants {other}"),
        )),
    }
}

/// An image as planar bytes of a shape.
pub(super) fn planar(path: &Path, image: DynamicImage, shape: [usize; 3]) -> Result<Vec<u8>> {
    let [channels, rows, columns] = shape;
    check_channels(path, channels)?;
    let (width, height) = (columns as u32, rows as u32);
    let image = if (image.width(), image.height()) == (width, height) {
        image
    } else {
        image.resize_exact(width, height, FilterType::Triangle)
    };
    if channels == 1 {
        return Ok(grey(image));
    }
    let pixels = image.into_rgb8().into_raw();
    let plane = |c: usize| pixels.iter().skip(c).step_by(3).copied();
    Ok((0..3).flat_map(plane).collect())
}

/// The luma of BT.709, rounded: 0.2126 R + 0.7152 G + 0.0722 B. In integers, so that the web
/// export's script gets the same bytes.
fn grey(image: DynamicImage) -> Vec<u8> {
    if let DynamicImage::ImageLuma8(grey) = image {
        return grey.into_raw();
    }
    let bytes = image.into_rgb8().into_raw();
    let (pixels, _) = bytes.as_chunks();
    let luma = |[r, g, b]: &[u8; 3]| {
        let [r, g, b] = [*r, *g, *b].map(u32::from);
        ((2126 * r + 7152 * g + 722 * b + 5000) / 10_000) as u8
    };
    pixels.iter().map(luma).collect()
}
