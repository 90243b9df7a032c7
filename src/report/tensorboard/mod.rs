//! Event files for TensorBoard in a run folder: `tensorboard/train` and `tensorboard/validation`,
//! two runs in one chart, with the tags that Keras's callback writes.

mod file;
mod histogram;
mod proto;

use super::findings::Findings;
use super::page::pictures::first_filters;
use crate::data::Sheet;
use crate::error::Result;
use crate::model::Model;
use crate::train::{Config, Event, Metrics, Observer, Preview, RunFolder, Seen};
use file::EventFile;
use histogram::histogram;
use proto::{Content, Image, SessionLog, SessionStatus, Summary, Value, What};
use std::path::PathBuf;

/// The folder in a run folder.
const FOLDER: &str = "tensorboard";
/// First-layer filters shown, and how many in a row.
const FILTERS: [usize; 2] = [96, 12];
/// Mistakes in a row.
const MISTAKES: usize = 8;

/// Writes event files as the training goes on: numbers at each readback and each epoch, weights
/// as histograms, filters and mistakes as pictures.
///
/// Steps count batches since training began, and epochs from 1. A run that goes on writes a
/// new file; what older ones hold of the steps that it takes anew is void.
pub struct TensorBoard {
    folder: PathBuf,
    model: Model,
    batch_size: usize,
    train: Option<EventFile>,
    validation: Option<EventFile>,
    augmented: Option<Sheet>,
    /// Whether the next step is the first since the training started, or started again.
    starts: bool,
    epoch: usize,
    before: Metrics,
}

impl TensorBoard {
    /// For the run in `folder`, in which nothing is written yet.
    pub fn new(model: &Model, config: &Config, folder: &RunFolder) -> Self {
        Self {
            folder: folder.path().join(FOLDER),
            model: model.clone(),
            batch_size: config.batch_size,
            train: None,
            validation: None,
            augmented: None,
            starts: false,
            epoch: 0,
            before: Metrics::default(),
        }
    }

    /// Shows training images as the first steps see them.
    #[must_use]
    pub fn with_augmented(mut self, seen: &Preview) -> Self {
        self.augmented = Some(Sheet::of(&seen.images, seen.shape, seen.columns));
        self
    }

    /// Whether a run has event files.
    pub fn is_kept(folder: &RunFolder) -> bool {
        folder.path().join(FOLDER).is_dir()
    }

    fn start(&mut self) -> Result<()> {
        self.starts = true;
        (self.epoch, self.before) = (0, Metrics::default());
        if self.train.is_none() {
            self.train = Some(EventFile::create(&self.folder.join("train"))?);
        }
        let Some(sheet) = self.augmented.take() else {
            return Ok(());
        };
        self.write(0, vec![("augmented".into(), image(&sheet)?)])
    }

    /// Writes values of the training.
    fn write(&mut self, step: usize, values: Vec<(String, Content)>) -> Result<()> {
        write(&mut self.train, step, values)
    }

    /// What came back since the last time.
    fn progress(&mut self, step: usize, epoch: usize, now: Metrics, rest: [f64; 2]) -> Result<()> {
        if std::mem::take(&mut self.starts) {
            let status = SessionStatus::Start.into();
            let log = What::SessionLog(SessionLog { status });
            if let Some(file) = &mut self.train {
                file.write([(step as i64, log)])?;
            }
        }
        if epoch != self.epoch {
            (self.epoch, self.before) = (epoch, Metrics::default());
        }
        let before = std::mem::replace(&mut self.before, now);
        let since = Metrics {
            loss_sum: now.loss_sum - before.loss_sum,
            correct: now.correct - before.correct,
            top5: now.top5 - before.top5,
            samples: now.samples - before.samples,
            not_finite: false,
        };
        let [learning_rate, images_per_s] = rest;
        let mut values = vec![
            scalar("batch_learning_rate", learning_rate),
            scalar("images_per_second", images_per_s),
        ];
        // All its steps may have been skipped.
        if since.samples > 0.0 {
            values.push(scalar("batch_loss", since.loss()));
            values.push(scalar("batch_accuracy", since.accuracy()));
        }
        self.write(step, values)
    }
}

impl Observer for TensorBoard {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Start { .. } => self.start(),
            Event::Progress {
                epoch,
                done,
                total,
                metrics,
                images_per_s,
                learning_rate,
            } => {
                let steps = |images: &usize| images.div_ceil(self.batch_size);
                let step = (epoch - 1) * steps(total) + steps(done);
                self.progress(step, *epoch, *metrics, [*learning_rate, *images_per_s])
            }
            _ => Ok(()),
        }
    }

    fn epoch(&mut self, seen: Seen<'_>) -> Result<()> {
        let Some(row) = seen.history.last() else {
            return Ok(());
        };
        let mut values = vec![
            scalar("epoch_loss", row.loss),
            scalar("epoch_accuracy", row.accuracy),
            scalar("epoch_learning_rate", row.learning_rate),
            scalar("epoch_seconds", row.seconds),
        ];
        for (name, tensor) in seen.weights {
            // The layer's name groups the charts.
            let tag = match name.rsplit_once('.') {
                Some((layer, parameter)) => format!("{layer}/{parameter}"),
                None => name.clone(),
            };
            values.extend(histogram(tensor.data()).map(|h| (tag, Content::Histo(h))));
        }
        let [most, columns] = FILTERS;
        if let Some((layer, shape, filters)) = first_filters(&self.model, seen.weights, most) {
            let sheet = Sheet::of(&filters.concat(), shape, columns.min(filters.len()));
            values.push((format!("{layer}/filters"), image(&sheet)?));
        }
        self.write(row.epoch, values)?;
        let (Some(loss), Some(accuracy)) = (row.val_loss, row.val_accuracy) else {
            return Ok(());
        };
        if self.validation.is_none() {
            self.validation = Some(EventFile::create(&self.folder.join("validation"))?);
        }
        let mut values = vec![
            scalar("epoch_loss", loss),
            scalar("epoch_accuracy", accuracy),
        ];
        values.extend(row.val_top5.map(|share| scalar("epoch_top5", share)));
        if let Some(examined) = seen.examined {
            let mistakes = Findings::new(examined)?.mistakes;
            let images: Vec<u8> = mistakes.iter().flat_map(|m| m.image.clone()).collect();
            if !images.is_empty() {
                let columns = MISTAKES.min(mistakes.len());
                let sheet = Sheet::of(&images, self.model.input(), columns);
                values.push(("worst_mistakes".into(), image(&sheet)?));
            }
        }
        write(&mut self.validation, row.epoch, values)
    }

    fn failed(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
}

