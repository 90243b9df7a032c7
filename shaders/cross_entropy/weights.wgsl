// Softmax cross-entropy: the sum of the labels' weights, in parts.
//
//   labels          [ROWS] u32
//   class_weights   [CLASSES] f32; not read unless WEIGHTED (then every weight is 1)
//   weight_sums     [GROUPS] f32: workgroup g adds rows g * SLICE to (g + 1) * SLICE
//
// A label that is IGNORED or no class weighs nothing. Lanes stride through the slice,
// then a tree: the order is fixed. Floor: 4 bytes a row.

const WORKGROUP: u32 = 64u;      // invocations; a power of two
const SLICE: u32 = 1u;           // rows a workgroup
const ROWS: u32 = 1u;
const CLASSES: u32 = 1u;
const WEIGHTED: bool = false;    // whether there are class weights
const IGNORE: bool = false;      // whether a label is ignored
const IGNORED: u32 = 0u;         // that label

@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read> class_weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight_sums: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let begin = group.x * SLICE;
    let end = min(begin + SLICE, ROWS);
    var sum = 0.0;
    for (var row = begin + lane; row < end; row += WORKGROUP) {
        let label = labels[row];
        if label < CLASSES && !(IGNORE && label == IGNORED) {
            if WEIGHTED {
                sum += class_weights[label];
            } else {
                sum += 1.0;
            }
        }
    }
    pool[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            pool[lane] += pool[lane + half];
        }
    }
    if lane == 0u {
        weight_sums[group.x] = pool[0];
    }
}
