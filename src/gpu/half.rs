//! Half-precision storage: tensors kept as f16 in memory and computed with in f32.
//!
//! A shader is written once, for f32. Where a tensor is kept in half precision, the bindings
//! it has in the shader are rewritten by name: `x: array<vec4<f32>>` becomes an array of half
//! as many bytes, `x[i]` is read by `read_x(i)` and written by `write_x(i, value);`, which
//! convert. So every kernel has a half-precision form, and none is written twice.
//!
//! WGSL leaves the rounding of an f32 to f16 to the device: to the nearest, or towards zero.

use crate::error::{Error, Result};
use std::fmt::Write as _;

/// How two bytes an element are laid out for a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// As `f16`, for devices with the feature `shader-f16`.
    Native,
    /// Two to a `u32`, by `pack2x16float`, for all others. Two invocations cannot write the
    /// halves of one word, so such a tensor is only written whole pairs at a time.
    Packed,
}

impl Half {
    /// The shader `text` with its bindings `names` in half precision.
    ///
    /// # Errors
    /// [`Error::Shader`] if one is no array of floats, is used otherwise than by reading and
    /// assigning elements, or is written in smaller pieces than the layout has.
    pub fn rewrite(self, path: &str, text: &str, names: &[&str]) -> Result<String> {
        let mut text = text.to_owned();
        let mut functions = String::new();
        for name in names {
            let binding = Binding::find(path, &text, name, self)?;
            text = binding.rewritten(&text)?;
            functions += &binding.functions();
        }
        Ok(match self {
            Self::Native => format!("enable f16;\n{text}\n{functions}"),
            Self::Packed => format!("{text}\n{functions}"),
        })
    }
}

/// A binding in half precision.
struct Binding<'a> {
    path: &'a str,
    name: &'a str,
    half: Half,
    /// Floats of an element: 1, 2 or 4.
    width: usize,
    writable: bool,
}

impl<'a> Binding<'a> {
    fn find(path: &'a str, text: &str, name: &'a str, half: Half) -> Result<Self> {
        let fail = |problem: &str| Error::shader(path, format!("{name} {problem}"));
        let head = format!("> {name}: array<");
        let line = text.lines().find(|l| l.contains(&head));
        let line = line.ok_or_else(|| fail("is no storage array, so it cannot be halved"))?;
        let element = line.split(&head).nth(1).and_then(|t| t.strip_suffix(">;"));
        let element = element.ok_or_else(|| fail("is not declared on a line of its own"))?;
        let width = match resolved(text, element) {
            "f32" => 1,
            "vec2<f32>" => 2,
            "vec4<f32>" => 4,
            other => {
                return Err(fail(&format!(
                    "holds {other}, only f32, vec2<f32> and vec4<f32> can be halved"
                )));
            }
        };
        Ok(Self {
            path,
            name,
            half,
            width,
            writable: line.contains("read_write"),
        })
    }

    /// The type of an element in the shader's arithmetic.
    fn full(&self) -> &'static str {
        ["f32", "vec2<f32>", "vec4<f32>"][self.width / 2]
    }

    /// The type of an element in memory.
    fn stored(&self) -> &'static str {
        match self.half {
            Half::Native => ["f16", "vec2<f16>", "vec4<f16>"][self.width / 2],
            Half::Packed => ["u32", "u32", "vec2<u32>"][self.width / 2],
        }
    }

    fn fail(&self, problem: &str) -> Error {
        Error::shader(self.path, format!("{} {problem}", self.name))
    }

    /// The shader's text with another declaration and other accesses.
    fn rewritten(&self, text: &str) -> Result<String> {
        let head = format!("> {}: array<", self.name);
        let start = text.find(&head).map_or(0, |at| at + head.len());
        let end = start + text[start..].find(">;").unwrap_or(0);
        let (before, after) = (&text[..start], &text[end..]);
        // The declaration's own name is followed by a colon.
        let declared = before.len() - head.len();
        Ok(format!(
            "{}{}{}{}",
            self.accesses(&before[..declared])?,
            head,
            self.stored(),
            self.accesses(after)?
        ))
    }

    /// A piece of text with each `x[i]` read, and each `x[i] = v;` written, by function.
    fn accesses(&self, text: &str) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = self.next_use(rest) {
            out += &rest[..at];
            let after = &rest[at + self.name.len()..];
            let Some((index, after)) = bracketed(after) else {
                // A local variable of that name: a storage array is only used by elements.
                out += self.name;
                rest = after;
                continue;
            };
            let index = self.accesses(index)?;
            let (lane, tail) = lane(after);
            if let Some((value, after)) = assigned(tail) {
                let value = self.accesses(value)?;
                out += &self.write(&index, lane, &value)?;
                rest = after;
            } else if compound(after) || compound(tail) {
                return Err(self.fail("is changed in place, which half precision cannot do"));
            } else {
                let _ = write!(out, "read_{}(u32({index}))", self.name);
                rest = after;
            }
        }
        out += rest;
        Ok(out)
    }

    fn write(&self, index: &str, lane: Option<&str>, value: &str) -> Result<String> {
        let whole = lane.is_none();
        if self.half == Half::Packed && (!whole || self.width == 1) {
            return Err(
                self.fail("is written one element at a time, which packed halves cannot be")
            );
        }
        Ok(match lane {
            None => format!("write_{}(u32({index}), {value});", self.name),
            Some(lane) => format!(
                "write_{}_lane(u32({index}), u32({lane}), {value});",
                self.name
            ),
        })
    }

    /// What converts elements on their way.
    fn functions(&self) -> String {
        let (name, full, stored) = (self.name, self.full(), self.stored());
        let [read, write] = match (self.half, self.width) {
            (Half::Native, _) => [format!("{full}({name}[i])"), format!("{stored}(v)")],
            (Half::Packed, 1) => [
                format!("unpack2x16float({name}[i / 2u])[i % 2u]"),
                String::new(),
            ],
            (Half::Packed, 2) => [
                format!("unpack2x16float({name}[i])"),
                "pack2x16float(v)".into(),
            ],
            (Half::Packed, _) => [
                format!("vec4<f32>(unpack2x16float({name}[i].x), unpack2x16float({name}[i].y))"),
                "vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw))".into(),
            ],
        };
        let mut text = format!("fn read_{name}(i: u32) -> {full} {{ return {read}; }}\n");
        if self.writable && !write.is_empty() {
            let _ = writeln!(
                text,
                "fn write_{name}(i: u32, v: {full}) {{ {name}[i] = {write}; }}"
            );
        }
        if self.writable && self.half == Half::Native && self.width > 1 {
            let _ = writeln!(
                text,
                "fn write_{name}_lane(i: u32, lane: u32, v: f32) {{ {name}[i][lane] = f16(v); }}"
            );
        }
        text
    }

    /// Where the name stands next, comments left out.
    fn next_use(&self, text: &str) -> Option<usize> {
        let mut from = 0;
        loop {
            let at = from + text[from..].find(self.name)?;
            let line = text[..at].rfind('\n').map_or(0, |n| n + 1);
            let end = at + self.name.len();
            let part = |c| word(c) || c == '.';
            let other = text[..at].ends_with(part) || text[end..].starts_with(word);
            if !other && !text[line..at].contains("//") {
                return Some(at);
            }
            from = end;
        }
    }
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The type that `ty` stands for, where it is an alias.
fn resolved<'t>(text: &'t str, ty: &'t str) -> &'t str {
    let head = format!("alias {ty} = ");
    let alias = text.lines().find_map(|line| line.strip_prefix(&head));
    alias.and_then(|t| t.split(';').next()).unwrap_or(ty)
}

