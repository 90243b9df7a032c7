//! Unstructured pruning: the smallest weights become zero and stay it.

use crate::tensor::Tensor;
use crate::train::Weights;

/// For each tensor a tensor of ones, and zeros in the places of the smallest magnitudes: the
/// share `sparsity` of each filter bank and each dense weight, rounded down. Biases and
/// normalisation (tensors of one axis) are left whole.
pub fn mask(weights: &Weights, sparsity: f64) -> Weights {
    let masked = weights.iter().map(|(name, tensor)| {
        let mut mask = Tensor::zeros(tensor.shape().clone());
        mask.data_mut().fill(1.0);
        if tensor.shape().rank() > 1 {
            for i in smallest(tensor.data(), sparsity) {
                mask.data_mut()[i] = 0.0;
            }
        }
        (name.clone(), mask)
    });
    masked.collect()
}

/// The places of the smallest magnitudes; of equal ones the first.
fn smallest(data: &[f32], share: f64) -> Vec<usize> {
    let count = (share * data.len() as f64) as usize;
    let mut order: Vec<usize> = (0..data.len()).collect();
    if count == 0 {
        return Vec::new();
    }
    let by_magnitude =
        |a: &usize, b: &usize| data[*a].abs().total_cmp(&data[*b].abs()).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, by_magnitude);
    order.truncate(count);
    order
}

/// The weights where the mask is one, zeros elsewhere.
pub fn masked(weights: &Weights, mask: &Weights) -> Weights {
    let mut weights = weights.clone();
    for (name, tensor) in &mut weights {
        let Some(mask) = mask.get(name) else { continue };
        for (x, m) in tensor.data_mut().iter_mut().zip(mask.data()) {
            // Not a product: a zero is no negative one.
            *x = if *m == 0.0 { 0.0 } else { *x };
        }
    }
    weights
}

/// How the share of zeros rises in training: `s(t) = to · (1 − (1 − t / end)³)`, fast at
/// first, while there are many weights to spare (Zhu and Gupta 2017, "To prune, or not to
/// prune", equation 1, from zero on).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The share in the end.
    pub to: f64,
    /// The step it is reached before; 0 to prune at once.
    pub end: u32,
}

impl Schedule {
    /// Steps between two masks.
    pub const EVERY: u32 = 100;

    /// The share of zeros from the step after `steps` on, where the mask changes there.
    pub fn due(&self, steps: u32) -> Option<f64> {
        let changes = steps == self.end || steps < self.end && steps.is_multiple_of(Self::EVERY);
        changes.then(|| match steps == self.end {
            true => self.to,
            false => self.to * (1.0 - (1.0 - f64::from(steps) / f64::from(self.end)).powi(3)),
        })
    }

    /// Steps that may be taken after `steps` before the mask changes again.
    pub fn steps_until_change(&self, steps: u32) -> Option<u32> {
        let next = (steps / Self::EVERY + 1) * Self::EVERY;
        (steps < self.end).then(|| next.min(self.end) - steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_each_weight_go_and_biases_stay() {
        let weight = Tensor::new([2, 3], vec![0.5, -0.1, 0.2, -3.0, 0.1, 1.0]).unwrap();
        let bias = Tensor::new([2], vec![0.0, 0.001]).unwrap();
        let weights = Weights::from([("w".into(), weight), ("b".into(), bias)]);
        let mask = mask(&weights, 0.5);
        assert_eq!(mask["w"].data(), [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(mask["b"].data(), [1.0, 1.0]);
        assert_eq!(
            masked(&weights, &mask)["w"].data(),
            [0.5, 0.0, 0.0, -3.0, 0.0, 1.0]
        );
    }

    #[test]
    fn sparsity_rises_by_the_cubic_schedule() {
        // sparsity(t) of the paper with s_i = 0, s_f = 0.8, t_0 = 0: 0.8 (1 - (1 - t/1000)^3).
        let schedule = Schedule { to: 0.8, end: 1000 };
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(near(schedule.due(0), 0.0));
        assert!(near(schedule.due(100), 0.8 * (1.0 - 0.729)));
        assert!(near(schedule.due(500), 0.8 * 0.875));
        assert!(near(schedule.due(1000), 0.8));
        assert_eq!([50, 999, 1001, 1100].map(|t| schedule.due(t)), [None; 4]);
        assert_eq!(schedule.steps_until_change(0), Some(100));
        assert_eq!(schedule.steps_until_change(130), Some(70));
        assert_eq!(
            Schedule { to: 0.8, end: 130 }.steps_until_change(100),
            Some(30)
        );
        assert_eq!(schedule.steps_until_change(1000), None);
    }

    #[test]
    fn at_once_is_before_the_first_step_only() {
        let schedule = Schedule { to: 0.5, end: 0 };
        assert_eq!(schedule.due(0), Some(0.5));
        assert_eq!(schedule.due(100), None);
        assert_eq!(schedule.steps_until_change(0), None);
    }
}
