//! Commands in their order, and when the copies into the textures they read are made.
//!
//! A copy ends a compute pass and another must begin, which costs the host more than a
//! dispatch. So copies are gathered: each joins those made last, if no command since then
//! writes what it copies or reads the texture it fills. Walking through the commands and
//! beginning a new batch only where a copy cannot join the last makes the fewest batches, as
//! for any intervals that are to be hit by few points.

use super::executor::{Command, STEP_STRIDE};
use super::range::{Range, padded};

/// A list of commands that is encoded again and again.
#[derive(Debug)]
pub(crate) struct Sequence {
    commands: Vec<Command>,
    batches: Vec<Batch>,
}

/// Copies that are made before a command, those of later commands among them.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    /// The command's number.
    before: usize,
    /// The command each copy belongs to, and which of that one's it is.
    copies: Vec<(usize, usize)>,
}

/// A piece of memory `M`, of whole vec4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<M> {
    pub(crate) memory: M,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl<M: PartialEq> Piece<M> {
    /// So many bytes and what pads them.
    pub(crate) fn new(memory: M, offset: u64, bytes: u64) -> Self {
        Self {
            memory,
            offset,
            bytes: padded(bytes),
        }
    }

    /// Whether a byte lies in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let before = |a: &Self, b: &Self| a.offset + a.bytes <= b.offset;
        self.memory == other.memory && !before(self, other) && !before(other, self)
    }
}

impl From<&Range> for Piece<wgpu::Buffer> {
    fn from(range: &Range) -> Self {
        Self::new(range.buffer.clone(), range.offset, range.bytes)
    }
}

/// What a command has to do with memory `M` and textures `T`.
#[derive(Debug)]
pub(crate) struct Touched<M, T> {
    /// What it writes.
    pub(crate) writes: Vec<Piece<M>>,
    /// The textures it reads.
    pub(crate) reads: Vec<T>,
    /// What must have been copied before, and the texture it goes to.
    pub(crate) copies: Vec<(Piece<M>, T)>,
}

impl Sequence {
    /// Commands that run one after the other.
    pub(crate) fn new(commands: Vec<Command>) -> Self {
        let touched: Vec<_> = commands.iter().map(Command::touched).collect();
        let batches = gather(&touched);
        Self { commands, batches }
    }

    /// The commands.
    pub(crate) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Encodes the commands once for each step.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder, steps: usize) {
        let mut pass: Option<wgpu::ComputePass<'static>> = None;
        for step in 0..steps {
            // MAX_STEPS * STEP_STRIDE fits 32 bits by far.
            let offset = (step as u64 * STEP_STRIDE) as u32;
            let mut batches = self.batches.iter().peekable();
            for (index, command) in self.commands.iter().enumerate() {
                if let Some(batch) = batches.next_if(|batch| batch.before == index) {
                    // Copies go between passes.
                    pass = None;
                    for (owner, which) in &batch.copies {
                        self.commands[*owner].copies()[*which].encode(encoder);
                    }
                }
                let pass = pass.get_or_insert_with(|| {
                    encoder
                        .begin_compute_pass(&Default::default())
                        .forget_lifetime()
                });
                command.encode(pass, offset);
            }
        }
    }
}

/// The fewest batches that make every copy before its command and after what it waits for.
fn gather<M: PartialEq, T: PartialEq>(touched: &[Touched<M, T>]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (owner, command) in touched.iter().enumerate() {
        for (which, (piece, texture)) in command.copies.iter().enumerate() {
            let is_free = |between: &Touched<M, T>| {
                !between.reads.contains(texture)
                    && !between.writes.iter().any(|written| written.overlaps(piece))
            };
            match batches.last_mut() {
                Some(last) if touched[last.before..owner].iter().all(is_free) => {
                    last.copies.push((owner, which));
                }
                _ => batches.push(Batch {
                    before: owner,
                    copies: vec![(owner, which)],
                }),
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(memory: char, offset: u64) -> Piece<char> {
        Piece::new(memory, offset, 16)
    }

    /// A command that reads `inputs` through the textures of those numbers, all copied
    /// before, and writes the first 16 bytes of a buffer.
    fn command(inputs: &[(char, u64, u32)], written: char) -> Touched<char, u32> {
        Touched {
            writes: vec![piece(written, 0)],
            reads: inputs.iter().map(|(_, _, texture)| *texture).collect(),
            copies: inputs
                .iter()
                .map(|(memory, offset, texture)| (piece(*memory, *offset), *texture))
                .collect(),
        }
    }

    fn batches(commands: &[Touched<char, u32>]) -> Vec<(usize, Vec<(usize, usize)>)> {
        let batches = gather(commands).into_iter();
        batches.map(|b| (b.before, b.copies)).collect()
    }

    #[test]
    fn copies_join_the_last_batch_that_they_may() {
        let chain = [
            command(&[('x', 0, 0), ('v', 0, 1)], 'y'),
            command(&[('y', 0, 2), ('w', 0, 3)], 'z'),
            // Of another part of what the first command wrote.
            command(&[('y', 16, 4), ('w', 16, 5)], 'u'),
        ];
        let first = (0, vec![(0, 0), (0, 1)]);
        let second = (1, vec![(1, 0), (1, 1), (2, 0), (2, 1)]);
        assert_eq!(batches(&chain), [first, second]);
    }

    #[test]
    fn a_copy_waits_for_its_texture_and_for_its_memory() {
        let shared_texture = [command(&[('x', 0, 7)], 'y'), command(&[('w', 0, 7)], 'z')];
        assert_eq!(
            batches(&shared_texture),
            [(0, vec![(0, 0)]), (1, vec![(1, 0)])]
        );
        let written = [
            command(&[('x', 0, 0)], 'y'),
            command(&[], 'w'),
            command(&[('w', 0, 1)], 'z'),
        ];
        assert_eq!(batches(&written), [(0, vec![(0, 0)]), (2, vec![(2, 0)])]);
        let elsewhere = [
            command(&[('x', 0, 0)], 'y'),
            command(&[], 'w'),
            command(&[('w', 16, 1)], 'z'),
        ];
        assert_eq!(batches(&elsewhere), [(0, vec![(0, 0), (2, 0)])]);
    }
}
