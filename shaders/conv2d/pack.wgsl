// Filters laid out for conv2d/patch.wgsl: the weights that meet one tap of one input
// channel lie side by side, so that each lane reads SPAN output channels at once.
//
//   forward       packed[g][c][t][o] = w[g * O + o][c][t]
//   input_grad    packed[g][o][t][c] = w[g * O + o][c][TAPS - 1 - t]     (FLIP)
//
//   w        [GROUPS * O, C, TAPS] f32
//   packed   [GROUPS, SUMMED, TAPS, ROW] Sums: KEPT floats, filled up with zeros to whole Sums;
//            SUMMED and KEPT are C and O, with FLIP O and C
//
// One invocation SPAN elements of `packed`. Floor: 8 bytes an element.

alias Sums = vec4<f32>;          // SPAN of a kind

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const GROUPS: u32 = 1u;
const O: u32 = 1u;               // filters of a group
const C: u32 = 1u;               // channels of a filter
const TAPS: u32 = 1u;            // weights of a filter's channel
const FLIP: bool = false;        // for input_grad
const SPAN: u32 = 4u;            // output channels of a lane

const SUMMED: u32 = select(C, O, FLIP);
const KEPT: u32 = select(O, C, FLIP);
const ROW: u32 = (KEPT + SPAN - 1u) / SPAN;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> packed: array<Sums>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= GROUPS * SUMMED * TAPS * ROW {
        return;
    }
    let kept = i % ROW * SPAN;
    let tap = i / ROW % TAPS;
    let summed = i / (ROW * TAPS) % SUMMED;
    let g = i / (ROW * TAPS * SUMMED);
    var weights: Sums;
    for (var n = 0u; n < SPAN; n++) {
        let k = min(kept + n, KEPT - 1u);
        let flipped = ((g * O + summed) * C + k) * TAPS + TAPS - 1u - tap;
        let at = select(((g * O + k) * C + summed) * TAPS + tap, flipped, FLIP);
        weights[n] = select(0.0, w[at], kept + n < KEPT);
    }
    packed[i] = weights;
}
