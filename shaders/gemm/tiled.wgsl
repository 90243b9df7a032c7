// Tiled matrix product, the engine behind matmul and convolution on GPUs:
//
//   C[m, n] = sum over k of A[m, k] * B[k, n]
//
// Where A, B and C lie in memory is the hooks' business, so that a convolution is
// the same engine over operands that are never written out (implicit GEMM).
//
// Tile picture: a workgroup computes TILE_M x TILE_N of C, going along K in steps
// of TILE_K. Both operand tiles are staged in workgroup memory, in quads; each invocation
// keeps QUADS_Y x QUADS_X blocks of 4 x 4 sums in registers, LANES_Y and LANES_X quads apart.
//
//                    TILE_N
//            +---------+---------+     lane = ly * LANES_X + lx
//   TILE_K   |      B  |         |     rows     4 (ly + i LANES_Y) ..+4,  i < QUADS_Y
//            +---------+---------+     columns  4 (lx + j LANES_X) ..+4,  j < QUADS_X
//   TILE_K     lx ->     lx ->
//  +------+  +---------+---------+
//  |      |  |ly  4x4  |    4x4  |
//  |  A   |  +---------+---------+  TILE_M = 4 LANES_Y QUADS_Y
//  |      |  |ly  4x4  |    4x4  |
//  +------+  +---------+---------+
//
// There are two pairs of operand tiles. While one is multiplied, the next is on its way from
// memory into registers, and goes to the other pair behind the products: one barrier a step.
// Quad q of row k lies at q ^ k: lanes that stage neighbouring k, as well as lanes that read
// neighbouring q, meet different banks.
//
// group.x and group.y count the tiles of C, neighbours along M first so that they
// share B in the cache; group.z is batch * SPLITS + split: a split sums only its part of K and
// its results are added up, in order, by gemm/reduce.wgsl. Every workgroup sums in the same
// order in every run.
//
// Floor: 2 M N K FLOP; each staged value is used TILE_M or TILE_N times, and each that is read
// from workgroup memory 4 QUADS_Y or 4 QUADS_X times.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const M: u32 = 1u;               // rows of C
const N: u32 = 1u;               // columns of C
const K: u32 = 1u;               // terms of each sum
const SPLITS: u32 = 1u;          // parts K is cut into
const SPLIT_K: u32 = 1u;         // terms of a part, a multiple of TILE_K
const LANES_X: u32 = 16u;        // invocations along N; a power of two, as are the next three
const LANES_Y: u32 = 16u;        // invocations along M
const QUADS_X: u32 = 1u;         // quads of columns of an invocation
const QUADS_Y: u32 = 1u;         // quads of rows of an invocation
const TILE_K: u32 = 16u;         // depth of a staged tile
const A_ALONG_K: bool = true;    // neighbours along K are neighbours in memory, not those along M
const B_ALONG_K: bool = false;   // and likewise, not those along N

const LANES: u32 = LANES_X * LANES_Y;
const WIDTH_A: u32 = LANES_Y * QUADS_Y;                        // quads of a row of a tile
const WIDTH_B: u32 = LANES_X * QUADS_X;
const TILE_M: u32 = 4u * WIDTH_A;
const TILE_N: u32 = 4u * WIDTH_B;
const TILES_M: u32 = (M + TILE_M - 1u) / TILE_M;
const TILE_A: u32 = TILE_K * WIDTH_A;                          // quads of a tile
const TILE_B: u32 = TILE_K * WIDTH_B;
const FETCH_A: u32 = (TILE_A + LANES - 1u) / LANES;            // quads a lane fetches
const FETCH_B: u32 = (TILE_B + LANES - 1u) / LANES;

// Hooks: elements of the operands of batch `z`, inside the matrices' bounds; and what
// becomes of four neighbouring sums, of which those from column N on are to be ignored.
fn load_a(z: u32, m: u32, k: u32) -> f32 { return 0.0; }
fn load_b(z: u32, k: u32, n: u32) -> f32 { return 0.0; }
fn store_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
}

var<workgroup> tile_a: array<vec4<f32>, 2u * TILE_A>;          // [pair][k][m / 4]
var<workgroup> tile_b: array<vec4<f32>, 2u * TILE_B>;          // [pair][k][n / 4]

