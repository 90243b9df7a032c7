//! Benchmarks: what the device can do at most, and what each kernel of a training step
//! makes of it.
//!
//! A kernel's time is held against two ceilings that the device's own kernels found: the
//! rate of multiply-adds and that of copying. The nearer one is what the kernel has left
//! to gain from; see Williams, Waterman and Patterson, "Roofline: an insightful visual
//! performance model for multicore architectures", 2009.

mod ceilings;
mod compare;
mod kernels;
mod scaling;

pub use ceilings::{Ceilings, Copy, launches};
pub use compare::{Compared, Earlier, Line};
pub use kernels::{Bound, DispatchTime, Kernel, Training, of_op};
pub use scaling::{ScalingPoint, places};

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::ceilings::tests::ceilings;
    use super::{Bound, DispatchTime, Kernel};
    use crate::train::Precision;

    /// A kernel of 100 µs that does 8 operations a byte.
    pub(crate) fn kernel(layer: &str, op: &str, nth: usize) -> Kernel {
        Kernel {
            model: "tiny".into(),
            batch: 32,
            precision: Precision::F32,
            layer: layer.into(),
            op: op.into(),
            nth,
            us: 100.0,
            flops: 4_000_000,
            bytes: 500_000,
            gflops: 40.0,
            gb_per_s: 5.0,
            bound: Bound::Compute,
            percent: 40.0,
            clock: "host clock".into(),
            dispatches: vec![DispatchTime {
                shader: format!("{op}/forward.wgsl"),
                us: 100.0,
            }],
        }
    }
}
