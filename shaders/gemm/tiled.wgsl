// Tiled matrix product, the engine behind matmul and convolution on GPUs:
//
//   C[m, n] = sum over k of A[m, k] * B[k, n]
//
// Where A, B and C lie in memory is the hooks' business, so that a convolution is
// the same engine over operands that are never written out (implicit GEMM).
//
// Tile picture: a workgroup computes TILE_M x TILE_N of C, going along K in steps
// of TILE_K. Both operand tiles are staged in workgroup memory; each invocation
// keeps ROWS x 4 sums in registers.
//
//                 TILE_N                 lane = ly * LANES_X + lx
//            +--------------+            rows  ly * ROWS ..+ROWS
//   TILE_K   |      B       |            cols  lx * 4 ..+4
//            +--------------+
//   TILE_K     lx ->  vec4
//  +------+  +--------------+
//  |  A   |  |ly     C      |  TILE_M = LANES_Y * ROWS
//  +------+  +--------------+
//
// group.x and group.y count the tiles of C, neighbours along M first so that they
// share B in the cache; group.z is batch * SPLITS + split: a split sums only its part of K and its results are added up, in order, by
// gemm/reduce.wgsl. Every workgroup sums in the same order in every run.
//
// Floor: 2 M N K FLOP; each staged value is used TILE_M or TILE_N times.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const M: u32 = 1u;               // rows of C
const N: u32 = 1u;               // columns of C
const K: u32 = 1u;               // terms of each sum
const SPLITS: u32 = 1u;          // parts K is cut into
const SPLIT_K: u32 = 1u;         // terms of a part, a multiple of TILE_K
const LANES_X: u32 = 16u;        // invocations along N
const LANES_Y: u32 = 16u;        // invocations along M
const ROWS: u32 = 4u;            // rows of C an invocation computes
const TILE_K: u32 = 16u;         // depth of a staged tile
const TILE_M: u32 = LANES_Y * ROWS;
const COLS: u32 = 4u;            // columns of C an invocation computes: one vec4
const TILE_N: u32 = LANES_X * COLS;
const LANES: u32 = LANES_X * LANES_Y;
const TILES_M: u32 = (M + TILE_M - 1u) / TILE_M;

// Hooks: elements of the operands of batch `z`, inside the matrices' bounds; and what
// becomes of four neighbouring sums, of which those from column N on are to be ignored.
fn load_a(z: u32, m: u32, k: u32) -> f32 { return 0.0; }
fn load_b(z: u32, k: u32, n: u32) -> f32 { return 0.0; }
fn store_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
}

var<workgroup> tile_a: array<f32, TILE_K * TILE_M>;               // [k][m]
var<workgroup> tile_b: array<vec4<f32>, TILE_K * LANES_X>;        // [k][n / 4]

fn stage(z: u32, m0: u32, n0: u32, k0: u32, k_end: u32, lane: u32) {
    for (var i = lane; i < TILE_M * TILE_K; i += LANES) {
        let m = i / TILE_K;
        let k = i % TILE_K;
        var value = 0.0;
        if m0 + m < M && k0 + k < k_end {
            value = load_a(z, m0 + m, k0 + k);
        }
        tile_a[k * TILE_M + m] = value;
    }
    for (var i = lane; i < TILE_K * TILE_N; i += LANES) {
        let k = i / TILE_N;
        let n = i % TILE_N;
        var value = 0.0;
        if n0 + n < N && k0 + k < k_end {
            value = load_b(z, k0 + k, n0 + n);
        }
        tile_b[k * LANES_X + n / COLS][n % COLS] = value;
    }
}

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let z = group.z / SPLITS;
    let split = group.z % SPLITS;
    let tile = group.x + group.y * GROUPS_X;
    let m0 = (tile % TILES_M) * TILE_M;
    let n0 = (tile / TILES_M) * TILE_N;
    if n0 >= N {
        return;
    }
    let k_end = min(K, (split + 1u) * SPLIT_K);

    var sums: array<vec4<f32>, ROWS>;
    for (var k0 = split * SPLIT_K; k0 < k_end; k0 += TILE_K) {
        stage(z, m0, n0, k0, k_end, lane);
        workgroupBarrier();
        for (var k = 0u; k < TILE_K; k++) {
            let b = tile_b[k * LANES_X + local.x];
            for (var r = 0u; r < ROWS; r++) {
                sums[r] = fma(vec4<f32>(tile_a[k * TILE_M + local.y * ROWS + r]), b, sums[r]);
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < ROWS; r++) {
        let m = m0 + local.y * ROWS + r;
        let n = n0 + local.x * COLS;
        if m < M && n < N {
            store_c(z, split, m, n, sums[r]);
        }
    }
}
