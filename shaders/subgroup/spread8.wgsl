// All 8 lanes' values, for subgroups of exactly 8 lanes: a library for the hook
//   fn spread(v: f32) -> array<f32, LANES>
// Broadcasts from constant lanes compile to one permutation each; shuffles by index do not.

fn spread_8(v: f32) -> array<f32, 8> {
    return array<f32, 8>(
        subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u),
        subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u), subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u),
    );
}
