// Adds up the parts of a sum that was split, or of two sums that were split alike:
// y[i] = sum over s of parts[s][i], in the order of s, and so of more.
//
//   parts   SPLITS x LENGTH f32 seen as Values, each part LENGTH apart
//   y       LENGTH f32 seen as Values
//   parts_of_more, more   the same of MORE f32; not touched where that is 0
//
// One invocation a Values: a quad of elements where there are many, and quads of them.
// Floor: 4 (SPLITS + 1) bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LENGTH: u32 = 1u;          // Values of y
const MORE: u32 = 0u;            // Values of more
const SPLITS: u32 = 1u;          // parts

alias Values = f32;              // or vec4<f32>

@group(0) @binding(0) var<storage, read> parts: array<Values>;
@group(0) @binding(1) var<storage, read_write> y: array<Values>;
@group(0) @binding(2) var<storage, read> parts_of_more: array<Values>;
@group(0) @binding(3) var<storage, read_write> more: array<Values>;

// Workgroups that y takes.
fn groups() -> u32 {
    return (LENGTH + WORKGROUP - 1u) / WORKGROUP;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group.x + group.y * GROUPS_X;
    var sum = Values();
    if MORE == 0u || number < groups() {
        let i = number * WORKGROUP + lane;
        if i >= LENGTH {
            return;
        }
        for (var s = 0u; s < SPLITS; s++) {
            sum += parts[s * LENGTH + i];
        }
        y[i] = sum;
    } else {
        let i = (number - groups()) * WORKGROUP + lane;
        if i >= MORE {
            return;
        }
        for (var s = 0u; s < SPLITS; s++) {
            sum += parts_of_more[s * MORE + i];
        }
        more[i] = sum;
    }
}
