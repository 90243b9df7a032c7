//! The states that the graphs share: made, changed from outside and read back.

use super::update::OptimizerState;
use super::{
    ACCUMULATED, AVERAGES, CLASS_WEIGHTS, COUNTS, GRADIENTS, GROUPS, Graphs, LOSS_SCALE, MASK,
    METRICS, MIX_SHARES, NOT_FINITE, PREVIEW, metrics_type,
};
use crate::compress;
use crate::error::Result;
use crate::graph::{Arena, Backend};
use crate::ops::Array;
use crate::ops::augment::Mix;
use crate::ops::loss_scale;
use crate::tensor::TensorType;
use crate::train::feed;
use crate::train::weights::{PARAMETERS, STATISTICS, Weights, upload_as, upload_weights};

impl Graphs<'_> {
    /// The states that are evaluated and saved.
    pub(super) fn results(&self) -> [(&'static str, &Arena); 2] {
        let [parameters, statistics] = match self.method.ema {
            Some(_) => AVERAGES,
            None => [PARAMETERS, STATISTICS],
        };
        [
            (parameters, &self.parameters),
            (statistics, &self.statistics),
        ]
    }

    /// What the update reads besides parameters, gradients and the optimizer's states.
    fn constants(&self) -> Vec<(&'static str, Array)> {
        let weights = self.method.class_weights.as_ref();
        let weights = weights.map(|w| Array::float(TensorType::f32([w.len()]), w.clone()));
        let counts = (!self.parameters.is_empty()).then(|| self.counts());
        [
            (MIX_SHARES, self.mix().map(|mix| mix.table())),
            (CLASS_WEIGHTS, weights),
            (GROUPS, self.groups()),
            (COUNTS, counts),
        ]
        .into_iter()
        .filter_map(|(name, content)| Some((name, content?)))
        .collect()
    }

    /// Creates and fills the states of weights, gradients, optimizer and metrics.
    pub(in crate::train) fn create_states(
        &self,
        backend: &mut dyn Backend,
        weights: &Weights,
    ) -> Result<()> {
        upload_weights(backend, &self.parameters, &self.statistics, weights)?;
        if self.method.ema.is_some() {
            upload_as(backend, self.results(), weights)?;
        }
        let ty = self.parameters.ty();
        if self.method.prunes && !self.parameters.is_empty() {
            let ones = vec![1.0; self.parameters.len()];
            backend.create(MASK, &ty)?;
            backend.write(MASK, &Array::float(ty.clone(), ones))?;
        }
        backend.create(GRADIENTS, &ty)?;
        if self.method.accumulate > 1 {
            backend.create(ACCUMULATED, &ty)?;
        }
        for OptimizerState {
            name, initial, ty, ..
        } in self.optimizer_states()
        {
            let values = vec![initial; ty.shape.len()];
            backend.create(&name, &ty)?;
            backend.write(&name, &Array::float(ty, values))?;
        }
        for (name, content) in self.constants() {
            backend.create(name, content.ty())?;
            backend.write(name, &content)?;
        }
        if self.is_halved() {
            let initial = vec![loss_scale::INITIAL, 0.0];
            backend.create(LOSS_SCALE, &loss_scale::state())?;
            backend.write(LOSS_SCALE, &Array::float(loss_scale::state(), initial))?;
        }
        backend.create(NOT_FINITE, &TensorType::f32([1]))?;
        backend.create(METRICS, &metrics_type())
    }

    /// The states that steps change and the next ones build on, with their types. A
    /// checkpoint is their content.
    pub(in crate::train) fn lasting_states(&self) -> Vec<(String, TensorType)> {
        let mut states = vec![
            (PARAMETERS.to_owned(), self.parameters.ty()),
            (STATISTICS.to_owned(), self.statistics.ty()),
        ];
        let kept = self.optimizer_states().into_iter();
        states.extend(kept.map(|s| (s.name, s.ty)));
        if self.method.ema.is_some() {
            states.extend(
                self.results()
                    .map(|(name, arena)| (name.into(), arena.ty())),
            );
        }
        if self.method.accumulate > 1 {
            states.push((ACCUMULATED.to_owned(), self.parameters.ty()));
        }
        if self.method.prunes {
            states.push((MASK.to_owned(), self.parameters.ty()));
        }
        if self.is_halved() {
            states.push((LOSS_SCALE.to_owned(), loss_scale::state()));
        }
        states.retain(|(_, ty)| !ty.shape.is_empty());
        states
    }

    /// Creates the states that [`preview`](Self::preview) needs besides the part's own, and
    /// names the one that the images come to lie in.
    pub(in crate::train) fn create_preview(
        &self,
        part: &feed::Part,
        backend: &mut dyn Backend,
    ) -> Result<&'static str> {
        if let Some(mix) = self.mix() {
            backend.create(MIX_SHARES, &Mix::table_type())?;
            backend.write(MIX_SHARES, &mix.table())?;
        }
        let [c, h, w] = self.model.input();
        backend.create(PREVIEW, &TensorType::f32([part.len, c, h, w]))?;
        Ok(PREVIEW)
    }

    /// Makes the share `sparsity` of each weight zero, the smallest magnitudes, and keeps it
    /// that from now on.
    pub(in crate::train) fn prune(&self, backend: &mut dyn Backend, sparsity: f64) -> Result<()> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        let read = |backend: &mut dyn Backend, state| {
            let parts = self.parameters.unpack(&backend.read(state)?)?;
            Ok(parts.into_iter().collect::<Weights>())
        };
        let pack = |tensors: &Weights| self.parameters.pack(|part| Ok(&tensors[&part.name]));
        let parameters = read(backend, PARAMETERS)?;
        let mask = compress::mask(&parameters, sparsity);
        backend.write(MASK, &pack(&mask)?)?;
        backend.write(PARAMETERS, &pack(&compress::masked(&parameters, &mask))?)?;
        if self.method.ema.is_some() {
            let averages = read(backend, AVERAGES[0])?;
            backend.write(AVERAGES[0], &pack(&compress::masked(&averages, &mask))?)?;
        }
        Ok(())
    }

    /// Reads the weights as they are in training back, without their averages.
    pub(in crate::train) fn read_parameters(&self, backend: &mut dyn Backend) -> Result<Weights> {
        let mut weights = Weights::new();
        for (state, arena) in [
            (PARAMETERS, &self.parameters),
            (STATISTICS, &self.statistics),
        ] {
            if !arena.is_empty() {
                weights.extend(arena.unpack(&backend.read(state)?)?);
            }
        }
        Ok(weights)
    }

    /// Reads all weights back; their averages, where they are averaged.
    pub(in crate::train) fn read_weights(&self, backend: &mut dyn Backend) -> Result<Weights> {
        let mut weights = Weights::new();
        for (state, arena) in self.results() {
            if !arena.is_empty() {
                weights.extend(arena.unpack(&backend.read(state)?)?);
            }
        }
        Ok(weights)
    }
}
