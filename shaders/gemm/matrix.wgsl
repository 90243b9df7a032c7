enable f16;
enable wgpu_cooperative_matrix;

// Matrix product of f16 operands by cooperative matrices, for GPUs that have units for them:
//
//   C[m, n] = sum over k of A[m, k] * B[k, n]
//
// The hooks are those of gemm/tiled.wgsl: where A, B and C lie is their business. Memory holds
// A and B as f16, so that none is rounded on the way, and sums are f32.
//
// Tile picture: a workgroup computes TILE_M x TILE_N of C, going along K in steps of TILE_K.
// Its subgroups share that out; each holds BLOCKS_M x BLOCKS_N matrices of C, SIZE x SIZE each,
// spread over the registers of its lanes as the device likes.
//
//                     TILE_N
//              +-----------------+      subgroup s:  rows     s / WAVES_N
//     TILE_K   |        B        |                   columns  s % WAVES_N
//              +-----------------+
//     TILE_K
//   +--------+ +--------+--------+
//   |        | | s = 0  | s = 1  |      +----+----+
//   |   A    | +--------+--------+      | SIZE^2  |  BLOCKS_M x BLOCKS_N
//   |        | | s = 2  | s = 3  |      +----+----+  matrices
//   +--------+ +--------+--------+      +----+----+
//
// f16 tiles lie in workgroup memory twice. While one pair is multiplied, the next is on its
// way from memory into registers, and goes to the other pair behind the products: one barrier a
// step. Rows are SKEW elements longer than the tile, so that the rows of a matrix fall into
// different banks.
//
// C goes through workgroup memory, a matrix of each subgroup at a time, since only the device
// knows which lane holds which of its elements.
//
// group.x and group.y count the tiles of C, neighbours along M first so that they share B in
// the cache; group.z is batch * SPLITS + split, as in gemm/tiled.wgsl. Every workgroup sums in
// the same order in every run.
//
// Floor: 2 M N K FLOP at the matrix units' rate; each staged value is used TILE_M or TILE_N
// times.

alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const M: u32 = 1u;               // rows of C
const N: u32 = 1u;               // columns of C
const K: u32 = 1u;               // terms of each sum
const SPLITS: u32 = 1u;          // parts K is cut into
const SPLIT_K: u32 = 1u;         // terms of a part, a multiple of TILE_K
const SIZE: u32 = 8u;            // rows and columns of a matrix
const SUBGROUP: u32 = 32u;       // lanes of a subgroup
const WAVES_M: u32 = 2u;         // subgroups along M
const WAVES_N: u32 = 2u;         // subgroups along N
const BLOCKS_M: u32 = 4u;        // matrices a subgroup holds along M
const BLOCKS_N: u32 = 4u;        // and along N
const TILE_K: u32 = 8u;          // depth of a staged tile, a multiple of SIZE
const SKEW: u32 = 8u;            // elements between the rows of a staged tile

const LANES: u32 = WAVES_M * WAVES_N * SUBGROUP;
const TILE_M: u32 = WAVES_M * BLOCKS_M * SIZE;
const TILE_N: u32 = WAVES_N * BLOCKS_N * SIZE;
const TILES_M: u32 = (M + TILE_M - 1u) / TILE_M;
const ROW_A: u32 = TILE_K + SKEW;
const ROW_B: u32 = TILE_N + SKEW;
const FETCH_A: u32 = (TILE_M * TILE_K + LANES - 1u) / LANES;   // elements a lane fetches
const FETCH_B: u32 = (TILE_K * TILE_N + LANES - 1u) / LANES;
const QUADS: u32 = SIZE * SIZE / 4u;                           // of a matrix of C

// Hooks: as in gemm/tiled.wgsl.
fn load_a(z: u32, m: u32, k: u32) -> f32 { return 0.0; }
fn load_b(z: u32, k: u32, n: u32) -> f32 { return 0.0; }
fn store_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
}

var<workgroup> tile_a: array<f16, 2u * TILE_M * ROW_A>;            // [pair][m][k]
var<workgroup> tile_b: array<f16, 2u * TILE_K * ROW_B>;            // [pair][k][n]
var<workgroup> block_c: array<f32, WAVES_M * WAVES_N * SIZE * SIZE>;   // [subgroup][m][n]

