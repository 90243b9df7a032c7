//! Weights that start from the training images.

use super::setup::{check_fit, parts};
use super::{Config, Weights};
use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::model::{Conv2d, KernelInit, Layer, Model};
use crate::ops::batch::Normalization;
use rayon::prelude::*;

/// About as many patches are looked at.
const PATCHES: usize = 1 << 22;
/// Images a thread adds up at a time.
const CHUNK: usize = 64;
/// Added to the variance along each axis, of normalised images, so that those that hold next
/// to nothing but noise are not blown up; airbench's.
const EPSILON: f64 = 5e-4;

/// The weights that a training of these settings starts from: the model's fresh ones of the
/// settings' seed, [whitened].
///
/// # Errors
/// If an image file cannot be decoded, or model and data do not go together.
pub fn initial_weights(model: &Model, data: &Dataset, config: &Config) -> Result<Weights> {
    whitened(model, model.initial_weights(config.seed), &[], data, config)
}

/// These weights of a model, with the kernels that [`KernelInit::Whiten`] starts from training
/// images in place, but for those named in `keep`.
///
/// Such a kernel has two filters for each axis along which the patches it sees vary, of patches
/// as vectors of normalised pixels: with eigenvectors `v` of the mean of their outer products
/// and its eigenvalues `l`, falling, these are all `v / √(l + 5e-4)`, then the same negated.
/// What they give is uncorrelated and of variance 1, or less along axes that hardly vary (Page
/// 2018, "How to Train Your ResNet"; Jordan 2024, airbench).
///
/// # Errors
/// If an image file cannot be decoded, or model and data do not go together.
pub fn whitened(
    model: &Model,
    mut weights: Weights,
    keep: &[String],
    data: &Dataset,
    config: &Config,
) -> Result<Weights> {
    for named in model.layers() {
        let name = format!("{}.weight", named.name);
        let (Layer::Conv2d(convolution), false) = (&named.layer, keep.contains(&name)) else {
            continue;
        };
        let Some(kernel) = weights.get_mut(&name) else {
            continue;
        };
        if convolution.init == KernelInit::Whiten {
            check_fit(model, data)?;
            let (images, _) = parts(data, config)?;
            let patches = Patches::of(convolution, data.shape);
            let moments = patches.moments(&images, model.normalization())?;
            for (weight, value) in kernel.data_mut().iter_mut().zip(filters(&moments)) {
                *weight = value as f32;
            }
        }
    }
    Ok(weights)
}

/// The filters, one after the other, for patches whose mean outer product is `moments`.
fn filters(moments: &[Vec<f64>]) -> Vec<f64> {
    let mut axes = eigenvectors(moments.to_vec());
    axes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let scaled = axes.iter().flat_map(|(value, vector)| {
        let deviation = (value.max(0.0) + EPSILON).sqrt();
        vector.iter().map(move |x| x / deviation)
    });
    let half: Vec<f64> = scaled.collect();
    let negated = half.iter().map(|x| -x);
    half.iter().copied().chain(negated).collect()
}

/// The patches of an image that a kernel sees, at all places inside of it.
struct Patches {
    /// Channels, rows and columns of an image.
    image: [usize; 3],
    /// Where the numbers of a patch lie from its first: `[channel, row, column]`.
    taps: Vec<[usize; 3]>,
    /// Rows and columns of places.
    places: [usize; 2],
}

impl Patches {
    /// Those of a convolution whose kernel fits into the image.
    fn of(convolution: &Conv2d, image: [usize; 3]) -> Self {
        let [rows, columns] = convolution.kernel.0;
        let [down, right] = convolution.dilation.0;
        let mut taps = Vec::new();
        for channel in 0..image[0] {
            for row in 0..rows {
                taps.extend((0..columns).map(|column| [channel, row * down, column * right]));
            }
        }
        let places = [
            image[1] - (rows - 1) * down,
            image[2] - (columns - 1) * right,
        ];
        Self {
            image,
            taps,
            places,
        }
    }

