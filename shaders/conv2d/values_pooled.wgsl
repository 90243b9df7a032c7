// The gradient behind a max pool, and perhaps an activation behind that, for
// conv2d/patch.wgsl and conv2d/correlate.wgsl, a library for the hooks
//   fn value_at(at: u32) -> f32           dy * slope(saved), 0 where there is no winner
//   fn winner_at(at: u32) -> u32          argmax
//
//   dy, saved, argmax   [IMAGES, GROUPS * O, POOLED_H, POOLED_W] f32, f32 and u32; `saved`
//                       is what the slope of the activation is computed from (without one
//                       the launch binds dy and nothing is read); where argmax is
//                       NO_WINNER the gradient goes nowhere

const NO_WINNER: u32 = 0xffffffffu;
const SLOPE_ALPHA: f32 = 0.0;    // the activation's parameter

@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read> saved: array<f32>;
@group(0) @binding(7) var<storage, read> argmax: array<u32>;

fn slope(s: f32, alpha: f32) -> f32 { return 1.0; }

fn pooled_value_at(at: u32) -> f32 {
    return select(0.0, dy[at] * slope(saved[at], SLOPE_ALPHA), argmax[at] != NO_WINNER);
}

fn pooled_winner_at(at: u32) -> u32 {
    return argmax[at];
}
