// Gathers the labels of a batch: y[n] = labels[order[(step.first + n) mod LENGTH]].
//
//   order    LENGTH u32, sample numbers
//   labels   LENGTH u32
//   y        BATCH u32
//
// One invocation an element. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LENGTH: u32 = 1u;          // samples
const BATCH: u32 = 1u;           // labels gathered

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

@group(0) @binding(0) var<storage, read> order: array<u32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<uniform> step: Step;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if n >= BATCH {
        return;
    }
    y[n] = labels[order[(step.first + n) % LENGTH]];
}
