//! Making trained models smaller and faster.

mod channels;
mod fold;
mod magnitude;
mod measure;
mod quantize;
mod structured;

pub use channels::Channels;
pub use fold::fold_batch_norms;
pub use magnitude::{Schedule, mask, masked};
pub use measure::{BATCH, Measured, measure};
pub use quantize::{Calibration, calibrate};
pub use structured::{Criterion, prune_channels};

use crate::error::{Error, Result};

/// Checks a share of weights or channels to prune.
pub(crate) fn check_amount(amount: f64) -> Result<()> {
    if amount > 0.0 && amount < 1.0 {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--amount must be above 0 and below 1, found {amount}"
    )))
}
