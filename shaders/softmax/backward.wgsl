// Softmax, backward, along one axis, from the output y of the forward op:
//
//   dx_c = y_c (dy_c - sum over k of y_k dy_k)     softmax
//   dx_c = dy_c - exp(y_c) sum over k of dy_k      LOG: of log softmax
//
//   dy, y, dx   [N, CLASSES, INNER] f32; a row is the CLASSES elements of one n and place
//
// Rows are dealt out as in forward.wgsl, and sums are trees in the same way: the order
// is fixed. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const LANES: u32 = 1u;           // lanes a row; a power of two
const AT_ONCE: u32 = 64u;        // rows a workgroup
const ROWS: u32 = 1u;            // N * INNER
const CLASSES: u32 = 1u;         // extent of the axis
const INNER: u32 = 1u;           // places
const LOG: bool = false;         // whether y is the logarithm of the softmax
const WORKGROUP: u32 = LANES * AT_ONCE;

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

// The sum of v over each run of LANES lanes.
fn add_lanes(lane: u32, v: f32) -> f32 {
    pool[lane] = v;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % LANES < half {
            pool[lane] += pool[lane + half];
        }
    }
    workgroupBarrier();
    return pool[lane / LANES * LANES];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let wanted = (group.x + group.y * GROUPS_X) * AT_ONCE + lane / LANES;
    let row = min(wanted, ROWS - 1u);
    let base = row / INNER * CLASSES * INNER + row % INNER;
    var sum = 0.0;
    for (var c = lane % LANES; c < CLASSES; c += LANES) {
        let at = base + c * INNER;
        if LOG {
            sum += dy[at];
        } else {
            sum += dy[at] * y[at];
        }
    }
    if LANES > 1u {
        sum = add_lanes(lane, sum);
    }
    if wanted >= ROWS {
        return;
    }
    for (var c = lane % LANES; c < CLASSES; c += LANES) {
        let at = base + c * INNER;
        if LOG {
            dx[at] = dy[at] - exp(y[at]) * sum;
        } else {
            dx[at] = y[at] * (dy[at] - sum);
        }
    }
}