    /// The mean outer product of the patches of images, normalised. Sums are of whole numbers,
    /// so they are the same whatever the machine.
    fn moments(&self, images: &Split, normalization: &Normalization) -> Result<Vec<Vec<f64>>> {
        let places = self.places[0] * self.places[1];
        let count = images.len().min((PATCHES / places).max(1));
        // Spread over all: in folders images are in the order of their classes.
        let chosen: Vec<usize> = (0..count).map(|i| i * images.len() / count).collect();
        let bytes = images.images.gather(&chosen)?;
        let image = self.image.iter().product::<usize>();
        let sums = bytes.par_chunks(CHUNK * image);
        let sums = sums.map(|images| self.sums(images));
        let sums = sums.reduce(|| vec![0; (self.taps.len() + 1).pow(2)], added);
        let total = (count * places) as f64;
        let mean = |i: usize, j: usize| sums[i * (self.taps.len() + 1) + j] as f64 / total;
        let ones = self.taps.len();
        let affine: Vec<(f64, f64)> = (self.taps.iter())
            .map(|[channel, ..]| {
                let (factor, summand) = normalization.affine(*channel);
                (f64::from(factor), f64::from(summand))
            })
            .collect();
        let normalised = |i: usize, j: usize| {
            let ((f, s), (g, t)) = (affine[i], affine[j]);
            f * g * mean(i, j) + f * t * mean(i, ones) + g * s * mean(j, ones) + s * t
        };
        let row = |i| (0..ones).map(|j| normalised(i, j)).collect();
        Ok((0..ones).map(row).collect())
    }

    /// The sums of the outer products of the patches of some images, each with a one behind.
    fn sums(&self, images: &[u8]) -> Vec<u64> {
        let [_, rows, columns] = self.image;
        let width = self.taps.len() + 1;
        let mut sums = vec![0; width * width];
        let mut patch = vec![1; width];
        for image in images.chunks_exact(self.image.iter().product()) {
            for place in 0..self.places[0] * self.places[1] {
                let (row, column) = (place / self.places[1], place % self.places[1]);
                for (value, [c, dy, dx]) in patch.iter_mut().zip(&self.taps) {
                    *value = u64::from(image[(c * rows + row + dy) * columns + column + dx]);
                }
                for (sums, a) in sums.chunks_exact_mut(width).zip(&patch) {
                    for (sum, b) in sums.iter_mut().zip(&patch) {
                        *sum += a * b;
                    }
                }
            }
        }
        sums
    }
}

