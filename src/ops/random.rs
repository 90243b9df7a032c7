//! Random numbers that host and device draw alike.

use crate::gpu::kernel::ShaderFile;
use crate::shader;

/// [`philox4x32`] as a shader library, for kernels that draw.
pub const PHILOX: ShaderFile = shader!("random/philox.wgsl");

const ROUNDS: u32 = 10;
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const KEY_STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"):
/// four random words that depend on counter and key alone, so that any place of any
/// stream can be drawn by itself.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut word = counter;
    for round in 0..ROUNDS {
        let product = |i: usize| u64::from(MULTIPLIERS[i]) * u64::from(word[2 * i]);
        let key = |i: usize| key[i].wrapping_add(round.wrapping_mul(KEY_STEPS[i]));
        let [low, high] = [|p: u64| p as u32, |p: u64| (p >> 32) as u32];
        word = [
            high(product(1)) ^ word[1] ^ key(0),
            low(product(1)),
            high(product(0)) ^ word[3] ^ key(1),
            low(product(0)),
        ];
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the paper's library, Random123 (`kat_vectors`).
    #[test]
    fn philox_gives_the_published_words() {
        let zeros = philox4x32([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox4x32(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
        );
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }
}
