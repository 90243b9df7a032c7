// Softmax, forward, along one axis: with m = max x_c and S = sum exp(x_c - m) over a row,
//
//   y_c = exp(x_c - m) / S          or, LOG:   y_c = x_c - m - log S
//
//   x, y   [N, CLASSES, INNER] f32; a row is the CLASSES elements of one n and one place
//
// LANES lanes share a row, each a LANES-th of the classes (memory stays coalesced);
// with LANES = 1 neighbouring lanes take neighbouring places. Sums are trees in
// workgroup memory: the order is fixed. Floor: 8 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const LANES: u32 = 1u;           // lanes a row; a power of two
const AT_ONCE: u32 = 64u;        // rows a workgroup
const ROWS: u32 = 1u;            // N * INNER
const CLASSES: u32 = 1u;         // extent of the axis
const INNER: u32 = 1u;           // places
const LOG: bool = false;         // whether to give the logarithm
const WORKGROUP: u32 = LANES * AT_ONCE;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

// The largest v of each run of LANES lanes.
fn max_lanes(lane: u32, v: f32) -> f32 {
    pool[lane] = v;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % LANES < half {
            pool[lane] = max(pool[lane], pool[lane + half]);
        }
    }
    workgroupBarrier();
    return pool[lane / LANES * LANES];
}

// The sum of v over each run of LANES lanes.
fn add_lanes(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
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
    var top = x[base];
    for (var c = lane % LANES; c < CLASSES; c += LANES) {
        top = max(top, x[base + c * INNER]);
    }
    if LANES > 1u {
        top = max_lanes(lane, top);
    }
    var sum = 0.0;
    for (var c = lane % LANES; c < CLASSES; c += LANES) {
        sum += exp(x[base + c * INNER] - top);
    }
    if LANES > 1u {
        sum = add_lanes(lane, sum);
    }
    if wanted >= ROWS {
        return;
    }
    let log_sum = log(sum);
    for (var c = lane % LANES; c < CLASSES; c += LANES) {
        let at = base + c * INNER;
        let v = x[at] - top;
        if LOG {
            y[at] = v - log_sum;
        } else {
            y[at] = exp(v) / sum;
        }
    }
}
