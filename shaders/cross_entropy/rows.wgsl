// Softmax cross-entropy: the loss and its derivative in one.
//
// A row is the CLASSES logits x_c of one sample n at one place i. With its targets t_c,
//
//   m    = max x_c     S = sum exp(x_c - m)     T = sum t_c
//   loss = (T log S - sum t_c (x_c - m)) * scale
//   dx_c = (T exp(x_c - m) / S - t_c) * scale
//   t_c  = w_c (SMOOTHING / C + (1 - SMOOTHING) p_c)
//
// where p is the row's label as a distribution (1 at the label's class, or the SOFT
// label itself) and w the class weights. A row whose label is IGNORED or no class has
// t = 0. scale is SCALE, or 1 / (sum of the weights of the labels), 0 for no weight.
//
//   logits, dlogits   [N, CLASSES, INNER] f32
//   labels            [N, INNER] u32, or the bits of f32 [N, CLASSES, INNER] if SOFT
//   class_weights     [CLASSES] f32; not read unless WEIGHTED
//   weight_sums       [WEIGHT_SUMS] f32, parts of that sum; not read where 0
//   loss              [N, INNER] if PER_ROW, else [GROUPS]: a sum for each workgroup
//
// LANES lanes share a row, each a LANES-th of the classes (memory stays coalesced);
// with LANES = 1 neighbouring lanes take neighbouring places. Sums are trees in
// workgroup memory: the order is fixed. Floor: 8 bytes a logit.

const LANES: u32 = 1u;           // lanes a row; a power of two
const AT_ONCE: u32 = 32u;        // rows a workgroup works on; a power of two
const GROUPS: u32 = 1u;          // workgroups
const ROWS: u32 = 1u;            // N * INNER
const CLASSES: u32 = 1u;
const INNER: u32 = 1u;           // places
const SMOOTHING: f32 = 0.0;      // label smoothing
const SOFT: bool = false;        // whether the labels are distributions
const WEIGHTED: bool = false;    // whether there are class weights
const IGNORE: bool = false;      // whether a label is ignored
const IGNORED: u32 = 0u;         // that label
const SCALE: f32 = 1.0;          // factor of the loss, where the labels do not give it
const BY_LABELS: bool = false;   // whether to divide by the sum of the labels' weights
const WEIGHT_SUMS: u32 = 0u;     // parts of that sum; 0: add it here
const PER_ROW: bool = false;     // whether to keep every row's loss
const WORKGROUP: u32 = LANES * AT_ONCE;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> class_weights: array<f32>;
@group(0) @binding(3) var<storage, read> weight_sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;

var<workgroup> pool: array<vec3<f32>, WORKGROUP>;

// The sum of v over each run of `width` lanes.
fn add_lanes(lane: u32, width: u32, v: vec3<f32>) -> vec3<f32> {
    workgroupBarrier();
    pool[lane] = v;
    for (var half = width / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % width < half {
            pool[lane] += pool[lane + half];
        }
    }
    workgroupBarrier();
    return pool[lane / width * width];
}

// The largest v of each run of LANES lanes.
fn max_lanes(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    pool[lane].x = v;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % LANES < half {
            pool[lane].x = max(pool[lane].x, pool[lane + half].x);
        }
    }
    workgroupBarrier();
    return pool[lane / LANES * LANES].x;
}

fn class_weight(c: u32) -> f32 {
    if WEIGHTED {
        return class_weights[c];
    }
    return 1.0;
}

fn counts(label: u32) -> bool { return label < CLASSES && !(IGNORE && label == IGNORED); }

// The target t_c of a hard label that counts, or of the soft label stored at `at`.
fn target_of(label: u32, c: u32, at: u32) -> f32 {
    var p = 0.0;
    if SOFT {
        p = bitcast<f32>(labels[at]);
    } else {
        p = select(0.0, 1.0, c == label);
    }
    return class_weight(c) * (SMOOTHING / f32(CLASSES) + (1.0 - SMOOTHING) * p);
}

fn loss_scale(lane: u32) -> f32 {
    if !BY_LABELS {
        return SCALE;
    }
    var sum = 0.0;
    if WEIGHT_SUMS > 0u {
        for (var i = lane; i < WEIGHT_SUMS; i += WORKGROUP) {
            sum += weight_sums[i];
        }
    } else {
        for (var row = lane; row < ROWS; row += WORKGROUP) {
            let label = labels[row];
            if counts(label) {
                sum += class_weight(label);
            }
        }
    }
    let total = add_lanes(lane, WORKGROUP, vec3<f32>(sum)).x;
    return select(0.0, 1.0 / total, total > 0.0);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let scale = loss_scale(lane);
    let part = lane % LANES;
    var kept = 0.0;
    for (var first = group.x * AT_ONCE; first < ROWS; first += GROUPS * AT_ONCE) {
        let row = min(first + lane / LANES, ROWS - 1u);
        let in_range = first + lane / LANES < ROWS;
        let base = row / INNER * CLASSES * INNER + row % INNER;
        var label = 0u;
        if !SOFT {
            label = labels[row];
        }
        var top = logits[base];
        for (var c = part; c < CLASSES; c += LANES) {
            top = max(top, logits[base + c * INNER]);
        }
        if LANES > 1u {
            top = max_lanes(lane, top);
        }
        var sums = vec3<f32>();     // of exp(x - m), t, t (x - m)
        for (var c = part; c < CLASSES; c += LANES) {
            let at = base + c * INNER;
            let x = logits[at] - top;
            var t = 0.0;
            if SOFT || counts(label) {
                t = target_of(label, c, at);
            }
            sums += vec3<f32>(exp(x), t, t * x);
        }
        if LANES > 1u {
            sums = add_lanes(lane, LANES, sums);
        }
        var row_loss = (sums.y * log(sums.x) - sums.z) * scale;
        if row_loss == 0.0 {
            row_loss = 0.0;     // not -0, which log(1) gives on some compilers
        }
        if in_range {
            for (var c = part; c < CLASSES; c += LANES) {
                let at = base + c * INNER;
                var t = 0.0;
                if SOFT || counts(label) {
                    t = target_of(label, c, at);
                }
                dlogits[at] = (sums.y * (exp(logits[at] - top) / sums.x) - t) * scale;
            }
            if part == 0u {
                kept += row_loss;
                if PER_ROW {
                    loss[row] = row_loss;
                }
            }
        }
    }
    if !PER_ROW {
        let total = add_lanes(lane, WORKGROUP, vec3<f32>(kept)).x;
        if lane == 0u {
            loss[group.x] = total;
        }
    }
}
