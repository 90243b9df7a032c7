//! Buffers that kernels read as textures, or as uniforms.
//!
//! A software adapter loads a storage buffer lane by lane, in a loop; without AVX-512 each
//! lane costs a vector's round trip through memory. A texel of a storage texture is
//! gathered without one, at a twentieth of the cost. So on such an adapter what a kernel
//! only reads is copied into a texture before (`gpu/staging.rs`), and the kernel's text is
//! changed by name, as for a hook ([`rewrite`]): the binding becomes a texture, `x[i]` a
//! call that loads texel `i`. With AVX-512 a texel is only half as dear, so a vector that one
//! invocation reads stays where it is. A uniform buffer is read as fast element by element,
//! half as fast by vec4, and needs no copy, but is small. The bits are the same.

use super::device::Gpu;
use super::kernel::Dispatch;
use super::profile::Texels;
use super::range::padded;

/// Copying an operand costs more than reading it where it has fewer bytes than this and
/// fewer workgroups read it than that.
const LEAST_BYTES: u64 = 4096;
const LEAST_WORKGROUPS: u64 = 64;

/// With [`Texels::Reused`] copying vectors costs more than reading them where fewer
/// invocations read each, or all invocations fewer bytes.
const LEAST_USES: u64 = 2;
const LEAST_USED_BYTES: u64 = 256 << 10;

/// Bytes that a uniform binding may have on every device.
pub(super) const UNIFORM_BYTES: u64 = 64 << 10;

/// Bytes of a full row of a texture.
pub(super) const ROW_BYTES: u32 = 16 << 10;

/// Bytes behind each of several rows that nothing is copied to: three lines of a cache, so
/// that what lies a power of two apart in the buffer does not all fall into one set of it.
const PAD_BYTES: u32 = 192;

/// A piece of a buffer that a storage texture holds in one texel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Texel {
    /// The texture's format.
    pub format: wgpu::TextureFormat,
    wgsl: &'static str,
    components: &'static str,
    pub(super) bytes: u32,
    /// Whether it holds two elements, f16.
    pair: bool,
}

impl Texel {
    /// The texel that holds a WGSL type.
    fn of(ty: &str) -> Option<Self> {
        use wgpu::TextureFormat as Format;
        let (format, wgsl, components, bytes) = match ty {
            "f32" => (Format::R32Float, "r32float", ".x", 4),
            "u32" => (Format::R32Uint, "r32uint", ".x", 4),
            "vec2<f32>" => (Format::Rg32Float, "rg32float", ".xy", 8),
            "vec4<f32>" => (Format::Rgba32Float, "rgba32float", "", 16),
            "vec4<u32>" => (Format::Rgba32Uint, "rgba32uint", "", 16),
            "vec4<f16>" => (Format::Rgba16Float, "rgba16float", "", 8),
            _ => return None,
        };
        Some(Self {
            format,
            wgsl,
            components,
            bytes,
            pair: false,
        })
    }

    /// The texel that holds a WGSL type of floats kept as f16.
    fn of_halves(ty: &str) -> Option<Self> {
        match ty {
            // There is no texel of one f16 in all devices.
            "f32" => Self::of("u32").map(|texel| Self {
                pair: true,
                ..texel
            }),
            "vec4<f32>" => Self::of("vec4<f16>"),
            _ => None,
        }
    }

    /// The WGSL that loads element `i` of a texture.
    fn load(self, texture: &str) -> String {
        let row = self.row();
        let texel =
            |i: &str| format!("textureLoad({texture}, vec2<u32>({i} % {row}u, {i} / {row}u))");
        match self.pair {
            true => format!("unpack2x16float({}.x)[i % 2u]", texel("(i / 2u)")),
            false => format!("{}{}", texel("i"), self.components),
        }
    }

    /// The texel of a format that naga reflects.
    pub(crate) fn of_storage(format: naga::StorageFormat) -> Option<Self> {
        Self::of(match format {
            naga::StorageFormat::R32Float => "f32",
            naga::StorageFormat::R32Uint => "u32",
            naga::StorageFormat::Rg32Float => "vec2<f32>",
            naga::StorageFormat::Rgba32Float => "vec4<f32>",
            naga::StorageFormat::Rgba32Uint => "vec4<u32>",
            naga::StorageFormat::Rgba16Float => "vec4<f16>",
            _ => return None,
        })
    }

    /// Texels of a full row.
    pub(super) fn row(self) -> u32 {
        ROW_BYTES / self.bytes
    }

