// Philox4x32-10, a counter-based random number generator (Salmon et al. 2011,
// "Parallel Random Numbers: As Easy as 1, 2, 3"): a library, hooked into the kernels
// that draw (see `Kernel::hook`). It has no bindings.
//
//   philox4x32(counter, key)   four words that depend on counter and key alone, the
//                              same as `ops::random::philox4x32` gives on the host

const PHILOX_ROUNDS: u32 = 10u;
const PHILOX_MULTIPLIERS: vec2<u32> = vec2<u32>(0xd2511f53u, 0xcd9e8d57u);
const PHILOX_KEY_STEPS: vec2<u32> = vec2<u32>(0x9e3779b9u, 0xbb67ae85u); // 2^32 / golden ratio, 2^32 (sqrt(3) - 1)

// The high word of a * b, from 16-bit halves: WGSL has no wider product. No sum
// overflows, as (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1.
fn high_product(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let a_low = a & vec2<u32>(0xffffu);
    let b_low = b & vec2<u32>(0xffffu);
    let a_high = a >> vec2<u32>(16u);
    let b_high = b >> vec2<u32>(16u);
    let middle = a_high * b_low + ((a_low * b_low) >> vec2<u32>(16u));
    let carried = a_low * b_high + (middle & vec2<u32>(0xffffu));
    return a_high * b_high + (middle >> vec2<u32>(16u)) + (carried >> vec2<u32>(16u));
}

fn philox4x32(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var word = counter;
    for (var round = 0u; round < PHILOX_ROUNDS; round++) {
        let high = high_product(PHILOX_MULTIPLIERS, word.xz);
        let low = PHILOX_MULTIPLIERS * word.xz;
        let mixed = high.yx ^ word.yw ^ (key + round * PHILOX_KEY_STEPS);
        word = vec4<u32>(mixed.x, low.y, mixed.y, low.x);
    }
    return word;
}
