//! Arenas: many tensors side by side in one flat state.
//!
//! Parameters lie in one arena, their gradients and each optimizer moment in others
//! of the same layout, so that one dispatch updates a whole model and one copy saves it.

use super::Graph;
use crate::error::{Error, Result};
use crate::ops::optimizer::BLOCK;
use crate::ops::{Array, Value};
use crate::tensor::{Shape, Tensor, TensorType};

/// Elements a part's start is aligned to: 256 bytes of f32, the largest alignment
/// WebGPU lets a device ask of a binding. So no block has elements of two parts.
const ALIGNMENT: usize = BLOCK;

/// The layout of an arena.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arena {
    parts: Vec<Part>,
    len: usize,
}

/// One tensor of an arena.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The tensor's name, such as `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Its first element in the arena.
    pub offset: usize,
}

impl Arena {
    /// Lays the given tensors out in order.
    pub fn new(tensors: impl IntoIterator<Item = (String, Shape)>) -> Self {
        let mut arena = Self::default();
        for (name, shape) in tensors {
            let offset = arena.len;
            arena.len += shape.len().next_multiple_of(ALIGNMENT);
            arena.parts.push(Part {
                name,
                shape,
                offset,
            });
        }
        arena
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Elements, padding included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no part.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The type of the state that holds it.
    pub fn ty(&self) -> TensorType {
        TensorType::f32([self.len])
    }

    /// For each [`BLOCK`] of elements the part it belongs to, and how many of the elements
    /// are the part's; the rest is padding.
    pub fn blocks(&self) -> impl Iterator<Item = (&Part, usize)> {
        self.parts.iter().flat_map(|part| {
            let len = part.shape.len();
            let starts = (0..len).step_by(BLOCK);
            starts.map(move |start| (part, BLOCK.min(len - start)))
        })
    }

    /// A view of each part of the arena held in the state `of`, in order.
    ///
    /// # Errors
    /// If the state is not of this arena's type.
    pub fn views(&self, graph: &mut Graph, of: Value) -> Result<Vec<Value>> {
        self.parts
            .iter()
            .map(|p| graph.view(of, p.offset, p.shape.clone()))
            .collect()
    }

    /// The arena's content, each part from `tensor`, padding zero.
    ///
    /// # Errors
    /// Whatever `tensor` fails with, or [`Error::Shape`] where a shape differs.
    pub fn pack<'a>(&self, tensor: impl Fn(&Part) -> Result<&'a Tensor>) -> Result<Array> {
        let mut data = vec![0.0; self.len];
        for part in &self.parts {
            let tensor = tensor(part)?;
            if *tensor.shape() != part.shape {
                let problem = format!("expected {}, found {}", part.shape, tensor.shape());
                return Err(Error::shape(&part.name, problem));
            }
            let target = &mut data[part.offset..part.offset + part.shape.len()];
            for (to, from) in target.iter_mut().zip(tensor.data()) {
                *to = f64::from(*from);
            }
        }
        Ok(Array::float(self.ty(), data))
    }

    /// The tensors of an arena's content, with their names.
    ///
    /// # Errors
    /// If the content is not of this arena's length.
    pub fn unpack(&self, content: &Array) -> Result<Vec<(String, Tensor)>> {
        if *content.ty() != self.ty() {
            let problem = format!("expected {}, found {}", self.ty(), content.ty());
            return Err(Error::shape("arena", problem));
        }
        self.parts
            .iter()
            .map(|part| {
                let range = part.offset..part.offset + part.shape.len();
                let data = content.f()[range].iter().map(|x| *x as f32).collect();
                Ok((part.name.clone(), Tensor::new(part.shape.clone(), data)?))
            })
            .collect()
    }
}

/// Views that together cover a state from element `first` on, each of at most `bytes`: what
/// ops on a whole arena bind, on devices that cannot bind it at once.
///
/// # Errors
/// If it is no state.
pub fn chunks(graph: &mut Graph, state: Value, first: usize, bytes: u64) -> Result<Vec<Value>> {
    let most = (bytes / 4) as usize / ALIGNMENT * ALIGNMENT;
    let most = most.max(ALIGNMENT);
    let len = graph.value(state).ty.shape.len();
    (first..len)
        .step_by(most)
        .map(|start| graph.view(state, start, [most.min(len - start)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_survive_a_round_trip() {
        let arena = Arena::new([
            ("a".into(), Shape::from([3, 5])),
            ("b".into(), Shape::from([1])),
        ]);
        assert_eq!(arena.parts()[1].offset, ALIGNMENT);
        let a = Tensor::new([3, 5], (0..15).map(|i| i as f32).collect()).unwrap();
        let b = Tensor::new([1], vec![7.0]).unwrap();
        let content = arena
            .pack(|p| Ok(if p.name == "a" { &a } else { &b }))
            .unwrap();
        let back = arena.unpack(&content).unwrap();
        assert_eq!(back, vec![("a".into(), a), ("b".into(), b)]);
    }

    #[test]
    fn blocks_tell_their_part_and_what_of_it_they_hold() {
        let arena = Arena::new([
            ("a".into(), Shape::from([2, 70])),
            ("b".into(), Shape::from([64])),
            ("c".into(), Shape::from([1])),
        ]);
        let blocks: Vec<_> = arena.blocks().map(|(p, n)| (&*p.name, n)).collect();
        let expected = [("a", 64), ("a", 64), ("a", 12), ("b", 64), ("c", 1)];
        assert_eq!(blocks, expected);
        assert_eq!(blocks.len() * BLOCK, arena.len());
    }

    #[test]
    fn chunks_cover_the_arena_and_respect_the_limit() {
        let arena = Arena::new([("a".into(), Shape::from([1000]))]);
        let mut graph = Graph::new();
        let state = graph.state("s", arena.ty());
        let chunks = chunks(&mut graph, state, 0, 1024).unwrap();
        let lengths: Vec<_> = chunks
            .iter()
            .map(|v| graph.value(*v).ty.shape.len())
            .collect();
        assert_eq!(lengths, [256, 256, 256, 256]);
    }
}
