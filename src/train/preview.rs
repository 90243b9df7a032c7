//! Training images as the model will see them.

use super::feed::Part;
use super::graphs::Graphs;
use super::{Config, setup};
use crate::data::Dataset;
use crate::error::Result;
use crate::graph::Backend;
use crate::model::Model;
use crate::ops::Step;

/// Images side by side, all of one shape.
pub struct Preview {
    /// Channels, rows and columns of each image.
    pub shape: [usize; 3],
    /// Images in a row.
    pub columns: usize,
    /// Their bytes, [N, C, H, W], row after row: first an image as it is stored, then the same
    /// one as successive steps see it. What was set to zero after normalisation has the mean's
    /// colour.
    pub images: Vec<u8>,
}

/// Rows of a preview, unless there are fewer images.
const ROWS: usize = 8;
/// Images in a row.
const COLUMNS: usize = 10;

/// Augments the first training images as the first steps of a training would.
///
/// # Errors
/// If data and model do not fit, the settings are out of range, or the device fails.
pub fn preview(
    model: &Model,
    data: &Dataset,
    config: &Config,
    backend: &mut dyn Backend,
) -> Result<Preview> {
    setup::check_fit(model, data)?;
    let (train, _) = setup::parts(data, config)?;
    let train = train.first(ROWS);
    let method = config.method(&train.labels, model)?;
    method.augmentation.check(model.input())?;
    let limit = backend.max_binding();
    let part = Part::new("preview", train.len(), data.shape, limit);
    part.create(backend)?;
    part.put(&train, backend)?;
    let graphs = Graphs::new(model, method, limit);
    let state = graphs.create_preview(&part, backend)?;
    let augmented = backend.compile(graphs.preview(&part, true)?)?;
    let stored = backend.compile(graphs.preview(&part, false)?)?;
    let image: usize = data.shape.iter().product();
    let mut images = vec![0; train.len() * COLUMNS * image];
    for column in 0..COLUMNS {
        let step = Step {
            number: column as u32,
            seed: config.seed,
            count: train.len() as u32,
            ..Step::default()
        };
        let program = if column == 0 { stored } else { augmented };
        backend.run(program, &[step])?;
        let seen = backend.read(state)?;
        for (row, pixels) in seen.f().chunks_exact(image).enumerate() {
            let target = &mut images[(row * COLUMNS + column) * image..][..image];
            for (at, (byte, v)) in target.iter_mut().zip(pixels).enumerate() {
                let channel = at / (data.shape[1] * data.shape[2]);
                let (factor, summand) = model.normalization().affine(channel);
                let v = (v - f64::from(summand)) / f64::from(factor);
                *byte = v.round().clamp(0.0, 255.0) as u8;
            }
        }
    }
    Ok(Preview {
        shape: data.shape,
        columns: COLUMNS,
        images,
    })
}
