// Batch normalisation with known statistics, and an activation:
//
//   y = activate(gamma[c] * (x - mean[c]) / sqrt(variance[c] + EPSILON) + beta[c], ALPHA)
//
//   x, y                          [N, C, AREA] f32 as vec4, which may span planes
//   mean, variance, gamma, beta   [C] f32
//
// One invocation takes RUN consecutive vec4s; where RUN > 1 they lie in one plane, so
// that its four parameters are loaded once. Floor: 8 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const ELEMENTS: u32 = 4u;        // elements of x
const CHANNELS: u32 = 1u;        // C
const AREA: u32 = 4u;            // H * W
const RUN: u32 = 1u;             // vec4s an invocation; divides AREA / 4 if above 1
const EPSILON: f32 = 0.001;
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> mean: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read> gamma: array<f32>;
@group(0) @binding(4) var<storage, read> beta: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

fn activate(v: f32, alpha: f32) -> f32 { return v; }

struct Map { mean: f32, scale: f32, shift: f32 }

// The map of the channel an element belongs to.
fn map_of(element: u32) -> Map {
    // Past the end any channel will do: the result goes into the padding.
    let c = element / AREA % CHANNELS;
    return Map(mean[c], gamma[c] / sqrt(variance[c] + EPSILON), beta[c]);
}

fn activate4(v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(activate(v.x, ALPHA), activate(v.y, ALPHA), activate(v.z, ALPHA), activate(v.w, ALPHA));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = ((group.x + group.y * GROUPS_X) * WORKGROUP + lane) * RUN;
    if first * 4u >= ELEMENTS {
        return;
    }
    let a = map_of(first * 4u);
    if AREA % 4u == 0u {
        for (var i = first; i < first + RUN; i++) {
            y[i] = activate4((x[i] - a.mean) * a.scale + a.shift);
        }
    } else {
        let b = map_of(first * 4u + 1u);
        let c = map_of(first * 4u + 2u);
        let d = map_of(first * 4u + 3u);
        let centred = x[first] - vec4<f32>(a.mean, b.mean, c.mean, d.mean);
        let scale = vec4<f32>(a.scale, b.scale, c.scale, d.scale);
        y[first] = activate4(centred * scale + vec4<f32>(a.shift, b.shift, c.shift, d.shift));
    }
}
