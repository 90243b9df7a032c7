//! What may happen to a training image, and how a user says it.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What a place outside of the image is taken to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Border {
    /// Black, as torchvision's `RandomCrop` and `RandomAffine` have it.
    #[default]
    Zero,
    /// The image mirrored at its outermost pixels, which are not repeated: NumPy's and
    /// torchvision's `reflect`.
    Reflect,
    /// The nearest pixel of the image.
    Edge,
}

impl Border {
    pub(super) const ALL: [Self; 3] = [Self::Zero, Self::Reflect, Self::Edge];

    fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Reflect => "reflect",
            Self::Edge => "edge",
        }
    }
}

/// What may happen to each training image, in this order; nothing, by default.
///
/// It is written as a list such as `flip, crop=4, border=reflect, cutout=8`; `none` is the
/// empty one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augmentation {
    /// `flip`: probability of a mirror image, left to right (torchvision's
    /// `RandomHorizontalFlip`).
    pub flip: f64,
    /// `vflip`: probability of an image upside down (`RandomVerticalFlip`).
    pub flip_vertical: f64,
    /// `crop`: the image gets a border of so many pixels, then a part of its own size is
    /// cut out anywhere (`RandomCrop(size, padding)`; He et al. 2015).
    pub crop: usize,
    /// `zoom`: it is enlarged by a factor from 1 - zoom to 1 + zoom about its centre
    /// (`RandomAffine(scale)`, Keras's `RandomZoom`).
    pub zoom: f64,
    /// `rotate`: it is turned by up to so many degrees either way about its centre
    /// (`RandomRotation`).
    pub rotate: f64,
    /// `shift`: it is moved by up to this share of its height and of its width (Keras's
    /// `RandomTranslation`, `RandomAffine(translate)`).
    pub shift: f64,
    /// `border`: what comes in from outside by all of that.
    pub border: Border,
    /// `brightness`: bytes times a factor from 1 - b to 1 + b (`ColorJitter`; so the next
    /// three).
    pub brightness: f64,
    /// `contrast`: the distance to the image's mean grey times a factor.
    pub contrast: f64,
    /// `saturation`: the distance to each pixel's own grey times a factor.
    pub saturation: f64,
    /// `hue`: hues turn by up to this share of the circle either way, at most 0.5.
    pub hue: f64,
    /// `cutout`: a square of this side about any pixel is set to zero, after normalisation
    /// (DeVries and Taylor 2017).
    pub cutout: usize,
    /// `erase`: probability that a box of 2% to 33% of the area, with sides in a proportion
    /// from 0.3 to 3.3, is set to zero (Zhong et al. 2017; `RandomErasing`).
    pub erase: f64,
    /// `mixup`: the parameter of the shares of two images; see [`Mix`](super::Mix).
    pub mixup: f64,
    /// `cutmix`: the same, where a box of one image is put into the other.
    pub cutmix: f64,
}

/// What the value of an entry of the list must be.
struct Rule {
    name: &'static str,
    /// The value of the bare name, where it stands for itself.
    bare: Option<&'static str>,
    wanted: &'static str,
    example: &'static str,
    fine: fn(f64) -> bool,
}

const fn rule(
    name: &'static str,
    bare: Option<&'static str>,
    wanted: &'static str,
    example: &'static str,
    fine: fn(f64) -> bool,
) -> Rule {
    Rule {
        name,
        bare,
        wanted,
        example,
        fine,
    }
}

const PROBABILITY: &str = "a probability from 0 to 1";
const RULES: [Rule; 14] = [
    rule("flip", Some("0.5"), PROBABILITY, "0.5", is_share),
    rule("vflip", Some("0.5"), PROBABILITY, "0.5", is_share),
    rule(
        "crop",
        Some("4"),
        "whole pixels from 0 to 1024",
        "4",
        is_pixels,
    ),
    rule("zoom", None, "at least 0 and below 1", "0.1", |v| {
        (0.0..1.0).contains(&v)
    }),
    rule("rotate", None, "degrees from 0 to 180", "15", |v| {
        (0.0..=180.0).contains(&v)
    }),
    rule(
        "shift",
        None,
        "a share of the image from 0 to 1",
        "0.1",
        is_share,
    ),
    rule("brightness", None, "from 0 to 1", "0.4", is_share),
    rule("contrast", None, "from 0 to 1", "0.4", is_share),
    rule("saturation", None, "from 0 to 1", "0.4", is_share),
    rule("hue", None, "from 0 to 0.5", "0.1", |v| {
        (0.0..=0.5).contains(&v)
    }),
    rule(
        "cutout",
        None,
        "whole pixels from 0 to 1024",
        "8",
        is_pixels,
    ),
    rule("erase", Some("0.5"), PROBABILITY, "0.5", is_share),
    rule(
        "mixup",
        Some("0.2"),
        "0 or from 0.05 to 10",
        "0.2",
        is_alpha,
    ),
    rule("cutmix", Some("1"), "0 or from 0.05 to 10", "1", is_alpha),
];

