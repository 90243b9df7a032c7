//! A training before anything of it is on the device: what runs, on which images, and how much
//! memory that takes.

use super::Config;
use super::estimate::{Estimate, Memory, used_for};
use super::feed::Part;
use super::graphs::{EVAL_BATCH, Graphs};
use super::monitor::Monitor;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::graph::{Backend, Graph, advise_batch, batch_advice, largest_batch};
use crate::model::Model;
use crate::ops::metrics;

/// All that a training runs: graphs at first, then programs.
#[derive(Clone, Copy)]
pub(super) struct Runs<T> {
    pub train: T,
    /// The last, smaller batch of an epoch, where the images do not divide.
    pub rest: Option<T>,
    /// Where gradients are accumulated, the update after as many batches as that takes, and
    /// the one after those that are left at the end of an epoch.
    pub update: Option<[T; 2]>,
    /// With its batch.
    pub evaluate: Option<(T, usize)>,
    /// Where all images are on the device.
    pub shuffle: Option<T>,
}

impl<T> Runs<T> {
    /// The same of something else, in the order they are declared in.
    pub fn try_map<U>(self, make: &mut dyn FnMut(T) -> Result<U>) -> Result<Runs<U>> {
        let train = make(self.train)?;
        let rest = self.rest.map(&mut *make).transpose()?;
        let update = match self.update {
            Some([whole, last]) => Some([make(whole)?, make(last)?]),
            None => None,
        };
        let evaluate = self
            .evaluate
            .map(|(run, batch)| Ok::<_, Error>((make(run)?, batch)));
        Ok(Runs {
            train,
            rest,
            update,
            evaluate: evaluate.transpose()?,
            shuffle: self.shuffle.map(&mut *make).transpose()?,
        })
    }

    /// All of them, in that order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let update = self.update.iter().flatten();
        let evaluate = self.evaluate.iter().map(|(run, _)| run);
        let first = std::iter::once(&self.train).chain(&self.rest);
        first.chain(update).chain(evaluate).chain(&self.shuffle)
    }
}

/// A training that is ready to begin. Nothing is allocated on the device yet.
pub struct Setup<'a> {
    pub(super) model: &'a Model,
    pub(super) config: &'a Config,
    pub(super) graphs: Graphs<'a>,
    pub(super) train: (Part, Split),
    pub(super) validation: Option<(Part, Split)>,
    pub(super) runs: Runs<Graph>,
    estimate: Estimate,
}

impl<'a> Setup<'a> {
    /// Sets a training up for a device. Where it would not fit the memory that is there,
    /// results of the forward pass are computed again, which changes no bit of the weights.
    ///
    /// # Errors
    /// If data and model do not go together, or the device is too small even so; then with the
    /// largest batch that would fit.
    pub fn new(
        model: &'a Model,
        data: &Dataset,
        config: &'a Config,
        backend: &dyn Backend,
    ) -> Result<Self> {
        check_fit(model, data)?;
        let (train, validation) = parts(data, config)?;
        if config.batch_size > train.len() {
            return Err(Error::Usage(format!(
                "--batch-size {} is larger than the {} training images",
                config.batch_size,
                train.len()
            )));
        }
        let ranks_five = model.classes() > metrics::TOP && validation.is_some();
        if config.monitor()? == Monitor::Top5 && !ranks_five {
            return Err(Error::Usage(format!(
                "--monitor val_top5 needs images to validate on and more than five classes; {} \
                 has {} classes and {} such images",
                model.name(),
                model.classes(),
                validation.as_ref().map_or(0, Split::len)
            )));
        }
        let plan = Plan {
            model,
            config,
            backend,
            images: data.shape,
            labels: &train.labels,
            lens: [train.len(), validation.as_ref().map_or(0, Split::len)],
            memory: Memory::of(config.memory_budget, backend),
        };
        let Planned {
            graphs,
            parts: [train_part, validation_part],
            runs,
            estimate,
        } = plan.fitting(config.batch_size)?;
        Ok(Self {
            model,
            config,
            graphs,
            train: (train_part, train),
            validation: validation.map(|split| (validation_part, split)),
            runs,
            estimate,
        })
    }

    /// What the training takes of the device's memory.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }
}

/// What a training is planned from.
struct Plan<'a, 'b> {
    model: &'a Model,
    config: &'b Config,
    backend: &'b dyn Backend,
    /// Channels, rows and columns.
    images: [usize; 3],
    labels: &'b [u32],
    /// Training and validation images.
    lens: [usize; 2],
    memory: Memory,
}

/// A training as it would run.
struct Planned<'a> {
    graphs: Graphs<'a>,
    parts: [Part; 2],
    runs: Runs<Graph>,
    estimate: Estimate,
}

