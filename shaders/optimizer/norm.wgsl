// The squares of an arena's elements, added up; the padding behind its tensors left out.
//
//   arena      [LEN] f32 seen as vec4
//   counts     u32, how many elements count of each block of BLOCK
//   partials   f32, one for each workgroup: workgroup g adds vec4s g * SLICE to (g + 1) * SLICE
//
// Lanes stride through the slice, then a tree: the order is fixed. Floor: 4 bytes an
// element.

const WORKGROUP: u32 = 64u;      // invocations; a power of two
const LEN: u32 = 1u;             // length of the arena
const SLICE: u32 = 1u;           // vec4s a workgroup
const FIRST_BLOCK: u32 = 0u;     // the block the arena begins with
const BLOCK: u32 = 64u;          // elements of a block

@group(0) @binding(0) var<storage, read> arena: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let begin = group.x * SLICE;
    let end = min(begin + SLICE, (LEN + 3u) / 4u);
    var sum = 0.0;
    for (var i = begin + lane; i < end; i += WORKGROUP) {
        let block = 4u * i / BLOCK;
        // What counts of the block may still be past the arena's end.
        let last = min(block * BLOCK + counts[FIRST_BLOCK + block], LEN);
        let at = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
        let g = select(vec4<f32>(), arena[i], at < vec4<u32>(last));
        sum += dot(g, g);
    }
    pool[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            pool[lane] += pool[lane + half];
        }
    }
    if lane == 0u {
        partials[group.x] = pool[0];
    }
}
