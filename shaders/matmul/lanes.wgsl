// Matrix product where subgroup lanes are SIMD lanes and every load is a gather:
//
//   C[m, n] = activate(sum over k of A[m, k] * B[k, n] + bias[n], ALPHA), BATCH times, of which
//             each SUMMED that follow one another are added up
//
//   a, a4   [M, K], or [K, M] where TRANSPOSE_A, each STEP_A after the one before; one buffer
//           seen as f32 and as vec4, read by vec4 where QUADS_A: its rows are whole vec4
//   b, b4   [K, N], or [N, K] where TRANSPOSE_B; likewise
//   bias    [N], or [M] where BIAS_BY_ROW, read where HAS_BIAS; otherwise anything
//   C       by the hook `put`: [M, N]; or partial sums where PARTIAL, without epilogue: those of
//           all products, SPLITS times
//
// Tile picture: a workgroup is one subgroup and computes ROWS x 4 LANES COLUMNS of C, going
// along K in steps of DEPTH. Each lane keeps COLUMNS times four columns of all rows, as what a
// spread costs is paid once for all of them.
//
//               4 LANES, COLUMNS times       B: each lane loads its own columns
//             +----------------+----
//     DEPTH   |  B  lane: vec4 |  ..         A: the tile is LOADS vec4 a lane; all lanes get
//             +----------------+----            all of it by spread
//     DEPTH
//    +-----+  +----------------+----
//    |  A  |  | C  lane: vec4  |  ..  ROWS   sums[r][j]: vec4
//    +-----+  +----------------+----
//
// The register arrays are nested, each as long as the loop that indexes it: drivers unroll
// such loops completely, and only then do the arrays stay in registers.
//
// group.x and group.y count tiles, neighbours along M first; group.z is split * RESULTS +
// result: a split sums its part of K and gemm/reduce.wgsl adds the parts up, in order.
// Floor a step: 4 ROWS COLUMNS DEPTH FMA; DEPTH COLUMNS + ROWS DEPTH / (4 LANES) vec4 loads.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const LANES: u32 = 1u;           // of a subgroup: what `spread` gathers
const M: u32 = 1u;
const N: u32 = 1u;
const K: u32 = 1u;
const BATCH: u32 = 1u;           // products
const SUMMED: u32 = 1u;          // products of a result; divides BATCH
const STEP_A: u32 = 0u;          // elements from one product's A to the next's, and so on
const STEP_B: u32 = 0u;
const STEP_C: u32 = 0u;
const SPLIT_K: u32 = 8u;         // terms of a part, a multiple of DEPTH
const ROWS: u32 = 4u;            // rows of a tile, a multiple of 4
const COLUMNS: u32 = 1u;         // vec4 of a row in a lane
const DEPTH: u32 = 8u;           // terms a step, a multiple of 4
const TRANSPOSE_A: bool = false;
const TRANSPOSE_B: bool = false;
const QUADS_A: bool = false;
const QUADS_B: bool = false;
const HAS_BIAS: bool = false;
const BIAS_BY_ROW: bool = false;
const PARTIAL: bool = false;
const ALPHA: f32 = 0.0;          // the activation's parameter

const RESULTS: u32 = BATCH / SUMMED;
const TILES_M: u32 = (M + ROWS - 1u) / ROWS;
const WIDTH: u32 = 4u * LANES;                         // columns of C side by side
const TILES_N: u32 = (N + COLUMNS * WIDTH - 1u) / (COLUMNS * WIDTH);
const QUADS: u32 = ROWS * DEPTH / 4u;                  // of A's tile
const LOADS: u32 = (QUADS + LANES - 1u) / LANES;
const QUADS_K: u32 = DEPTH / 4u;                       // of B's tile along K
const LINE: u32 = select(QUADS_K, ROWS / 4u, TRANSPOSE_A);     // quads of a line of A's tile
// What is known beforehand to lie inside leaves the compiler no lanes to mask. A's loads go
// beyond its tile where QUADS does not divide by LANES.
const FITS_M: bool = M % ROWS == 0u && QUADS % LANES == 0u;
const FITS_N: bool = N % (COLUMNS * WIDTH) == 0u;
const FITS_K: bool = K % SPLIT_K == 0u && QUADS % LANES == 0u;

// A matrix as it lies in memory, and whether tiles of it end where its rows and columns do.
struct Extents {
    rows: u32,
    columns: u32,
    rows_fit: bool,
    columns_fit: bool,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> a4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> b4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;

fn activate(x: f32, alpha: f32) -> f32 { return x; }
fn put(at: u32, count: u32, values: vec4<f32>) {
}
fn spread(v: f32) -> array<f32, LANES> { return array<f32, LANES>(v); }

fn extents_a() -> Extents {
    if TRANSPOSE_A {
        return Extents(K, M, FITS_K, FITS_M);
    }
    return Extents(M, K, FITS_M, FITS_K);
}

fn extents_b() -> Extents {
    if TRANSPOSE_B {
        return Extents(N, K, FITS_N, FITS_K);
    }
    return Extents(K, N, FITS_K, FITS_N);
}

// Where a row begins, or the last for one beyond.
fn row_start(extents: Extents, row: u32) -> u32 {
    return select(min(row, extents.rows - 1u), row, extents.rows_fit) * extents.columns;
}

// Four elements side by side, of which those outside the matrix become zero.
fn only_inside(extents: Extents, row: u32, column: u32, quad: vec4<f32>) -> vec4<f32> {
    let in_rows = vec4<bool>(extents.rows_fit || row < extents.rows);
    let in_columns = vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(extents.columns);
    return select(vec4<f32>(), quad, in_rows & (in_columns | vec4<bool>(extents.columns_fit)));
}

// Four columns from `column` on, or the last for those beyond; where rows are whole vec4,
// those of the last for one beyond.
fn quad_start(extents: Extents, column: u32) -> u32 {
    return select(min(column, extents.columns - 4u), column, extents.columns_fit);
}

fn four_columns(extents: Extents, column: u32) -> vec4<u32> {
    return min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(extents.columns - 1u));
}

