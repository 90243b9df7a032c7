// Where convolutions with a max pool behind them put their results, a library for the hooks
//   fn put(at: u32, value: f32, winner: u32)
//   fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>)      four of a row at once
//
//   y, argmax   [IMAGES, GROUPS * O, POOLED_H, POOLED_W] f32 and u32, counted in Values and
//               Winners: a window's largest output, and its offset oy * OW + ox in the
//               output plane

alias Values = f32;              // or four
alias Winners = u32;

@group(0) @binding(3) var<storage, read_write> y: array<Values>;
@group(0) @binding(4) var<storage, read_write> argmax: array<Winners>;

fn put_pooled(at: u32, value: Values, winner: Winners) {
    y[at] = value;
    argmax[at] = winner;
}
