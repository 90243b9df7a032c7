// Where max pools, and convolutions with one behind them, put their results, a library for the hooks
//   fn put(at: u32, value: f32, winner: u32)
//   fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>)      four of a row at once
//
//   y, argmax   [IMAGES, GROUPS * O, POOLED_H, POOLED_W] f32 and u32, counted in Values and
//               Winners: of each window the activation of its largest output, and that one's
//               offset oy * OW + ox in the output plane, or NO_WINNER

alias Values = f32;              // or four
alias Winners = u32;

const SETTLED: bool = false;     // what the activation, a ReLU, stops has no winner

const NO_WINNER: u32 = 0xffffffffu;

@group(0) @binding(3) var<storage, read_write> y: array<Values>;
@group(0) @binding(4) var<storage, read_write> argmax: array<Winners>;

fn put_pooled(at: u32, value: Values, winner: Winners) {
    y[at] = value;
    if SETTLED {
        argmax[at] = select(Winners(NO_WINNER), winner, value > Values(0.0));
    } else {
        argmax[at] = winner;
    }
}
