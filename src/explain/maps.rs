//! The methods' formulas, on plain numbers.

/// Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2): `relu(sum_k a_k A_k)`, where `a_k` is the
/// mean of the gradient over channel k. Activation and gradient are [K, H, W].
pub(super) fn grad_cam(activation: &[f64], gradient: &[f64], channels: usize) -> Vec<f64> {
    let plane = activation.len() / channels;
    let weights = gradient.chunks_exact(plane);
    let weights = weights.map(|g| g.iter().sum::<f64>() / plane as f64);
    weighted(activation, weights, plane)
}

/// Grad-CAM++ (Chattopadhay et al. 2018, eq. 5, 15 and 19), for the score `exp(y)` of a
/// network of piecewise linear layers, whose higher derivatives are powers of the first:
/// `a_k = sum_ij alpha_ij relu(g_ij)`, `alpha_ij = g_ij^2 / (2 g_ij^2 + sum_ab A_ab g_ij^3)`.
/// The factor `exp(y)`, which all `a_k` share, is left out: it scales the map and no more.
pub(super) fn grad_cam_plus_plus(
    activation: &[f64],
    gradient: &[f64],
    channels: usize,
) -> Vec<f64> {
    let plane = activation.len() / channels;
    let planes = activation
        .chunks_exact(plane)
        .zip(gradient.chunks_exact(plane));
    let weights = planes.map(|(activation, gradient)| {
        let total: f64 = activation.iter().sum();
        let term = |g: &f64| {
            let below = 2.0 * g * g + total * g * g * g;
            if below == 0.0 {
                return 0.0;
            }
            g * g / below * g.max(0.0)
        };
        gradient.iter().map(term).sum::<f64>()
    });
    weighted(activation, weights, plane)
}

fn weighted(activation: &[f64], weights: impl Iterator<Item = f64>, plane: usize) -> Vec<f64> {
    let mut map = vec![0.0; plane];
    for (channel, weight) in activation.chunks_exact(plane).zip(weights) {
        for (sum, a) in map.iter_mut().zip(channel) {
            *sum += weight * a;
        }
    }
    map.into_iter().map(|v| v.max(0.0)).collect()
}

/// The largest magnitude over the channels of [C, H, W].
pub(super) fn magnitude(values: &[f64], channels: usize) -> Vec<f64> {
    let mut map = vec![0.0_f64; values.len() / channels];
    for plane in values.chunks_exact(values.len() / channels) {
        for (most, v) in map.iter_mut().zip(plane) {
            *most = most.max(v.abs());
        }
    }
    map
}

/// The sum over the channels of [C, H, W].
pub(super) fn over_channels(values: &[f64], channels: usize) -> Vec<f64> {
    let mut map = vec![0.0; values.len() / channels];
    for plane in values.chunks_exact(values.len() / channels) {
        for (sum, v) in map.iter_mut().zip(plane) {
            *sum += v;
        }
    }
    map
}

/// A map in other rows and columns, bilinear, with pixels' centres where they are in an
/// image (what PyTorch calls `align_corners=False`).
pub(super) fn resized(map: &[f64], from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let place = |i: usize, axis: usize| {
        let at = (i as f64 + 0.5) * from[axis] as f64 / to[axis] as f64 - 0.5;
        let at = at.clamp(0.0, (from[axis] - 1) as f64);
        let low = at.floor() as usize;
        (low, (low + 1).min(from[axis] - 1), at - at.floor())
    };
    let mut out = Vec::with_capacity(to[0] * to[1]);
    for row in 0..to[0] {
        let (top, bottom, down) = place(row, 0);
        for column in 0..to[1] {
            let (left, right, across) = place(column, 1);
            let along = |r: usize| {
                let (a, b) = (map[r * from[1] + left], map[r * from[1] + right]);
                a + across * (b - a)
            };
            out.push(along(top) + down * (along(bottom) - along(top)));
        }
    }
    out
}

/// The top left corners of patches that cover an image, half a patch apart.
pub(super) fn patches([rows, columns]: [usize; 2], patch: usize) -> Vec<[usize; 2]> {
    let stride = patch.div_ceil(2);
    let starts = |extent: usize| {
        let last = extent - patch;
        let mut starts: Vec<usize> = (0..=last).step_by(stride).collect();
        if starts.last() != Some(&last) {
            starts.push(last);
        }
        starts
    };
    let across = starts(columns);
    let rows = starts(rows).into_iter();
    rows.flat_map(|r| across.iter().map(move |c| [r, *c]))
        .collect()
}

/// Whether a patch covers a pixel.
pub(super) fn covers(corner: [usize; 2], patch: usize, pixel: [usize; 2]) -> bool {
    [0, 1]
        .iter()
        .all(|i| (corner[*i]..corner[*i] + patch).contains(&pixel[*i]))
}

/// For each pixel the mean of what the patches over it did.
pub(super) fn spread(
    corners: &[[usize; 2]],
    drops: &[f64],
    patch: usize,
    [rows, columns]: [usize; 2],
) -> Vec<f64> {
    let mut sums = vec![0.0; rows * columns];
    let mut counts = vec![0.0; rows * columns];
    for ([top, left], drop) in corners.iter().zip(drops) {
        for row in *top..top + patch {
            for column in *left..left + patch {
                sums[row * columns + column] += drop;
                counts[row * columns + column] += 1.0;
            }
        }
    }
    sums.iter().zip(&counts).map(|(sum, n)| sum / n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grad_cam_weighs_channels_by_their_mean_gradient() {
        // Two channels of two pixels; mean gradients 2 and -1.
        let map = grad_cam(&[1.0, 3.0, 4.0, 1.0], &[1.0, 3.0, -1.0, -1.0], 2);
        assert_eq!(map, [0.0, 5.0]);
    }

    #[test]
    fn grad_cam_plus_plus_follows_its_formula() {
        let (a, g) = ([1.0, 3.0], [0.5, -2.0]);
        let alpha = 0.25 / (2.0 * 0.25 + 4.0 * 0.125);
        let weight: f64 = alpha * 0.5;
        assert_eq!(grad_cam_plus_plus(&a, &g, 1), [weight, 3.0 * weight]);
        assert_eq!(grad_cam_plus_plus(&a, &[0.0, 0.0], 1), [0.0, 0.0]);
    }

    #[test]
    fn resizing_keeps_constants_and_interpolates_between_centres() {
        assert_eq!(resized(&[2.0; 6], [2, 3], [5, 7]), [2.0; 35]);
        assert_eq!(resized(&[0.0, 1.0], [1, 2], [1, 4]), [0.0, 0.25, 0.75, 1.0]);
    }

    #[test]
    fn patches_cover_every_pixel() {
        for (size, patch) in [([7, 5], 3), ([4, 4], 4), ([9, 6], 2)] {
            let corners = patches(size, patch);
            for pixel in 0..size[0] * size[1] {
                let pixel = [pixel / size[1], pixel % size[1]];
                assert!(corners.iter().any(|c| covers(*c, patch, pixel)));
            }
            let drops = vec![1.5; corners.len()];
            assert!(
                spread(&corners, &drops, patch, size)
                    .iter()
                    .all(|v| *v == 1.5)
            );
        }
    }
}
