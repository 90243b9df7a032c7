// Winograd's convolution F(4 x 4, 3 x 3) (Lavin and Gray 2015, section 4.3): all that is
// there to do around its products. One kernel, five uses, by the hooks it is given:
//
//   filters     3 x 3 weights        -> U = G w G^T       6 x 6 positions
//   images      6 x 6 pixels         -> V = B^T x B       6 x 6 positions
//   outputs     6 x 6 sums of U V    -> y = A^T m A       4 x 4 outputs
//   gradients   4 x 4 gradients      -> S = A dy A^T      6 x 6 positions
//   weights     6 x 6 sums of S V    -> dw = G^T u G      3 x 3 weights
//
// Between them matmul multiplies each of the 36 positions by itself, U V summed over
// channels, S V^T over tiles: 36 products for 16 outputs that take 144 directly.
//
//      patch, FROM x FROM        lines               results, TO x TO
//     +-------------+          +---------+          +---------+
//     | rows, each  |    ->    | columns |    ->    |         |     each in four places at
//     | transformed |          | of them |          |         |     once, as vec4
//     +-------------+          +---------+          +---------+
//
// One invocation takes four neighbouring places (tiles, or channels of a filter) of a plane
// (channels, or filters). Floor: FROM^2 reads and TO^2 writes of a vec4.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const PLANES: u32 = 1u;
const QUADS: u32 = 1u;           // vec4 of a plane's places
const FROM: u32 = 6u;            // rows and columns of a patch
const TO: u32 = 6u;              // and of its result

// Hooks: a patch of four places, the transform in one dimension, and what becomes of a result.
fn take(plane: u32, quad: u32) -> array<array<vec4<f32>, FROM>, FROM> { return array<array<vec4<f32>, FROM>, FROM>(); }
fn transform(line: array<vec4<f32>, FROM>) -> array<vec4<f32>, TO> { return array<vec4<f32>, TO>(); }
fn give(plane: u32, quad: u32, results: array<array<vec4<f32>, TO>, TO>) {
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= PLANES * QUADS {
        return;
    }
    let plane = i / QUADS;
    let quad = i % QUADS;
    let taken = take(plane, quad);
    var lines: array<array<vec4<f32>, TO>, FROM>;
    for (var r = 0u; r < FROM; r++) {
        lines[r] = transform(taken[r]);
    }
    var results: array<array<vec4<f32>, TO>, TO>;
    for (var s = 0u; s < TO; s++) {
        var column: array<vec4<f32>, FROM>;
        for (var r = 0u; r < FROM; r++) {
            column[r] = lines[r][s];
        }
        let transformed = transform(column);
        for (var r = 0u; r < TO; r++) {
            results[r][s] = transformed[r];
        }
    }
    give(plane, quad, results);
}
