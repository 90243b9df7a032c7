//! Writing a file of f32 arrays in groups, as the oldest libraries still read it: superblock
//! 0, groups as symbol tables, each array in one piece.

use super::{Array, Arrays, SIGNATURE, UNDEFINED};
use std::collections::BTreeMap;

/// Half of the children a node of a group's tree has room for: HDF5's default.
const TREE_K: usize = 16;

/// A group, or an array in one.
enum Node<'a> {
    Group(BTreeMap<&'a str, Node<'a>>),
    Array(&'a Array),
}

/// The bytes of a file that holds the arrays by their paths, `layers/dense/vars/0`.
///
/// # Panics
/// If one path leads through an array.
pub fn write(arrays: &Arrays) -> Vec<u8> {
    let mut root = BTreeMap::new();
    for (path, array) in arrays {
        insert(&mut root, path, array);
    }
    let widest = widest(&root);
    let mut file = File {
        bytes: vec![0; SUPERBLOCK],
        leaf_k: widest.div_ceil(2).max(4),
    };
    let root = file.group(&root);
    file.superblock(root);
    file.bytes
}

fn insert<'a>(group: &mut BTreeMap<&'a str, Node<'a>>, path: &'a str, array: &'a Array) {
    match path.split_once('/') {
        None => {
            group.insert(path, Node::Array(array));
        }
        Some((first, rest)) => {
            let empty = || Node::Group(BTreeMap::new());
            match group.entry(first).or_insert_with(empty) {
                Node::Group(below) => insert(below, rest, array),
                Node::Array(_) => panic!("{path} leads through an array"),
            }
        }
    }
}

/// The largest number of entries of a group: all lie in one node, so that trees have one level.
fn widest(group: &BTreeMap<&str, Node<'_>>) -> usize {
    let below = group.values().map(|node| match node {
        Node::Group(group) => widest(group),
        Node::Array(_) => 0,
    });
    below.max().unwrap_or(0).max(group.len())
}

const SUPERBLOCK: usize = 96;

struct File {
    bytes: Vec<u8>,
    /// Half of the entries a node of a symbol table has room for.
    leaf_k: usize,
}

impl File {
    /// Appends a block at a multiple of 8 and returns its address.
    fn append(&mut self, block: &[u8]) -> u64 {
        let address = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(address, 0);
        self.bytes.extend(block);
        address as u64
    }

    fn node(&mut self, node: &Node<'_>) -> u64 {
        match node {
            Node::Group(group) => self.group(group),
            Node::Array(array) => self.array(array),
        }
    }

    fn array(&mut self, array: &Array) -> u64 {
        let data: Vec<u8> = array.data.iter().flat_map(|v| v.to_le_bytes()).collect();
        let address = self.append(&data);
        let mut space = vec![1, array.shape.len() as u8, 0, 0, 0, 0, 0, 0];
        let extents = array.shape.iter().flat_map(|e| (*e as u64).to_le_bytes());
        space.extend(extents);
        // An IEEE float of 32 bits: sign at 31, exponent of 8 bits at 23 with bias 127.
        let float = [
            0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0,
        ];
        // Space is allocated late; no fill value is defined.
        let fill = [2, 2, 2, 0];
        let mut layout = vec![3, 1];
        layout.extend(address.to_le_bytes());
        layout.extend((data.len() as u64).to_le_bytes());
        let messages: [(u16, &[u8]); 4] = [
            (0x01, &space),
            (0x03, &float),
            (0x05, &fill),
            (0x08, &layout),
        ];
        self.header(&messages)
    }

