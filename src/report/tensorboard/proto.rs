//! TensorBoard's protobuf messages: the fields that gpucnn writes. Numbers and names are those
//! of [event.proto](https://github.com/tensorflow/tensorboard/blob/2.20.0/tensorboard/compat/proto/event.proto)
//! and summary.proto beside it.

use prost::{Enumeration, Message, Oneof};

/// A record of an event file.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Where on the horizontal axis it belongs.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// What it tells.
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

/// What an event tells.
#[derive(Clone, PartialEq, Oneof)]
pub enum What {
    /// The version of the format: the first record of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    /// Values of this step.
    #[prost(message, tag = "5")]
    Summary(Summary),
    /// How the training stands.
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// How a training stands.
#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    /// Whether it starts, ends or writes a checkpoint.
    #[prost(enumeration = "SessionStatus", tag = "1")]
    pub status: i32,
}

/// Of the session states the one that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum SessionStatus {
    /// The protobuf's default.
    StatusUnspecified = 0,
    /// From this step on, what earlier files of the folder hold is void.
    Start = 1,
}

/// Values of a step.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// A value under its name.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// Its name; what stands before a slash groups the charts.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The value.
    #[prost(oneof = "Content", tags = "2, 4, 5")]
    pub content: Option<Content>,
}

/// The kinds of values.
#[derive(Clone, PartialEq, Oneof)]
pub enum Content {
    /// A number.
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    /// A picture.
    #[prost(message, tag = "4")]
    Image(Image),
    /// A distribution.
    #[prost(message, tag = "5")]
    Histo(Histogram),
}

/// A picture.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    /// Rows.
    #[prost(int32, tag = "1")]
    pub height: i32,
    /// Columns.
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// 1 for grey, 3 for RGB.
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    /// A PNG.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_image_string: Vec<u8>,
}

/// How many values lie where.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// The smallest value.
    #[prost(double, tag = "1")]
    pub min: f64,
    /// The largest value.
    #[prost(double, tag = "2")]
    pub max: f64,
    /// How many there are.
    #[prost(double, tag = "3")]
    pub num: f64,
    /// Their sum.
    #[prost(double, tag = "4")]
    pub sum: f64,
    /// The sum of their squares.
    #[prost(double, tag = "5")]
    pub sum_squares: f64,
    /// The upper end of each bucket, which is the lower end of the next; the first begins at
    /// `min`.
    #[prost(double, repeated, tag = "6")]
    pub bucket_limit: Vec<f64>,
    /// How many values each bucket holds.
    #[prost(double, repeated, tag = "7")]
    pub bucket: Vec<f64>,
}
