//! Reading a file from its superblock on.

use super::header::{Cursor, Message, messages, to_usize};
use super::{Array, Arrays, SIGNATURE, UNDEFINED};
use half::f16;

/// Groups in groups, at most.
const MAX_DEPTH: usize = 32;

/// Objects of a file, at most; links that go in a circle end here.
const MAX_OBJECTS: usize = 1 << 16;

const DATASPACE: u16 = 0x01;
const LINK_INFO: u16 = 0x02;
const DATATYPE: u16 = 0x03;
const LINK: u16 = 0x06;
const LAYOUT: u16 = 0x08;
const FILTERS: u16 = 0x0b;
const SYMBOL_TABLE: u16 = 0x11;

/// All arrays of numbers of a file; others, such as texts, are left out.
///
/// # Errors
/// What is wrong with the file, or what this reader does not take, in words.
pub fn read(file: &[u8]) -> Result<Arrays, String> {
    let root = root(file)?;
    let mut walk = Walk {
        file,
        objects: 0,
        bytes: 0,
        arrays: Arrays::new(),
    };
    walk.object(root, String::new(), 0)?;
    Ok(walk.arrays)
}

/// The address of the root group's header.
fn root(file: &[u8]) -> Result<u64, String> {
    let mut cursor = Cursor::of(file);
    if cursor.take(SIGNATURE.len()) != Ok(SIGNATURE) {
        return Err("is no HDF5 file".into());
    }
    let version = cursor.byte()?;
    let sizes = match version {
        0 | 1 => {
            cursor.take(4)?;
            let sizes = [cursor.byte()?, cursor.byte()?];
            // Reserved, tree sizes, flags; version 1 has one more size.
            cursor.take(if version == 0 { 9 } else { 13 })?;
            cursor.take(4 * 8 + 8)?;
            sizes
        }
        2 | 3 => {
            let sizes = [cursor.byte()?, cursor.byte()?];
            cursor.take(1 + 3 * 8)?;
            sizes
        }
        other => {
            return Err(format!(
                "has a superblock of version {other}; expected 0 to 3"
            ));
        }
    };
    if sizes != [8, 8] {
        let problem = "has addresses of another size than 8 bytes";
        return Err(problem.into());
    }
    cursor.uint(8)
}

struct Walk<'a> {
    file: &'a [u8],
    objects: usize,
    /// Bytes of the arrays so far: no more than the file has.
    bytes: usize,
    arrays: Arrays,
}

fn body<'a>(messages: &[Message<'a>], kind: u16) -> Option<&'a [u8]> {
    messages.iter().find(|m| m.kind == kind).map(|m| m.body)
}

impl<'a> Walk<'a> {
    fn object(&mut self, address: u64, path: String, depth: usize) -> Result<(), String> {
        self.objects += 1;
        if depth > MAX_DEPTH || self.objects > MAX_OBJECTS {
            return Err("has groups without end".into());
        }
        let inside = |problem: String| match path.as_str() {
            "" => problem,
            path => format!("{path}: {problem}"),
        };
        let messages = messages(self.file, address).map_err(inside)?;
        if let Some(layout) = body(&messages, LAYOUT) {
            if let Some(array) = self.array(&messages, layout).map_err(inside)? {
                self.arrays.insert(path, array);
            }
            return Ok(());
        }
        for (name, address) in self.links(&messages).map_err(inside)? {
            let below = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            self.object(address, below, depth + 1)?;
        }
        Ok(())
    }