    /// Columns and rows of the texture that holds so many bytes, the pad included.
    pub(super) fn extent(self, bytes: u64) -> [u32; 2] {
        let texels = bytes / u64::from(self.bytes);
        let row = u64::from(self.row());
        let height = texels.div_ceil(row) as u32;
        match height {
            0 | 1 => [texels as u32, height],
            _ => [self.row() + PAD_BYTES / self.bytes, height],
        }
    }
}

/// How an operand can be read, by its size and by how many workgroups read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Whether it fits a texture and is worth the copy, read element by element.
    pub texture: bool,
    /// The same where it is read by vectors.
    pub vectors: bool,
    /// The vec4s of the uniform it can be, if it fits one.
    pub uniform: Option<u64>,
}

impl Readings {
    /// Whether a texture is worth its copy where elements are of a WGSL type.
    fn texture_of(self, ty: &str) -> bool {
        match ty.starts_with("vec") {
            true => self.vectors,
            false => self.texture,
        }
    }
}

/// How a binding is read that is not read as a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Texels(Texel),
    /// So many vec4 of these scalars.
    Uniform(&'static str, u64),
}

impl Form {
    /// That of a type that is only read.
    fn of(ty: &str, readings: Readings) -> Option<Self> {
        let texels = || {
            Texel::of(ty)
                .filter(|_| readings.texture_of(ty))
                .map(Self::Texels)
        };
        let uniform = |scalar| readings.uniform.map(|quads| Self::Uniform(scalar, quads));
        match ty {
            "f32" => uniform("f32").or_else(texels),
            "u32" => uniform("u32").or_else(texels),
            "vec4<f32>" => texels().or_else(|| uniform("f32")),
            "vec4<u32>" => texels().or_else(|| uniform("u32")),
            _ => texels(),
        }
    }
}

/// A storage binding as a shader's text declares it.
struct Declaration<'a> {
    name: &'a str,
    ty: &'a str,
    writable: bool,
    /// Where `var` stands in the text, and the end of the declaration.
    at: [usize; 2],
}

fn declarations(text: &str) -> Vec<Declaration<'_>> {
    let mut found = Vec::new();
    let mut line_at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("@group(0)")
            && let Some(var) = line.find("var<storage, ")
            && let Some(colon) = line.find(": array<")
            && let Some(end) = line.rfind(">;")
            && let Some(name) = line[..colon].rfind(' ')
        {
            found.push(Declaration {
                name: &line[name + 1..colon],
                ty: &line[colon + ": array<".len()..end],
                writable: line[var..].starts_with("var<storage, read_write>"),
                at: [line_at + var, line_at + end + 2],
            });
        }
        line_at += line.len();
    }
    found
}

/// The name of the binding through which a kernel reads what `name` held before it.
fn before(name: &str) -> String {
    format!("before_{name}")
}

/// How a kernel that reads some bindings as texels uses one of its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The binding's name.
    pub name: String,
    /// The texel it is read by.
    pub texel: Option<Texel>,
    /// Whether it is written.
    pub writable: bool,
}

/// How a kernel uses its storage bindings whose text [`rewrite`] changes.
pub fn uses(
    text: &str,
    befores: &[&str],
    readings: &dyn Fn(&str) -> Readings,
    halved: &dyn Fn(&str) -> bool,
) -> Vec<Use> {
    let of = |declaration: Declaration<'_>| Use {
        name: declaration.name.to_owned(),
        texel: match form_of(text, &declaration, befores, readings, halved) {
            Some(Form::Texels(texel)) => Some(texel),
            Some(Form::Uniform(..)) | None => None,
        },
        writable: declaration.writable,
    };
    let mut uses: Vec<Use> = declarations(text).into_iter().map(of).collect();
    // Bindings that are added come behind all others.
    uses.sort_by_key(|u| u.texel.is_some() && u.writable);
    uses
}

/// How a binding is read, if not as a storage buffer.
fn form_of(
    text: &str,
    declaration: &Declaration<'_>,
    befores: &[&str],
    readings: &dyn Fn(&str) -> Readings,
    halved: &dyn Fn(&str) -> bool,
) -> Option<Form> {
    let Declaration { name, writable, .. } = *declaration;
    let ty = resolve_alias(text, declaration.ty);
    let mut readings = readings(name);
    if writable {
        // A dispatch cannot bind what it writes as a uniform as well.
        readings.uniform = None;
        readings.texture &= befores.contains(&name);
        readings.vectors &= befores.contains(&name);
    }
    match halved(name) {
        true => Texel::of_halves(ty)
            .filter(|_| readings.texture_of(ty))
            .map(Form::Texels),
        false => Form::of(ty, readings),
    }
}

