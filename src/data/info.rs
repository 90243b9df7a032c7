//! What a data set holds, in numbers and as a picture.

use super::{Dataset, Sheet, Split};
use crate::error::{Error, Result};
use serde::Serialize;
use std::path::Path;

/// A data set in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// Its name or folder.
    pub name: String,
    /// Channels, rows and columns of an image.
    pub shape: [usize; 3],
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
    /// Bytes of all pixels.
    pub bytes: usize,
    /// Mean of each channel over the training images, pixels in [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of each channel likewise: what a model file's `std` takes.
    pub std: Vec<f64>,
    /// The classes in the order of their labels.
    pub classes: Vec<ClassCount>,
}

/// How often a class occurs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassCount {
    /// Its name.
    pub class: String,
    /// Training images of it.
    pub train: usize,
    /// Test images of it.
    pub test: usize,
}

impl Info {
    /// Counts and measures a data set.
    ///
    /// # Errors
    /// If an image file cannot be decoded.
    pub fn of(data: &Dataset) -> Result<Self> {
        let count = |split: &Split| {
            let mut counts = vec![0; data.classes.len()];
            split.labels.iter().for_each(|l| counts[*l as usize] += 1);
            counts
        };
        let train = count(&data.train);
        let test = data.test.as_ref().map(count);
        let test = test.unwrap_or_else(|| vec![0; data.classes.len()]);
        let moments = data.train.moments(data.shape[0])?;
        let tested = data.test.as_ref();
        let images = data.train.len() + tested.map_or(0, Split::len);
        Ok(Self {
            name: data.name.clone(),
            shape: data.shape,
            train: data.train.len(),
            test: tested.map_or(0, Split::len),
            bytes: images * data.shape.iter().product::<usize>(),
            mean: moments.iter().map(|m| m.mean).collect(),
            std: moments.iter().map(|m| m.std).collect(),
            classes: (data.classes.iter().zip(train).zip(test))
                .map(|((class, train), test)| ClassCount {
                    class: class.clone(),
                    train,
                    test,
                })
                .collect(),
        })
    }
}

/// Images of a class on a contact sheet.
const SAMPLES: usize = 12;

/// Classes on a contact sheet; more would make a picture nobody opens.
const ROWS: usize = 100;

/// Writes a PNG with a row for each class: its first training images.
///
/// # Errors
/// If images have neither 1 nor 3 channels, or the file cannot be written.
pub fn contact_sheet(data: &Dataset, path: &Path) -> Result<()> {
    let [channels, ..] = data.shape;
    if channels != 1 && channels != 3 {
        let problem = format!("cannot show images of {channels} channels; 1 or 3 can be shown");
        return Err(Error::data(path, problem));
    }
    let lines = data.classes.len().min(ROWS);
    let mut sheet = Sheet::new(data.shape, [lines, SAMPLES]);
    let mut seen = vec![0; data.classes.len()];
    for (i, label) in data.train.labels.iter().enumerate() {
        let class = *label as usize;
        if class < lines && seen[class] < SAMPLES {
            sheet.put([class, seen[class]], &data.train.images.get(i..i + 1)?);
            seen[class] += 1;
        }
    }
    sheet.save(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_moments_of_a_small_set() {
        let split = |images: &[u8], labels: &[u32]| Split::new(images.to_vec(), labels.to_vec());
        let data = Dataset {
            name: "small".into(),
            shape: [2, 1, 2],
            classes: vec!["a".into(), "b".into(), "c".into()],
            train: split(&[0, 255, 10, 10, 255, 0, 30, 30], &[1, 1]),
            test: Some(split(&[0; 4], &[2])),
            notes: vec![],
        };
        let info = Info::of(&data).unwrap();
        assert_eq!((info.train, info.test, info.bytes), (2, 1, 12));
        let counts: Vec<_> = info.classes.iter().map(|c| (c.train, c.test)).collect();
        assert_eq!(counts, [(0, 0), (2, 0), (0, 1)]);
        // Half black, half white; and half 10, half 30.
        let expected = [(0.5, 0.5), (20.0 / 255.0, 10.0 / 255.0)];
        for (i, (mean, std)) in expected.into_iter().enumerate() {
            assert!((info.mean[i] - mean).abs() < 1e-12);
            assert!((info.std[i] - std).abs() < 1e-12);
        }
    }

    #[test]
    fn a_contact_sheet_has_a_row_for_each_class() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.png");
        let mut data = Dataset::synthetic([3, 24, 48], 4, 60);
        data.train.labels = (0..60).map(|i| i % 4).collect();
        contact_sheet(&data, &path).unwrap();
        let sheet = image::open(&path).unwrap().to_rgb8();
        assert_eq!(
            sheet.dimensions(),
            ((12 * 50 + 2) as u32, (4 * 26 + 2) as u32)
        );
        // The second class's first image is the set's second.
        let red = data.train.images.get(1..2).unwrap()[0];
        assert_eq!(sheet.get_pixel(2, 2 + 26)[0], red);
        data.shape = [2, 36, 48];
        contact_sheet(&data, &path).unwrap_err();
    }
}
