// Last stage of a sum: total = sum over i of partials[i].
//
//   partials   [LEN] f32, one for each workgroup of the stage before
//   total     one f32
//
// One workgroup: lane l adds partials[l], partials[l + WORKGROUP], …; then a tree. The
// order is fixed.

const WORKGROUP: u32 = 64u;      // invocations; a power of two
const LEN: u32 = 1u;             // number of partials sums

@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> total: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < LEN; i += WORKGROUP) {
        sum += partials[i];
    }
    pool[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            pool[lane] += pool[lane + half];
        }
    }
    if lane == 0u {
        total[0] = pool[0];
    }
}
