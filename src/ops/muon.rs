//! Muon: steps of matrices whose singular values are all about alike.

use super::matmul::MatMul;
use super::reduction::sum_partials;
use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const MOMENTUM: ShaderFile = shader!("muon/momentum.wgsl");
const NORMALIZE: ShaderFile = shader!("muon/normalize.wgsl");
const COMBINE: ShaderFile = shader!("muon/combine.wgsl");
const APPLY: ShaderFile = shader!("muon/apply.wgsl");
const WORKGROUP: usize = 64;

/// The polynomial of a step, `a x + b x^3 + c x^5`: chosen for a steep slope at zero, so that
/// a few steps bring small singular values up to between 0.7 and 1.2.
const POLYNOMIAL: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Keeps a matrix of zeros from division by zero; Keras's.
const EPSILON: f64 = 1e-7;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "muon",
    sample,
}];

/// A step of Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon>) of one
/// matrix.
///
/// Inputs: parameters (updated), gradient and momentum (updated), f32 `[R, C]`. No output.
/// With `g` the gradient times `scale`: `m = mu m + g`, `x = g + mu m` with Nesterov, else
/// `m`; then `x` is divided by its norm and `steps` times replaced by
/// `a x + b (x xᵀ) x + c (x xᵀ)² x`, a Newton-Schulz iteration that makes it all but
/// orthogonal. Last, with `lr` the step's learning rate times `rate`,
/// `p -= lr (decay p + 0.2 √max(R, C) x)`: the size that lets learning rate and decay be
/// AdamW's (Liu et al. 2025, <https://arxiv.org/abs/2502.16982>). This is Keras's `Muon`.
/// Where the rule is [normalized](MuonRule::normalized), `p` first becomes `√R p / ‖p‖`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// The rule's settings.
    pub rule: MuonRule,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
    /// What the step's learning rate is multiplied by.
    pub rate: f64,
    /// What gradients are multiplied by first.
    pub scale: f64,
}

/// The settings of [`Muon`] that are the same for all matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonRule {
    /// Fraction of the momentum kept.
    pub momentum: f64,
    /// Looks ahead along the momentum.
    pub nesterov: bool,
    /// Newton-Schulz steps.
    pub steps: usize,
    /// Brings each matrix to the norm `√R` before it moves, on average 1 for each of its rows
    /// (Jordan 2024, airbench). It is for weights whose size does not matter, since batch
    /// normalisation follows: steps then turn them by the same angle all along, where they
    /// would turn less and less as the weights grow.
    pub normalized: bool,
}

impl Default for MuonRule {
    /// Momentum 0.95 with Nesterov, five steps, of matrices of any norm.
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            steps: 5,
            normalized: false,
        }
    }
}

/// `[R, C]`, and whether the products are of columns: of the smaller side.
fn extents(ty: &TensorType) -> ([usize; 2], bool) {
    let extents = [ty.shape[0], ty.shape[1]];
    (extents, extents[0] > extents[1])
}

fn size([rows, columns]: [usize; 2]) -> f64 {
    0.2 * (rows.max(columns) as f64).sqrt()
}

/// The norm that [`MuonRule::normalized`] gives a matrix.
fn target_norm([rows, _]: [usize; 2]) -> f64 {
    (rows as f64).sqrt()
}

