// Global average pooling, forward: y[p] = mean of the plane x[p, :].
//
//   x   [PLANES, AREA] f32, read as vec4; planes need not start at a vec4, elements
//       of neighbours are masked out
//   y   [PLANES] f32
//
// LANES invocations share a plane, each adding every LANES-th vec4, and their sums are
// added as a tree. Floor: x read once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LANES: u32 = 8u;           // invocations a plane, a power of two up to WORKGROUP
const PLANES: u32 = 1u;          // N * C
const AREA: u32 = 4u;            // H * W

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let plane = (group.x + group.y * GROUPS_X) * (WORKGROUP / LANES) + lane / LANES;
    let share = lane % LANES;
    var sum = vec4<f32>();
    if plane < PLANES {
        let start = plane * AREA;
        let end = start + AREA;
        for (var i = start / 4u + share; i * 4u < end; i += LANES) {
            let e = vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = (e >= vec4<u32>(start)) & (e < vec4<u32>(end));
            sum += select(vec4<f32>(), x[i], inside);
        }
    }
    sums[lane] = (sum.x + sum.y) + (sum.z + sum.w);
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if share < half {
            sums[lane] += sums[lane + half];
        }
    }
    if plane < PLANES && share == 0u {
        y[plane] = sums[lane] / f32(AREA);
    }
}
