// One optimizer step over a whole arena of parameters, in place. The rules are Keras's
// (keras.optimizers); lr is the learning rate, the step's times the block's, wd the weight
// decay, g the gradient times SCALE, made shorter to the norm CLIP_NORM or clamped to CLIP_VALUE, and then, unless
// the decay is DECOUPLED, plus wd p.
//
//   SGD      p -= lr g
//   MOMENTUM v = mu v - lr g;  p += v, or p += mu v - lr g with NESTEROV
//   ADAM     p -= lr wd p, if DECOUPLED;   m += (1 - b1)(g - m);  v += (1 - b2)(g g - v);
//            p -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
//   RMSPROP  v = rho v + (1 - rho) g g;  d = lr g / sqrt(v + eps), where CENTERED
//            a = rho a + (1 - rho) g and v - a a stands for v;  p -= d, with momentum
//            u = mu u + d;  p -= u
//   ADAGRAD  v += g g;  p -= lr g / sqrt(v + eps)
//   LION     p -= lr wd p, if DECOUPLED;   p -= lr sign(b1 m + (1 - b1) g);
//            m = b2 m + (1 - b2) g
//
//   parameters   f32 seen as vec4, updated
//   gradients    as long
//   state0 ..2   as long, updated; used from the first on, as many as the rule has
//   groups       f32 seen as vec2, for each block of BLOCK elements its wd and the factor of
//                its lr; not read unless GROUPED
//   norm         one f32, the square of the gradient's norm; not read unless CLIP_NORM > 0
//
// One invocation a vec4. Floor: 12 + 8 STATES bytes a parameter.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of the arena in vec4
const STATES: u32 = 0u;          // state tensors of the rule
const RULE: u32 = 0u;            // one of the following
const SGD: u32 = 0u;
const MOMENTUM: u32 = 1u;
const ADAM: u32 = 2u;
const RMSPROP: u32 = 3u;
const ADAGRAD: u32 = 4u;
const LION: u32 = 5u;

const WEIGHT_DECAY: f32 = 0.0;     // wd of all elements, unless GROUPED
const DECOUPLED: bool = false;     // whether wd acts apart from the gradient
const GROUPED: bool = false;       // whether every block has its own wd and lr
const FIRST_BLOCK: u32 = 0u;       // the block the parameters begin with
const BLOCK: u32 = 64u;            // elements of a block
const SCALE: f32 = 1.0;            // factor of the gradients
const CLIP_NORM: f32 = 0.0;        // largest norm of the scaled gradient; 0: any
const CLIP_VALUE: f32 = 0.0;       // largest magnitude of its elements; 0: any
const MU: f32 = 0.0;               // momentum
const NESTEROV: bool = false;
const CENTERED: bool = false;
const BETA1: f32 = 0.9;            // rho of rmsprop is BETA2
const BETA2: f32 = 0.999;
const ONE_MINUS_BETA1: f32 = 0.1;  // rounded once, from the exact difference
const ONE_MINUS_BETA2: f32 = 0.001;
const EPSILON: f32 = 1e-7;

struct Step {
    number: u32,
    seed: u32,
    first: u32,
    count: u32,
    slot: u32,
    learning_rate: f32,
    correction1: f32,            // 1 - b1^t
    correction2: f32,            // 1 - b2^t
}

@group(0) @binding(0) var<storage, read_write> parameters: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> state0: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> state1: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> state2: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> groups: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read> norm: array<f32>;
@group(0) @binding(7) var<uniform> step: Step;

fn weight_decay(i: u32) -> f32 {
    if GROUPED {
        return groups[FIRST_BLOCK + 4u * i / BLOCK].x;
    }
    return WEIGHT_DECAY;
}

fn learning_rate(i: u32) -> f32 {
    if GROUPED {
        return step.learning_rate * groups[FIRST_BLOCK + 4u * i / BLOCK].y;
    }
    return step.learning_rate;
}

// The gradient that the rules see.
fn gradient(i: u32, p: vec4<f32>) -> vec4<f32> {
    var g = SCALE * gradients[i];
    if CLIP_NORM > 0.0 {
        g *= CLIP_NORM / max(SCALE * sqrt(norm[0]), CLIP_NORM);
    }
    if CLIP_VALUE > 0.0 {
        g = clamp(g, vec4<f32>(-CLIP_VALUE), vec4<f32>(CLIP_VALUE));
    }
    if DECOUPLED {
        return g;
    }
    return g + weight_decay(i) * p;
}

fn decay(i: u32, p: vec4<f32>) -> vec4<f32> {
    if DECOUPLED {
        return p - learning_rate(i) * weight_decay(i) * p;
    }
    return p;
}

fn sgd(i: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    return p - learning_rate(i) * g;
}

fn momentum(i: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    let v = MU * state0[i] - learning_rate(i) * g;
    state0[i] = v;
    if NESTEROV {
        return p + MU * v - learning_rate(i) * g;
    }
    return p + v;
}

fn adam(i: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    // Once each: compilers do not join loads of what is also stored.
    let m0 = state0[i];
    let v0 = state1[i];
    let m = m0 + ONE_MINUS_BETA1 * (g - m0);
    let v = v0 + ONE_MINUS_BETA2 * (g * g - v0);
    state0[i] = m;
    state1[i] = v;
    let rate = learning_rate(i) * sqrt(step.correction2) / step.correction1;
    return decay(i, p) - rate * m / (sqrt(v) + EPSILON);
}

fn rmsprop(i: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    let v = BETA2 * state0[i] + ONE_MINUS_BETA2 * g * g;
    state0[i] = v;
    var variance = v;
    if CENTERED {
        let a = BETA2 * state1[i] + ONE_MINUS_BETA2 * g;
        state1[i] = a;
        variance = max(v - a * a, vec4<f32>());     // never negative but for rounding
    }
    let d = learning_rate(i) * g / sqrt(variance + EPSILON);
    if STATES == 1u || (CENTERED && STATES == 2u) {
        return p - d;
    }
    if CENTERED {
        let u = MU * state2[i] + d;
        state2[i] = u;
        return p - u;
    }
    let u = MU * state1[i] + d;
    state1[i] = u;
    return p - u;
}

fn adagrad(i: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    let v = state0[i] + g * g;
    state0[i] = v;
    return p - learning_rate(i) * g / sqrt(v + EPSILON);
}

fn lion(i: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    let m = state0[i];
    state0[i] = BETA2 * m + ONE_MINUS_BETA2 * g;
    return decay(i, p) - learning_rate(i) * sign(BETA1 * m + ONE_MINUS_BETA1 * g);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    let p = parameters[i];
    let g = gradient(i, p);
    var updated = p;
    switch RULE {
        case SGD: { updated = sgd(i, p, g); }
        case MOMENTUM: { updated = momentum(i, p, g); }
        case ADAM: { updated = adam(i, p, g); }
        case RMSPROP: { updated = rmsprop(i, p, g); }
        case ADAGRAD: { updated = adagrad(i, p, g); }
        default: { updated = lion(i, p, g); }
    }
    parameters[i] = updated;
}