fn added(mut a: Vec<u64>, b: Vec<u64>) -> Vec<u64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations (Golub and Van
/// Loan, "Matrix Computations", section 8.5): each makes one pair of elements zero, until what
/// lies beside the diagonal is no more than rounding.
fn eigenvectors(mut a: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    // It converges quadratically; ten are many.
    const MOST_SWEEPS: usize = 50;
    let n = a.len();
    let mut vectors: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    for _ in 0..MOST_SWEEPS {
        let beside = |i: usize| a[i][..i].iter().map(|x| x * x).sum::<f64>();
        let diagonal: f64 = (0..n).map(|i| a[i][i] * a[i][i]).sum();
        if (0..n).map(beside).sum::<f64>() <= f64::EPSILON.powi(2) * diagonal {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    vectors
        .into_iter()
        .enumerate()
        .map(|(i, v)| (a[i][i], v))
        .collect()
}

/// Turns axes `p` and `q` so that `a[p][q]` becomes zero; the rows of `vectors` turn along.
fn rotate(a: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let ratio = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |x: f64, y: f64| (cosine * x - sine * y, sine * x + cosine * y);
    for row in a.iter_mut() {
        (row[p], row[q]) = turn(row[p], row[q]);
    }
    for rows in [a, vectors] {
        for column in 0..rows[p].len() {
            (rows[p][column], rows[q][column]) = turn(rows[p][column], rows[q][column]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Dense, Flatten, GlobalMaxPool};

    #[test]
    fn eigenvectors_are_those_of_the_matrix() {
        let data = Dataset::synthetic([3, 6, 5], 4, 9);
        let patches = Patches::of(&Conv2d::new(24, 2), data.shape);
        let normalization = Normalization::default();
        let matrix = patches.moments(&data.train, &normalization).unwrap();
        let found = eigenvectors(matrix.clone());
        assert_eq!(found.len(), 12);
        for (i, (value, vector)) in found.iter().enumerate() {
            for (row, x) in matrix.iter().zip(vector) {
                let product: f64 = row.iter().zip(vector).map(|(a, b)| a * b).sum();
                // Rounding of sums of 12 products of numbers below 1.
                assert!((product - value * x).abs() < 1e-13);
            }
            for (j, (_, other)) in found.iter().enumerate() {
                let product: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                let expected = f64::from(u8::from(i == j));
                assert!((product - expected).abs() < 1e-13);
            }
        }
    }

    /// The mean outer product of what a kernel gives, over all patches, taken one by one from the
    /// bytes.
    fn outer_products(
        kernel: &[f64],
        images: &[u8],
        normalization: &Normalization,
    ) -> [[f64; 16]; 16] {
        let mut products = [[0.0; 16]; 16];
        let places = (0..4).flat_map(|row| (0..6).map(move |column| (row, column)));
        let count = (images.len() / (2 * 6 * 7) * 4 * 6) as f64;
        for (image, (row, column)) in images
            .chunks_exact(2 * 6 * 7)
            .flat_map(|image| places.clone().map(move |place| (image, place)))
        {
            let mut outputs = [0.0; 16];
            let taps = (0..2).flat_map(|c| [(c, 0, 0), (c, 0, 1), (c, 2, 0), (c, 2, 1)]);
            for (tap, (c, dy, dx)) in taps.enumerate() {
                let byte = f64::from(image[(c * 6 + row + dy) * 7 + column + dx]);
                let (mean, std) = (normalization.mean[c], normalization.std[c]);
                let pixel = (byte / 255.0 - f64::from(mean)) / f64::from(std);
                for (output, filter) in outputs.iter_mut().zip(kernel.chunks_exact(8)) {
                    *output += filter[tap] * pixel;
                }
            }
            for (row, a) in products.iter_mut().zip(outputs) {
                row.iter_mut()
                    .zip(outputs)
                    .for_each(|(sum, b)| *sum += a * b / count);
            }
        }
        products
    }

    #[test]
    fn whitened_patches_are_uncorrelated_and_of_one_variance() {
        let data = Dataset::synthetic([2, 6, 7], 4, 50);
        let normalization = Normalization {
            mean: vec![0.4, 0.6],
            std: vec![0.2, 0.3],
            ..Normalization::default()
        };
        let convolution = Conv2d::new(16, 2).dilation([2, 1]).init(KernelInit::Whiten);
        let model = Model::builder("test", data.shape)
            .normalization(normalization.clone())
            .add(convolution)
            .add(Flatten)
            .named("head")
            .add(Dense::new(4))
            .build()
            .unwrap();
        let config = Config::default();
        let weights = initial_weights(&model, &data, &config).unwrap();
        let kernel = weights["conv1.weight"].data().iter();
        let kernel: Vec<f64> = kernel.map(|w| f64::from(*w)).collect();
        let images = data.train.images.all().unwrap();
        let products = outer_products(&kernel, &images, &normalization);
        // Eigenvalues here are above 0.5, of which EPSILON takes a thousandth off; weights
        // are rounded to f32.
        for (i, row) in products.iter().enumerate() {
            for (j, found) in row.iter().enumerate() {
                let expected = match (i % 8 == j % 8, (i < 8) == (j < 8)) {
                    (true, true) => 1.0,
                    (true, false) => -1.0,
                    _ => 0.0,
                };
                assert!((found - expected).abs() < 2e-3, "{i} {j}: {found}");
            }
        }
        // What is kept stays as it was.
        let drawn = model.initial_weights(0);
        let keep = ["conv1.weight".to_owned()];
        let kept = whitened(&model, drawn.clone(), &keep, &data, &config).unwrap();
        assert_eq!(kept, drawn);
        assert_eq!(weights["head.weight"], drawn["head.weight"]);
        let other = Dataset::synthetic([2, 1, 1], 4, 50);
        let error = initial_weights(&model, &other, &config).unwrap_err();
        assert!(error.to_string().contains("[2, 6, 7]"), "{error}");
    }

    #[test]
    fn whitening_asks_for_the_images_and_two_filters_an_axis() {
        let of = |filters: usize, first: usize, side: usize| {
            let whiten = Conv2d::new(filters, 3).init(KernelInit::Whiten);
            let whiten = whiten.padding(crate::model::Pad::Same);
            let mut builder = Model::builder("test", [1, side, side]);
            for _ in 0..first {
                builder = builder.add(Conv2d::new(1, 1));
            }
            builder.add(whiten).add(GlobalMaxPool {}).build()
        };
        assert!(of(18, 0, 3).is_ok());
        let error = of(16, 0, 8).unwrap_err().to_string();
        assert!(
            error.contains("18 here") && error.contains("and 16 filters"),
            "{error}"
        );
        let error = of(18, 0, 2).unwrap_err().to_string();
        assert!(error.contains("an image of 2 x 2"), "{error}");
        let error = of(18, 1, 8).unwrap_err().to_string();
        assert!(error.contains("reads conv1"), "{error}");
    }
}
