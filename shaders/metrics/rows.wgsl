// Metrics of a batch: state[step.slot] = (loss, correct, counted, bad, among, 0, 0, 0) over the
// first min(step.count, BATCH) samples:
//
//   loss      sum of the samples' softmax cross-entropies, log S - (x_y - m), with
//             m = max x_c and S = sum exp(x_c - m)
//   correct   samples whose largest logit is the label's; of equal ones the first
//   counted   samples
//   bad       1 if any logit or loss is infinite or NaN, or a label is no class; else 0
//   among     samples of which fewer than TOP classes come before the label's, by larger
//             logits or equal ones and lower numbers
//
//   state    [SLOTS, 8] f32, two vec4 a row; a slot past the end changes nothing
//   logits   [BATCH, CLASSES] f32
//   labels   [BATCH] u32
//
// One workgroup. LANES lanes share a sample, each a LANES-th of its classes; sums are
// trees in workgroup memory: the order is fixed. Floor: 4 bytes a logit.

const LANES: u32 = 1u;           // lanes a sample; a power of two, at most CLASSES
const AT_ONCE: u32 = 32u;        // samples the workgroup works on; a power of two
const SLOTS: u32 = 1u;           // rows of state
const BATCH: u32 = 1u;
const CLASSES: u32 = 1u;
const TOP: u32 = 5u;
const EXPONENT: u32 = 0x7f800000u;  // bits that are all set in infinities and NaNs
const WORKGROUP: u32 = LANES * AT_ONCE;

struct Step { number: u32, seed: u32, first: u32, count: u32, slot: u32, learning_rate: f32, correction1: f32, correction2: f32 }

@group(0) @binding(0) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<uniform> step: Step;

var<workgroup> pool: array<vec4<f32>, WORKGROUP>;
var<workgroup> best_value: array<f32, WORKGROUP>;
var<workgroup> best_class: array<u32, WORKGROUP>;

// The sum of v over each run of `width` lanes.
fn add_lanes(lane: u32, width: u32, v: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    pool[lane] = v;
    for (var half = width / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % width < half {
            pool[lane] += pool[lane + half];
        }
    }
    workgroupBarrier();
    return pool[lane / width * width];
}

// Leaves the largest value of each run of LANES lanes, the lowest class among equals,
// in the run's first place.
fn best_of_lanes(lane: u32, value: f32, winner: u32) {
    workgroupBarrier();
    best_value[lane] = value;
    best_class[lane] = winner;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane % LANES < half {
            let v = best_value[lane + half];
            let c = best_class[lane + half];
            if v > best_value[lane] || (v == best_value[lane] && c < best_class[lane]) {
                best_value[lane] = v;
                best_class[lane] = c;
            }
        }
    }
    workgroupBarrier();
}

// By its bits, for compilers may assume that there are no NaNs.
fn not_finite(v: f32) -> bool { return (bitcast<u32>(v) & EXPONENT) == EXPONENT; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
    let part = lane % LANES;
    let counted = min(step.count, BATCH);
    var kept = vec4<f32>();
    var among = 0.0;
    for (var first = 0u; first < BATCH; first += AT_ONCE) {
        let sample = first + lane / LANES;
        let row = min(sample, BATCH - 1u) * CLASSES;
        let label = labels[min(sample, BATCH - 1u)];
        var top = logits[row + part];
        var winner = part;
        let own = min(label, CLASSES - 1u);
        let target_logit = logits[row + own];
        var bad = 0.0;
        var before = 0.0;
        for (var c = part; c < CLASSES; c += LANES) {
            let x = logits[row + c];
            if x > top {
                top = x;
                winner = c;
            }
            if x > target_logit || (x == target_logit && c < own) {
                before += 1.0;
            }
            if not_finite(x) {
                bad = 1.0;
            }
        }
        best_of_lanes(lane, top, winner);
        top = best_value[lane - part];
        winner = best_class[lane - part];
        var sum = 0.0;
        for (var c = part; c < CLASSES; c += LANES) {
            sum += exp(logits[row + c] - top);
        }
        let sums = add_lanes(lane, LANES, vec4<f32>(sum, bad, before, 0.0));
        if part == 0u && sample < counted {
            let loss = log(sums.x) - (target_logit - top);
            let wrong = sums.y > 0.0 || not_finite(loss) || label >= CLASSES;
            kept += vec4<f32>(loss, select(0.0, 1.0, winner == label), 1.0, select(0.0, 1.0, wrong));
            among += select(0.0, 1.0, sums.z < f32(TOP));
        }
    }
    let total = add_lanes(lane, WORKGROUP, kept);
    let rest = add_lanes(lane, WORKGROUP, vec4<f32>(among, 0.0, 0.0, 0.0));
    if lane == 0u && step.slot < SLOTS {
        state[2u * step.slot] = vec4<f32>(total.xyz, min(total.w, 1.0));
        state[2u * step.slot + 1u] = rest;
    }
}