    /// Names and addresses of what a group holds.
    fn links(&self, messages: &[Message<'a>]) -> Result<Vec<(String, u64)>, String> {
        if let Some(body) = body(messages, SYMBOL_TABLE) {
            let mut body = Cursor::of(body);
            let (tree, heap) = (body.uint(8)?, body.uint(8)?);
            return self.symbol_table(tree, heap);
        }
        if let Some(body) = body(messages, LINK_INFO) {
            let mut body = Cursor::of(body);
            body.byte()?;
            let flags = body.byte()?;
            body.take(if flags & 1 == 0 { 0 } else { 8 })?;
            if body.uint(8)? != UNDEFINED {
                let problem = "holds a group whose links lie in a fractal heap, which this reader \
                               does not take; save it with h5py's default libver";
                return Err(problem.into());
            }
        }
        let links = messages.iter().filter(|m| m.kind == LINK);
        let links = links.map(|m| link(m.body)).collect::<Result<Vec<_>, _>>()?;
        Ok(links.into_iter().flatten().collect())
    }

    fn symbol_table(&self, tree: u64, heap: u64) -> Result<Vec<(String, u64)>, String> {
        let mut cursor = Cursor::at(self.file, heap)?;
        cursor.expect(b"HEAP")?;
        cursor.take(4)?;
        let size = to_usize(cursor.uint(8)?)?;
        cursor.take(8)?;
        let names = Cursor::at(self.file, cursor.uint(8)?)?.take(size)?;
        let mut found = Vec::new();
        let mut nodes = vec![tree];
        let mut seen = 0;
        while let Some(node) = nodes.pop() {
            seen += 1;
            if seen + nodes.len() > MAX_OBJECTS || found.len() > MAX_OBJECTS {
                return Err("has a group whose tree goes in a circle".into());
            }
            let mut cursor = Cursor::at(self.file, node)?;
            if cursor.take(4)? == b"SNOD" {
                cursor.take(2)?;
                for _ in 0..cursor.uint(2)? {
                    let name = to_usize(cursor.uint(8)?)?;
                    let address = cursor.uint(8)?;
                    // The scratch pad of a link that is soft holds no address.
                    let soft = cursor.uint(4)? == 2;
                    cursor.take(20)?;
                    if !soft {
                        let name = names.get(name..).ok_or("has a name beyond its heap")?;
                        let name = name.split(|b| *b == 0).next().unwrap_or_default();
                        found.push((String::from_utf8_lossy(name).into_owned(), address));
                    }
                }
                continue;
            }
            let mut cursor = Cursor::at(self.file, node)?;
            cursor.expect(b"TREE")?;
            cursor.take(2)?;
            let children = cursor.uint(2)?;
            cursor.take(16)?;
            for _ in 0..children {
                cursor.take(8)?;
                nodes.push(cursor.uint(8)?);
            }
        }
        Ok(found)
    }

    /// The array of an object with a layout; `None` for elements that are no numbers.
    fn array(
        &mut self,
        messages: &[Message<'a>],
        layout: &'a [u8],
    ) -> Result<Option<Array>, String> {
        let missing = |what: &str| format!("is an array without {what}");
        let space = body(messages, DATASPACE).ok_or_else(|| missing("a shape"))?;
        let datatype = body(messages, DATATYPE).ok_or_else(|| missing("a type"))?;
        let Some(element) = Element::parse(datatype)? else {
            return Ok(None);
        };
        if body(messages, FILTERS).is_some() {
            return Err("is compressed, which this reader does not take".into());
        }
        let shape = extents(space)?;
        let count = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b));
        let length = count.and_then(|n| n.checked_mul(element.size));
        let length = length.ok_or_else(|| format!("has impossible extents {shape:?}"))?;
        let mut layout = Cursor::of(layout);
        match layout.byte()? {
            3 | 4 => {}
            other => return Err(format!("has a layout of version {other}; expected 3 or 4")),
        }
        let bytes = match layout.byte()? {
            0 => {
                let size = layout.uint(2)? as usize;
                layout.take(size)?
            }
            1 => match layout.uint(8)? {
                // An array that was never written, or has no element.
                UNDEFINED => {
                    return Err("has no data".into());
                }
                address => Cursor::at(self.file, address)?.take(length)?,
            },
            _ => return Err("is chunked, which this reader does not take".into()),
        };
        let bytes = bytes.get(..length).ok_or("is truncated")?;
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.file.len() {
            return Err("shares its data with other arrays".into());
        }
        let data = element.floats(bytes);
        Ok(Some(Array { shape, data }))
    }
}

/// A hard link's name and address.
fn link(body: &[u8]) -> Result<Option<(String, u64)>, String> {
    let mut body = Cursor::of(body);
    body.byte()?;
    let flags = body.byte()?;
    let hard = flags & 0x08 == 0 || body.byte()? == 0;
    body.take(if flags & 0x04 == 0 { 0 } else { 8 })?;
    body.take(if flags & 0x10 == 0 { 0 } else { 1 })?;
    let length = to_usize(body.uint(1 << (flags & 3))?)?;
    let name = String::from_utf8_lossy(body.take(length)?).into_owned();
    if !hard {
        return Ok(None);
    }
    Ok(Some((name, body.uint(8)?)))
}

fn extents(space: &[u8]) -> Result<Vec<usize>, String> {
    let mut space = Cursor::of(space);
    let version = space.byte()?;
    let rank = space.byte()?;
    space.take(1)?;
    match version {
        1 => space.take(5)?,
        2 => space.take(1)?,
        other => return Err(format!("has a shape of version {other}")),
    };
    (0..rank).map(|_| to_usize(space.uint(8)?)).collect()
}

/// A type of elements.
struct Element {
    kind: Kind,
    size: usize,
    big_endian: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Unsigned,
    Signed,
    Float,
}

impl Element {
    fn parse(datatype: &[u8]) -> Result<Option<Self>, String> {
        let mut datatype = Cursor::of(datatype);
        let class = datatype.byte()? & 0x0f;
        let bits = datatype.byte()?;
        datatype.take(2)?;
        let size = datatype.uint(4)? as usize;
        let kind = match (class, size) {
            (0, 1 | 2 | 4 | 8) if bits & 0x08 == 0 => Kind::Unsigned,
            (0, 1 | 2 | 4 | 8) => Kind::Signed,
            (1, 2 | 4 | 8) => Kind::Float,
            _ => return Ok(None),
        };
        let big_endian = bits & 1 != 0;
        Ok(Some(Self {
            kind,
            size,
            big_endian,
        }))
    }

    fn floats(&self, bytes: &[u8]) -> Vec<f32> {
        let float = |bytes: &[u8]| {
            let mut wide = [0; 8];
            wide[..self.size].copy_from_slice(bytes);
            if self.big_endian {
                wide[..self.size].reverse();
            }
            let bits = u64::from_le_bytes(wide);
            let unused = 64 - 8 * self.size;
            match (self.kind, self.size) {
                (Kind::Float, 2) => f16::from_bits(bits as u16).to_f32(),
                (Kind::Float, 4) => f32::from_bits(bits as u32),
                (Kind::Float, _) => f64::from_bits(bits) as f32,
                (Kind::Unsigned, _) => bits as f32,
                // Shifted up and down again, the sign fills what was unused.
                (Kind::Signed, _) => ((bits << unused) as i64 >> unused) as f32,
            }
        };
        bytes.chunks_exact(self.size).map(float).collect()
    }
}
