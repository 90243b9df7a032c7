//! Images of another size: each axis by itself, as a sum of places times weights.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::formats::onnx::read::Attribute;
use crate::formats::onnx::tensor::Element;
use crate::ops::binary::BinaryOp;
use crate::ops::{Array, Value};
use crate::tensor::{Shape, TensorType};

pub(super) const OPERATORS: &[(&str, Write)] = &[("Resize", resize), ("Upsample", upsample)];

/// How far an axis may be enlarged: more than any network does.
const MOST: f64 = 1e6;

/// The longest axis of a result.
const MOST_PLACES: usize = 1 << 20;

/// How an axis becomes longer or shorter.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    from: usize,
    to: usize,
    scale: f64,
    /// What part of the axis is taken, from 0 to 1.
    roi: [f64; 2],
}

/// What a value between places is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    /// With Keys's parameter.
    Cubic(f64),
}

/// How an operator interpolates.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    mode: Mode,
    /// How halves are rounded, and whether at all.
    nearest: String,
    /// Where the places of the result lie in the input.
    coordinates: String,
    /// Places outside count for nothing; else they are those at the edge.
    exclude_outside: bool,
    /// Shrunk axes are averaged over what a place of the result covers.
    antialias: bool,
}

/// A place of the result: places of the input with their weights; none where it lies outside
/// of what is to be taken.
type Taps = Vec<(usize, f64)>;

impl Rule {
    /// Where a place of the result lies in the input; `None` outside.
    fn origin(&self, axis: &Axis, at: usize) -> Option<f64> {
        let (x, scale) = (at as f64, axis.scale);
        let last = axis.from as f64 - 1.0;
        let length = scale * axis.from as f64;
        let half = (x + 0.5) / scale - 0.5;
        Some(match self.coordinates.as_str() {
            "align_corners" if length == 1.0 => 0.0,
            "align_corners" => x * last / (length - 1.0),
            "asymmetric" => x / scale,
            "pytorch_half_pixel" if length == 1.0 => -0.5,
            "half_pixel_symmetric" => {
                let adjustment = axis.to as f64 / length;
                axis.from as f64 / 2.0 * (1.0 - adjustment) + half
            }
            "tf_crop_and_resize" => {
                let [start, end] = axis.roi;
                let along = match length == 1.0 {
                    true => (end - start) * last / 2.0,
                    false => x * (end - start) * last / (length - 1.0),
                };
                let origin = along + start * last;
                return (0.0..=last).contains(&origin).then_some(origin);
            }
            _ => half,
        })
    }

    /// The weight of a place `distance` away, in places of the result where it is averaged.
    fn weight(&self, distance: f64) -> f64 {
        let d = distance.abs();
        match self.mode {
            Mode::Cubic(a) if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Mode::Cubic(a) if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Mode::Cubic(_) => 0.0,
            _ => (1.0 - d).clamp(0.0, 1.0),
        }
    }

    fn taps(&self, axis: &Axis, at: usize) -> Option<Taps> {
        let origin = self.origin(axis, at)?;
        // The place before, never itself, and how far it is: in (0, 1].
        let before = origin.ceil() - 1.0;
        let ratio = origin - before;
        let clamped = |place: f64| place.clamp(0.0, axis.from as f64 - 1.0) as usize;
        let reach = match self.mode {
            Mode::Nearest => {
                let next = match self.nearest.as_str() {
                    _ if ratio == 1.0 => true,
                    "floor" => false,
                    "ceil" => true,
                    "round_prefer_ceil" => ratio >= 0.5,
                    _ => ratio > 0.5,
                };
                let place = before + f64::from(u8::from(next));
                return Some(vec![(clamped(place), 1.0)]);
            }
            Mode::Linear => 1.0,
            Mode::Cubic(_) => 2.0,
        };
        let scale = match self.antialias {
            true => axis.scale.min(1.0),
            false => 1.0,
        };
        let first = (-reach / scale).floor() + 1.0;
        let count = (2.0 - 2.0 * first) as usize;
        let mut taps = Vec::with_capacity(count);
        let mut total = 0.0;
        for i in 0..count {
            let offset = first + i as f64;
            let mut weight = self.weight(scale * (offset - ratio));
            let place = before + offset;
            if self.exclude_outside && !(0.0..axis.from as f64).contains(&place) {
                weight = 0.0;
            }
            total += weight;
            taps.push((clamped(place), weight));
        }
        taps.iter_mut().for_each(|(_, weight)| *weight /= total);
        Some(taps)
    }
}