    fn header(&mut self, messages: &[(u16, &[u8])]) -> u64 {
        let mut body = Vec::new();
        for (kind, message) in messages {
            let length = message.len().next_multiple_of(8);
            body.extend(kind.to_le_bytes());
            body.extend((length as u16).to_le_bytes());
            body.extend([0; 4]);
            body.extend(*message);
            body.resize(body.len() + length - message.len(), 0);
        }
        let mut header = vec![1, 0];
        header.extend((messages.len() as u16).to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend((body.len() as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(body);
        self.append(&header)
    }

    fn group(&mut self, group: &BTreeMap<&str, Node<'_>>) -> u64 {
        let children: Vec<u64> = group.values().map(|node| self.node(node)).collect();
        // The empty name comes first: the tree's first key.
        let mut names = vec![0; 8];
        let mut entries = Vec::new();
        let mut last = 0;
        for (name, address) in group.keys().zip(children) {
            last = names.len() as u64;
            entries.extend(last.to_le_bytes());
            entries.extend(address.to_le_bytes());
            entries.extend([0; 24]);
            names.extend(name.as_bytes());
            names.resize((names.len() + 1).next_multiple_of(8), 0);
        }
        let mut tree = b"TREE\0\0".to_vec();
        tree.extend(u16::from(!group.is_empty()).to_le_bytes());
        tree.extend([UNDEFINED.to_le_bytes(); 2].concat());
        tree.extend([0; 8]);
        if !group.is_empty() {
            let mut table = b"SNOD\x01\0".to_vec();
            table.extend((group.len() as u16).to_le_bytes());
            table.extend(entries);
            table.resize(8 + 2 * self.leaf_k * 40, 0);
            tree.extend(self.append(&table).to_le_bytes());
            tree.extend(last.to_le_bytes());
        }
        tree.resize(24 + (4 * TREE_K + 1) * 8, 0);
        let tree = self.append(&tree);
        let segment = self.append(&names);
        let mut heap = b"HEAP\0\0\0\0".to_vec();
        heap.extend((names.len() as u64).to_le_bytes());
        // No free block.
        heap.extend(1_u64.to_le_bytes());
        heap.extend(segment.to_le_bytes());
        let heap = self.append(&heap);
        let table = [tree.to_le_bytes(), heap.to_le_bytes()].concat();
        self.header(&[(0x11, &table)])
    }

    fn superblock(&mut self, root: u64) {
        let end = self.bytes.len() as u64;
        let mut block = SIGNATURE.to_vec();
        // Versions of five parts, all 0, around the sizes of addresses and lengths.
        block.extend([0, 0, 0, 0, 0, 8, 8, 0]);
        block.extend((self.leaf_k as u16).to_le_bytes());
        block.extend((TREE_K as u16).to_le_bytes());
        block.extend([0; 4]);
        for address in [0, UNDEFINED, end, UNDEFINED] {
            block.extend(address.to_le_bytes());
        }
        block.extend(0_u64.to_le_bytes());
        block.extend(root.to_le_bytes());
        block.extend([0; 24]);
        self.bytes[..SUPERBLOCK].copy_from_slice(&block);
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn sample() -> Arrays {
        let array = |shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let data = (0..count).map(|i| i as f32 - 1.5).collect();
            let shape = shape.to_vec();
            Array { shape, data }
        };
        // More entries than a node has by default.
        let mut arrays: Arrays = (0..40)
            .map(|i| (format!("layers/dense_{i}/vars/0"), array(&[2, 3])))
            .collect();
        arrays.insert("scalar".into(), array(&[]));
        arrays
    }

    #[test]
    fn what_is_written_reads_back() {
        let arrays = sample();
        assert_eq!(read(&write(&arrays)).unwrap(), arrays);
    }

    #[test]
    fn damage_anywhere_is_an_error_or_other_numbers_but_no_panic() {
        let good = write(&sample());
        for length in (0..good.len()).step_by(7) {
            let _ = read(&good[..length]);
        }
        let mut refused = 0;
        for at in (0..good.len()).step_by(11) {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            refused += usize::from(read(&bad).is_err());
        }
        assert!(refused > 100, "{refused} were refused");
        assert!(read(b"no file").unwrap_err().contains("no HDF5"));
    }
}
