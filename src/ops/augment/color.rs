//! Colour jitter: torchvision's `ColorJitter`, in the order of its arguments. The reference
//! of `shaders/augment/color.wgsl`.

use super::Augmentation;
use super::choices::Choices;

/// Shares of red, green and blue in grey (ITU-R BT.601).
const LUMA: [f64; 3] = [0.2989, 0.587, 0.114];

/// The share of each channel in grey: equal ones, unless the channels are red, green and
/// blue; 0 past the last.
pub(super) fn grey_shares(channels: usize) -> [f64; 4] {
    let mut shares = [0.0; 4];
    if channels == 3 {
        shares[..3].copy_from_slice(&LUMA);
    } else {
        shares[..channels].fill(1.0 / channels as f64);
    }
    shares
}

fn grey(pixel: &[f64]) -> f64 {
    let shares = grey_shares(pixel.len());
    pixel.iter().zip(shares).map(|(v, share)| v * share).sum()
}

/// A pixel with its brightness changed.
pub(super) fn brighten(pixel: &mut [f64], factor: f64) {
    blend(pixel, 0.0, factor);
}

/// The mean grey of an image of pixels from `pixel`, after its brightness has changed.
pub(super) fn mean_grey(pixels: impl Iterator<Item = Vec<f64>>, brightness: f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for mut pixel in pixels {
        brighten(&mut pixel, brightness);
        sum += grey(&pixel);
        count += 1.0;
    }
    sum / count
}

/// Each channel's distance to `from` times a factor, within 0 to 1.
fn blend(pixel: &mut [f64], from: f64, factor: f64) {
    for v in pixel {
        *v = (from + (*v - from) * factor).clamp(0.0, 1.0);
    }
}

/// Changes a pixel, whose channels go from 0 to 1.
pub(super) fn jitter(
    pixel: &mut [f64],
    augmentation: &Augmentation,
    choices: &Choices,
    mean_grey: f64,
) {
    if augmentation.brightness != 0.0 {
        brighten(pixel, choices.brightness);
    }
    if augmentation.contrast != 0.0 {
        blend(pixel, mean_grey, choices.contrast);
    }
    if augmentation.saturation != 0.0 {
        blend(pixel, grey(pixel), choices.saturation);
    }
    if augmentation.hue != 0.0
        && let [r, g, b] = pixel
    {
        [*r, *g, *b] = turn_hue([*r, *g, *b], choices.hue);
    }
}

/// A colour with its hue turned, by way of hue, saturation and value (Smith 1978).
fn turn_hue([r, g, b]: [f64; 3], turns: f64) -> [f64; 3] {
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma == 0.0 {
        return [r, g, b];
    }
    let sixths = match value {
        v if v == r => (g - b) / chroma,
        v if v == g => 2.0 + (b - r) / chroma,
        _ => 4.0 + (r - g) / chroma,
    };
    let sixths = sixths + 6.0 * turns;
    [5.0, 3.0, 1.0].map(|n| {
        let k = (n + sixths).rem_euclid(6.0);
        value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_turn_as_in_python_colorsys() {
        // colorsys.hsv_to_rgb((h + t) % 1, s, v) of rgb_to_hsv(0.2, 0.6, 0.4).
        let near = |found: [f64; 3], expected: [f64; 3]| {
            let differs = found
                .iter()
                .zip(expected)
                .any(|(f, e)| (f - e).abs() > 1e-12);
            assert!(!differs, "{found:?}, expected {expected:?}");
        };
        near(turn_hue([0.2, 0.6, 0.4], 0.0), [0.2, 0.6, 0.4]);
        near(turn_hue([0.2, 0.6, 0.4], 1.0 / 3.0), [0.4, 0.2, 0.6]);
        near(turn_hue([0.2, 0.6, 0.4], 0.5), [0.6, 0.2, 0.4]);
        near(turn_hue([0.2, 0.6, 0.4], -0.25), [0.6, 0.6, 0.2]);
        near(turn_hue([0.3, 0.3, 0.3], 0.2), [0.3, 0.3, 0.3]);
    }
}
