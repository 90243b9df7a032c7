// The sizes of dispatches that run only where a flag is not raised:
//
//   sizes[i] = flag != 0 ? 0 : counts[i]
//
//   flag     one f32
//   counts   [LEN] u32, three to a dispatch: its workgroups
//   sizes    as long; what the dispatches are told by
//
// Floor: 8 bytes a count; in truth a dispatch of a few invocations.

const WORKGROUP: u32 = 64u;
const LEN: u32 = 3u;

@group(0) @binding(0) var<storage, read> flag: array<f32>;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> sizes: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    let i = at.x;
    if i < LEN {
        sizes[i] = select(counts[i], 0u, flag[0] != 0.0);
    }
}
