//! Contact sheets: many images in one picture.

use crate::error::{Error, Result};
use crate::formats::atomic;
use image::{DynamicImage, ImageFormat, RgbImage, imageops};
use std::io::Cursor;
use std::path::Path;

/// Pixels between images.
const GAP: u32 = 2;
/// Images of fewer rows or columns are shown larger, by a whole factor.
const SMALLEST: usize = 64;
const BACKGROUND: [u8; 3] = [255, 255, 255];

/// A picture of images given as bytes [N, C, H, W], `columns` in a row. Of 1 channel they are
/// grey, of 3 RGB; of any other number the first channel is shown.
pub fn sheet(images: &[u8], [channels, height, width]: [usize; 3], columns: usize) -> RgbImage {
    let scale = SMALLEST.div_ceil(height.max(width)).max(1) as u32;
    let (tall, wide) = (height as u32 * scale + GAP, width as u32 * scale + GAP);
    let count = images.len() / (channels * height * width);
    let rows = count.div_ceil(columns) as u32;
    let size = (columns as u32 * wide + GAP, rows * tall + GAP);
    let mut sheet = RgbImage::from_pixel(size.0, size.1, BACKGROUND.into());
    for (i, image) in images.chunks_exact(channels * height * width).enumerate() {
        let plane = height * width;
        let channel = |c: usize| if channels == 3 { c } else { 0 };
        let tile = RgbImage::from_fn(width as u32 * scale, height as u32 * scale, |x, y| {
            let place = (y / scale) as usize * width + (x / scale) as usize;
            [0, 1, 2].map(|c| image[channel(c) * plane + place]).into()
        });
        let (row, column) = ((i / columns) as u32, (i % columns) as u32);
        let (x, y) = (GAP + column * wide, GAP + row * tall);
        imageops::replace(&mut sheet, &tile, x.into(), y.into());
    }
    sheet
}

/// Writes a picture as PNG, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn save(sheet: RgbImage, path: &Path) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(sheet)
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| Error::Runtime(format!("{}: {e}", path.display())))?;
    atomic::write(path, |file| file.write_all(bytes.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_rows_and_small_ones_are_enlarged() {
        // Three grey images of 2 by 1, 32 times as large: two rows of two.
        let sheet = sheet(&[10, 20, 30, 40, 50, 60], [1, 2, 1], 2);
        assert_eq!(sheet.dimensions(), (2 * 34 + 2, 2 * 66 + 2));
        let grey = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([grey(2, 2), grey(2, 34), grey(36, 65)], [10, 20, 40]);
        assert_eq!([grey(33, 68 + 2), grey(36, 70), grey(0, 0)], [50, 255, 255]);
    }

    #[test]
    fn three_channels_are_colours() {
        let sheet = sheet(&[1, 2, 3], [3, 1, 1], 1);
        assert_eq!(sheet.get_pixel(2, 2).0, [1, 2, 3]);
    }
}
