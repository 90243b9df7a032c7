// The one-dimensional transforms of F(4, 3), a library for the hook of winograd/transform.wgsl
//   fn transform(line: array<vec4<f32>, FROM>) -> array<vec4<f32>, TO>
//
// For the points 0, 1, -1, 2, -2 and infinity, Lavin and Gray's matrices (2015), with what makes
// G's rows fractions taken out, to be multiplied in afterwards (winograd/write_positions.wgsl):
//
//         4  0 -5  0  1  0         1  0  0  1/4                1  1  1  1  1  0
//         0 -4 -4  1  1  0         1  1  1 -1/6          A^T = 0  1 -1  2 -2  0
//   B^T = 0  4 -4 -1  1  0     G = 1 -1  1 -1/6                0  1  1  4  4  0
//         0 -2 -1  2  1  0         1  2  4 1/24                0  1 -1  8 -8  1
//         0  2 -1 -2  1  0         1 -2  4 1/24
//         0  4  0 -5  0  1         0  0  1  1
//
// The gradients' are their transposes, as y = A^T (G w * B^T x) is linear in w and in x.
//
// So nothing is multiplied by one fraction and then by another, or added to what is: compilers
// would change the order, and with it the bits.

fn times(factor: f32, v: vec4<f32>, to: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(factor), v, to);
}

fn image_line(d: array<vec4<f32>, 6>) -> array<vec4<f32>, 6> {
    let near_even = times(-4.0, d[2], d[4]);
    let near_odd = times(-4.0, d[1], d[3]);
    let far_even = d[4] - d[2];
    let half_far_odd = d[3] - d[1];
    return array<vec4<f32>, 6>(
        times(4.0, d[0], times(-5.0, d[2], d[4])),
        near_even + near_odd,
        near_even - near_odd,
        times(2.0, half_far_odd, far_even),
        times(-2.0, half_far_odd, far_even),
        times(4.0, d[1], times(-5.0, d[3], d[5])));
}

fn filter_line(g: array<vec4<f32>, 3>) -> array<vec4<f32>, 6> {
    let near_even = g[0] + g[2];
    let far_even = times(4.0, g[2], g[0]);
    return array<vec4<f32>, 6>(
        g[0],
        near_even + g[1],
        near_even - g[1],
        times(2.0, g[1], far_even),
        times(-2.0, g[1], far_even),
        g[2]);
}

fn output_line(m: array<vec4<f32>, 6>) -> array<vec4<f32>, 4> {
    let near_even = m[1] + m[2];
    let near_odd = m[1] - m[2];
    let far_even = m[3] + m[4];
    let far_odd = m[3] - m[4];
    return array<vec4<f32>, 4>(
        m[0] + near_even + far_even,
        times(2.0, far_odd, near_odd),
        times(4.0, far_even, near_even),
        times(8.0, far_odd, near_odd) + m[5]);
}

fn gradient_line(d: array<vec4<f32>, 4>) -> array<vec4<f32>, 6> {
    let near_even = d[0] + d[2];
    let near_odd = d[1] + d[3];
    let far_even = times(4.0, d[2], d[0]);
    let half_far_odd = times(4.0, d[3], d[1]);
    return array<vec4<f32>, 6>(
        d[0],
        near_even + near_odd,
        near_even - near_odd,
        times(2.0, half_far_odd, far_even),
        times(-2.0, half_far_odd, far_even),
        d[3]);
}

fn weight_line(u: array<vec4<f32>, 6>) -> array<vec4<f32>, 3> {
    let near_even = u[1] + u[2];
    let near_odd = u[1] - u[2];
    let far_even = u[3] + u[4];
    let far_odd = u[3] - u[4];
    return array<vec4<f32>, 3>(
        u[0] + near_even + far_even,
        times(2.0, far_odd, near_odd),
        times(4.0, far_even, near_even) + u[5]);
}