impl Lowering {
    /// One axis of a value in another length.
    fn interpolated(
        &mut self,
        call: &Call<'_>,
        x: Value,
        place: usize,
        taps: &[Option<Taps>],
        outside: f64,
    ) -> Result<Value> {
        let count = taps.iter().flatten().map(Vec::len).max().unwrap_or(0);
        let mut dims = vec![1; self.shape(x).rank()];
        dims[place] = taps.len();
        let ty = TensorType::f32(Shape::new(dims));
        let name = format!("{}/weights", call.node.name);
        let mut total = None;
        for k in 0..count {
            let tap = |taps: &Option<Taps>| taps.as_ref().and_then(|t| t.get(k).copied());
            let tap = taps.iter().map(tap);
            let places: Vec<_> = tap.clone().map(|t| t.map(|t| t.0)).collect();
            let weights: Vec<f64> = tap.map(|t| t.map_or(0.0, |t| t.1)).collect();
            let mut part = self.picked(call, x, place, &places)?;
            if weights.iter().any(|w| *w != 1.0) {
                let weights = self.constant(&name, Array::float(ty.clone(), weights));
                part = self.binary(call, BinaryOp::Mul, part, weights)?;
            }
            total = Some(match total {
                None => part,
                Some(total) => self.binary(call, BinaryOp::Add, total, part)?,
            });
        }
        let Some(mut y) = total else {
            return Err(call.error("all of the result lies outside of the input"));
        };
        if outside != 0.0 && taps.contains(&None) {
            let fill = taps.iter().map(|t| if t.is_none() { outside } else { 0.0 });
            let fill = self.constant(&name, Array::float(ty, fill.collect()));
            y = self.binary(call, BinaryOp::Add, y, fill)?;
        }
        Ok(y)
    }
}

/// Resizes the axes, of which those that stay as they are cost nothing.
fn resized(
    lowering: &mut Lowering,
    call: &Call<'_>,
    rule: &Rule,
    axes: &[Axis],
) -> Result<Vec<Item>> {
    let (mut x, element) = call.number(lowering, 0)?;
    if element != Element::F32 && rule.mode != Mode::Nearest {
        return Err(call.error(format!("expected floats to interpolate, found {element:?}")));
    }
    if let Some(axis) = axes.iter().find(|a| !(1..=MOST_PLACES).contains(&a.to)) {
        return Err(call.error(format!(
            "expected 1 to {MOST_PLACES} places along an axis, found {}",
            axis.to
        )));
    }
    let outside = call.number_attribute("extrapolation_value", 0.0)?;
    for (place, axis) in axes.iter().enumerate() {
        let taps: Vec<_> = (0..axis.to).map(|at| rule.taps(axis, at)).collect();
        let itself = |(at, taps): (usize, &Option<Taps>)| {
            let taps = taps.iter().flatten();
            let mut counted = taps.filter(|(_, weight)| *weight != 0.0);
            counted.next() == Some(&(at, 1.0)) && counted.next().is_none()
        };
        if axis.from != axis.to || !taps.iter().enumerate().all(itself) {
            x = lowering.interpolated(call, x, place, &taps, outside)?;
        }
    }
    Ok(vec![Item::Device(x, element)])
}

/// The floats of an input that may be left out, also by having none.
fn list(call: &Call<'_>, index: usize) -> Result<Option<Vec<f64>>> {
    if call.optional(index).is_none() {
        return Ok(None);
    }
    let tensor = call.known(index)?;
    let data = tensor.to_floats().into_iter().map(f64::from);
    Ok(Some(data.collect()).filter(|_| !tensor.is_empty()))
}

fn scaled(call: &Call<'_>, from: usize, scale: f64) -> Result<Axis> {
    let to = (scale * from as f64).floor();
    if !(scale.is_finite() && scale > 0.0 && scale <= MOST && to >= 1.0) {
        return Err(call.error(format!("cannot resize {from} places by {scale}")));
    }
    Ok(Axis {
        from,
        to: to as usize,
        scale,
        roi: [0.0, 1.0],
    })
}

