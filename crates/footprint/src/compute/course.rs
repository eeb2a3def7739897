//! The course of graphs from border to border of their layers: what is scheduled and what the allocator does, sizes aside.
//!
//! What the scheduler decides, and in which order the allocator places and frees, follows from the structure of a graph and from
//! where its weights lie. Sizes decide where in memory something lies, and nothing else. So graphs of contexts of different
//! lengths, and with caches of different types, take one course as long as their layers have the same structures
//! ([`super::catalog`]).

use super::outline::Outline;
use super::steps::{Sequence, Steps};

/// What is known of graphs that differ only in where layers lie, and in sizes.
pub(super) struct Course {
    /// Devices copy weights of layers, whose types decide how large these are.
    pub(super) copies_weights: bool,
    pub(super) steps: Steps<Outline>,
}

impl Course {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self { copies_weights: false, steps: Steps::new() }
    }

    /// Takes the steps of a graph: the words of its borders, and what lies before each and behind the last.
    pub(super) fn learn(&mut self, sequence: &Sequence, words: Vec<Vec<u64>>, outlines: Vec<Outline>) {
        self.copies_weights |= outlines.iter().any(Outline::copies_weights);
        let mut from = 0;
        let mut borders = words.into_iter();
        for (step, outline) in outlines.into_iter().enumerate() {
            let to = borders.next().map_or(0, |words| self.steps.border(words));
            self.steps.take(from, sequence.towards(step), to, outline);
            from = to;
        }
    }
}
