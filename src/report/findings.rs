//! What a model takes for what, and where it errs most.

use crate::error::Result;
use crate::infer::{Evaluation, argmax, probabilities};
use crate::train::Examined;

/// Mistakes kept.
pub(crate) const MISTAKES: usize = 24;

/// A model on its validation images.
pub(crate) struct Findings {
    pub evaluation: Evaluation,
    /// The images with the largest losses among those told wrong, the worst first.
    pub mistakes: Vec<Mistake>,
    /// Images in all; those of `evaluation` are the first of them.
    pub total: usize,
}

/// An image told wrong.
pub(crate) struct Mistake {
    /// Its place in the validation images, from 0.
    pub index: usize,
    /// Its bytes [C, H, W].
    pub image: Vec<u8>,
    pub class: usize,
    pub predicted: usize,
    /// What the model gave the predicted class and the true one.
    pub probabilities: [f64; 2],
}

impl Findings {
    /// Of a validation.
    ///
    /// # Errors
    /// If an image file cannot be decoded.
    pub fn new(examined: &Examined) -> Result<Self> {
        let mut evaluation = Evaluation::new(examined.classes());
        let mut wrong = Vec::new();
        for (index, (label, logits)) in examined.rows().enumerate() {
            evaluation.add(logits, label);
            if argmax(logits) != label {
                wrong.push((probabilities(logits)[label], index, label, logits));
            }
        }
        wrong.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        wrong.truncate(MISTAKES);
        let mistake = |(of_true, index, class, logits): (f64, usize, usize, &[f32])| {
            let predicted = argmax(logits);
            Ok(Mistake {
                index,
                image: examined.image(index)?.into_owned(),
                class,
                predicted,
                probabilities: [probabilities(logits)[predicted], of_true],
            })
        };
        Ok(Self {
            evaluation,
            mistakes: wrong.into_iter().map(mistake).collect::<Result<_>>()?,
            total: examined.total(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    #[test]
    fn the_worst_mistakes_come_first() {
        let split = Split::new(vec![10, 20, 30, 40, 50], vec![0, 1, 1, 0, 1]);
        let mut examined = Examined::new(split, 2);
        // Right, wrong by 1, wrong by 3, wrong by 2; the last was not examined.
        examined.add([1.0, 0.0, 1.0, 0.0, 3.0, 0.0, 0.0, 2.0]);
        let findings = Findings::new(&examined).unwrap();
        assert_eq!(findings.total, 5);
        assert_eq!(findings.evaluation.confusion, [[1, 1], [2, 0]]);
        let order: Vec<_> = findings.mistakes.iter().map(|m| m.index).collect();
        assert_eq!(order, [2, 3, 1]);
        let worst = &findings.mistakes[0];
        assert_eq!((worst.class, worst.predicted), (1, 0));
        let of_true = 1.0 / (1.0 + 3f64.exp());
        assert!((worst.probabilities[1] - of_true).abs() < 1e-12);
        assert!((worst.probabilities[0] - (1.0 - of_true)).abs() < 1e-12);
    }
}