impl Op for Muon {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3)?;
        if inputs[0].shape.rank() != 2 || inputs[0].shape.is_empty() {
            let problem = format!("parameters: expected a matrix, found {}", inputs[0]);
            return Err(Error::shape(self.name(), problem));
        }
        let ty = TensorType::f32(inputs[0].shape.clone());
        for (name, found) in ["parameters", "gradient", "momentum"].iter().zip(inputs) {
            expect_type(self, name, &ty, found)?;
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2]
    }

    fn reference(&self, io: Reference<'_>) {
        let (shape, _) = extents(io.inputs[1].ty());
        let mu = self.rule.momentum;
        let gradient = io.inputs[1].f();
        let (parameters, momentum) = io.updates.split_at_mut(1);
        let mut x = Vec::with_capacity(gradient.len());
        for (m, g) in momentum[0].f_mut().iter_mut().zip(gradient) {
            let g = self.scale * g;
            *m = mu * *m + g;
            x.push(if self.rule.nesterov { g + mu * *m } else { *m });
        }
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt() + EPSILON;
        x.iter_mut().for_each(|x| *x /= norm);
        for _ in 0..self.rule.steps {
            x = newton_schulz(&x, shape);
        }
        let rate = io.step.learning_rate * self.rate;
        let parameters = parameters[0].f_mut();
        let norm = parameters.iter().map(|p| p * p).sum::<f64>().sqrt() + EPSILON;
        let factor = if self.rule.normalized {
            target_norm(shape) / norm
        } else {
            1.0
        };
        for (p, x) in parameters.iter_mut().zip(x) {
            *p *= factor;
            *p -= rate * (self.weight_decay * *p + size(shape) * x);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let ty = &context.inputs[0];
        let (shape, tall) = extents(ty);
        let least = shape[0].min(shape[1]);
        let square = TensorType::f32([least, least]);
        let mut launch = Launch::default();
        let [mut x, mut y] = [0; 2].map(|_| Matrix::reserve(&mut launch, ty));
        let [a, b] = [0; 2].map(|_| Matrix::reserve(&mut launch, &square));
        let of_parameters = launch.reserve(4);
        launch = self.begin(launch, ty.shape.len(), x.at, of_parameters);
        for _ in 0..self.rule.steps {
            // a = x xᵀ, or xᵀ x of a tall matrix; b = a a.
            launch = multiply(launch, &context, MatMul::new(tall, !tall), [&x, &x], &a)?;
            launch = multiply(launch, &context, MatMul::new(false, false), [&a, &a], &b)?;
            let of_a = combine([&b, &a], [POLYNOMIAL[2], POLYNOMIAL[1]]);
            launch.dispatches.push(of_a);
            // y = b x, or x b; x takes its place.
            let factors = if tall { [&x, &b] } else { [&b, &x] };
            launch = multiply(launch, &context, MatMul::new(false, false), factors, &y)?;
            launch
                .dispatches
                .push(combine([&y, &x], [1.0, POLYNOMIAL[0]]));
            std::mem::swap(&mut x, &mut y);
        }
        launch.dispatches.push(self.apply(&x, of_parameters));
        Ok(launch)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let ([rows, columns], _) = extents(&inputs[0]);
        let (least, most) = (rows.min(columns), rows.max(columns));
        let step = 2 * least * least * (2 * most + least);
        (self.rule.steps * step + 12 * rows * columns) as u64
    }
}

impl Muon {
    /// The momentum and, in `x`, the normalised direction; in `square` the squared norm of
    /// parameters that are to be normalised.
    fn begin(&self, mut launch: Launch, len: usize, x: Arg, square: Arg) -> Launch {
        const MOST_GROUPS: usize = 256;
        let vec4s = len.div_ceil(4);
        let slice = vec4s.div_ceil(MOST_GROUPS).max(2 * WORKGROUP);
        let groups = vec4s.div_ceil(slice);
        let [partials, squares] = [0; 2].map(|_| launch.reserve(4 * groups as u64));
        let total = launch.reserve(4);
        let kernel = Kernel::new(MOMENTUM)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", len)
            .set("SLICE", slice)
            .set("MU", self.rule.momentum)
            .set("NESTEROV", self.rule.nesterov)
            .set("SCALE", self.scale)
            .set("NORMALIZED", self.rule.normalized)
            .sparse_unless(self.rule.normalized, "p");
        let bindings = vec![
            ("p", Arg::Input(0)),
            ("gradient", Arg::Input(1)),
            ("momentum", Arg::Input(2)),
            ("x", x),
            ("partials", partials),
            ("squares", squares),
        ];
        let momentum = Dispatch::grid(kernel, bindings, [groups, 1, 1]);
        let kernel = Kernel::new(NORMALIZE)
            .set("WORKGROUP", WORKGROUP)
            .set("VEC4S", vec4s)
            .set("EPSILON", EPSILON);
        let bindings = vec![("x", x), ("square", total)];
        let normalize = Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP));
        let sum = sum_partials(partials, total, groups);
        launch.dispatches.extend([momentum, sum, normalize]);
        if self.rule.normalized {
            let sum = sum_partials(squares, square, groups);
            launch.dispatches.push(sum);
        }
        launch
    }

    /// The step itself, along `x`.
    fn apply(&self, x: &Matrix, of_parameters: Arg) -> Dispatch {
        let (shape, _) = extents(&x.ty);
        let kernel = Kernel::new(APPLY)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", x.ty.shape.len())
            .set("RATE", self.rate)
            .set("WEIGHT_DECAY", self.weight_decay)
            .set("SIZE", size(shape))
            .set("NORMALIZED", self.rule.normalized)
            .set("NORM", target_norm(shape))
            .set("EPSILON", EPSILON)
            .sparse_unless(self.rule.normalized, "square");
        let bindings = vec![
            ("p", Arg::Input(0)),
            ("x", x.at),
            ("square", of_parameters),
            ("step", Arg::Step),
        ];
        Dispatch::linear(kernel, bindings, x.vec4s().div_ceil(WORKGROUP))
    }
}

