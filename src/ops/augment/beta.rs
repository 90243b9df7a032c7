//! The beta distribution with both parameters alike, by its quantiles.

/// Quantiles 0, 1/n, …, 1 that [`quantiles`] gives, n one less than this.
pub(super) const QUANTILES: usize = 257;
/// Places at which the distribution function is summed up.
const PLACES: usize = 1 << 14;

/// The quantiles of Beta(alpha, alpha) at evenly spaced probabilities from 0 to 1.
///
/// The density is proportional to `(x (1 - x))^(alpha - 1)`, which has a pole at 0 where alpha
/// is below 1. Over `t = x^alpha` it is `(1 - t^(1 / alpha))^(alpha - 1)`, which has none up to
/// x = 1/2; that far it is summed by the midpoint rule. The other half is its mirror image.
pub(super) fn quantiles(alpha: f64) -> Vec<f64> {
    let end = 0.5f64.powf(alpha);
    let width = end / PLACES as f64;
    let x = |t: f64| t.powf(1.0 / alpha);
    let mut below = vec![0.0];
    for place in 0..PLACES {
        let density = (1.0 - x((place as f64 + 0.5) * width)).powf(alpha - 1.0);
        below.push(below[place] + density);
    }
    let half = 2.0 * below[PLACES];
    let lower = |probability: f64| {
        let wanted = probability * half;
        let after = below.partition_point(|b| *b <= wanted).min(PLACES);
        let within = (wanted - below[after - 1]) / (below[after] - below[after - 1]);
        x((after as f64 - 1.0 + within) * width)
    };
    let last = QUANTILES - 1;
    let quantile = |i: usize| match 2 * i <= last {
        true => lower(i as f64 / last as f64),
        false => 1.0 - lower((last - i) as f64 / last as f64),
    };
    (0..=last).map(quantile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beta(1, 1) is even, Beta(1/2, 1/2) the arcsine distribution, and of Beta(2, 2) the
    /// distribution function is `3 x^2 - 2 x^3`.
    #[test]
    fn quantiles_are_those_of_closed_forms() {
        let [even, arcsine, bell] = [1.0, 0.5, 2.0].map(quantiles);
        let tables = even.iter().zip(&arcsine).zip(&bell);
        for (i, ((even, arcsine), bell)) in tables.enumerate() {
            let p = i as f64 / (QUANTILES - 1) as f64;
            assert!((even - p).abs() < 1e-12, "{p}");
            let expected = (std::f64::consts::FRAC_PI_2 * p).sin().powi(2);
            assert!((arcsine - expected).abs() < 1e-6, "{p}");
            assert!(
                (3.0 * bell.powi(2) - 2.0 * bell.powi(3) - p).abs() < 1e-6,
                "{p}"
            );
        }
    }

    /// By mpmath 1.3's `betainc(0.2, 0.2, 0, x, regularized=True)`, solved for x.
    #[test]
    fn quantiles_of_a_small_parameter_are_mpmaths() {
        let known = [
            (1, 2.253_779_025_364_78e-11),
            (64, 0.023_814_718_768_253_7),
            (96, 0.163_420_741_076_067),
        ];
        let table = quantiles(0.2);
        for (i, expected) in known {
            let found: f64 = table[i];
            assert!(
                (found / expected - 1.0).abs() < 1e-5,
                "{found:e}, {expected:e}"
            );
        }
    }
}
