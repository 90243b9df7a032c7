//! The textures that kernels read in buffers' stead, and the copies into them: which texture
//! holds what when, and when it can be used again.

use super::device::Gpu;
use super::range::Range;
use super::sequence::Piece;
use super::texels::{ROW_BYTES, Texel};
use crate::error::Result;

/// A copy from a buffer into the texture that is read in its stead.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    from: Piece<wgpu::Buffer>,
    to: wgpu::Texture,
    texel: Texel,
}

impl Copy {
    /// What is copied, and where to.
    pub(crate) fn touched(&self) -> (Piece<wgpu::Buffer>, wgpu::Texture) {
        (self.from.clone(), self.to.clone())
    }

    /// Encodes it: the whole rows, then what is left of the last, unless the buffer goes on
    /// behind it and the last can be whole as well.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let Piece {
            memory,
            offset,
            bytes,
        } = &self.from;
        let row = self.texel.row();
        let row_bytes = u64::from(ROW_BYTES);
        let rows = bytes.div_ceil(row_bytes);
        if rows > 1 && offset + rows * row_bytes <= memory.size() {
            return self.encode_part(encoder, 0, [row, rows as u32]);
        }
        let texels = (bytes / u64::from(self.texel.bytes)) as u32;
        let whole = texels / row;
        self.encode_part(encoder, 0, [row, whole]);
        self.encode_part(encoder, whole, [texels % row, 1]);
    }

    /// Encodes the copy of so many columns and rows, from row `y` on.
    fn encode_part(&self, encoder: &mut wgpu::CommandEncoder, y: u32, [width, height]: [u32; 2]) {
        if width * height == 0 {
            return;
        }
        let layout = wgpu::TexelCopyBufferLayout {
            offset: self.from.offset + u64::from(y) * u64::from(ROW_BYTES),
            bytes_per_row: (height > 1).then_some(ROW_BYTES),
            rows_per_image: None,
        };
        let from = wgpu::TexelCopyBufferInfo {
            buffer: &self.from.memory,
            layout,
        };
        let to = wgpu::TexelCopyTextureInfo {
            origin: wgpu::Origin3d { x: 0, y, z: 0 },
            ..self.to.as_image_copy()
        };
        let size = wgpu::Extent3d {
            width,
            height,
            depth_or_array_layers: 1,
        };
        encoder.copy_buffer_to_texture(from, to, size);
    }
}

/// Bytes a buffer of so many should have, so that a copy takes whole rows.
pub(crate) fn in_rows(bytes: u64) -> u64 {
    match bytes > u64::from(ROW_BYTES) {
        true => bytes.next_multiple_of(u64::from(ROW_BYTES)),
        false => bytes,
    }
}

/// Which textures a list of commands needs, and which of them hold what their memory holds:
/// decided command by command, without a device. `M` names a piece of memory.
#[derive(Debug)]
pub struct TexturePlan<M> {
    fresh: Vec<Held<M>>,
    idle: Vec<usize>,
    textures: Vec<(Texel, [u32; 2])>,
    bytes: u64,
}

/// A texture that holds what a piece of memory holds.
#[derive(Debug)]
struct Held<M> {
    piece: Piece<M>,
    texel: Texel,
    texture: usize,
}

impl<M> Default for TexturePlan<M> {
    fn default() -> Self {
        Self {
            fresh: Vec::new(),
            idle: Vec::new(),
            textures: Vec::new(),
            bytes: 0,
        }
    }
}

impl<M: PartialEq> TexturePlan<M> {
    /// Bytes of the textures.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the texture that holds a range, and whether it must be copied first.
    pub(crate) fn texture(&mut self, piece: Piece<M>, texel: Texel) -> (usize, bool) {
        let bytes = piece.bytes;
        let mut fresh = self.fresh.iter();
        if let Some(held) = fresh.find(|h| h.piece == piece && h.texel == texel) {
            return (held.texture, false);
        }
        let wanted = (texel, texel.extent(bytes));
        let texture = match self.fitting(wanted) {
            Some(found) => self.idle.swap_remove(found),
            None => {
                let [width, height] = wanted.1.map(u64::from);
                self.bytes += width * height * u64::from(texel.bytes);
                self.textures.push(wanted);
                self.textures.len() - 1
            }
        };
        self.fresh.push(Held {
            piece,
            texel,
            texture,
        });
        (texture, true)
    }

    /// Where the smallest idle texture stands that has so many texels of that kind or more.
    fn fitting(&self, (texel, [width, height]): (Texel, [u32; 2])) -> Option<usize> {
        let idle = self.idle.iter().map(|t| self.textures[*t]).enumerate();
        let fits = idle.filter(|(_, (t, [w, h]))| *t == texel && *w >= width && *h >= height);
        let smallest = fits.min_by_key(|(_, (_, [w, h]))| u64::from(*w) * u64::from(*h));
        smallest.map(|(at, _)| at)
    }

    /// Gives up the textures that hold any of a range: it is written, or read no more.
    pub(crate) fn release(&mut self, given_up: &Piece<M>) {
        let idle = &mut self.idle;
        self.fresh.retain(|held| {
            let stays = !held.piece.overlaps(given_up);
            if !stays {
                idle.push(held.texture);
            }
            stays
        });
    }
}

/// The textures of a list of commands on a device.
#[derive(Debug, Default)]
pub struct Staging {
    plan: TexturePlan<wgpu::Buffer>,
    textures: Vec<wgpu::Texture>,
}

impl Staging {
    /// Bytes of the textures.
    pub fn bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// The texture that holds a range, with the copy to make first where it is stale.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub(crate) fn texture(
        &mut self,
        gpu: &Gpu,
        range: &Range,
        texel: Texel,
    ) -> Result<(wgpu::Texture, Option<Copy>)> {
        let from = Piece::from(range);
        let (index, stale) = self.plan.texture(from.clone(), texel);
        if index == self.textures.len() {
            let (texel, extent) = self.plan.textures[index];
            let create = || gpu.staging_texture(texel, extent);
            self.textures
                .push(gpu.scoped("a buffer's texture", create)?);
        }
        let to = &self.textures[index];
        let copy = stale.then(|| Copy {
            from,
            to: to.clone(),
            texel,
        });
        Ok((to.clone(), copy))
    }

    /// Gives up the textures that hold any of a range: it is written, or read no more.
    pub(crate) fn release(&mut self, range: &Range) {
        self.plan.release(&range.into());
    }
}

impl Gpu {
    /// A texture of so many columns and rows that kernels read in a buffer's stead.
    pub(super) fn staging_texture(&self, texel: Texel, [width, height]: [u32; 2]) -> wgpu::Texture {
        self.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("staging"),
            size: wgpu::Extent3d {
                width,
                height,
                depth_or_array_layers: 1,
            },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: texel.format,
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        })
    }
}
