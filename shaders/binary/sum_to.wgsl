// Sum over axes: partials[s, o] = sum over slice s of the TERMS of x that belong to
// output o. With the hooks of `binary/folds.wgsl` it is a product, maximum or minimum.
//
//   x          f32. Output o begins at its place along the kept axes, whose extents and
//              strides in x are Kk and KSk; its terms lie along the summed axes, Sk and
//              SSk. Neighbouring axes are joined, so three of each reach rank 6.
//   partials   [SLICES, OUTPUTS] f32; with one slice this is the result itself, else
//              this kernel adds the slices in a second dispatch
//
// LANES lanes share an output; each adds every LANES-th term of the slice, in blocks of
// BLOCK so that roundings do not pile up; a tree adds the lanes. The order is fixed.
// Floor: 4 bytes a term.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const LANES: u32 = 8u;           // lanes an output; a power of two
const AT_ONCE: u32 = 8u;         // outputs a workgroup
const OUTPUTS: u32 = 1u;         // length of the result
const TERMS: u32 = 1u;           // terms of an output
const SLICE: u32 = 1u;           // terms of a slice
const BLOCK: u32 = 32u;          // terms a lane adds before they join its total
const K1: u32 = 1u;              // extents of the kept axes; the outermost is not needed
const K2: u32 = 1u;
const KS0: u32 = 0u;             // strides of the kept axes
const KS1: u32 = 0u;
const KS2: u32 = 0u;
const S1: u32 = 1u;              // extents of the summed axes
const S2: u32 = 1u;
const SS0: u32 = 0u;             // strides of the summed axes
const SS1: u32 = 0u;
const SS2: u32 = 0u;
const WORKGROUP: u32 = LANES * AT_ONCE;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

fn fold(a: f32, b: f32) -> f32 { return a + b; }
// What a fold begins with, where one of its terms is x.
fn begin_with(x: f32) -> f32 { return 0.0; }

fn output_place(o: u32) -> u32 {
    return o / K2 / K1 * KS0 + o / K2 % K1 * KS1 + o % K2 * KS2;
}

fn term_place(t: u32) -> u32 {
    return t / S2 / S1 * SS0 + t / S2 % S1 * SS1 + t % S2 * SS2;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let o = (group.x + group.y * GROUPS_X) * AT_ONCE + lane / LANES;
    let base = output_place(min(o, OUTPUTS - 1u));
    let begin = group.z * SLICE;
    let end = min(begin + SLICE, TERMS);
    let neutral = begin_with(x[base + term_place(begin)]);
    var total = neutral;
    for (var block = begin + lane % LANES; block < end; block += BLOCK * LANES) {
        let stop = min(end, block + BLOCK * LANES);
        var part = neutral;
        for (var t = block; t < stop; t += LANES) {
            part = fold(part, x[base + term_place(t)]);
        }
        total = fold(total, part);
    }
    pool[lane] = total;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % LANES < half {
            pool[lane] = fold(pool[lane], pool[lane + half]);
        }
    }
    if lane % LANES == 0u && o < OUTPUTS {
        partials[group.z * OUTPUTS + o] = pool[lane];
    }
}
