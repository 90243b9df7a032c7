// Mixup and CutMix: y[n] = s x[n] + (1 - s) x[(n + 1) mod BATCH], where s is the image's own
// share, or in CutMix 0 inside of the box and 1 outside.
//
//   x, y    [BATCH, CHANNELS, HEIGHT, WIDTH] f32
//   pairs   two vec4 an image, see draw_pairs.wgsl
//
// One invocation four elements. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const BATCH: u32 = 1u;           // images
const CHANNELS: u32 = 1u;
const HEIGHT: u32 = 1u;
const WIDTH: u32 = 1u;
const PLANE: u32 = HEIGHT * WIDTH;
const IMAGE: u32 = CHANNELS * PLANE;
const TOTAL: u32 = BATCH * IMAGE;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> pairs: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = ((group.x + group.y * GROUPS_X) * WORKGROUP + lane) * 4u;
    for (var at = first; at < min(first + 4u, TOTAL); at++) {
        let n = at / IMAGE;
        let place = at % PLANE;
        let row = f32(place / WIDTH);
        let column = f32(place % WIDTH);
        var share = pairs[2u * n].x;
        if pairs[2u * n].y != 0.0 {
            let area = pairs[2u * n + 1u];
            let rows = area.x <= row && row < area.y;
            share = select(1.0, 0.0, rows && area.z <= column && column < area.w);
        }
        let other = (n + 1u) % BATCH * IMAGE + at % IMAGE;
        y[at] = share * x[at] + (1.0 - share) * x[other];
    }
}
