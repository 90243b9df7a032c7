//! Eight-bit integers: from floats to packed bytes, and the convolution of these. For
//! inference only; a dense layer is a convolution of one pixel.

mod conv2d;
mod quantize;

pub use conv2d::{Conv2dInt8, pack_filters};
pub use quantize::QuantizeInt8;

use super::Entry;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "quantize_int8",
        sample: quantize::sample,
    },
    Entry {
        name: "conv2d_int8",
        sample: conv2d::sample,
    },
];

/// The largest magnitude of a quantised number: -128 is left out, so that the range is
/// symmetric.
pub const LARGEST: f64 = 127.0;

/// The quantised number of `x`, whose steps are `1 / inverse` apart; halves go to even.
pub fn quantized(x: f64, inverse: f64) -> i8 {
    (x * inverse).round_ties_even().clamp(-LARGEST, LARGEST) as i8
}

/// Four numbers as a word, the first in the low byte.
fn word(bytes: [i8; 4]) -> u32 {
    u32::from_le_bytes(bytes.map(|b| b as u8))
}