impl<'a> Plan<'a, '_> {
    /// The training in batches of `batch` that fits, with the least done for it.
    fn fitting(&self, batch: usize) -> Result<Planned<'a>> {
        let planned = self.smallest(batch)?;
        if planned.estimate.fits() {
            return Ok(planned);
        }
        let fits = |n| self.smallest(n).is_ok_and(|p| p.estimate.fits());
        let largest = largest_batch(batch - 1, fits);
        Err(Error::Device(format!(
            "training {} in batches of {batch} takes too much memory, even where results are \
             computed again: {}; {}",
            self.model.name(),
            planned.estimate,
            batch_advice(largest, "--batch-size")
        )))
    }

    /// The first that fits of: the training as it is, with smaller batches where it is
    /// validated, with recomputation; the last of them where none does.
    fn smallest(&self, batch: usize) -> Result<Planned<'a>> {
        let asked = self.config.recompute;
        let mut smallest = self.planned(batch, asked, EVAL_BATCH)?;
        for (recompute, evaluation) in [(asked, batch), (true, batch)] {
            if smallest.estimate.fits() {
                break;
            }
            smallest = self.planned(batch, recompute, evaluation.min(EVAL_BATCH))?;
        }
        Ok(smallest)
    }

    fn planned(&self, batch: usize, recompute: bool, evaluation: usize) -> Result<Planned<'a>> {
        let (config, backend) = (self.config, self.backend);
        let mut method = config.method(self.labels, self.model)?;
        method.augmentation.check(self.model.input())?;
        method.recompute = recompute;
        let limit = backend.max_binding();
        let graphs = Graphs::new(self.model, method, limit);
        let part = |name, len| Part::new(name, len, self.images, limit);
        let budget = config.data_bytes(limit, self.memory.bytes);
        let train = part("train", self.lens[0]).within(budget, batch);
        let budget = budget.saturating_sub(train.bytes());
        let mut validation = part("validation", self.lens[1]);
        let mut validate = None;
        if validation.len > 0 {
            let most = validation.len.min(evaluation);
            let graph = |batch| graphs.evaluation(&validation, batch);
            let within = |batch| graph(batch).and_then(|g| backend.plan(&g)).is_ok();
            let batch = largest_batch(most, within).max(1);
            validation = validation.within(budget, batch);
            validate = Some(batch);
        }
        let runs = self.runs(&graphs, [&train, &validation], batch, validate)?;
        let lasting = graphs.lasting_states();
        let estimate = Estimate::new(runs.iter(), used_for, &lasting, backend, self.memory)
            .map_err(|error| {
                advise_batch(error, batch, backend, |batch| {
                    graphs.training(&train, batch)
                })
            })?;
        let estimate = Estimate {
            recompute,
            evaluation: validate,
            ..estimate
        };
        Ok(Planned {
            graphs,
            parts: [train, validation],
            runs,
            estimate,
        })
    }

    fn runs(
        &self,
        graphs: &Graphs<'_>,
        [train, validation]: [&Part; 2],
        batch: usize,
        validate: Option<usize>,
    ) -> Result<Runs<Graph>> {
        let rest = train.len % batch;
        let rest = (rest > 0).then(|| graphs.training(train, rest));
        let group = batch * self.config.accumulate;
        let mut update = None;
        if self.config.accumulate > 1 {
            let left = match train.len % group {
                0 => group,
                images => images,
            };
            update = Some([graphs.update(group)?, graphs.update(left)?]);
        }
        let evaluation = |batch| Ok::<_, Error>((graphs.evaluation(validation, batch)?, batch));
        Ok(Runs {
            train: graphs.training(train, batch)?,
            rest: rest.transpose()?,
            update,
            evaluate: validate.map(evaluation).transpose()?,
            shuffle: (!train.is_streamed())
                .then(|| train.shuffle())
                .transpose()?,
        })
    }
}

/// The images that a training with these settings validates on, where there are any.
///
/// # Errors
/// If the settings leave none to train or to validate on.
pub fn validation_images(data: &Dataset, config: &Config) -> Result<Option<Split>> {
    parts(data, config).map(|(_, validation)| validation)
}

/// The images to train on and those to validate on.
pub(super) fn parts(data: &Dataset, config: &Config) -> Result<(Split, Option<Split>)> {
    let limited = match config.limit {
        Some(limit) => data.train.first(limit),
        None => data.train.clone(),
    };
    match config.val_split {
        Some(fraction) => {
            let [train, validation] = limited.cut(fraction)?;
            Ok((train, Some(validation)))
        }
        None => Ok((limited, data.test.clone())),
    }
}

pub(super) fn check_fit(model: &Model, data: &Dataset) -> Result<()> {
    if data.shape != model.input() {
        return Err(Error::model(
            model.name(),
            format!(
                "takes images of {:?} (channels, rows, columns), the data set {} has {:?}",
                model.input(),
                data.name,
                data.shape
            ),
        ));
    }
    if data.classes.len() > model.classes() {
        return Err(Error::model(
            model.name(),
            format!(
                "has {} outputs, the data set {} has {} classes (labels 0 to {})",
                model.classes(),
                data.name,
                data.classes.len(),
                data.classes.len() - 1
            ),
        ));
    }
    Ok(())
}
