// Muon, first stage: m = MU m + g with g = SCALE times the gradient; x = g + MU m with
// NESTEROV, else m; and the sums of x^2 and, where it is NORMALIZED, of p^2 over each
// workgroup's slice.
//
//   p, gradient, momentum, x   LEN f32 seen as vec4; what pads the last vec4 counts as 0
//   partials, squares          one f32 a workgroup: the sums of x^2 and of p^2
//
// A workgroup takes SLICE vec4: lane l every WORKGROUP-th from l on; the lanes are added by a
// tree, so the order is fixed. Floor: 16 bytes an element, 20 where it is NORMALIZED.

const WORKGROUP: u32 = 64u;      // invocations a workgroup; a power of two
const LEN: u32 = 1u;             // elements
const SLICE: u32 = 64u;          // vec4 of a workgroup
const MU: f32 = 0.95;
const NESTEROV: bool = true;
const SCALE: f32 = 1.0;
const NORMALIZED: bool = false;
const VEC4S: u32 = (LEN + 3u) / 4u;

@group(0) @binding(0) var<storage, read> p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> momentum: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;
@group(0) @binding(5) var<storage, read_write> squares: array<f32>;

// The sums of x^2 and of p^2.
var<workgroup> pool: array<vec2<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var of_x = vec4<f32>();
    var of_p = vec4<f32>();
    let end = min((group.x + 1u) * SLICE, VEC4S);
    for (var i = group.x * SLICE + lane; i < end; i += WORKGROUP) {
        let counts = 4u * i + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(LEN);
        let g = select(vec4<f32>(), SCALE * gradient[i], counts);
        let m = select(vec4<f32>(), MU * momentum[i] + g, counts);
        var direction = m;
        if NESTEROV {
            direction = g + MU * m;
        }
        momentum[i] = m;
        x[i] = direction;
        of_x += direction * direction;
        if NORMALIZED {
            let weights = select(vec4<f32>(), p[i], counts);
            of_p += weights * weights;
        }
    }
    pool[lane] = vec2<f32>(of_x.x, of_p.x) + vec2<f32>(of_x.y, of_p.y)
        + (vec2<f32>(of_x.z, of_p.z) + vec2<f32>(of_x.w, of_p.w));
    for (var rows = WORKGROUP / 2u; rows > 0u; rows /= 2u) {
        workgroupBarrier();
        if lane < rows {
            pool[lane] += pool[lane + rows];
        }
    }
    if lane == 0u {
        partials[group.x] = pool[0].x;
        squares[group.x] = pool[0].y;
    }
}
