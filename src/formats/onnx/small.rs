//! Floats of 8 and 4 bits. f32 holds each of them exactly.

use super::proto::data_type;

/// A format of small floats, named by its bits of exponent and mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Small {
    /// Without infinities, and with one NaN of either sign.
    E4M3Fn,
    /// Without infinities and without -0, whose code is the only NaN.
    E4M3FnUz,
    /// As IEEE 754 has it.
    E5M2,
    /// As `E4M3FnUz`.
    E5M2FnUz,
    /// Two in a byte; neither infinities nor NaN.
    E2M1,
    /// Powers of two, and a NaN.
    E8M0,
}

impl Small {
    /// The format of a data type.
    pub fn of(data_type: i32) -> Option<Self> {
        Some(match data_type {
            data_type::FLOAT8E4M3FN => Self::E4M3Fn,
            data_type::FLOAT8E4M3FNUZ => Self::E4M3FnUz,
            data_type::FLOAT8E5M2 => Self::E5M2,
            data_type::FLOAT8E5M2FNUZ => Self::E5M2FnUz,
            data_type::FLOAT4E2M1 => Self::E2M1,
            data_type::FLOAT8E8M0 => Self::E8M0,
            _ => return None,
        })
    }

    /// Bits of the mantissa and the bias of the exponent.
    fn layout(self) -> (u32, i32) {
        match self {
            Self::E4M3Fn => (3, 7),
            Self::E4M3FnUz => (3, 8),
            Self::E5M2 => (2, 15),
            Self::E5M2FnUz => (2, 16),
            Self::E2M1 => (1, 1),
            Self::E8M0 => (0, 127),
        }
    }

    /// The code of the largest finite number.
    fn largest(self) -> u8 {
        match self {
            Self::E4M3Fn => 0x7e,
            Self::E4M3FnUz | Self::E5M2FnUz => 0x7f,
            Self::E5M2 => 0x7b,
            Self::E2M1 => 0x7,
            Self::E8M0 => 0xfe,
        }
    }

    /// The number of a code without its sign, which must not be above the largest.
    fn magnitude(self, code: u8) -> f32 {
        let (bits, bias) = self.layout();
        let exponent = i32::from(code) >> bits;
        let fraction = f64::from(code & ((1 << bits) - 1));
        let one = f64::from(1u32 << bits);
        let value = match exponent {
            0 if self != Self::E8M0 => fraction * 2f64.powi(1 - bias),
            _ => (one + fraction) * 2f64.powi(exponent - bias),
        };
        (value / one) as f32
    }

    /// The number of a code.
    pub fn decode(self, code: u8) -> f32 {
        let sign = match self {
            Self::E8M0 => 0,
            Self::E2M1 => 0x8,
            _ => 0x80,
        };
        let (negative, magnitude) = (code & sign != 0, code & !sign);
        let value = match self {
            Self::E4M3FnUz | Self::E5M2FnUz if code == 0x80 => f32::NAN,
            Self::E5M2 if magnitude == 0x7c => f32::INFINITY,
            _ if magnitude > self.largest() => f32::NAN,
            _ => self.magnitude(magnitude),
        };
        if negative { -value } else { value }
    }

    /// The nearest number of the format, of two the one with the even code. What is beyond
    /// the largest becomes that if it is to saturate, else infinite, or NaN where there is no
    /// infinity.
    pub fn round(self, x: f32, saturate: bool) -> f32 {
        if self == Self::E8M0 {
            return self.round_up(x, saturate);
        }
        if x.is_nan() {
            return if self == Self::E2M1 { 0.0 } else { x };
        }
        let codes = 0..=self.largest();
        let below = codes.rev().find(|code| self.magnitude(*code) <= x.abs());
        let code = below.unwrap_or(0);
        let (low, last) = (self.magnitude(code), code == self.largest());
        let step = match last {
            true => low - self.magnitude(code - 1),
            false => self.magnitude(code + 1) - low,
        };
        let rest = x.abs() - low;
        let up = rest > step / 2.0 || (rest == step / 2.0 && code % 2 == 1);
        let rounded = match (up, last) {
            (false, _) => low,
            (true, false) => low + step,
            (true, true) if saturate || self == Self::E2M1 => low,
            (true, true) if self == Self::E5M2 => f32::INFINITY,
            (true, true) => f32::NAN,
        };
        match self {
            Self::E4M3FnUz | Self::E5M2FnUz if rounded == 0.0 => 0.0,
            _ => rounded.copysign(x),
        }
    }

    /// The next power of two, which has no sign; the format has no other rounding here.
    fn round_up(self, x: f32, saturate: bool) -> f32 {
        if !x.is_finite() || x < 0.0 {
            return f32::NAN;
        }
        let mut codes = 0..=self.largest();
        let next = codes.find(|code| self.magnitude(*code) >= x);
        match next {
            Some(code) => self.magnitude(code),
            None if saturate => self.magnitude(self.largest()),
            None => f32::NAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Small; 6] = [
        Small::E4M3Fn,
        Small::E4M3FnUz,
        Small::E5M2,
        Small::E5M2FnUz,
        Small::E2M1,
        Small::E8M0,
    ];

    #[test]
    fn the_largest_numbers_are_those_of_the_formats() {
        let largest = ALL.map(|small| small.decode(small.largest()));
        let expected = [448.0, 240.0, 57344.0, 57344.0, 6.0, 2f32.powi(127)];
        assert_eq!(largest, expected);
    }

    #[test]
    fn every_number_is_rounded_to_itself_and_ties_to_even_codes() {
        for small in ALL {
            for code in 0..=small.largest() {
                let x = small.decode(code);
                assert_eq!(small.round(x, true), x, "{small:?} {code:#x}");
                if code == 0 || small == Small::E8M0 {
                    continue;
                }
                let tie = (small.decode(code - 1) + x) / 2.0;
                let even = small.decode(code - code % 2);
                assert_eq!(small.round(tie, true), even, "{small:?} {tie}");
                assert_eq!(small.round(-tie, true), -even, "{small:?} {tie}");
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates_or_not() {
        assert_eq!(Small::E5M2.round(1e9, true), 57344.0);
        assert_eq!(Small::E5M2.round(-1e9, false), f32::NEG_INFINITY);
        assert!(Small::E4M3Fn.round(f32::INFINITY, false).is_nan());
        assert_eq!(Small::E4M3Fn.round(f32::INFINITY, true), 448.0);
    }
}