/// The axes by the sizes that are asked for, which one scale may have to keep within or cover.
fn sized(call: &Call<'_>, dims: &[usize], named: &[usize], sizes: &[f64]) -> Result<Vec<Axis>> {
    let mut axes = Vec::new();
    for from in dims {
        axes.push(scaled(call, *from, 1.0)?);
    }
    let scales = named
        .iter()
        .zip(sizes)
        .map(|(a, size)| size / dims[*a] as f64);
    let one = match call.text("keep_aspect_ratio_policy", "stretch")?.as_str() {
        "not_larger" => scales.clone().reduce(f64::min),
        "not_smaller" => scales.clone().reduce(f64::max),
        _ => None,
    };
    for ((axis, size), own) in named.iter().zip(sizes).zip(scales) {
        let scale = one.unwrap_or(own);
        axes[*axis] = scaled(call, dims[*axis], scale)?;
        axes[*axis].to = match one {
            Some(scale) => ((scale * dims[*axis] as f64 + 0.5) as usize).max(1),
            None => *size as usize,
        };
    }
    Ok(axes)
}

fn resize(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let dims = lowering.dims(call.input(0)?);
    let named = match call.ints("axes")? {
        Some(axes) => {
            let found = axes.iter().map(|a| call.axis(*a, dims.len()));
            found.collect::<Result<_>>()?
        }
        None => (0..dims.len()).collect::<Vec<_>>(),
    };
    // In version 10 there were neither a region nor sizes, and no choice of coordinates.
    let old = call.opset < 11;
    let scales = list(call, if old { 1 } else { 2 })?;
    let sizes = if old { None } else { list(call, 3)? };
    let fits = |list: &Option<Vec<f64>>, n: usize| list.as_ref().is_none_or(|l| l.len() == n);
    let roi = if old { None } else { list(call, 1)? };
    let count = named.len();
    if !fits(&scales, count) || !fits(&sizes, count) || !fits(&roi, 2 * count) {
        return Err(call.error(format!("expected scales or sizes of {count} axes")));
    }
    let mut axes = match (&scales, &sizes) {
        (_, Some(sizes)) => sized(call, &dims, &named, sizes)?,
        (Some(scales), None) => {
            let scale = |i: usize| {
                named
                    .iter()
                    .position(|a| *a == i)
                    .map_or(1.0, |k| scales[k])
            };
            let axes = dims.iter().enumerate();
            axes.map(|(i, from)| scaled(call, *from, scale(i)))
                .collect::<Result<_>>()?
        }
        (None, None) => return Err(call.error("there are neither scales nor sizes")),
    };
    for (k, axis) in named.iter().enumerate() {
        if let Some(roi) = &roi {
            axes[*axis].roi = [roi[k], roi[count + k]];
        }
    }
    let coordinates = if old { "asymmetric" } else { "half_pixel" };
    let nearest = if old { "floor" } else { "round_prefer_floor" };
    let rule = Rule {
        mode: mode(call)?,
        nearest: call.text("nearest_mode", nearest)?,
        coordinates: call.text("coordinate_transformation_mode", coordinates)?,
        exclude_outside: call.flag("exclude_outside")?,
        antialias: call.flag("antialias")?,
    };
    resized(lowering, call, &rule, &axes)
}

fn mode(call: &Call<'_>) -> Result<Mode> {
    match call.text("mode", "nearest")?.as_str() {
        "nearest" => Ok(Mode::Nearest),
        "linear" | "bilinear" => Ok(Mode::Linear),
        "cubic" => Ok(Mode::Cubic(call.number_attribute("cubic_coeff_a", -0.75)?)),
        other => Err(call.error(format!("mode {other:?}: expected nearest, linear or cubic"))),
    }
}

/// What `Resize` was until version 9: its scales were an attribute, then an input.
fn upsample(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let dims = lowering.dims(call.input(0)?);
    let scales = match call.node.attribute("scales") {
        Some(Attribute::Floats(scales)) => scales.iter().map(|s| f64::from(*s)).collect(),
        _ => list(call, 1)?.unwrap_or_default(),
    };
    if scales.len() != dims.len() {
        return Err(call.error(format!("expected scales of {} axes", dims.len())));
    }
    let axes = dims.iter().zip(scales);
    let axes = axes.map(|(from, scale)| scaled(call, *from, scale));
    let rule = Rule {
        mode: mode(call)?,
        nearest: "floor".into(),
        coordinates: "asymmetric".into(),
        exclude_outside: false,
        antialias: false,
    };
    let axes = axes.collect::<Result<Vec<_>>>()?;
    resized(lowering, call, &rule, &axes)
}
