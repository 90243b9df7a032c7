// Running statistics: r = MOMENTUM * r + (1 - MOMENTUM) * batch, for mean and variance.
//
//   running_mean, running_variance   [CHANNELS] f32, updated in place
//   mean, variance                   [CHANNELS] f32, the batch's
//
// One invocation a channel.

const WORKGROUP: u32 = 64u;      // invocations a workgroup
const CHANNELS: u32 = 1u;        // C
const MOMENTUM: f32 = 0.99;

@group(0) @binding(0) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(1) var<storage, read_write> running_variance: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> variance: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    if c >= CHANNELS {
        return;
    }
    running_mean[c] = MOMENTUM * running_mean[c] + (1.0 - MOMENTUM) * mean[c];
    running_variance[c] = MOMENTUM * running_variance[c] + (1.0 - MOMENTUM) * variance[c];
}
