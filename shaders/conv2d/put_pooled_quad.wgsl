// Where convolutions with a max pool behind them put the results of four neighbouring
// windows at once, a library for the hook
//   fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>)
//
//   y, argmax   [IMAGES, GROUPS * O, POOLED_H, POOLED_W / 4] vec4 of f32 and u32: the
//               windows' largest outputs, and their offsets oy * OW + ox in the output plane

@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> argmax: array<vec4<u32>>;

fn put_pooled_values(at: u32, values: vec4<f32>, winners: vec4<u32>) {
    y[at] = values;
    argmax[at] = winners;
}