/// Changes a shader's text so that it reads its bindings as `readings` say of them by name.
/// Those named in `befores` are written as well: they stay, and where they are read as texels
/// a binding `before_NAME` is added that all loads go to. Those that `halved` picks hold f16.
pub fn rewrite(
    text: &str,
    befores: &[&str],
    readings: &dyn Fn(&str) -> Readings,
    halved: &dyn Fn(&str) -> bool,
) -> String {
    let declared = declarations(text);
    let staged: Vec<_> = declared
        .iter()
        .filter_map(|d| Some((d, form_of(text, d, befores, readings, halved)?)))
        .collect();
    if staged.is_empty() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 256 * staged.len());
    let mut from = 0;
    let mut added = String::new();
    for (index, (declaration, form)) in staged.iter().enumerate() {
        let Declaration {
            name,
            ty,
            writable,
            at,
        } = declaration;
        let mut declare = |variable: String| {
            out += &text[from..at[0]];
            out += &variable;
            from = at[1];
        };
        let load = match form {
            Form::Texels(texel) => {
                let texture = format!("texture_storage_2d<{}, read>;", texel.wgsl);
                if *writable {
                    // Binding numbers of the shaders are small.
                    let number = 32 + index;
                    let variable = before(name);
                    added += &format!("@group(0) @binding({number}) var {variable}: {texture}\n");
                    texel.load(&variable)
                } else {
                    declare(format!("var {name}: {texture}"));
                    texel.load(name)
                }
            }
            Form::Uniform(scalar, quads) => {
                declare(format!(
                    "var<uniform> {name}: array<vec4<{scalar}>, {quads}>;"
                ));
                match resolve_alias(text, ty) == *scalar {
                    true => format!("{name}[i / 4u][i % 4u]"),
                    false => format!("{name}[i]"),
                }
            }
        };
        added += &format!("fn element_of_{name}(i: u32) -> {ty} {{ return {load}; }}\n");
    }
    out += &text[from..];
    let names: Vec<&str> = staged.iter().map(|(d, _)| d.name).collect();
    replace_loads(&without_comments(&out), &names) + &added
}

fn resolve_alias<'a>(text: &'a str, ty: &'a str) -> &'a str {
    let head = format!("alias {ty} = ");
    let target = text.lines().find_map(|line| line.strip_prefix(&head));
    target.and_then(|t| t.split(';').next()).unwrap_or(ty)
}

fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Turns every `name[index]` that is not assigned to into `element_of_name(index)`.
fn replace_loads(text: &str, names: &[&str]) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (gap, from) = rest.split_at(start);
        let length = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(length);
        let member = gap.ends_with('.');
        out += gap;
        let indexed = (!member && names.contains(&word) && after.starts_with('['))
            .then(|| closing(after))
            .flatten();
        let Some(close) = indexed else {
            out += word;
            rest = after;
            continue;
        };
        let index = replace_loads(&after[1..close], names);
        let next = after[close + 1..].trim_start();
        if next.starts_with('=') && !next.starts_with("==") {
            out += &format!("{word}[{index}]");
        } else {
            out += &format!("element_of_{word}({index})");
        }
        rest = &after[close + 1..];
    }
    out + rest
}

