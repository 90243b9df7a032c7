// Count: y[0] = y[0] + 1, the least a dispatch can do that the next one has to wait for.
//
//   y   [1] u32

@group(0) @binding(0) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(1)
fn main() {
    y[0] += 1u;
}
