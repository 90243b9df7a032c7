//! Bytes at addresses, and the messages of an object header.

/// A part of the file that is read from the front.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The file from an address on.
    pub(super) fn at(file: &'a [u8], address: u64) -> Result<Self, String> {
        let start = usize::try_from(address).ok();
        let bytes = start.and_then(|s| file.get(s..));
        let bytes = bytes.ok_or_else(|| format!("has an address {address} beyond its end"))?;
        Ok(Self { bytes })
    }

    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let parts = self.bytes.split_at_checked(count);
        let (taken, rest) = parts.ok_or("is truncated")?;
        self.bytes = rest;
        Ok(taken)
    }

    /// An unsigned integer of 1 to 8 bytes.
    pub(super) fn uint(&mut self, size: usize) -> Result<u64, String> {
        if size > 8 {
            return Err(format!("has integers of {size} bytes"));
        }
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(self.take(size)?);
        Ok(u64::from_le_bytes(wide))
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn expect(&mut self, magic: &[u8]) -> Result<(), String> {
        if self.take(magic.len())? == magic {
            return Ok(());
        }
        Err(format!(
            "lacks a {:?} block",
            String::from_utf8_lossy(magic)
        ))
    }
}

/// A message of an object header.
pub(super) struct Message<'a> {
    pub kind: u16,
    pub body: &'a [u8],
}

/// Blocks of an object header that are followed at most; more are a loop.
const MAX_BLOCKS: usize = 4096;

const CONTINUATION: u16 = 0x10;

/// The messages of the object at an address.
pub(super) fn messages(file: &[u8], address: u64) -> Result<Vec<Message<'_>>, String> {
    let mut cursor = Cursor::at(file, address)?;
    if cursor.bytes.starts_with(b"OHDR") {
        return second_version(file, cursor);
    }
    match cursor.byte()? {
        1 => {}
        other => return Err(format!("has an object header of version {other}")),
    }
    cursor.take(7)?;
    let size = cursor.uint(4)?;
    cursor.take(4)?;
    let mut blocks = vec![(address + 16, size)];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((start, size)) = blocks.get(at).copied() {
        at += 1;
        if at > MAX_BLOCKS {
            return Err("has an object header that goes in a circle".into());
        }
        let mut block = Cursor::of(Cursor::at(file, start)?.take(to_usize(size)?)?);
        while block.len() >= 8 {
            let kind = block.uint(2)? as u16;
            let length = block.uint(2)? as usize;
            block.take(4)?;
            let body = block.take(length)?;
            if kind == CONTINUATION {
                let mut body = Cursor::of(body);
                blocks.push((body.uint(8)?, body.uint(8)?));
            } else {
                found.push(Message { kind, body });
            }
        }
    }
    Ok(found)
}

fn second_version<'a>(file: &'a [u8], mut cursor: Cursor<'a>) -> Result<Vec<Message<'a>>, String> {
    cursor.expect(b"OHDR")?;
    match cursor.byte()? {
        2 => {}
        other => return Err(format!("has an object header of version {other}")),
    }
    let flags = cursor.byte()?;
    if flags & 0x20 != 0 {
        cursor.take(16)?;
    }
    if flags & 0x10 != 0 {
        cursor.take(4)?;
    }
    let size = cursor.uint(1 << (flags & 3))?;
    let ordered = if flags & 0x04 != 0 { 2 } else { 0 };
    let mut blocks = vec![cursor.take(to_usize(size)?)?];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(block) = blocks.get(at).copied() {
        at += 1;
        if at > MAX_BLOCKS {
            return Err("has an object header that goes in a circle".into());
        }
        let mut block = Cursor::of(block);
        while block.len() >= 4 + ordered {
            let kind = u16::from(block.byte()?);
            let length = block.uint(2)? as usize;
            block.take(1 + ordered)?;
            let body = block.take(length)?;
            if kind == CONTINUATION {
                let mut body = Cursor::of(body);
                let (address, length) = (body.uint(8)?, to_usize(body.uint(8)?)?);
                let mut more = Cursor::at(file, address)?;
                more.expect(b"OCHK")?;
                // Without the signature before it and the checksum behind it.
                blocks.push(more.take(length.checked_sub(8).ok_or("is truncated")?)?);
            } else {
                found.push(Message { kind, body });
            }
        }
    }
    Ok(found)
}

pub(super) fn to_usize(value: u64) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| "is truncated".to_owned())
}
