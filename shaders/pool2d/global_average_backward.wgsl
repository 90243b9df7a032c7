// Global average pooling, backward: dx[p, i] = dy[p] / AREA.
//
//   dy   [PLANES] f32
//   dx   [PLANES, AREA] f32, written as vec4, which may span planes
//
// One invocation a vec4 of dx. Floor: 4 bytes written an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const ELEMENTS: u32 = 4u;        // elements of dx
const AREA: u32 = 4u;            // H * W

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<vec4<f32>>;

fn share(element: u32) -> f32 {
    // Past the end the last element is computed again, into the padding.
    return dy[min(element, ELEMENTS - 1u) / AREA] / f32(AREA);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i * 4u >= ELEMENTS {
        return;
    }
    if AREA % 4u == 0u {
        dx[i] = vec4<f32>(share(i * 4u));
    } else {
        dx[i] = vec4<f32>(share(i * 4u), share(i * 4u + 1u), share(i * 4u + 2u), share(i * 4u + 3u));
    }
}