/// What stands in the brackets that the text begins with, and what follows them.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('[')?;
    let mut depth = 0usize;
    for (at, c) in inner.char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return Some((&inner[..at], &inner[at + 1..])),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A component that the text begins with, `[c]`, as an index, and what follows it.
fn lane(text: &str) -> (Option<&str>, &str) {
    match bracketed(text) {
        Some((index, rest)) => (Some(index), rest),
        None => (None, text),
    }
}

/// The value of an assignment that the text goes on with, and what follows it.
fn assigned(text: &str) -> Option<(&str, &str)> {
    let value = text.trim_start().strip_prefix('=')?;
    if value.starts_with('=') {
        return None;
    }
    let (value, rest) = value.split_once(';')?;
    Some((value.trim_start(), rest))
}

/// Whether the text goes on with an assignment such as `+=`.
fn compound(text: &str) -> bool {
    let text = text.trim_start();
    let operator = text.starts_with(['+', '-', '*', '/', '%', '&', '|', '^']);
    operator && text[1..].starts_with('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHADER: &str = "\
alias Element = vec4<f32>;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;
// x[0] = x[1]; stays as it is
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    let max_x = x[index[group.x] + 1u] * 2.0;
    if x[0] == max_x {
        y[group.x] = Element(x[u32(x[2])]) + y[0].wzyx;
    }
    y[1][3] = x[3];
}
";

    fn validated(text: &str, capabilities: naga::valid::Capabilities) {
        let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let flags = naga::valid::ValidationFlags::all();
        let checked = naga::valid::Validator::new(flags, capabilities).validate(&module);
        checked.unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    }

    #[test]
    fn reads_and_writes_go_through_conversions() {
        let text = Half::Native.rewrite("test", SHADER, &["x", "y"]).unwrap();
        for line in [
            "> x: array<f16>;",
            "> y: array<vec4<f16>>;",
            "// x[0] = x[1]; stays as it is",
            "let max_x = read_x(u32(index[group.x] + 1u)) * 2.0;",
            "if read_x(u32(0)) == max_x {",
            "write_y(u32(group.x), Element(read_x(u32(u32(read_x(u32(2)))))) + read_y(u32(0)).wzyx);",
            "write_y_lane(u32(1), u32(3), read_x(u32(3)));",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        validated(&text, naga::valid::Capabilities::SHADER_FLOAT16);
    }

    #[test]
    fn packed_halves_need_no_feature_and_whole_pairs() {
        let whole = SHADER.replace("    y[1][3] = x[3];\n", "");
        let text = Half::Packed.rewrite("test", &whole, &["x", "y"]).unwrap();
        validated(&text, naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32);
        let refused = Half::Packed.rewrite("test", SHADER, &["y"]).unwrap_err();
        assert!(
            refused.to_string().contains("y is written one element"),
            "{refused}"
        );
    }

    #[test]
    fn what_cannot_be_halved_is_refused() {
        let of = |name| Half::Native.rewrite("test", SHADER, &[name]).unwrap_err();
        assert!(of("index").to_string().contains("index holds u32"));
        assert!(of("z").to_string().contains("z is no storage array"));
        let changed = SHADER.replace("y[1][3] = ", "y[1] += ");
        let refused = Half::Native.rewrite("test", &changed, &["y"]).unwrap_err();
        assert!(
            refused.to_string().contains("changed in place"),
            "{refused}"
        );
    }
}
