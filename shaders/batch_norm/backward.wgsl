// Batch normalisation, backward: the gradient of the image,
//
//   dx = k[c].x * dy * slope(saved, ALPHA) + k[c].y * (x - mean[c]) + k[c].z
//
//   dy, saved, x, dx   [N, C, AREA] f32 as vec4, which may span planes; `saved` is what
//                      the slope of an activation behind the norm is computed from
//                      (without one the launch binds dy and nothing is read)
//   mean               [C] f32
//   k                  [C] vec4: coefficients, see finish_batch.wgsl
//
// One invocation takes RUN consecutive vec4s; where RUN > 1 they lie in one plane, so
// that its coefficients are loaded once. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const ELEMENTS: u32 = 4u;        // elements of x
const CHANNELS: u32 = 1u;        // C
const AREA: u32 = 4u;            // H * W
const RUN: u32 = 1u;             // vec4s an invocation; divides AREA / 4 if above 1
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> saved: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;

fn slope(s: f32, alpha: f32) -> f32 { return 1.0; }

// The coefficients of the channel an element belongs to, its mean in place of the
// last. Past the end any channel will do: the result goes into the padding.
fn coefficients(element: u32) -> vec4<f32> {
    let c = element / AREA % CHANNELS;
    return vec4<f32>(k[c].xyz, mean[c]);
}

fn upstream(i: u32) -> vec4<f32> {
    let s = saved[i];
    return dy[i] * vec4<f32>(slope(s.x, ALPHA), slope(s.y, ALPHA), slope(s.z, ALPHA), slope(s.w, ALPHA));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = ((group.x + group.y * GROUPS_X) * WORKGROUP + lane) * RUN;
    if first * 4u >= ELEMENTS {
        return;
    }
    let a = coefficients(first * 4u);
    if AREA % 4u == 0u {
        for (var i = first; i < first + RUN; i++) {
            dx[i] = a.x * upstream(i) + (a.y * (x[i] - a.w) + a.z);
        }
    } else {
        let b = coefficients(first * 4u + 1u);
        let c = coefficients(first * 4u + 2u);
        let d = coefficients(first * 4u + 3u);
        let centred = x[first] - vec4<f32>(a.w, b.w, c.w, d.w);
        let rest = vec4<f32>(a.y, b.y, c.y, d.y) * centred + vec4<f32>(a.z, b.z, c.z, d.z);
        dx[first] = vec4<f32>(a.x, b.x, c.x, d.x) * upstream(first) + rest;
    }
}