/// Writes values to a file, if it could be made.
fn write(file: &mut Option<EventFile>, step: usize, values: Vec<(String, Content)>) -> Result<()> {
    let Some(events) = file else { return Ok(()) };
    let value = values.into_iter().map(|(tag, content)| Value {
        tag,
        content: Some(content),
    });
    let summary = What::Summary(Summary {
        value: value.collect(),
    });
    let written = events.write([(step as i64, summary)]);
    if written.is_err() {
        // The error is told once; the training goes on without the file.
        *file = None;
    }
    written
}

fn scalar(tag: &str, value: f64) -> (String, Content) {
    (tag.to_owned(), Content::SimpleValue(value as f32))
}

fn image(sheet: &Sheet) -> Result<Content> {
    let [width, height] = sheet.size().map(|n| n as i32);
    Ok(Content::Image(Image {
        height,
        width,
        colorspace: 3,
        encoded_image_string: sheet.png()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::file::tests::read;
    use super::*;

    const MODEL: &str = "name = 'tiny'\ninput = [1, 4, 4]\nlayer = [\
        { type = 'conv2d', filters = 2, kernel = 3 }, { type = 'flatten' }, \
        { type = 'dense', units = 3 }]";

    fn progress(epoch: usize, done: usize, sums: [f64; 3]) -> Event {
        Event::Progress {
            epoch,
            done,
            total: 20,
            metrics: Metrics::from_row(&[sums[0], sums[1], sums[2], 0.0, sums[2]]),
            images_per_s: 100.0,
            learning_rate: 0.25,
        }
    }

    fn start() -> Event {
        Event::Start {
            device: "none".into(),
            parameters: 1,
            images: [20, 0],
            streamed: [false; 2],
            memory: [0; 2],
        }
    }

    /// The step and the value of each number of a tag.
    fn scalars(events: &[proto::Event], tag: &str) -> Vec<(i64, f32)> {
        let summaries = events.iter().filter_map(|event| match &event.what {
            Some(What::Summary(summary)) => Some((event.step, summary)),
            _ => None,
        });
        let mut found = Vec::new();
        for (step, summary) in summaries {
            for value in summary.value.iter().filter(|v| v.tag == tag) {
                if let Some(Content::SimpleValue(value)) = value.content {
                    found.push((step, value));
                }
            }
        }
        found
    }

    #[test]
    fn numbers_lie_at_their_steps_and_a_resumed_run_writes_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let model = Model::from_toml(MODEL, "test").unwrap();
        let config = Config {
            batch_size: 8,
            ..Config::new(&model).unwrap()
        };
        let run = dir.path().join("run");
        let folder = RunFolder::create(Some(&run), &model, &config, &[]).unwrap();
        assert!(!TensorBoard::is_kept(&folder));
        let mut board = TensorBoard::new(&model, &config, &folder);
        board.event(&start()).unwrap();
        // 20 images are 3 batches. Sums of the epoch so far; what is told is of the batches since.
        board.event(&progress(1, 8, [16.0, 4.0, 8.0])).unwrap();
        board.event(&progress(1, 20, [22.0, 10.0, 20.0])).unwrap();
        board.event(&progress(2, 16, [4.0, 16.0, 16.0])).unwrap();
        let mut board = TensorBoard::new(&model, &config, &folder);
        board.event(&start()).unwrap();
        board.event(&progress(2, 16, [8.0, 16.0, 16.0])).unwrap();
        assert!(TensorBoard::is_kept(&folder));

        let files = std::fs::read_dir(run.join("tensorboard/train")).unwrap();
        let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
        files.sort();
        let [first, second] = [&files[0], &files[1]].map(|path| read(path));
        assert_eq!(
            scalars(&first, "batch_loss"),
            [(1, 2.0), (3, 0.5), (5, 0.25)]
        );
        assert_eq!(
            scalars(&first, "batch_accuracy"),
            [(1, 0.5), (3, 0.5), (5, 1.0)]
        );
        assert_eq!(scalars(&second, "batch_loss"), [(5, 0.5)]);
        let starts = |events: &[proto::Event]| -> Vec<i64> {
            let is_start = |e: &&proto::Event| matches!(e.what, Some(What::SessionLog(_)));
            events.iter().filter(is_start).map(|e| e.step).collect()
        };
        // What the first file holds from step 5 on is void.
        assert_eq!((starts(&first), starts(&second)), (vec![1], vec![5]));
    }
}
