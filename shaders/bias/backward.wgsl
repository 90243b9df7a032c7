// Bias, backward, first stage: partials[s, c] = sum over slice s of dy[n, c, i].
//
//   dy        [BATCH, CHANNELS, INNER] f32, read as vec4; storage is padded to whole vec4
//   partials   [SLICES, CHANNELS] f32; with one slice this is db itself
//
// The INNER elements of one sample's channel are a run of memory that QUADS vec4
// cover, wherever it starts; elements of a neighbouring channel are masked:
//
//   dy as vec4   |....|..aa|aaaa|aaab|bbbb|      a: channel c, b: channel c + 1
//                     '------------' QUADS = 3
//
// A workgroup is LANES_R rows of LANES_C channels. Lane (r, c) adds every LANES_R-th
// quad of its slice, in blocks of BLOCK so that roundings do not pile up; the rows are
// then added by a tree. The order is fixed. Floor: 4 bytes an element.

const LANES_C: u32 = 1u;         // channels a workgroup
const LANES_R: u32 = 64u;        // lanes a channel; a power of two
const SLICES: u32 = 1u;          // parts of the sum
const SLICE: u32 = 1u;           // quads of a slice
const BATCH: u32 = 1u;           // samples
const CHANNELS: u32 = 1u;        // length of db
const INNER: u32 = 1u;           // elements of a channel of one sample
const VEC4S: u32 = 1u;           // length of dy in vec4
const BLOCK: u32 = 16u;          // quads added before they join the total
const QUADS: u32 = select((INNER + 6u) / 4u, INNER / 4u, INNER % 4u == 0u);
const WORKGROUP: u32 = LANES_C * LANES_R;

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

// Quad k of channel c of sample n, elements outside the channel as zero.
fn quad(n: u32, c: u32, k: u32) -> vec4<f32> {
    let start = (n * CHANNELS + c) * INNER;
    let at = start / 4u + k;
    if INNER % 4u == 0u {
        return dy[at];
    }
    // Elements before the start wrap around to large numbers.
    let element = vec4<u32>(4u * at - start) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), dy[min(at, VEC4S - 1u)], element < vec4<u32>(INNER));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = group.x * LANES_C + lane % LANES_C;
    let c = min(channel, CHANNELS - 1u);
    let begin = group.y * SLICE;
    let end = min(begin + SLICE, BATCH * QUADS);
    var total = vec4<f32>();
    for (var block = begin + lane / LANES_C; block < end; block += BLOCK * LANES_R) {
        let stop = min(end, block + BLOCK * LANES_R);
        var part = vec4<f32>();
        for (var j = block; j < stop; j += LANES_R) {
            part += quad(j / QUADS, c, j % QUADS);
        }
        total += part;
    }
    pool[lane] = (total.x + total.y) + (total.z + total.w);
    for (var rows = LANES_R / 2u; rows > 0u; rows /= 2u) {
        workgroupBarrier();
        if lane < rows * LANES_C {
            pool[lane] += pool[lane + rows * LANES_C];
        }
    }
    if lane < LANES_C && channel < CHANNELS {
        partials[group.y * CHANNELS + channel] = pool[lane];
    }
}
