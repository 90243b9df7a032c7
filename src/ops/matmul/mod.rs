//! Matrix product with optional bias and activation: dense layers and their gradients.

pub(super) mod lanes;

use super::activation::{Activation, FUNCTIONS, Function};
use super::bias::BiasAdd;
use super::gemm::{Engine, Extents, Operands};
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::{Profile, ProfileKind};
use crate::shader;
use crate::tensor::TensorType;

const OPERANDS: ShaderFile = shader!("matmul/operands.wgsl");

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "matmul",
    sample,
}];

/// `C = f(A B + bias)`: inputs `a` [M, K], `b` [K, N] (either transposed in memory by
/// its flag) and, where `bias`, `bias` `[N]`; output [M, N].
///
/// A dense layer is `MatMul { transpose_b: true, .. }` over (N, in) and (out, in).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MatMul {
    /// `a` is [K, M].
    pub transpose_a: bool,
    /// `b` is [N, K].
    pub transpose_b: bool,
    /// There is a third input, added to each row.
    pub bias: bool,
    /// Applied to the result.
    pub activation: Function,
}

impl MatMul {
    /// The plain product with the given transpositions.
    pub fn new(transpose_a: bool, transpose_b: bool) -> Self {
        Self {
            transpose_a,
            transpose_b,
            ..Self::default()
        }
    }

    fn extents(&self, inputs: &[TensorType]) -> Extents {
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let [m, k] = swap_if(self.transpose_a, [a[0], a[1]]);
        let [_, n] = swap_if(self.transpose_b, [b[0], b[1]]);
        Extents { m, n, k, batch: 1 }
    }

    fn is_plain(&self) -> bool {
        !self.bias && self.activation == Function::Identity
    }

    /// The operands `a`, `b`, `bias` and the result for the engines of `gemm`.
    fn operands(&self, [a, b, bias, result]: [Arg; 4]) -> Operands {
        Operands {
            library: OPERANDS,
            functions: ["matmul_a", "matmul_b", "matmul_c"],
            bindings: vec![("a", a), ("b", b), ("bias", bias), ("c", result)],
            result: "c",
            along_k: [!self.transpose_a, self.transpose_b],
        }
    }

    fn specialise(
        &self,
        kernel: Kernel,
        extents: &Extents,
        [step_a, step_b, step_c]: [usize; 3],
        partial: bool,
    ) -> Kernel {
        kernel
            .hook("activate", FUNCTIONS, self.activation.shader_name())
            .set("MATMUL_BATCH", extents.batch)
            .set("STEP_A", step_a)
            .set("STEP_B", step_b)
            .set("STEP_C", step_c)
            .set("MATMUL_M", extents.m)
            .set("MATMUL_N", extents.n)
            .set("MATMUL_K", extents.k)
            .set("TRANSPOSE_A", self.transpose_a)
            .set("TRANSPOSE_B", self.transpose_b)
            .set("HAS_BIAS", self.bias)
            .set("PARTIAL", partial)
            .set("ALPHA", self.activation.alpha())
    }
}

/// The dispatch of `extents.batch` products of `a` and `b`, for ops that are made of some;
/// `steps` are the elements from one product's `a`, `b` and result to the next's. With more
/// than one split the result holds the parts of all products' sums, part after part.
pub(super) fn batched(
    profile: &Profile,
    op: MatMul,
    extents: &Extents,
    splits: usize,
    [a, b, result]: [Arg; 3],
    steps: [usize; 3],
) -> Dispatch {
    let products = lanes::Products {
        steps,
        splits,
        ..lanes::Products::new(&op, extents)
    };
    let args = [a, b, a, result];
    match profile.kind {
        ProfileKind::CpuLike => products.dispatch(profile, args),
        ProfileKind::Gpu => extents.product(Engine::Tiled, op.operands(args), splits, |kernel| {
            op.specialise(kernel, extents, steps, splits > 1)
        }),
    }
}

