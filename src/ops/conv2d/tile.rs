//! The patches of outputs that kernels on software adapters work on at a time.

use crate::ops::Window;

/// Rows and columns of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patch(pub [usize; 2]);

impl Patch {
    /// All patches of whole units that are no larger than what covers the output, and of at
    /// most so many outputs.
    pub fn all(unit: [usize; 2], output: [usize; 2], most: usize) -> impl Iterator<Item = Self> {
        let sides = move |axis: usize, most: usize| {
            let covering = output[axis].next_multiple_of(unit[axis]);
            (unit[axis]..=covering.min(most)).step_by(unit[axis])
        };
        sides(0, most).flat_map(move |h| sides(1, most / h).map(move |w| Self([h, w])))
    }

    /// Outputs of a patch.
    pub fn outputs(self) -> usize {
        self.0[0] * self.0[1]
    }

    /// Rows and columns of the inputs that it takes of a channel.
    pub fn inputs(self, window: &Window) -> [usize; 2] {
        [0, 1].map(|axis| (self.0[axis] - 1) * window.stride[axis] + window.span()[axis])
    }

    /// Rows and columns of patches that cover the output.
    pub fn grid(self, output: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| output[axis].div_ceil(self.0[axis]))
    }

    /// How many patches cover it.
    pub fn count(self, output: [usize; 2]) -> usize {
        self.grid(output).iter().product()
    }
}