// Row and quad of the i-th quad of a tile of that width, in the order they are fetched.
fn place(i: u32, width: u32, along_k: bool) -> vec2<u32> {
    if along_k {
        return vec2<u32>(i % TILE_K, i / TILE_K);
    }
    return vec2<u32>(i / width, i % width);
}

// Where quad q of row k lies in its tile of that width.
fn staged(k: u32, q: u32, width: u32) -> u32 {
    return k * width + (q ^ (k % width));
}

// What a lane carries from memory to the operand tiles.
struct Fetched {
    from_a: array<vec4<f32>, FETCH_A>,
    from_b: array<vec4<f32>, FETCH_B>,
}

fn fetch(z: u32, m0: u32, n0: u32, k0: u32, k_end: u32, lane: u32) -> Fetched {
    var fetched: Fetched;
    for (var i = 0u; i < FETCH_A; i++) {
        let at = place(i * LANES + lane, WIDTH_A, A_ALONG_K);
        let k = k0 + at.x;
        let m = m0 + 4u * at.y;
        for (var r = 0u; r < 4u; r++) {
            if at.x < TILE_K && at.y < WIDTH_A && m + r < M && k < k_end {
                fetched.from_a[i][r] = load_a(z, m + r, k);
            }
        }
    }
    for (var i = 0u; i < FETCH_B; i++) {
        let at = place(i * LANES + lane, WIDTH_B, B_ALONG_K);
        let k = k0 + at.x;
        let n = n0 + 4u * at.y;
        for (var r = 0u; r < 4u; r++) {
            if at.x < TILE_K && at.y < WIDTH_B && n + r < N && k < k_end {
                fetched.from_b[i][r] = load_b(z, k, n + r);
            }
        }
    }
    return fetched;
}

fn stage(fetched: Fetched, pair: u32, lane: u32) {
    var kept = fetched;
    for (var i = 0u; i < FETCH_A; i++) {
        let at = place(i * LANES + lane, WIDTH_A, A_ALONG_K);
        if at.x < TILE_K && at.y < WIDTH_A {
            tile_a[pair * TILE_A + staged(at.x, at.y, WIDTH_A)] = kept.from_a[i];
        }
    }
    for (var i = 0u; i < FETCH_B; i++) {
        let at = place(i * LANES + lane, WIDTH_B, B_ALONG_K);
        if at.x < TILE_K && at.y < WIDTH_B {
            tile_b[pair * TILE_B + staged(at.x, at.y, WIDTH_B)] = kept.from_b[i];
        }
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

    // The sums of row r of block (i, j).
    var sums: array<array<array<vec4<f32>, 4>, QUADS_X>, QUADS_Y>;
    var pair = 0u;
    stage(fetch(z, m0, n0, split * SPLIT_K, k_end, lane), pair, lane);
    workgroupBarrier();
    for (var k0 = split * SPLIT_K; k0 < k_end; k0 += TILE_K) {
        // Beyond the end nothing is loaded.
        let next = fetch(z, m0, n0, k0 + TILE_K, k_end, lane);
        for (var k = 0u; k < TILE_K; k++) {
            var across: array<vec4<f32>, QUADS_X>;
            for (var j = 0u; j < QUADS_X; j++) {
                across[j] = tile_b[pair * TILE_B + staged(k, local.x + j * LANES_X, WIDTH_B)];
            }
            for (var i = 0u; i < QUADS_Y; i++) {
                let down = tile_a[pair * TILE_A + staged(k, local.y + i * LANES_Y, WIDTH_A)];
                for (var j = 0u; j < QUADS_X; j++) {
                    for (var r = 0u; r < 4u; r++) {
                        sums[i][j][r] = fma(vec4<f32>(down[r]), across[j], sums[i][j][r]);
                    }
                }
            }
        }
        pair = 1u - pair;
        stage(next, pair, lane);
        workgroupBarrier();
    }
    for (var i = 0u; i < QUADS_Y; i++) {
        for (var j = 0u; j < QUADS_X; j++) {
            for (var r = 0u; r < 4u; r++) {
                let m = m0 + 4u * (local.y + i * LANES_Y) + r;
                let n = n0 + 4u * (local.x + j * LANES_X);
                if m < M && n < N {
                    store_c(z, split, m, n, sums[i][j][r]);
                }
            }
        }
    }
}