/// Where below 1/20, a share is 0 or 1 but for once in a thousand draws, and quantiles leave
/// the range of f32.
fn is_alpha(value: f64) -> bool {
    value == 0.0 || (0.05..=10.0).contains(&value)
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn is_pixels(value: f64) -> bool {
    (0.0..=1024.0).contains(&value) && value.fract() == 0.0
}

impl Augmentation {
    /// Whether nothing happens.
    pub fn is_none(&self) -> bool {
        let border = self.border;
        *self
            == Self {
                border,
                ..Self::default()
            }
    }

    /// Whether nothing happens to an image by itself.
    pub fn leaves_images(&self) -> bool {
        let alone = Self {
            mixup: 0.0,
            cutmix: 0.0,
            ..self.clone()
        };
        alone.is_none()
    }

    /// Whether pixels come to lie between pixels.
    pub(super) fn resamples(&self) -> bool {
        self.zoom != 0.0 || self.rotate != 0.0 || self.shift != 0.0
    }

    /// Whether colours change.
    pub(super) fn jitters(&self) -> bool {
        [self.brightness, self.contrast, self.saturation, self.hue] != [0.0; 4]
    }

    /// Checks that it can be done to images of this shape (channels, rows, columns).
    ///
    /// # Errors
    /// [`Error::Usage`] that says what cannot.
    pub fn check(&self, shape: [usize; 3]) -> Result<()> {
        let [channels, ..] = shape;
        let colorful = [("saturation", self.saturation), ("hue", self.hue)];
        for (name, value) in colorful {
            if value != 0.0 && channels != 3 {
                return Err(Error::Usage(format!(
                    "--augment {name} needs images of 3 channels, these have {channels}; leave it out"
                )));
            }
        }
        Ok(())
    }

    /// The numbers of the list, by name.
    fn values(&mut self) -> [(&'static str, Field<'_>); 14] {
        [
            ("flip", Field::Float(&mut self.flip)),
            ("vflip", Field::Float(&mut self.flip_vertical)),
            ("crop", Field::Pixels(&mut self.crop)),
            ("zoom", Field::Float(&mut self.zoom)),
            ("rotate", Field::Float(&mut self.rotate)),
            ("shift", Field::Float(&mut self.shift)),
            ("brightness", Field::Float(&mut self.brightness)),
            ("contrast", Field::Float(&mut self.contrast)),
            ("saturation", Field::Float(&mut self.saturation)),
            ("hue", Field::Float(&mut self.hue)),
            ("cutout", Field::Pixels(&mut self.cutout)),
            ("erase", Field::Float(&mut self.erase)),
            ("mixup", Field::Float(&mut self.mixup)),
            ("cutmix", Field::Float(&mut self.cutmix)),
        ]
    }

    /// Takes one entry of the list.
    fn set(&mut self, entry: &str) -> Result<()> {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (entry.trim(), None),
        };
        if name == "border" {
            let found = Border::ALL.into_iter().find(|b| Some(b.name()) == value);
            self.border = found.ok_or_else(|| {
                let found = value.unwrap_or("nothing");
                Error::Usage(format!(
                    "--augment border must be zero, reflect or edge, found {found}"
                ))
            })?;
            return Ok(());
        }
        let rule = RULES.iter().find(|r| r.name == name);
        let rule = rule.ok_or_else(|| unknown(name))?;
        let text = value.or(rule.bare).ok_or_else(|| {
            let Rule {
                wanted, example, ..
            } = rule;
            Error::Usage(format!(
                "--augment {name} needs a value ({wanted}), such as {name}={example}"
            ))
        })?;
        let number = text.parse().ok().filter(|v| (rule.fine)(*v));
        let number = number.ok_or_else(|| {
            let wanted = rule.wanted;
            Error::Usage(format!("--augment {name} must be {wanted}, found {text}"))
        })?;
        let fields = self.values().into_iter();
        fields.filter(|f| f.0 == name).for_each(|f| f.1.set(number));
        Ok(())
    }
}