fn swap_if(swap: bool, [a, b]: [usize; 2]) -> [usize; 2] {
    if swap { [b, a] } else { [a, b] }
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2 + usize::from(self.bias))?;
        if inputs[0].shape.rank() != 2 || inputs[1].shape.rank() != 2 {
            return Err(Error::shape(
                self.name(),
                format!(
                    "expected two matrices, found {} and {}",
                    inputs[0], inputs[1]
                ),
            ));
        }
        let Extents { m, n, k, .. } = self.extents(inputs);
        let [k_b, _] = swap_if(self.transpose_b, [inputs[1].shape[0], inputs[1].shape[1]]);
        if k != k_b {
            return Err(Error::shape(
                self.name(),
                format!(
                    "inner extents differ: {k} of {} against {k_b} of {}",
                    inputs[0], inputs[1]
                ),
            ));
        }
        if self.bias {
            expect_type(self, "bias", &TensorType::f32([n]), &inputs[2])?;
        }
        Ok(vec![TensorType::f32([m, n])])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dc) = upstream[0] else {
            return Ok(vec![None; node.inputs.len()]);
        };
        if !self.is_plain() {
            return Err(Error::shape(
                self.name(),
                "differentiate before fusing: a fused product has no gradient rule",
            ));
        }
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let mut product = |x, transpose_x, y, transpose_y| {
            builder.add1(Box::new(Self::new(transpose_x, transpose_y)), &[x, y])
        };
        // dA = dC B^T and dB = A^T dC, each transposed where the operand is.
        let da = match (node.wanted[0], self.transpose_a) {
            (false, _) => None,
            (true, false) => Some(product(dc, false, b, !self.transpose_b)?),
            (true, true) => Some(product(b, self.transpose_b, dc, true)?),
        };
        let db = match (node.wanted[1], self.transpose_b) {
            (false, _) => None,
            (true, false) => Some(product(a, !self.transpose_a, dc, false)?),
            (true, true) => Some(product(dc, true, a, self.transpose_a)?),
        };
        Ok(vec![da, db])
    }

    fn reference(&self, io: Reference<'_>) {
        let types: Vec<_> = io.inputs.iter().map(|x| x.ty().clone()).collect();
        let Extents { m, n, k, .. } = self.extents(&types);
        let (a, b) = (io.inputs[0].f(), io.inputs[1].f());
        for (i, c) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let (row, column) = (i / n, i % n);
            let mut sum = if self.bias {
                io.inputs[2].f()[column]
            } else {
                0.0
            };
            for t in 0..k {
                let left = if self.transpose_a {
                    t * m + row
                } else {
                    row * k + t
                };
                let right = if self.transpose_b {
                    column * k + t
                } else {
                    t * n + column
                };
                sum += a[left] * b[right];
            }
            *c = self.activation.value(sum);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let extents = self.extents(context.inputs);
        if context.profile.kind == ProfileKind::CpuLike {
            return Ok(lanes::launch(context.profile, self, &extents));
        }
        let engine = Engine::choose(&context, [Some(0), Some(1)], &extents);
        // Without a bias the binding is never read; any input will do.
        let bias = Arg::Input(if self.bias { 2 } else { 0 });
        let operands = self.operands([Arg::Input(0), Arg::Input(1), bias, Arg::Output(0)]);
        Ok(match self.is_plain() {
            true => extents.launch_split(engine, operands, Arg::Output(0), |kernel, partial| {
                self.specialise(kernel, &extents, extents.steps(), partial)
            }),
            false => extents.launch(engine, operands, |kernel| {
                self.specialise(kernel, &extents, extents.steps(), false)
            }),
        })
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let Extents { m, n, k, .. } = self.extents(inputs);
        2 * (m * n * k) as u64
    }

    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        if self.is_plain() && next.downcast::<BiasAdd>().is_some() {
            return Some(Box::new(Self {
                bias: true,
                ..*self
            }));
        }
        match next.downcast::<Activation>() {
            Some(Activation(function)) if self.activation == Function::Identity => {
                Some(Box::new(Self {
                    activation: *function,
                    ..*self
                }))
            }
            _ => None,
        }
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let deep = draw.int(0, 3) == 0;
    let [m, n] = [draw.int(1, 70), draw.int(1, 70)];
    let k = if deep {
        draw.int(600, 1500)
    } else {
        draw.int(1, 70)
    };
    let plain = draw.coin();
    let op = MatMul {
        transpose_a: draw.coin(),
        transpose_b: draw.coin(),
        bias: !plain && draw.coin(),
        activation: if plain {
            Function::Identity
        } else {
            Function::draw(draw)
        },
    };
    let mut inputs = vec![
        (TensorType::f32(swap_if(op.transpose_a, [m, k])), Fill::UNIT),
        (TensorType::f32(swap_if(op.transpose_b, [k, n])), Fill::UNIT),
    ];
    if op.bias {
        inputs.push((TensorType::f32([n]), Fill::UNIT));
    }
    let differentiable = op.is_plain();
    let sample = Sample::new(op, inputs, Tolerance::sum(k, 1.0).and_transcendental());
    if differentiable {
        sample
    } else {
        sample.without_gradient()
    }
}
