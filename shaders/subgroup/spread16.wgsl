// All 16 lanes' values, for subgroups of exactly 16 lanes: a library for the hook
//   fn spread(v: f32) -> array<f32, LANES>
// Broadcasts from constant lanes compile to one permutation each; shuffles by index do not.

fn spread_16(v: f32) -> array<f32, 16> {
    return array<f32, 16>(
        subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u),
        subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u), subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u),
        subgroupBroadcast(v, 8u), subgroupBroadcast(v, 9u), subgroupBroadcast(v, 10u), subgroupBroadcast(v, 11u),
        subgroupBroadcast(v, 12u), subgroupBroadcast(v, 13u), subgroupBroadcast(v, 14u), subgroupBroadcast(v, 15u),
    );
}
