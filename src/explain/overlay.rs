//! A map over its image, as a picture.

use super::maps::resized;
use image::RgbImage;

/// The colours of inferno (van der Walt and Smith 2015), which grow evenly brighter to the eye.
const INFERNO: [[u8; 3]; 10] = [
    [0, 0, 4],
    [27, 12, 66],
    [75, 12, 107],
    [120, 28, 109],
    [165, 44, 96],
    [207, 68, 70],
    [237, 105, 37],
    [251, 154, 6],
    [247, 208, 60],
    [252, 255, 164],
];
/// What speaks for the class and what speaks against it, where a map is signed; told apart
/// by the colour-blind too (ColorBrewer's RdBu).
const FOR: [u8; 3] = [202, 0, 32];
const AGAINST: [u8; 3] = [5, 113, 176];
/// The picture's shorter side has at least so many pixels.
const LEAST: usize = 448;

/// The image in grey under its map in colour: inferno from nothing to the map's largest value;
/// of a signed map red for the class and blue against it. `image` is bytes [C, H, W] of
/// `shape`, `map` [H, W]. Larger than the image, by a whole factor.
pub fn overlay(image: &[u8], shape: [usize; 3], map: &[f64], signed: bool) -> RgbImage {
    let [channels, rows, columns] = shape;
    let factor = LEAST.div_ceil(rows.min(columns));
    let (height, width) = (factor * rows, factor * columns);
    let plane = rows * columns;
    let grey = (0..plane).map(|i| {
        let sum: f64 = (0..channels).map(|c| f64::from(image[c * plane + i])).sum();
        sum / channels as f64
    });
    let grey: Vec<f64> = grey.collect();
    let map = resized(map, [rows, columns], [height, width]);
    let most = map.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let (x, y) = (x as usize, y as usize);
        // Pixels stay squares, so that one sees which they are.
        let under = grey[y / factor * columns + x / factor];
        let value = if most > 0.0 {
            map[y * width + x] / most
        } else {
            0.0
        };
        image::Rgb(blended(under, value, signed))
    })
}

/// A grey with the colour of a value from -1 to 1 over it.
fn blended(grey: f64, value: f64, signed: bool) -> [u8; 3] {
    let strength = value.abs().min(1.0);
    let color = match signed {
        true if value >= 0.0 => FOR.map(f64::from),
        true => AGAINST.map(f64::from),
        false => inferno(value),
    };
    let cover = match signed {
        true => 0.9 * strength.sqrt(),
        false => 0.25 + 0.55 * strength,
    };
    // A softened grey leaves room for colour over black and over white.
    let grey = 50.0 + 0.65 * grey;
    color.map(|c| (grey + cover * (c - grey)).round() as u8)
}

fn inferno(value: f64) -> [f64; 3] {
    let at = value.clamp(0.0, 1.0) * (INFERNO.len() - 1) as f64;
    let low = (at.floor() as usize).min(INFERNO.len() - 2);
    let along = at - low as f64;
    [0, 1, 2].map(|i| {
        let [a, b] = [INFERNO[low][i], INFERNO[low + 1][i]].map(f64::from);
        a + along * (b - a)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_stands_out_and_signs_differ() {
        let picture = overlay(&[0; 4], [1, 2, 2], &[0.0, 0.0, 0.0, 1.0], false);
        assert_eq!(picture.dimensions(), (448, 448));
        let sum = |x, y| picture.get_pixel(x, y).0.map(u32::from).iter().sum::<u32>();
        assert!(sum(440, 440) > 2 * sum(5, 5));
        let signed = overlay(&[0; 2], [1, 1, 2], &[1.0, -1.0], true);
        let [left, right] = [5, 890].map(|x| signed.get_pixel(x, 5).0);
        assert!(
            left[0] > left[2] && right[2] > right[0],
            "{left:?} {right:?}"
        );
    }

    #[test]
    fn a_map_of_nothing_is_the_image() {
        let picture = overlay(&[10, 200], [1, 1, 2], &[0.0; 2], true);
        let [dark, bright] = [5, 890].map(|x| picture.get_pixel(x, 5).0);
        assert!(dark[0] == dark[1] && bright[0] > dark[0]);
    }
}
