// Multiply-add rate: every element of CHAINS vec4 an invocation goes through
// x = x / 2 + 1, ROUNDS * STEPS times.
//
//   y   [invocations] vec4, the sum of each invocation's chains, so that none is dropped
//
// No chain waits for another and nothing is loaded: what is measured is arithmetic.
// An invocation makes 4 CHAINS STEPS ROUNDS multiply-adds. The body of a round, which
// drivers unroll, stays within an instruction cache: 4 CHAINS STEPS below 1300.

const WORKGROUP: u32 = 64u;      // invocations a workgroup
const CHAINS: u32 = 4u;          // vec4 that do not depend on each other
const STEPS: u32 = 16u;          // multiply-adds of a chain in a round
const ROUNDS: u32 = 64u;
alias Scalar = f32;              // or f16

@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let half = vec4<Scalar>(Scalar(0.5));
    let one = vec4<Scalar>(Scalar(1.0));
    var x: array<vec4<Scalar>, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        x[c] = vec4<Scalar>(vec4<f32>(f32(lane), f32(c), 1.0, 2.0));
    }
    for (var round = 0u; round < ROUNDS; round++) {
        for (var step = 0u; step < STEPS; step++) {
            for (var c = 0u; c < CHAINS; c++) {
                x[c] = fma(x[c], half, one);
            }
        }
    }
    var sum = vec4<Scalar>();
    for (var c = 0u; c < CHAINS; c++) {
        sum += x[c];
    }
    y[group.x * WORKGROUP + lane] = vec4<f32>(sum);
}
