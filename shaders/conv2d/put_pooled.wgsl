// Where conv2d/patch.wgsl puts the results of a convolution with a max pool behind it, a
// library for the hook
//   fn put(at: u32, value: f32, winner: u32)
//
//   y, argmax   [IMAGES, GROUPS * O, POOLED_H, POOLED_W] f32 and u32: a window's largest
//               output, and its offset oy * OW + ox in the output plane

@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> argmax: array<u32>;

fn put_pooled(at: u32, value: f32, winner: u32) {
    y[at] = value;
    argmax[at] = winner;
}
