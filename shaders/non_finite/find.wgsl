// Raises a flag where an element of a tensor is infinite or NaN, and, with METRICS, where
// the step's row of metrics says so of a logit or a loss; the row then tells of both.
//
//   flag      one f32, 0 or 1; never lowered here
//   rows      [SLOTS, ROW] f32; element 3 of row step.slot is 1 where something is not finite.
//             Not touched unless METRICS
//   x         [LEN] f32 seen as vec4
//   counts    u32, with COUNTED: how many elements count of each block of BLOCK; the rest is
//             padding, whose content means nothing
//
// Workgroup g looks at vec4s g * SLICE to (g + 1) * SLICE. All that write a flag write the
// same bits, so the order does not matter. Floor: 4 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations
const LEN: u32 = 1u;             // elements of x
const SLICE: u32 = 64u;          // vec4s a workgroup
const METRICS: bool = false;
const SLOTS: u32 = 1u;           // rows of metrics
const ROW: u32 = 8u;             // elements of a row
const COUNTED: bool = false;
const FIRST_BLOCK: u32 = 0u;     // the block x begins with
const BLOCK: u32 = 64u;          // elements of a block
const EXPONENT: u32 = 0x7f800000u;  // bits that are all set in infinities and NaNs
const ONE: u32 = 0x3f800000u;    // the bits of 1.0

struct Step { number: u32, seed: u32, first: u32, count: u32, slot: u32, learning_rate: f32, correction1: f32, correction2: f32 }

@group(0) @binding(0) var<storage, read_write> flag: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read_write> rows: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<uniform> step: Step;

// The elements from 4 i on that count.
fn end_of(i: u32) -> u32 {
    if COUNTED {
        let block = 4u * i / BLOCK;
        return min(block * BLOCK + counts[FIRST_BLOCK + block], LEN);
    }
    return LEN;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let begin = (group.x + group.y * GROUPS_X) * SLICE;
    let end = min(begin + SLICE, (LEN + 3u) / 4u);
    var bad = false;
    for (var i = begin + lane; i < end; i += WORKGROUP) {
        let at = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
        let exponents = bitcast<vec4<u32>>(x[i]) & vec4<u32>(EXPONENT);
        bad |= any((exponents == vec4<u32>(EXPONENT)) & (at < vec4<u32>(end_of(i))));
    }
    if METRICS && step.slot < SLOTS {
        let told = ROW * step.slot + 3u;
        if begin + lane == 0u && atomicLoad(&rows[told]) != 0u {
            bad = true;
        }
        if bad {
            atomicStore(&rows[told], ONE);
        }
    }
    if bad {
        atomicStore(&flag[0], ONE);
    }
}
