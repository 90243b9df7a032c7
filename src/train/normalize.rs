//! Normalisation as a user asks for it.

use super::Config;
use super::setup::parts;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ops::batch::Normalization;

/// The model with the normalisation that [`Config::normalize`] asks for, measured on the
/// images to train on where it is to be measured. From there on it is the model's own.
///
/// # Errors
/// [`Error::Usage`] if the text is neither `measure` nor `none` nor numbers for each channel.
pub fn normalized(model: Model, data: &Dataset, config: &Config) -> Result<Model> {
    let Some(text) = &config.normalize else {
        return Ok(model);
    };
    let [channels, ..] = model.input();
    let normalization = match text.as_str() {
        "none" => Normalization::default(),
        "measure" => {
            let (train, _) = parts(data, config)?;
            let moments = train.moments(data.shape[0])?;
            // A channel that is always the same is only shifted.
            let std = |std| if std == 0.0 { 1.0 } else { std as f32 };
            Normalization {
                mean: moments.iter().map(|m| m.mean as f32).collect(),
                std: moments.iter().map(|m| std(m.std)).collect(),
                ..Normalization::default()
            }
        }
        numbers => given(numbers, channels)?,
    };
    Ok(model.with_normalization(normalization))
}

/// Checks the form of the text, whatever the number of channels.
pub(super) fn check(text: &str) -> Result<()> {
    if matches!(text, "none" | "measure") {
        return Ok(());
    }
    let channels = text
        .split('/')
        .next()
        .unwrap_or_default()
        .split(',')
        .count();
    given(text, channels).map(drop)
}

/// Means and deviations, as in `0.1307/0.3081` or `0.5,0.5,0.5/0.25,0.25,0.25`.
fn given(text: &str, channels: usize) -> Result<Normalization> {
    let fail = || {
        Error::Usage(format!(
            "--normalize must be measure, none, or MEAN/STD with a mean and a deviation above zero \
             for each channel, of bytes over 255, such as 0.1307/0.3081 or \
             0.5,0.5,0.5/0.25,0.25,0.25 ({channels} of each here); found {text:?}"
        ))
    };
    let numbers = |text: &str| -> Option<Vec<f32>> {
        let parsed = text.split(',').map(|part| part.trim().parse().ok());
        let numbers: Vec<f32> = parsed.collect::<Option<_>>()?;
        let fine = numbers.len() == channels && numbers.iter().all(|v| v.is_finite());
        fine.then_some(numbers)
    };
    let (mean, std) = text.split_once('/').ok_or_else(fail)?;
    let mean = numbers(mean).ok_or_else(fail)?;
    let std = numbers(std).ok_or_else(fail)?;
    if std.iter().any(|s| *s <= 0.0) {
        return Err(fail());
    }
    Ok(Normalization {
        mean,
        std,
        ..Normalization::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_one_of_each_for_each_channel() {
        let found = given("0.1, 0.2/0.5,1", 2).unwrap();
        assert_eq!((found.mean, found.std), (vec![0.1, 0.2], vec![0.5, 1.0]));
        for text in [
            "0.1/0.3",
            "0.1,0.2",
            "0.1,0.2/0.3,0",
            "0.1,0.2/0.3,nan",
            "measured",
        ] {
            let error = given(text, 2).unwrap_err().to_string();
            assert!(error.contains("2 of each here"), "{error}");
        }
        check("0.1,0.2/0.5,1").unwrap();
        assert!(check("0.1,0.2/0.5").is_err());
    }
}
