//! Kernels: a WGSL file plus the values that specialise it.
//!
//! A shader under `shaders/` is valid WGSL as it stands. The loader changes it
//! in four ways only, all by name, so that no template syntax is needed:
//!
//! * **constants**: `const TILE: u32 = 8u;` at the start of a line gets
//!   another value ([`Kernel::set`]);
//! * **aliases**: `alias Element = f32;` at the start of a line gets another type
//!   ([`Kernel::alias`]);
//! * **hooks**: a top-level function with a default body, such as
//!   `fn activate(x: f32, alpha: f32) -> f32 { return x; }`, is redirected to a
//!   function of a library file with the same parameters ([`Kernel::hook`]).
//!   The library's constants, bindings and hooks are then part of the shader.
//!   A hook's signature stands on one line at the start of a line and its
//!   closing brace at the start of a line of its own, or all on one line;
//! * **extensions**: `enable f16;` is put before the text ([`Kernel::enable`]), for
//!   aliases that need it.
//!
//! Where the device loads texels faster than buffers, bindings become textures
//! ([`texels`]).

use super::range::Range;
use super::texels;
use crate::error::{Error, Result};
use std::fmt::Write as _;

/// A WGSL file of the `shaders/` folder, embedded in the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShaderFile {
    /// Path below `shaders/`.
    pub path: &'static str,
    /// The file's text.
    pub text: &'static str,
}

/// Embeds a file of the `shaders/` folder: `shader!("conv2d/forward.wgsl")`.
#[macro_export]
macro_rules! shader {
    ($path:literal) => {
        $crate::gpu::kernel::ShaderFile {
            path: $path,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path)),
        }
    };
}

/// The value of a shader constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant {
    /// A `u32` constant.
    U32(u32),
    /// An `i32` constant.
    I32(i32),
    /// An `f32` constant; must be finite.
    F32(f32),
    /// A `bool` constant.
    Bool(bool),
    /// A `vec4<f32>` constant; all must be finite.
    Vec4([f32; 4]),
}

impl Constant {
    fn wgsl(self) -> String {
        match self {
            Self::U32(v) => format!("{v}u"),
            Self::I32(v) => format!("{v}i"),
            // Rust prints the shortest text that reads back as the same float.
            Self::F32(v) => format!("{v:?}f"),
            Self::Bool(v) => format!("{v}"),
            Self::Vec4([x, y, z, w]) => format!("vec4<f32>({x:?}f, {y:?}f, {z:?}f, {w:?}f)"),
        }
    }
}

impl From<u32> for Constant {
    fn from(v: u32) -> Self {
        Self::U32(v)
    }
}

impl From<usize> for Constant {
    /// # Panics
    /// If the value does not fit 32 bits; launch code works with extents that
    /// the device's limits already bound.
    fn from(v: usize) -> Self {
        Self::U32(u32::try_from(v).expect("shader constants are 32-bit"))
    }
}

impl From<i32> for Constant {
    fn from(v: i32) -> Self {
        Self::I32(v)
    }
}

impl From<f32> for Constant {
    fn from(v: f32) -> Self {
        Self::F32(v)
    }
}

impl From<f64> for Constant {
    /// Rounds to the nearest f32, the only float that every device has.
    fn from(v: f64) -> Self {
        Self::F32(v as f32)
    }
}