// Four elements side by side in memory, from column `column` of row `row` of matrix `batch`.
fn quad_of_a(batch: u32, row: u32, column: u32) -> vec4<f32> {
    let extents = extents_a();
    let at = batch * STEP_A + row_start(extents, row);
    var quad: vec4<f32>;
    if QUADS_A {
        quad = a4[(at + quad_start(extents, column)) / 4u];
    } else {
        let places = at + four_columns(extents, column);
        quad = vec4<f32>(a[places.x], a[places.y], a[places.z], a[places.w]);
    }
    return only_inside(extents, row, column, quad);
}

fn quad_of_b(batch: u32, row: u32, column: u32) -> vec4<f32> {
    let extents = extents_b();
    let at = batch * STEP_B + row_start(extents, row);
    var quad: vec4<f32>;
    if QUADS_B {
        quad = b4[(at + quad_start(extents, column)) / 4u];
    } else {
        let places = at + four_columns(extents, column);
        quad = vec4<f32>(b[places.x], b[places.y], b[places.z], b[places.w]);
    }
    return only_inside(extents, row, column, quad);
}

fn finish(m: u32, n: u32, sum: f32) -> f32 {
    if PARTIAL {
        return sum;
    }
    var value = sum;
    if HAS_BIAS {
        value += bias[select(min(n, N - 1u), min(m, M - 1u), BIAS_BY_ROW)];
    }
    return activate(value, ALPHA);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x + group.y * GROUPS_X;
    if TILES_M * TILES_N > GROUPS_X && tile >= TILES_M * TILES_N {
        return;
    }
    let m = tile % TILES_M * ROWS;
    let n = tile / TILES_M * (COLUMNS * WIDTH) + lane * 4u;
    let result = group.z % RESULTS;
    let split = group.z / RESULTS;

    var sums: array<array<vec4<f32>, COLUMNS>, ROWS>;
    for (var nth = 0u; nth < SUMMED; nth++) {
        let batch = result * SUMMED + nth;
        for (var step = 0u; step < SPLIT_K; step += DEPTH) {
            let k0 = split * SPLIT_K + step;
            // tile_a[i][j][l]: component j of the quad that lane l loaded i-th.
            var tile_a: array<array<array<f32, LANES>, 4>, LOADS>;
            for (var i = 0u; i < LOADS; i++) {
                let q = i * LANES + lane;
                var quad: vec4<f32>;
                if TRANSPOSE_A {
                    quad = quad_of_a(batch, k0 + q / LINE, m + q % LINE * 4u);
                } else {
                    quad = quad_of_a(batch, m + q / LINE, k0 + q % LINE * 4u);
                }
                tile_a[i][0] = spread(quad.x);
                tile_a[i][1] = spread(quad.y);
                tile_a[i][2] = spread(quad.z);
                tile_a[i][3] = spread(quad.w);
            }
            var tile_b: array<array<vec4<f32>, DEPTH>, COLUMNS>;
            for (var j = 0u; j < COLUMNS; j++) {
                let column = n + j * WIDTH;
                for (var i = 0u; i < QUADS_K; i++) {
                    let k = k0 + i * 4u;
                    var block: mat4x4<f32>;
                    if TRANSPOSE_B {
                        block = transpose(mat4x4<f32>(
                            quad_of_b(batch, column, k), quad_of_b(batch, column + 1u, k),
                            quad_of_b(batch, column + 2u, k), quad_of_b(batch, column + 3u, k)));
                    } else {
                        block = mat4x4<f32>(
                            quad_of_b(batch, k, column), quad_of_b(batch, k + 1u, column),
                            quad_of_b(batch, k + 2u, column), quad_of_b(batch, k + 3u, column));
                    }
                    tile_b[j][i * 4u] = block[0];
                    tile_b[j][i * 4u + 1u] = block[1];
                    tile_b[j][i * 4u + 2u] = block[2];
                    tile_b[j][i * 4u + 3u] = block[3];
                }
            }
            for (var r = 0u; r < ROWS; r++) {
                for (var k = 0u; k < DEPTH; k++) {
                    let line = select(r, k, TRANSPOSE_A);
                    let place = select(k, r, TRANSPOSE_A);
                    let q = line * LINE + place / 4u;
                    let left = vec4<f32>(tile_a[q / LANES][place % 4u][q % LANES]);
                    for (var j = 0u; j < COLUMNS; j++) {
                        sums[r][j] = fma(left, tile_b[j][k], sums[r][j]);
                    }
                }
            }
        }
    }

    for (var r = 0u; r < ROWS; r++) {
        for (var j = 0u; j < COLUMNS; j++) {
            let column = n + j * WIDTH;
            // What is known beforehand leaves the compiler no lanes to mask.
            if (M % ROWS == 0u || m + r < M) && (FITS_N || column < N) {
                let s = sums[r][j];
                let values = vec4<f32>(
                    finish(m + r, column, s.x), finish(m + r, column + 1u, s.y),
                    finish(m + r, column + 2u, s.z), finish(m + r, column + 3u, s.w));
                put(group.z * STEP_C + (m + r) * N + column, min(4u, N - column), values);
            }
        }
    }
}