/// A matrix of a launch: where it is.
struct Matrix {
    at: Arg,
    ty: TensorType,
}

impl Matrix {
    /// Scratch memory for one.
    fn reserve(launch: &mut Launch, ty: &TensorType) -> Self {
        Self {
            at: launch.reserve(16 * ty.shape.len().div_ceil(4) as u64),
            ty: ty.clone(),
        }
    }

    fn vec4s(&self) -> usize {
        self.ty.shape.len().div_ceil(4)
    }
}

/// Adds the product of two matrices.
fn multiply(
    launch: Launch,
    context: &LaunchContext<'_>,
    product: MatMul,
    [left, right]: [&Matrix; 2],
    result: &Matrix,
) -> Result<Launch> {
    let types = [left.ty.clone(), right.ty.clone()];
    let product = context.launch(&product, &types, std::slice::from_ref(&result.ty))?;
    Ok(launch.then(product, |arg| match arg {
        Arg::Input(0) => left.at,
        Arg::Input(_) => right.at,
        _ => result.at,
    }))
}

/// `y = alpha y + beta z`.
fn combine([y, z]: [&Matrix; 2], [alpha, beta]: [f64; 2]) -> Dispatch {
    let vec4s = y.vec4s();
    let kernel = Kernel::new(COMBINE)
        .set("WORKGROUP", WORKGROUP)
        .set("VEC4S", vec4s)
        .set("ALPHA", alpha)
        .set("BETA", beta);
    let bindings = vec![("y", y.at), ("z", z.at)];
    Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP))
}

/// `a x + b (x xᵀ) x + c (x xᵀ)² x`, in plain loops.
fn newton_schulz(x: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    let product = |a: &[f64], b: &[f64], [m, k, n]: [usize; 3]| -> Vec<f64> {
        let of = |i: usize| (0..k).map(|t| a[i / n * k + t] * b[t * n + i % n]).sum();
        (0..m * n).map(of).collect()
    };
    let transposed: Vec<f64> = (0..rows * columns)
        .map(|i| x[i % rows * columns + i / rows])
        .collect();
    let square = product(x, &transposed, [rows, columns, rows]);
    let cubic = product(&square, x, [rows, rows, columns]);
    let quintic = product(&square, &cubic, [rows, rows, columns]);
    let [a, b, c] = POLYNOMIAL;
    let terms = x.iter().zip(&cubic).zip(&quintic);
    terms.map(|((x, y), z)| a * x + b * y + c * z).collect()
}

fn sample(draw: &mut Draw) -> Sample {
    let [rows, columns] = [draw.int(1, 40), draw.int(1, 40)];
    let rule = MuonRule {
        momentum: draw.pick(&[0.6, 0.95]),
        nesterov: draw.coin(),
        steps: draw.pick(&[1, 5]),
        normalized: draw.coin(),
    };
    let op = Muon {
        rule,
        weight_decay: draw.pick(&[0.0, 0.1]),
        rate: draw.pick(&[1.0, 0.5]),
        scale: draw.pick(&[1.0, 0.25]),
    };
    let ty = TensorType::f32([rows, columns]);
    let inputs = vec![(ty, Fill::UNIT); 3];
    // A step multiplies what is small by at most 3.4445, so five make of an error of some
    // products at most 3.4445^5 = 485 times as much; lr and size are at most 0.1 and 1.3.
    let mut tolerance = Tolerance::sum(rows.max(columns), 1.0);
    let growth = POLYNOMIAL[0].powi(rule.steps as i32);
    tolerance.absolute =
        growth * 8.0 * f64::from(f32::EPSILON) * 0.13 + Tolerance::sum(4, 1.0).absolute;
    Sample::new(op, inputs, tolerance).without_gradient()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_steps_bring_all_singular_values_near_one() {
        // Of a diagonal matrix they stand on the diagonal.
        const N: usize = 4;
        let values = [1.0, 0.5, 0.1, 0.02];
        let mut x = vec![0.0; N * N];
        values
            .iter()
            .enumerate()
            .for_each(|(i, v)| x[i * (N + 1)] = *v);
        for _ in 0..5 {
            x = newton_schulz(&x, [N, N]);
        }
        for i in 0..N {
            assert!((0.6..1.25).contains(&x[i * (N + 1)]), "{x:?}");
        }
    }
}
