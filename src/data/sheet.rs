//! Many images in one picture, in rows and columns.

use crate::error::{Error, Result};
use crate::formats::atomic;
use image::{ImageFormat, RgbImage};
use std::io::Cursor;
use std::path::Path;

/// Pixels between images.
const GAP: usize = 2;
/// Small images are enlarged, by a whole factor, to at most so many rows and columns.
const SMALL: usize = 64;
const BACKGROUND: [u8; 3] = [255, 255, 255];

/// A picture of images of one shape.
pub struct Sheet {
    shape: [usize; 3],
    scale: usize,
    picture: RgbImage,
}

impl Sheet {
    /// An empty sheet for so many rows and columns of images of `shape` [C, H, W].
    pub fn new(shape: [usize; 3], [rows, columns]: [usize; 2]) -> Self {
        let [_, height, width] = shape;
        let scale = (SMALL / height.max(width)).max(1);
        let extent = |count: usize, image: usize| (count * (image * scale + GAP) + GAP) as u32;
        let picture = RgbImage::from_pixel(
            extent(columns, width),
            extent(rows, height),
            BACKGROUND.into(),
        );
        Self {
            shape,
            scale,
            picture,
        }
    }

    /// A sheet of images given as bytes [N, C, H, W], `columns` in a row.
    pub fn of(images: &[u8], shape: [usize; 3], columns: usize) -> Self {
        let image: usize = shape.iter().product();
        let rows = (images.len() / image).div_ceil(columns);
        let mut sheet = Self::new(shape, [rows, columns]);
        for (i, image) in images.chunks_exact(image).enumerate() {
            sheet.put([i / columns, i % columns], image);
        }
        sheet
    }

    /// Puts an image, bytes [C, H, W], in its place. Of 1 channel it is grey, of 3 RGB; of any
    /// other number the first channel is shown.
    pub fn put(&mut self, [row, column]: [usize; 2], image: &[u8]) {
        let [channels, height, width] = self.shape;
        let [tall, wide] = [height, width].map(|n| n * self.scale);
        let [top, left] = [GAP + row * (tall + GAP), GAP + column * (wide + GAP)];
        let channel = |c: usize| if channels == 3 { c } else { 0 };
        for y in 0..tall {
            for x in 0..wide {
                let at = y / self.scale * width + x / self.scale;
                let color = [0, 1, 2].map(|c| image[channel(c) * height * width + at]);
                let (x, y) = ((left + x) as u32, (top + y) as u32);
                self.picture.put_pixel(x, y, color.into());
            }
        }
    }

    /// Columns and rows of pixels.
    pub fn size(&self) -> [u32; 2] {
        self.picture.dimensions().into()
    }

    /// The picture as PNG.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut png = Cursor::new(Vec::new());
        self.picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| Error::Runtime(format!("a picture cannot be encoded: {e}")))?;
        Ok(png.into_inner())
    }

    /// Writes the picture as PNG, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let png = self.png()?;
        atomic::write(path, |file| file.write_all(&png))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_rows_and_small_ones_are_enlarged() {
        // Three grey images of 2 by 1, 32 times as large: two rows of two.
        let sheet = Sheet::of(&[10, 20, 30, 40, 50, 60], [1, 2, 1], 2);
        assert_eq!(sheet.size(), [2 * 34 + 2, 2 * 66 + 2]);
        let grey = |x, y| sheet.picture.get_pixel(x, y).0[0];
        assert_eq!([grey(2, 2), grey(2, 34), grey(36, 65)], [10, 20, 40]);
        assert_eq!([grey(33, 68 + 2), grey(36, 70), grey(0, 0)], [50, 255, 255]);
    }

    #[test]
    fn three_channels_are_colours() {
        let sheet = Sheet::of(&[1, 2, 3], [3, 1, 1], 1);
        assert_eq!(sheet.picture.get_pixel(2, 2).0, [1, 2, 3]);
    }
}
