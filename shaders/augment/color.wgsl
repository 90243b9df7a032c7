// Colour jitter of a pixel whose channels go from 0 to 1: a library without bindings, hooked
// into the kernels of augmentation. In this order, each where it is on:
//
//   brightness   v <- v b
//   contrast     v <- m + (v - m) c       m the image's mean grey, see grey.wgsl
//   saturation   v <- g + (v - g) s       g the pixel's grey
//   hue          turned by h of the circle (Smith 1978, "Color gamut transform pairs")
//
// each within 0 to 1: torchvision's ColorJitter in the order of its arguments.

const GREY: vec4<f32> = vec4<f32>(0.2989, 0.587, 0.114, 0.0); // shares of the channels in grey
const BRIGHTEN: bool = true;
const CONTRAST: bool = true;
const SATURATE: bool = true;
const TURN_HUE: bool = true;

fn color_blend(pixel: vec4<f32>, start: f32, factor: f32) -> vec4<f32> {
    return clamp(start + (pixel - start) * factor, vec4<f32>(0.0), vec4<f32>(1.0));
}

fn color_grey(pixel: vec4<f32>) -> f32 {
    return dot(pixel, GREY);
}

fn color_brighten(pixel: vec4<f32>, factor: f32) -> vec4<f32> {
    if BRIGHTEN {
        return color_blend(pixel, 0.0, factor);
    }
    return pixel;
}

fn color_turn(pixel: vec4<f32>, turns: f32) -> vec4<f32> {
    let value = max(max(pixel.r, pixel.g), pixel.b);
    let chroma = value - min(min(pixel.r, pixel.g), pixel.b);
    if chroma == 0.0 {
        return pixel;
    }
    var sixths = 0.0;
    if value == pixel.r {
        sixths = (pixel.g - pixel.b) / chroma;
    } else if value == pixel.g {
        sixths = 2.0 + (pixel.b - pixel.r) / chroma;
    } else {
        sixths = 4.0 + (pixel.r - pixel.g) / chroma;
    }
    let place = vec3<f32>(5.0, 3.0, 1.0) + (sixths + 6.0 * turns);
    let k = place - 6.0 * floor(place / 6.0);
    let share = clamp(min(k, 4.0 - k), vec3<f32>(0.0), vec3<f32>(1.0));
    return vec4<f32>(value - chroma * share, pixel.a);
}

// `factors` are those of brightness, contrast and saturation, and the turn of the hue.
fn color_jitter(pixel: vec4<f32>, factors: vec4<f32>, mean_grey: f32) -> vec4<f32> {
    var v = color_brighten(pixel, factors.x);
    if CONTRAST {
        v = color_blend(v, mean_grey, factors.y);
    }
    if SATURATE {
        v = color_blend(v, color_grey(v), factors.z);
    }
    if TURN_HUE {
        v = color_turn(v, factors.w);
    }
    return v;
}