impl From<bool> for Constant {
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<[f32; 4]> for Constant {
    fn from(v: [f32; 4]) -> Self {
        Self::Vec4(v)
    }
}

/// A shader file with the constants and hooks that specialise it.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    file: ShaderFile,
    extensions: Vec<&'static str>,
    constants: Vec<(&'static str, Constant)>,
    aliases: Vec<(&'static str, &'static str)>,
    hooks: Vec<(&'static str, ShaderFile, &'static str)>,
    uses: Vec<(&'static str, usize)>,
    once: Vec<&'static str>,
}

impl Kernel {
    /// The file with its defaults.
    pub fn new(file: ShaderFile) -> Self {
        Self {
            file,
            extensions: Vec::new(),
            constants: Vec::new(),
            aliases: Vec::new(),
            hooks: Vec::new(),
            uses: Vec::new(),
            once: Vec::new(),
        }
    }

    /// Enables a WGSL extension, such as `f16`; the device must have it.
    #[must_use]
    pub fn enable(mut self, extension: &'static str) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Sets the constant `name`.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: impl Into<Constant>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// Makes the alias `name` stand for the WGSL type `ty`.
    #[must_use]
    pub fn alias(mut self, name: &'static str, ty: &'static str) -> Self {
        self.aliases.push((name, ty));
        self
    }

    /// Redirects the function `name` to `target` of the library file.
    #[must_use]
    pub fn hook(mut self, name: &'static str, library: ShaderFile, target: &'static str) -> Self {
        self.hooks.push((name, library, target));
        self
    }

    /// Says that the kernel reads little of the binding `name`: not worth a copy of all.
    #[must_use]
    pub fn sparse(self, name: &'static str) -> Self {
        self.reused(name, 0)
    }

    /// The same of a binding that is not read at all, unless `is_read`.
    #[must_use]
    pub fn sparse_unless(self, is_read: bool, name: &'static str) -> Self {
        match is_read {
            true => self,
            false => self.sparse(name),
        }
    }

    /// Says that so many invocations, not one, read each vector of the binding `name`.
    #[must_use]
    pub fn reused(mut self, name: &'static str, times: usize) -> Self {
        self.uses.push((name, times));
        self
    }

    /// How many invocations read each vector of a binding: the least that was said.
    pub(super) fn uses_of_each(&self, name: &str) -> u64 {
        let told = self.uses.iter().filter(|(told, _)| *told == name);
        told.map(|(_, times)| *times as u64).min().unwrap_or(1)
    }

    /// Says that each element of the writable binding `name` is read by the invocation
    /// that writes it, and before it does: what the kernel reads may be a copy.
    #[must_use]
    pub fn read_once(mut self, name: &'static str) -> Self {
        self.once.push(name);
        self
    }

    /// The specialised WGSL, its bindings read as `readings` say, those of `halved` as halves.
    ///
    /// # Errors
    /// As for [`wgsl`](Self::wgsl).
    pub fn wgsl_with_texels(
        &self,
        readings: &dyn Fn(&str) -> texels::Readings,
        halved: &dyn Fn(&str) -> bool,
    ) -> Result<String> {
        Ok(texels::rewrite(&self.wgsl()?, &self.once, readings, halved))
    }

    /// The values of the constants that specialise it, as WGSL.
    pub fn constants(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.constants
            .iter()
            .map(|(name, value)| (*name, value.wgsl()))
    }

    /// What else specialises it: for each hook and each alias what it stands for, and the
    /// extensions, as `enable`.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let hooks = self.hooks.iter().map(|(name, _, target)| (*name, *target));
        let enabled = self.extensions.iter().map(|name| ("enable", *name));
        hooks.chain(self.aliases.iter().copied()).chain(enabled)
    }

    /// How [that](Self::wgsl_with_texels) uses its storage bindings.
    ///
    /// # Errors
    /// As for [`wgsl`](Self::wgsl).
    pub fn uses_with_texels(
        &self,
        readings: &dyn Fn(&str) -> texels::Readings,
        halved: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<texels::Use>> {
        Ok(texels::uses(&self.wgsl()?, &self.once, readings, halved))
    }

    /// The file, for messages.
    pub fn path(&self) -> &'static str {
        self.file.path
    }

    /// The specialised WGSL.
    ///
    /// # Errors
    /// If a constant, alias or hook does not exist in the file, or a constant's type
    /// differs.
    pub fn wgsl(&self) -> Result<String> {
        let mut text = self.file.text.to_owned();
        let mut libraries: Vec<ShaderFile> = Vec::new();
        for (name, library, target) in &self.hooks {
            text = self.redirect(&text, name, target)?;
            if !libraries.contains(library) {
                libraries.push(*library);
                let _ = write!(text, "\n{}", library.text);
            }
        }
        for (name, value) in &self.constants {
            text = self.replace_constant(&text, name, *value)?;
        }
        for (name, ty) in &self.aliases {
            text = self.replace_alias(&text, name, ty)?;
        }
        for extension in &self.extensions {
            text = format!("enable {extension};\n{text}");
        }
        Ok(text)
    }

    fn fail(&self, problem: String) -> Error {
        Error::shader(self.file.path, problem)
    }

    fn replace_constant(&self, text: &str, name: &str, value: Constant) -> Result<String> {
        let head = format!("const {name}:");
        let start = line_start(text, &head)
            .ok_or_else(|| self.fail(format!("no line starts with `{head}`")))?;
        let end = start
            + text[start..]
                .find(';')
                .ok_or_else(|| self.fail(format!("`{head}` has no semicolon")))?;
        let ty = text[start + head.len()..end]
            .split('=')
            .next()
            .unwrap_or_default()
            .trim();
        let expected = match value {
            Constant::U32(_) => "u32",
            Constant::I32(_) => "i32",
            Constant::F32(_) => "f32",
            Constant::Bool(_) => "bool",
            Constant::Vec4(_) => "vec4<f32>",
        };
        if ty != expected {
            return Err(self.fail(format!(
                "constant {name} is {ty}, the launch sets {expected}"
            )));
        }
        Ok(format!(
            "{}{head} {ty} = {}{}",
            &text[..start],
            value.wgsl(),
            &text[end..]
        ))
    }

    fn replace_alias(&self, text: &str, name: &str, ty: &str) -> Result<String> {
        let head = format!("alias {name} =");
        let start = line_start(text, &head)
            .ok_or_else(|| self.fail(format!("no line starts with `{head}`")))?;
        let end = start
            + text[start..]
                .find(';')
                .ok_or_else(|| self.fail(format!("`{head}` has no semicolon")))?;
        Ok(format!("{}{head} {ty}{}", &text[..start], &text[end..]))
    }

    fn redirect(&self, text: &str, name: &str, target: &str) -> Result<String> {
        let head = format!("fn {name}(");
        let start = line_start(text, &head)
            .ok_or_else(|| self.fail(format!("no line starts with `{head}`")))?;
        let line_end = start + text[start..].find('\n').unwrap_or(text.len() - start);
        let line = &text[start..line_end];
        let open = line
            .find('{')
            .ok_or_else(|| self.fail(format!("the signature of {name} is not on one line")))?;
        let end = if line.trim_end().ends_with('}') {
            line_end
        } else {
            line_end
                + text[line_end..]
                    .find("\n}")
                    .ok_or_else(|| self.fail(format!("{name} has no closing brace")))?
                + 2
        };
        let signature = &line[..open];
        let parameters = &signature[head.len()..signature.rfind(')').unwrap_or(signature.len())];
        let names: Vec<&str> = parameters
            .split(", ")
            // What has no colon is the rest of a type with a comma in it.
            .filter_map(|p| p.split_once(':'))
            .map(|(name, _)| name.trim())
            .collect();
        let give = if signature.contains("->") {
            "return "
        } else {
            ""
        };
        Ok(format!(
            "{}{signature}{{ {give}{target}({}); }}{}",
            &text[..start],
            names.join(", "),
            &text[end..]
        ))
    }
}

fn line_start(text: &str, head: &str) -> Option<usize> {
    if text.starts_with(head) {
        return Some(0);
    }
    text.find(&format!("\n{head}")).map(|at| at + 1)
}

/// What a binding of a dispatch refers to: the op's own tensors, its scratch
/// space, or the values of the current step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// The op's input of that index. An input the op updates in place may be
    /// bound writable; any other is read-only.
    Input(usize),
    /// The op's output of that index.
    Output(usize),
    /// The launch's scratch buffer of that index.
    Scratch(usize),
    /// The step's uniform, `var<uniform> step: Step` in the shader.
    Step,
}

/// One dispatch: a kernel, what its bindings refer to by the names they have in
/// the shader, and the number of workgroups.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The specialised shader; its entry point is `main`.
    pub kernel: Kernel,
    /// Every binding of the shader, by its variable's name.
    pub bindings: Vec<(&'static str, Arg)>,
    /// Workgroups in x, y and z.
    pub workgroups: [u32; 3],
    /// Bindings that see only a share of what they refer to.
    pub shares: Vec<(&'static str, Share)>,
}

/// One of the equal shares into which a tensor is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

/// The most workgroups WebGPU guarantees in one dimension, and the row length of
/// [`Dispatch::linear`]. Shaders name it `GROUPS_X`.
pub const GROUPS_X: u32 = 65_535;

impl Dispatch {
    /// A dispatch over an x, y, z grid.
    pub fn grid(
        kernel: Kernel,
        bindings: Vec<(&'static str, Arg)>,
        workgroups: [usize; 3],
    ) -> Self {
        Self {
            kernel,
            bindings,
            workgroups: workgroups.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            shares: Vec::new(),
        }
    }

    /// Lets the binding `name` see only a share. Where it begins is for the caller to align.
    #[must_use]
    pub fn share(mut self, name: &'static str, share: Share) -> Self {
        self.shares.push((name, share));
        self
    }

    /// What the binding `name` sees of `bytes` from `offset` on: where that begins and how
    /// many bytes it has.
    pub(crate) fn seen(&self, name: &str, offset: u64, bytes: u64) -> (u64, u64) {
        match self.shares.iter().find(|(shared, _)| *shared == name) {
            Some((_, Share { index, of })) => {
                let bytes = bytes / *of as u64;
                (offset + *index as u64 * bytes, bytes)
            }
            None => (offset, bytes),
        }
    }

    /// What the binding `name` sees of a part of a buffer.
    pub(crate) fn part_of(&self, name: &str, range: Range) -> Range {
        let (offset, bytes) = self.seen(name, range.offset, range.bytes);
        Range {
            offset,
            bytes,
            ..range
        }
    }

    /// A dispatch over a list of `total` workgroups, folded into rows of
    /// [`GROUPS_X`]. The shader finds its place by
    /// `group.x + group.y * 65535u` and must leave places at or past `total` alone.
    pub fn linear(kernel: Kernel, bindings: Vec<(&'static str, Arg)>, total: usize) -> Self {
        let row = GROUPS_X as usize;
        Self::grid(kernel, bindings, [total.min(row), total.div_ceil(row), 1])
    }
}

/// All that an op does on the GPU: dispatches in order, and the scratch space
/// they share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launch {
    /// Bytes of each scratch buffer; contents are undefined at the start.
    pub scratch: Vec<u64>,
    /// The dispatches, in order; each sees the writes of those before it.
    pub dispatches: Vec<Dispatch>,
}

impl Launch {
    /// Reserves another scratch buffer.
    pub fn reserve(&mut self, bytes: u64) -> Arg {
        self.scratch.push(bytes);
        Arg::Scratch(self.scratch.len() - 1)
    }

    /// This launch with `next` after it, whose inputs and outputs are put where `place`
    /// says and whose scratch is kept apart.
    #[must_use]
    pub fn then(mut self, mut next: Self, place: impl Fn(Arg) -> Arg) -> Self {
        let taken = self.scratch.len();
        for dispatch in &mut next.dispatches {
            for (_, arg) in &mut dispatch.bindings {
                *arg = match *arg {
                    Arg::Scratch(i) => Arg::Scratch(taken + i),
                    Arg::Step => Arg::Step,
                    other => place(other),
                };
            }
        }
        self.scratch.append(&mut next.scratch);
        self.dispatches.append(&mut next.dispatches);
        self
    }
}

impl From<Dispatch> for Launch {
    fn from(dispatch: Dispatch) -> Self {
        Self {
            scratch: Vec::new(),
            dispatches: vec![dispatch],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: ShaderFile = ShaderFile {
        path: "test.wgsl",
        text: "const A: u32 = 1u; // a\nconst B: f32 = 0.5;\n\nfn hook(x: f32, alpha: f32) -> f32 {\n    return x;\n}\nfn rest() {}\n",
    };
    const LIBRARY: ShaderFile = ShaderFile {
        path: "library.wgsl",
        text: "fn twice(x: f32, alpha: f32) -> f32 { return 2.0 * x; }\n",
    };

    #[test]
    fn constants_and_hooks_are_replaced_by_name() {
        let text = Kernel::new(FILE)
            .set("A", 7u32)
            .set("B", 1e-7f32)
            .hook("hook", LIBRARY, "twice")
            .wgsl()
            .unwrap();
        assert!(text.starts_with("const A: u32 = 7u; // a\nconst B: f32 = 1e-7f;\n"));
        assert!(text.contains(
            "fn hook(x: f32, alpha: f32) -> f32 { return twice(x, alpha); }\nfn rest() {}"
        ));
        naga::front::wgsl::parse_str(&text).unwrap();
    }

    #[test]
    fn aliases_are_replaced_by_name() {
        const FILE: ShaderFile = ShaderFile {
            path: "test.wgsl",
            text: "alias Element = f32; // an element\nconst ZERO = Element();\n",
        };
        let text = Kernel::new(FILE).alias("Element", "vec4<f32>").wgsl();
        let text = text.unwrap();
        assert!(text.starts_with("alias Element = vec4<f32>; // an element\n"));
        naga::front::wgsl::parse_str(&text).unwrap();
        let missing = Kernel::new(FILE).alias("Sum", "f32").wgsl().unwrap_err();
        assert!(missing.to_string().contains("alias Sum ="), "{missing}");
    }

    #[test]
    fn extensions_come_first() {
        const FILE: ShaderFile = ShaderFile {
            path: "test.wgsl",
            text: "alias Scalar = f32;\nconst ONE = Scalar(1.0);\n",
        };
        let kernel = Kernel::new(FILE).alias("Scalar", "f16").enable("f16");
        let text = kernel.wgsl().unwrap();
        assert!(text.starts_with("enable f16;\nalias Scalar = f16;\n"));
        naga::front::wgsl::parse_str(&text).unwrap();
    }

    #[test]
    fn unknown_names_and_wrong_types_are_errors() {
        let missing = Kernel::new(FILE).set("C", 1u32).wgsl().unwrap_err();
        assert!(missing.to_string().contains("const C:"), "{missing}");
        let wrong = Kernel::new(FILE).set("A", 1f32).wgsl().unwrap_err();
        assert!(wrong.to_string().contains("A is u32"), "{wrong}");
        let hook = Kernel::new(FILE).hook("nope", LIBRARY, "twice").wgsl();
        assert!(hook.is_err());
    }
}