/// Where the bracket that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// How an operand of so many bytes can be read by a dispatch, to which it is bound as `name`.
pub(crate) fn readings(gpu: &Gpu, dispatch: &Dispatch, name: &str, bytes: u64) -> Readings {
    let uses = dispatch.kernel.uses_of_each(name);
    if uses == 0 {
        return Readings::default();
    }
    let rows = bytes.div_ceil(u64::from(ROW_BYTES));
    let most = gpu.device.limits().max_texture_dimension_2d;
    let workgroups: u64 = dispatch.workgroups.map(u64::from).iter().product();
    let all = gpu.options.stage_all;
    let is_read_much = all || bytes >= LEAST_BYTES || workgroups >= LEAST_WORKGROUPS;
    let texture = is_read_much && rows <= u64::from(most);
    let bytes = padded(bytes);
    let is_reused = uses >= LEAST_USES && uses * bytes >= LEAST_USED_BYTES;
    let repays = all || is_reused || gpu.profile.texels == Texels::Always;
    Readings {
        texture,
        vectors: texture && repays,
        uniform: (!all && bytes <= UNIFORM_BYTES).then_some(bytes / 16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXELS: Readings = Readings {
        texture: true,
        vectors: true,
        uniform: None,
    };
    const SHADER: &str = "\
alias Element = vec4<f32>;
@group(0) @binding(0) var<storage, read> x: array<f32>;     // x[i, j) in rows
@group(0) @binding(1) var<storage, read> q: array<Element>;
@group(0) @binding(2) var<storage, read_write> p: array<f32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;

fn relu(x: f32) -> f32 { return max(x, 0.0); }

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let i = group.x;
    p[order[i]] = relu(x[order[i] + 1u]) + q[i].x * p[i];
}
";

    #[test]
    fn loads_become_texels_and_stores_stay() {
        let readings = |name: &str| Readings {
            texture: name != "order",
            ..TEXELS
        };
        let text = rewrite(SHADER, &["p"], &readings, &|_| false);
        naga::front::wgsl::parse_str(&text).unwrap();
        assert!(text.contains("var x: texture_storage_2d<r32float, read>;"));
        assert!(text.contains("var q: texture_storage_2d<rgba32float, read>;"));
        assert!(text.contains("var before_p: texture_storage_2d<r32float, read>;"));
        let line = "p[order[i]] = relu(element_of_x(order[i] + 1u)) \
                    + element_of_q(i).x * element_of_p(i);";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn halves_are_texels_of_four_or_of_two() {
        let text = rewrite(SHADER, &[], &|_| TEXELS, &|name| name != "order");
        naga::front::wgsl::parse_str(&text).unwrap();
        assert!(text.contains("var q: texture_storage_2d<rgba16float, read>;"));
        assert!(text.contains("var x: texture_storage_2d<r32uint, read>;"));
        let pair = "unpack2x16float(textureLoad(x, vec2<u32>((i / 2u) % 4096u, (i / 2u) / 4096u)).x)[i % 2u]";
        assert!(text.contains(pair), "{text}");
    }

    #[test]
    fn what_is_written_stays_a_buffer_unless_asked_for() {
        let text = rewrite(SHADER, &[], &|_| TEXELS, &|_| false);
        naga::front::wgsl::parse_str(&text).unwrap();
        assert!(text.contains("* p[i];") && !text.contains("before_p"));
        let nothing = |_: &str| Readings::default();
        assert_eq!(rewrite(SHADER, &[], &nothing, &|_| false), SHADER);
    }

    #[test]
    fn single_elements_are_read_from_a_uniform_that_holds_them() {
        let either = Readings {
            uniform: Some(25),
            ..TEXELS
        };
        let text = rewrite(SHADER, &["p"], &|_| either, &|_| false);
        naga::front::wgsl::parse_str(&text).unwrap();
        assert!(text.contains("var<uniform> x: array<vec4<f32>, 25>;"));
        assert!(text.contains("var<uniform> order: array<vec4<u32>, 25>;"));
        assert!(text.contains("fn element_of_x(i: u32) -> f32 { return x[i / 4u][i % 4u]; }"));
        assert!(text.contains("var q: texture_storage_2d<rgba32float, read>;"));
        // Written as well, so it is no uniform, and halves are none.
        assert!(text.contains("var before_p: texture_storage_2d<r32float, read>;"));
        let halved = rewrite(SHADER, &[], &|_| either, &|name| name == "x");
        assert!(halved.contains("var x: texture_storage_2d<r32uint, read>;"));
        // A vec4 where it is not worth a copy.
        let small = Readings {
            texture: false,
            vectors: false,
            ..either
        };
        let text = rewrite(SHADER, &[], &|_| small, &|_| false);
        naga::front::wgsl::parse_str(&text).unwrap();
        assert!(text.contains("fn element_of_q(i: u32) -> Element { return q[i]; }"));
    }

    #[test]
    fn rows_are_whole_but_for_the_last() {
        let f32s = Texel::of("f32").unwrap();
        assert_eq!(f32s.extent(400), [100, 1]);
        assert_eq!(f32s.extent(16 << 10), [4096, 1]);
        assert_eq!(f32s.extent((16 << 10) + 16), [4096 + 48, 2]);
        assert_eq!(Texel::of("vec4<f32>").unwrap().extent(64), [4, 1]);
        assert_eq!(Texel::of("bool"), None);
    }
}
