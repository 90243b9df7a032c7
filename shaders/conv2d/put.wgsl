// Where convolutions put their results, a library for the hooks
//   fn put(at: u32, value: f32, winner: u32)
//   fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>)      four of a row at once
//
//   y   [IMAGES, GROUPS * O, OH, OW] f32, counted in Values

alias Values = f32;              // or four
alias Winners = u32;

@group(0) @binding(3) var<storage, read_write> y: array<Values>;

fn put_value(at: u32, value: Values, winner: Winners) {
    y[at] = value;
}
