// Operands of a matrix product for the engines in shaders/gemm:
//
//   C[m, n] = activate(sum over k of A[m, k] * B[k, n] + bias[n], ALPHA), BATCH times
//
//   a      [M, K], or [K, M] where TRANSPOSE_A, each STEP_A after the one before
//   b      [K, N], or [N, K] where TRANSPOSE_B, each STEP_B after the one before
//   bias   [N], read where HAS_BIAS; otherwise anything
//   c      [M, N], each STEP_C after the one before; where PARTIAL, those of all products for
//          each split

const MATMUL_BATCH: u32 = 1u;
const STEP_A: u32 = 0u;
const STEP_B: u32 = 0u;
const STEP_C: u32 = 0u;
const MATMUL_M: u32 = 1u;
const MATMUL_N: u32 = 1u;
const MATMUL_K: u32 = 1u;
const TRANSPOSE_A: bool = false;
const TRANSPOSE_B: bool = false;
const HAS_BIAS: bool = false;
const PARTIAL: bool = false;     // splits are stored apart, without epilogue
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn activate(x: f32, alpha: f32) -> f32 { return x; }

fn matmul_a(z: u32, m: u32, k: u32) -> f32 {
    return a[z * STEP_A + select(m * MATMUL_K + k, k * MATMUL_M + m, TRANSPOSE_A)];
}

fn matmul_b(z: u32, k: u32, n: u32) -> f32 {
    return b[z * STEP_B + select(k * MATMUL_N + n, n * MATMUL_K + k, TRANSPOSE_B)];
}

fn matmul_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
    for (var i = 0u; i < min(4u, MATMUL_N - n); i++) {
        var value = sums[i];
        if !PARTIAL {
            if HAS_BIAS {
                value += bias[n + i];
            }
            value = activate(value, ALPHA);
        }
        c[(split * MATMUL_BATCH + z) * STEP_C + m * MATMUL_N + n + i] = value;
    }
}
