//! What chance chose for one image: the reference of `shaders/augment/draw.wgsl`.

use super::Augmentation;
use crate::ops::Step;
use crate::ops::random::philox4x32;
use std::f64::consts::PI;

/// Sets augmentation apart from the other users of the seed.
pub(super) const STREAM: u32 = 1;
/// Least and largest share of the area that is erased.
pub(super) const ERASED: [f64; 2] = [0.02, 0.33];
/// The logarithm of the largest proportion of an erased box's sides, rows to columns; the
/// least is that of columns to rows, as 0.3 = 1 / 3.3 nearly.
pub(super) const PROPORTIONS: [f64; 2] = [0.3, 3.3];

/// The four random words of a draw for an image of a batch.
pub(super) fn words(step: &Step, image: usize, draw: u32) -> [u32; 4] {
    philox4x32([image as u32, step.number, draw, 0], [step.seed, STREAM])
}

/// A number in [0, 1) that an f32 holds exactly.
pub(super) fn unit(word: u32) -> f64 {
    f64::from(word >> 8) / 2f64.powi(24)
}

/// A number in [-1, 1).
fn signed(word: u32) -> f64 {
    2.0 * unit(word) - 1.0
}

/// One of 0 .. count, for counts below 2^16.
pub(super) fn pick(word: u32, count: usize) -> usize {
    ((word >> 16) as usize * count) >> 16
}

/// Rows and columns from the first (included) to the last (excluded) that are set to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Area {
    pub rows: [usize; 2],
    pub columns: [usize; 2],
}

impl Area {
    pub fn holds(&self, row: usize, column: usize) -> bool {
        (self.rows[0]..self.rows[1]).contains(&row)
            && (self.columns[0]..self.columns[1]).contains(&column)
    }
}

/// What chance chose for one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choices {
    /// The row of the source that the output's (row, column) shows:
    /// `rows[0] * row + rows[1] * column + rows[2]`.
    pub rows: [f64; 3],
    /// The column of the source, likewise.
    pub columns: [f64; 3],
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    /// In turns.
    pub hue: f64,
    pub cutout: Area,
    pub erased: Area,
}

impl Choices {
    /// For image number `image` of a batch of `[rows, columns]` images.
    pub fn draw(
        augmentation: &Augmentation,
        extents: [usize; 2],
        image: usize,
        step: &Step,
    ) -> Self {
        let words = |draw| words(step, image, draw);
        let [rows, columns] = placement(augmentation, extents, words(0), words(1));
        let [brightness, contrast, saturation, hue] = words(2).map(signed);
        Self {
            rows,
            columns,
            brightness: 1.0 + augmentation.brightness * brightness,
            contrast: 1.0 + augmentation.contrast * contrast,
            saturation: 1.0 + augmentation.saturation * saturation,
            hue: augmentation.hue * hue,
            cutout: cutout(augmentation.cutout, extents, words(3)),
            erased: erased(augmentation.erase, extents, words(3), words(4)),
        }
    }
}

/// Where each output pixel comes from: out of the zoomed, turned and shifted image into the
/// cropped one, out of that into the flipped one, out of that into the source.
fn placement(
    augmentation: &Augmentation,
    [height, width]: [usize; 2],
    first: [u32; 4],
    second: [u32; 4],
) -> [[f64; 3]; 2] {
    let (height, width) = (height as f64, width as f64);
    let (middle, center) = ((height - 1.0) / 2.0, (width - 1.0) / 2.0);
    let [mut rows, mut columns] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    if augmentation.resamples() {
        let angle = augmentation.rotate * PI / 180.0 * signed(second[0]);
        let zoom = 1.0 + augmentation.zoom * signed(second[1]);
        let down = augmentation.shift * height * signed(second[2]);
        let right = augmentation.shift * width * signed(second[3]);
        let (sine, cosine) = (angle.sin() / zoom, angle.cos() / zoom);
        let (y, x) = (-middle - down, -center - right);
        rows = [cosine, sine, cosine * y + sine * x + middle];
        columns = [-sine, cosine, cosine * x - sine * y + center];
    }
    let crop = augmentation.crop as f64;
    rows[2] += pick(first[2], 2 * augmentation.crop + 1) as f64 - crop;
    columns[2] += pick(first[3], 2 * augmentation.crop + 1) as f64 - crop;
    if unit(first[0]) < augmentation.flip {
        columns = [-columns[0], -columns[1], width - 1.0 - columns[2]];
    }
    if unit(first[1]) < augmentation.flip_vertical {
        rows = [-rows[0], -rows[1], height - 1.0 - rows[2]];
    }
    [rows, columns]
}

/// A square about any pixel, as far as it lies in the image.
fn cutout(side: usize, [height, width]: [usize; 2], words: [u32; 4]) -> Area {
    let span = |word, extent| {
        let first = pick(word, extent) as i64 - side as i64 / 2;
        let clip = |at: i64| at.clamp(0, extent as i64) as usize;
        [clip(first), clip(first + side as i64)]
    };
    Area {
        rows: span(words[0], height),
        columns: span(words[1], width),
    }
}

/// A box of any area and proportion, made to fit, anywhere in the image.
fn erased(probability: f64, [height, width]: [usize; 2], third: [u32; 4], words: [u32; 4]) -> Area {
    if unit(third[2]) >= probability {
        return Area::default();
    }
    let between = |[least, most]: [f64; 2], word| least + (most - least) * unit(word);
    let area = (height * width) as f64 * between(ERASED, words[0]);
    let proportion = between(PROPORTIONS.map(f64::ln), words[1]).exp();
    let span = |side: f64, extent: usize, word| {
        let side = ((side + 0.5).floor() as usize).min(extent);
        let first = pick(word, extent - side + 1);
        [first, first + side]
    };
    Area {
        rows: span((area * proportion).sqrt(), height, words[2]),
        columns: span((area / proportion).sqrt(), width, words[3]),
    }
}
