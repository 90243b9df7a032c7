// Takes a tensor into a running one.
//
//   sum       running += WEIGHT x
//   AVERAGE   running += s (x - running), s = max(ONE_MINUS_DECAY, 9 / (10 + t)) at step t
//   MASK      running = 0 where x = 0
//
//   running   f32 seen as vec4, updated
//   x         as long
//
// One invocation a vec4. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length in vec4
const AVERAGE: bool = false;     // whether it is an average
const MASK: bool = false;        // whether it is a mask
const WEIGHT: f32 = 1.0;
const ONE_MINUS_DECAY: f32 = 0.001;  // rounded once, from the exact difference

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

@group(0) @binding(0) var<storage, read_write> running: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> step: Step;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    let r = running[i];
    if MASK {
        running[i] = select(r, vec4<f32>(), x[i] == vec4<f32>());
    } else if AVERAGE {
        let share = max(ONE_MINUS_DECAY, 9.0 / (10.0 + f32(step.number)));
        running[i] = r + share * (x[i] - r);
    } else {
        running[i] = r + WEIGHT * x[i];
    }
}
