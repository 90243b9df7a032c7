// The labels of mixed images, as distributions over the classes, and the one of the larger
// share.
//
//   labels        [BATCH] u32; one that is no class adds nothing
//   pairs         two vec4 an image, see draw_pairs.wgsl
//   targets       [BATCH, CLASSES] f32
//   main_labels   [BATCH] u32
//
// One invocation an element of targets. Floor: 4 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const BATCH: u32 = 1u;           // images
const CLASSES: u32 = 1u;

@group(0) @binding(0) var<storage, read> labels: array<u32>;
@group(0) @binding(1) var<storage, read> pairs: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> targets: array<f32>;
@group(0) @binding(3) var<storage, read_write> main_labels: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    let n = at / CLASSES;
    if n >= BATCH {
        return;
    }
    let label = at % CLASSES;
    let own = labels[n];
    let other = labels[(n + 1u) % BATCH];
    let share = pairs[2u * n].x;
    targets[at] = select(0.0, share, label == own) + select(0.0, 1.0 - share, label == other);
    if label == 0u {
        main_labels[n] = select(own, other, share < 0.5);
    }
}