// What a lane carries from memory to the operand tiles.
struct Fetched {
    from_a: array<f16, FETCH_A>,
    from_b: array<f16, FETCH_B>,
}

fn fetch(z: u32, m0: u32, n0: u32, k0: u32, k_end: u32, lane: u32) -> Fetched {
    var fetched: Fetched;
    for (var i = 0u; i < FETCH_A; i++) {
        let m = (i * LANES + lane) / TILE_K;
        let k = (i * LANES + lane) % TILE_K;
        if m < TILE_M && m0 + m < M && k0 + k < k_end {
            fetched.from_a[i] = f16(load_a(z, m0 + m, k0 + k));
        }
    }
    for (var i = 0u; i < FETCH_B; i++) {
        let k = (i * LANES + lane) / TILE_N;
        let n = (i * LANES + lane) % TILE_N;
        if k < TILE_K && n0 + n < N && k0 + k < k_end {
            fetched.from_b[i] = f16(load_b(z, k0 + k, n0 + n));
        }
    }
    return fetched;
}

fn stage(fetched: Fetched, pair: u32, lane: u32) {
    var kept = fetched;
    for (var i = 0u; i < FETCH_A; i++) {
        let m = (i * LANES + lane) / TILE_K;
        let k = (i * LANES + lane) % TILE_K;
        if m < TILE_M {
            tile_a[(pair * TILE_M + m) * ROW_A + k] = kept.from_a[i];
        }
    }
    for (var i = 0u; i < FETCH_B; i++) {
        let k = (i * LANES + lane) / TILE_N;
        let n = (i * LANES + lane) % TILE_N;
        if k < TILE_K {
            tile_b[(pair * TILE_K + k) * ROW_B + n] = kept.from_b[i];
        }
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) wave: u32,
    @builtin(subgroup_invocation_id) place: u32,
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
    let wave_m = wave / WAVES_N * BLOCKS_M * SIZE;
    let wave_n = wave % WAVES_N * BLOCKS_N * SIZE;

    var sums: array<array<MatrixC, BLOCKS_N>, BLOCKS_M>;
    var pair = 0u;
    stage(fetch(z, m0, n0, split * SPLIT_K, k_end, lane), pair, lane);
    workgroupBarrier();
    for (var k0 = split * SPLIT_K; k0 < k_end; k0 += TILE_K) {
        // Beyond the end nothing is loaded.
        let next = fetch(z, m0, n0, k0 + TILE_K, k_end, lane);
        for (var k = 0u; k < TILE_K; k += SIZE) {
            var across: array<MatrixB, BLOCKS_N>;
            for (var j = 0u; j < BLOCKS_N; j++) {
                let at = (pair * TILE_K + k) * ROW_B + wave_n + j * SIZE;
                across[j] = coopLoadT<MatrixB>(&tile_b[at], ROW_B);
            }
            for (var i = 0u; i < BLOCKS_M; i++) {
                let at = (pair * TILE_M + wave_m + i * SIZE) * ROW_A + k;
                let down = coopLoadT<MatrixA>(&tile_a[at], ROW_A);
                for (var j = 0u; j < BLOCKS_N; j++) {
                    sums[i][j] = coopMultiplyAdd(down, across[j], sums[i][j]);
                }
            }
        }
        pair = 1u - pair;
        stage(next, pair, lane);
        workgroupBarrier();
    }
    for (var i = 0u; i < BLOCKS_M; i++) {
        for (var j = 0u; j < BLOCKS_N; j++) {
            coopStoreT(sums[i][j], &block_c[wave * SIZE * SIZE], SIZE);
            workgroupBarrier();
            for (var quad = place; quad < QUADS; quad += SUBGROUP) {
                let m = m0 + wave_m + i * SIZE + quad * 4u / SIZE;
                let n = n0 + wave_n + j * SIZE + quad * 4u % SIZE;
                if m < M && n < N {
                    let at = wave * SIZE * SIZE + quad * 4u;
                    store_c(z, split, m, n,
                        vec4<f32>(block_c[at], block_c[at + 1u], block_c[at + 2u], block_c[at + 3u]));
                }
            }
            workgroupBarrier();
        }
    }
}
