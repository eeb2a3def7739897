//! The course of graphs from border to border of their layers: what is scheduled and what the allocator does, sizes aside.
//!
//! What the scheduler decides, and in which order the allocator places and frees, follows from the structure of a graph and from
//! where its weights lie. Sizes decide where in memory something lies, and nothing else. So graphs of contexts of different
//! lengths, and with caches of different types, take one course as long as their layers have the same structures
//! ([`super::catalog`]).

use super::catalog::Catalog;
use super::outline::Outline;
use super::shape::Shape;
use super::steps::{Sequence, Steps};
use std::collections::BTreeMap;

/// What is known of graphs that differ only in where layers lie, and in sizes.
pub(super) struct Course {
    /// Types of the host's tensors tell layers apart: devices copy some.
    pub(super) typed: bool,
    pub(super) steps: Steps<Outline>,
    /// Graphs that have no steps, because several copies of their inputs are laid out ahead of all; by their layers.
    pub(super) wholes: BTreeMap<Sequence, Outline>,
}

impl Course {
    /// Nothing is known; layers that are told apart by types where it must be.
    pub(super) fn new(typed: bool) -> Self {
        Self { typed, steps: Steps::new(), wholes: BTreeMap::new() }
    }

    /// From now on tells layers by the types of the host's tensors, too; steps that are known do not.
    pub(super) fn tell_types(&mut self) {
        *self = Self { wholes: std::mem::take(&mut self.wholes), ..Self::new(true) };
    }

    /// Some layers of the model as steps tell them apart.
    pub(super) fn sequence(&self, catalog: &Catalog, shape: &Shape, layers: &[usize]) -> Sequence {
        shape.sequence(layers, self.typed, |layer| catalog.structure(layer))
    }

    /// Takes the steps of a graph: the words of its borders, and what lies before each and behind the last.
    pub(super) fn learn(&mut self, sequence: &Sequence, words: Vec<Vec<u64>>, outlines: Vec<Outline>) {
        let mut from = 0;
        let mut borders = words.into_iter();
        for (step, outline) in outlines.into_iter().enumerate() {
            let to = borders.next().map_or(0, |words| self.steps.border(words));
            self.steps.take(from, sequence.towards(step), to, outline);
            from = to;
        }
    }
}
