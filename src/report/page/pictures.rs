//! Images as PNG inside the page: worst mistakes and filters.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::train::Weights;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Bytes in planes [C, H, W] as pixels; of channels other than 1 or 3 the first.
pub(crate) fn interleaved(bytes: &[u8], [channels, rows, columns]: [usize; 3]) -> Picture {
    let plane = rows * columns;
    let (pixels, color) = match channels {
        3 => {
            let at = |i: usize| [0, 1, 2].map(|c| bytes[c * plane + i]);
            ((0..plane).flat_map(at).collect(), ExtendedColorType::Rgb8)
        }
        _ => (bytes[..plane].to_vec(), ExtendedColorType::L8),
    };
    Picture {
        pixels,
        size: [columns, rows],
        color,
    }
}

/// Pixels, row after row.
pub(crate) struct Picture {
    pixels: Vec<u8>,
    size: [usize; 2],
    color: ExtendedColorType,
}

impl Picture {
    /// Columns and rows.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.size
    }

    /// The file.
    ///
    /// # Errors
    /// If the encoder fails.
    pub(crate) fn png(&self) -> Result<Vec<u8>> {
        let mut png = Vec::new();
        let [width, height] = self.size.map(|n| n as u32);
        PngEncoder::new(&mut png)
            .write_image(&self.pixels, width, height, self.color)
            .map_err(|e| Error::Runtime(format!("a PNG could not be made: {e}")))?;
        Ok(png)
    }

    /// An address that holds the picture itself.
    pub(crate) fn address(&self) -> Result<String> {
        Ok(format!(
            "data:image/png;base64,{}",
            STANDARD.encode(self.png()?)
        ))
    }
}

/// The filters of the convolution that reads the image; where that is not one, of the first:
/// the layer's name and at most `most` of them as bytes of a shape [C, H, W].
pub(crate) fn first_filters(
    model: &Model,
    weights: &Weights,
    most: usize,
) -> Option<(String, [usize; 3], Vec<Vec<u8>>)> {
    model.parameters().iter().find_map(|p| {
        let tensor = weights.get(&p.name)?;
        let dims: [usize; 4] = tensor.shape().dims().try_into().ok()?;
        let shape = [if dims[1] == 3 { 3 } else { 1 }, dims[2], dims[3]];
        Some((
            p.layer().to_owned(),
            shape,
            filters(tensor.data(), dims, most),
        ))
    })
}

/// Filters [out, in, rows, columns] as bytes, the first `most`: in colour where `in` is 3,
/// else its first plane in grey. Zero is the middle; the largest magnitude of a filter is
/// black or white.
fn filters(weights: &[f32], dims: [usize; 4], most: usize) -> Vec<Vec<u8>> {
    let [_, channels, rows, columns] = dims;
    let shown = if channels == 3 { 3 } else { 1 };
    let filters = weights.chunks_exact(channels * rows * columns).take(most);
    let picture = |filter: &[f32]| {
        let filter = &filter[..shown * rows * columns];
        let largest = filter.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
        // A float that is not finite becomes some byte, silently.
        let byte = |x: &f32| (127.5 + 127.5 * x / largest).round() as u8;
        filter.iter().map(byte).collect()
    };
    filters.map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_reads_back_as_it_was() {
        let planes: Vec<u8> = (0..3 * 2 * 4).collect();
        let picture = interleaved(&planes, [3, 2, 4]);
        let read = image::load_from_memory(&picture.png().unwrap()).unwrap();
        let read = read.as_rgb8().unwrap();
        assert_eq!((read.width(), read.height()), (4, 2));
        assert_eq!(read.get_pixel(1, 1).0, [5, 13, 21]);
        assert!(
            picture
                .address()
                .unwrap()
                .starts_with("data:image/png;base64,iVBOR")
        );
    }

    #[test]
    fn zero_is_grey_and_the_largest_white() {
        let pictures = filters(&[0.0, -0.5, 1.0, 0.5], [2, 1, 1, 2], 9);
        assert_eq!(pictures, [[128, 0], [255, 191]]);
    }
}
