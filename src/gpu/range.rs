//! Parts of buffers.

/// A part of a buffer: what one binding sees.
#[derive(Clone, Debug)]
pub struct Range {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// Where it starts, in bytes; a multiple of the binding alignment.
    pub offset: u64,
    /// Bytes; rounded up to whole vec4 when bound.
    pub bytes: u64,
    /// Whether it holds f16 where shaders compute with f32.
    pub half: bool,
}

/// Bytes rounded up to whole vec4, at least one.
pub fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(16).max(16)
}
