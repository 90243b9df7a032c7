// Muon, last stage: p = p - lr (WEIGHT_DECAY p + SIZE x), with lr the step's learning rate
// times RATE. Where it is NORMALIZED, p is first brought to the norm NORM.
//
//   p        LEN f32 seen as vec4, updated; what pads the last vec4 stays
//   x        as long
//   square   one f32, the sum of p^2; not read otherwise
//
// One invocation a vec4. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // elements
const RATE: f32 = 1.0;
const WEIGHT_DECAY: f32 = 0.0;
const SIZE: f32 = 1.0;
const NORMALIZED: bool = false;
const NORM: f32 = 1.0;
const EPSILON: f32 = 1e-7;       // keeps p = 0 from division by zero

struct Step {
    number: u32,
    seed: u32,
    first: u32,
    count: u32,
    slot: u32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
}

@group(0) @binding(0) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> square: array<f32>;
@group(0) @binding(3) var<uniform> step: Step;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if 4u * i >= LEN {
        return;
    }
    let old = p[i];
    var start = old;
    if NORMALIZED {
        start *= NORM / (sqrt(square[0]) + EPSILON);
    }
    let moved = start - step.learning_rate * RATE * (WEIGHT_DECAY * start + SIZE * x[i]);
    p[i] = select(old, moved, 4u * i + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(LEN));
}
