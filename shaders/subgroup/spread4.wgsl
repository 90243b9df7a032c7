// All 4 lanes' values, for subgroups of exactly 4 lanes: a library for the hook
//   fn spread(v: f32) -> array<f32, LANES>
// Broadcasts from constant lanes compile to one permutation each; shuffles by index do not.

fn spread_4(v: f32) -> array<f32, 4> {
    return array<f32, 4>(
        subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u),
    );
}
