// The data set, as augmentation reads it: a library, hooked into the kernels that do.
//
//   order          LENGTH u32, image numbers
//   shard0 .. 3    the images' bytes, four to a word; SHARD images in each but the last
//
//   source_image(place)          the image at a place of the order, which goes round
//   source_byte(image, offset)   the byte at an offset in an image, 0 to 255

const LENGTH: u32 = 1u;          // entries of the order
const SHARDS: u32 = 4u;          // shards that there are
const SHARD: u32 = 1u;           // images of a shard
const IMAGE: u32 = 1u;           // bytes of an image

@group(0) @binding(0) var<storage, read> order: array<u32>;
@group(0) @binding(1) var<storage, read> shard0: array<u32>;
@group(0) @binding(2) var<storage, read> shard1: array<u32>;
@group(0) @binding(3) var<storage, read> shard2: array<u32>;
@group(0) @binding(4) var<storage, read> shard3: array<u32>;

fn source_image(place: u32) -> u32 {
    return order[place % LENGTH];
}

fn source_word(shard: u32, word: u32) -> u32 {
    if SHARDS == 1u {
        return shard0[word];
    }
    switch shard {
        case 0u: { return shard0[word]; }
        case 1u: { return shard1[word]; }
        case 2u: { return shard2[word]; }
        default: { return shard3[word]; }
    }
}

fn source_byte(image: u32, offset: u32) -> f32 {
    let byte = (image % SHARD) * IMAGE + offset;
    let word = source_word(image / SHARD, byte / 4u);
    return f32((word >> (8u * (byte % 4u))) & 255u);
}
