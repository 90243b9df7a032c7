//! The crate's one error type.
//!
//! Every message names the thing at fault (file, field, layer, flag), what was
//! expected, what was found and what to do about it.

use std::path::PathBuf;

/// A [`std::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, grouped by who can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes or attributes of an op or a layer that do not fit together.
    #[error("{place}: {problem}")]
    Shape {
        /// The op or layer, by name.
        place: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A model description that cannot be built.
    #[error("model {model}: {problem}")]
    Model {
        /// The preset or file.
        model: String,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// A file or folder whose content is not what its name promises.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        problem: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb phrase: "read", "create".
        action: &'static str,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// A flag, option or argument that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// No adapter, or none of the asked-for name, or one that lacks something needed.
    #[error("{0}")]
    Device(String),
    /// A buffer or dispatch beyond the device's limits.
    #[error("{what} needs {needed} {unit}, but the device's limit {limit_name} is {limit} {unit}")]
    Limit {
        /// The tensor or kernel.
        what: String,
        /// The amount asked for.
        needed: u64,
        /// The limit's WebGPU name.
        limit_name: &'static str,
        /// The device's value.
        limit: u64,
        /// The unit of both numbers.
        unit: &'static str,
    },
    /// A shader that does not compile, or a launch that does not match its shader.
    /// This is a bug in an op, never the user's.
    #[error("shader {shader}: {problem}")]
    Shader {
        /// The shader's file, relative to `shaders/`.
        shader: String,
        /// The compiler's or the loader's complaint.
        problem: String,
    },
    /// The GPU refused work, or this program gave it what it must not.
    #[error("device failure: {0}")]
    Runtime(String),
    /// The loss or a gradient of a training is no longer finite.
    #[error("{0}")]
    Diverged(String),
    /// The device is gone, out of memory or does not answer. Opened anew, it may serve again.
    #[error("device failure: {0}")]
    Fault(String),
}

impl Error {
    /// A shape error at `place`.
    pub fn shape(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Shape {
            place: place.into(),
            problem: problem.into(),
        }
    }

    /// An error about the content of `path`.
    pub fn data(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Data {
            path: path.into(),
            problem: problem.into(),
        }
    }

    /// A failed file operation; `action` is a verb phrase such as "read".
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            action,
            source,
        }
    }

    /// A model description at fault.
    pub fn model(model: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Model {
            model: model.into(),
            problem: problem.into(),
        }
    }

    /// A shader or launch at fault.
    pub fn shader(shader: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Shader {
            shader: shader.into(),
            problem: problem.into(),
        }
    }

    /// The process exit code: 2 where the user can mend the input, 1 where the
    /// machine or this program failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Shader { .. } | Self::Runtime(_) | Self::Fault(_) | Self::Diverged(_) => 1,
            Self::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => 1,
            _ => 2,
        }
    }

    /// The same error with a shape problem's place put inside `outer`:
    /// an op's complaint becomes a layer's.
    pub fn inside(self, outer: &str) -> Self {
        match self {
            Self::Shape { place, problem } => Self::Shape {
                place: format!("{outer} ({place})"),
                problem,
            },
            other => other,
        }
    }
}
