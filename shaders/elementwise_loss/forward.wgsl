// A loss of each element and its target, and its derivative, in one:
//
//   loss[i] = value(x[i], t[i]) * SCALE     dx[i] = slope(x[i], t[i]) * SCALE
//
//   x, t, dx   [LEN] f32, read as vec4; storage is padded to whole vec4
//   loss       [LEN] f32 if PER_ELEMENT, else [GROUPS]: a sum for each workgroup
//
// Lanes stride through the elements, a vec4 at a time; a tree adds the lanes. The order
// is fixed. Floor: 12 bytes an element.

const WORKGROUP: u32 = 64u;      // invocations a workgroup; a power of two
const GROUPS: u32 = 1u;          // workgroups
const LEN: u32 = 1u;             // length of x
const SCALE: f32 = 1.0;          // factor of the loss
const PER_ELEMENT: bool = false; // whether to keep every element's loss

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;

var<workgroup> pool: array<f32, WORKGROUP>;

fn value(x: f32, t: f32) -> f32 { return x - t; }
fn slope(x: f32, t: f32) -> f32 { return 1.0; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = group.x * WORKGROUP + lane; 4u * i < LEN; i += GROUPS * WORKGROUP) {
        let v = x[i];
        let w = t[i];
        dx[i] = vec4<f32>(slope(v.x, w.x), slope(v.y, w.y), slope(v.z, w.z), slope(v.w, w.w)) * SCALE;
        let values = vec4<f32>(value(v.x, w.x), value(v.y, w.y), value(v.z, w.z), value(v.w, w.w)) * SCALE;
        // The last vec4 may reach past the end.
        let place = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
        let kept = select(vec4<f32>(), values, place < vec4<u32>(LEN));
        sum += (kept.x + kept.y) + (kept.z + kept.w);
        if PER_ELEMENT {
            for (var j = 0u; j < min(4u, LEN - 4u * i); j++) {
                loss[4u * i + j] = values[j];
            }
        }
    }
    if !PER_ELEMENT {
        pool[lane] = sum;
        for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if lane < half {
                pool[lane] += pool[lane + half];
            }
        }
        if lane == 0u {
            loss[group.x] = pool[0];
        }
    }
}