enum Field<'a> {
    Float(&'a mut f64),
    Pixels(&'a mut usize),
}

impl Field<'_> {
    fn set(self, value: f64) {
        match self {
            Self::Float(field) => *field = value,
            Self::Pixels(field) => *field = value as usize,
        }
    }

    fn get(&self) -> f64 {
        match self {
            Self::Float(field) => **field,
            Self::Pixels(field) => **field as f64,
        }
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<_> = RULES.iter().map(|r| r.name).chain(["border"]).collect();
    let nearest = known
        .iter()
        .min_by_key(|k| strsim::damerau_levenshtein(name, k));
    let hint = match nearest {
        Some(k) if strsim::damerau_levenshtein(name, k) <= 2 => format!(" (did you mean {k:?}?)"),
        _ => String::new(),
    };
    Error::Usage(format!(
        "unknown --augment {name:?}{hint}; expected none, or a list of {}",
        known.join(", ")
    ))
}

impl FromStr for Augmentation {
    type Err = Error;

    /// # Errors
    /// [`Error::Usage`] that names the entry, what was expected and what was found.
    fn from_str(text: &str) -> Result<Self> {
        let mut augmentation = Self::default();
        if text.trim() == "none" {
            return Ok(augmentation);
        }
        for entry in text.split(',') {
            augmentation.set(entry.trim())?;
        }
        Ok(augmentation)
    }
}

impl fmt::Display for Augmentation {
    /// The list, which reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        let mut copy = self.clone();
        let values = copy.values();
        let given = values.iter().filter(|v| v.1.get() != 0.0);
        let mut list: Vec<_> = given
            .map(|(name, v)| format!("{name}={}", v.get()))
            .collect();
        if self.border != Border::default() {
            list.push(format!("border={}", self.border.name()));
        }
        f.write_str(&list.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_back_as_they_were_written() {
        let list = "flip, vflip=0.25,crop, border=reflect ,zoom=0.1,rotate=15,shift=0.1,\
                    brightness=0.4,contrast=0.4,saturation=0.3,hue=0.1,cutout=8,erase,mixup=0.4,cutmix";
        let augmentation: Augmentation = list.parse().unwrap();
        assert_eq!(augmentation.flip, 0.5);
        assert_eq!((augmentation.crop, augmentation.cutout), (4, 8));
        assert_eq!(augmentation.border, Border::Reflect);
        let again: Augmentation = augmentation.to_string().parse().unwrap();
        assert_eq!(again, augmentation);
        assert!("none".parse::<Augmentation>().unwrap().is_none());
        assert_eq!(Augmentation::default().to_string(), "none");
    }

    #[test]
    fn errors_name_the_entry_and_what_it_wants() {
        for (list, problem) in [
            ("flop", "did you mean \"flip\"?"),
            ("flip,", "unknown --augment \"\""),
            (
                "flip=1.5",
                "--augment flip must be a probability from 0 to 1, found 1.5",
            ),
            (
                "crop=2.5",
                "--augment crop must be whole pixels from 0 to 1024, found 2.5",
            ),
            (
                "rotate",
                "--augment rotate needs a value (degrees from 0 to 180), such as rotate=15",
            ),
            ("rotate=nan", "found nan"),
            ("hue=0.6", "from 0 to 0.5"),
            (
                "border=black",
                "--augment border must be zero, reflect or edge, found black",
            ),
        ] {
            let error = list.parse::<Augmentation>().unwrap_err().to_string();
            assert!(error.contains(problem), "{list}: {error}");
        }
        let hue: Augmentation = "hue=0.1".parse().unwrap();
        hue.check([3, 8, 8]).unwrap();
        let error = hue.check([1, 8, 8]).unwrap_err().to_string();
        assert!(error.contains("needs images of 3 channels"), "{error}");
    }
}
