//! How a channel's reduction is cut into workgroups.

use super::Images;
use crate::gpu::kernel::Kernel;
use crate::gpu::profile::{Profile, ProfileKind};

/// The slices of each channel: see the picture in `shaders/batch_norm/moments.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slices {
    /// Invocations of a workgroup, which takes one slice.
    pub workgroup: usize,
    /// Images a slice.
    pub images: usize,
    /// Elements a slice takes of each plane.
    pub part: usize,
    /// Slices a plane is cut into.
    pub parts: usize,
    /// Slices a channel.
    pub count: usize,
}

impl Slices {
    /// As many slices as fill the device, none so short that starting it costs more
    /// than its work, and no more than the second stage, which adds a channel's slices
    /// in order, does quickly.
    pub fn new(profile: &Profile, images: &Images) -> Self {
        const MOST: usize = 256;
        // Workgroups wanted in all, and elements each should have at least: 64 vec4 an
        // invocation on software adapters, 8 on GPUs.
        let (workgroup, wanted, shortest): (usize, usize, usize) = match profile.kind {
            ProfileKind::CpuLike => (8, 64, 2048),
            ProfileKind::Gpu => (256, 1024, 8192),
        };
        let count = (images.count() / shortest)
            .min(wanted.div_ceil(images.channels))
            .clamp(1, MOST);
        let (per_slice, part) = if images.n >= count {
            (images.n.div_ceil(count), images.area)
        } else {
            let parts = count.div_ceil(images.n);
            (1, images.area.div_ceil(parts).next_multiple_of(4))
        };
        let part = part.min(images.area);
        let parts = images.area.div_ceil(part);
        Self {
            workgroup,
            images: per_slice,
            part,
            parts,
            count: images.n.div_ceil(per_slice) * parts,
        }
    }

    /// Sets the extents every kernel that works on slices has.
    pub fn set_extents(&self, kernel: Kernel, images: &Images) -> Kernel {
        kernel
            .set("IMAGES_ALL", images.n)
            .set("CHANNELS", images.channels)
            .set("AREA", images.area)
            .set("IMAGES", self.images)
            .set("PART", self.part)
            .set("PARTS", self.parts)
            .set("SLICES", self.count)
    }

    /// Workgroups of a kernel that takes one slice each.
    pub fn grid(&self, images: &Images) -> [usize; 3] {
        [self.count, images.channels, 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Draw;

    /// Every element of a channel lies in exactly one slice, and part boundaries fall
    /// on whole vec4s of the plane, as the shaders assume.
    #[test]
    fn slices_partition_a_channel() {
        let mut draw = Draw::new(1);
        for kind in [ProfileKind::CpuLike, ProfileKind::Gpu] {
            let profile = Profile::minimal(kind);
            for _ in 0..500 {
                let images = Images {
                    n: draw.int(1, 300),
                    channels: draw.int(1, 600),
                    area: draw.int(1, 60_000),
                };
                let slices = Slices::new(&profile, &images);
                let groups = images.n.div_ceil(slices.images);
                assert_eq!(slices.count, groups * slices.parts);
                assert!((groups - 1) * slices.images < images.n);
                assert!((slices.parts - 1) * slices.part < images.area);
                assert!(slices.parts * slices.part >= images.area);
                assert!(slices.parts == 1 || slices.part.is_multiple_of(4));
            }
        }
    }
}
