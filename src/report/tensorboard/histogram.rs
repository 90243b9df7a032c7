//! How weights are distributed.

use super::proto::Histogram;

/// Buckets, as tf.summary.histogram has by default.
const BUCKETS: usize = 30;

/// The distribution of the finite values over buckets of one width; `None` where there are
/// none.
pub(super) fn histogram(values: &[f32]) -> Option<Histogram> {
    let finite = || {
        values
            .iter()
            .map(|v| f64::from(*v))
            .filter(|v| v.is_finite())
    };
    let min = finite().reduce(f64::min)?;
    let max = finite().reduce(f64::max)?;
    let width = (max - min) / BUCKETS as f64;
    let mut bucket = vec![0.0; if width > 0.0 { BUCKETS } else { 1 }];
    let last = bucket.len() - 1;
    for value in finite() {
        // Where the width is 0, so is the difference; the quotient, no number, becomes 0.
        let index = ((value - min) / width) as usize;
        bucket[index.min(last)] += 1.0;
    }
    let mut bucket_limit: Vec<f64> = (1..bucket.len()).map(|i| min + i as f64 * width).collect();
    bucket_limit.push(max);
    Some(Histogram {
        min,
        max,
        num: finite().count() as f64,
        sum: finite().sum(),
        sum_squares: finite().map(|v| v * v).sum(),
        bucket_limit,
        bucket,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_buckets() {
        let values: Vec<f32> = (0..=60).map(|i| i as f32).collect();
        let found = histogram(&[&values[..], &[f32::NAN]].concat()).unwrap();
        assert_eq!((found.min, found.max, found.num), (0.0, 60.0, 61.0));
        assert_eq!(found.sum, 1830.0);
        assert_eq!(found.sum_squares, 60.0 * 61.0 * 121.0 / 6.0);
        assert_eq!((found.bucket_limit[0], found.bucket_limit[29]), (2.0, 60.0));
        assert_eq!(found.bucket[..29], [2.0; 29]);
        assert_eq!(
            found.bucket[29], 3.0,
            "the largest value is part of the last"
        );
    }

    #[test]
    fn equal_values_share_a_bucket_and_none_have_none() {
        let found = histogram(&[0.5; 7]).unwrap();
        assert_eq!(found.bucket, [7.0]);
        assert_eq!(found.bucket_limit, [0.5]);
        assert!(histogram(&[]).is_none() && histogram(&[f32::INFINITY]).is_none());
    }
}
