//! HDF5, as far as Keras writes it: groups, and arrays of floats and integers
//! (<https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html>).
//!
//! The reader takes superblocks 0 to 3, both kinds of object headers, groups as symbol
//! tables or as link messages, and data that is compact or in one piece. Chunked data and
//! filters are refused by name. Every address is checked against the file, so that a damaged
//! file costs no more memory than it has bytes.

mod header;
mod read;
mod write;

pub use read::read;
pub use write::write;

use std::collections::BTreeMap;

/// Arrays by their path, `layers/conv2d/vars/0`.
pub type Arrays = BTreeMap<String, Array>;

/// An array of a file, in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extent of each dimension; none for a scalar.
    pub shape: Vec<usize>,
    /// The elements as f32.
    pub data: Vec<f32>,
}

/// The first bytes of a file.
const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// The address of nothing.
const UNDEFINED: u64 = u64::MAX;
