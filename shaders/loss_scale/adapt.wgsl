// Changes the factor of the loss after a step.
//
//   scale   the factor s, and how many steps it has been good for; updated
//   flag    one f32: whether a gradient was infinite or NaN; updated
//   rows    SLOTS rows of the metrics (loss, correct, samples, not finite, …), two vec4 each;
//           updated
//   step    step.slot is the row of this step
//
//   flag raised, s > 1 and a finite loss: s is halved, and flag and row are cleared
//   flag not raised for INTERVAL steps:   s is doubled, up to MOST
//
// One invocation.

const INTERVAL: f32 = 2000.0;
const MOST: f32 = 65536.0;
const SLOTS: u32 = 1u;
const EXPONENT: u32 = 0x7f800000u;    // all ones in an infinity or a NaN

struct Step {
    number: u32,
    seed: u32,
    first: u32,
    count: u32,
    slot: u32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
}

@group(0) @binding(0) var<storage, read_write> scale: array<f32>;
@group(0) @binding(1) var<storage, read_write> flag: array<f32>;
@group(0) @binding(2) var<storage, read_write> rows: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> step: Step;

@compute @workgroup_size(1)
fn main() {
    let row = 2u * min(step.slot, SLOTS - 1u);
    let s = scale[0];
    if flag[0] == 0.0 {
        let good = scale[1] + 1.0;
        let grows = good >= INTERVAL;
        scale[0] = select(s, min(2.0 * s, MOST), grows);
        scale[1] = select(good, 0.0, grows);
        return;
    }
    let metrics = rows[row];
    let lost = (bitcast<u32>(metrics.x) & EXPONENT) == EXPONENT;
    if s > 1.0 && !lost {
        scale[0] = 0.5 * s;
        scale[1] = 0.0;
        flag[0] = 0.0;
        rows[row] = vec4<f32>(metrics.xyz, 0.0);
    }
}
