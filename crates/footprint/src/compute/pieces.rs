//! Graphs put together from pieces of others: for searches, which move layers between devices and keep everything else.
//!
//! A graph is allocated from border to border of its layers. Each piece is a function of the memory that it starts from, the
//! layer, and what of the schedule lies ahead ([`super::course`]). So nothing is allocated twice where a piece is known: the
//! buffers are the largest of what the pieces take, nodes and splits their sums. Where one is missing, the allocator runs on from
//! the border before it. Answers are thus those of whole graphs, whichever pieces are known.

use super::Measured;
use super::arena::align;
use super::borders::Counts;
use super::buffer::BufferRules;
use super::catalog::Catalog;
use super::course::Course;
use super::fusions::Fusions;
use super::plan::Buffers;
use super::schedule::Scheduler;
use super::shape::Shape;
use super::steps::{Sequence, Steps};
use crate::GraphSize;
use std::rc::Rc;

/// The pieces known for graphs that differ only in where layers lie.
pub(super) struct Pieces {
    catalog: Rc<Catalog>,
    rules: Vec<BufferRules>,
    /// Layouts that are allocated: as backends fuse operations, and as they do not.
    variants: usize,
    /// Copies that a pipeline keeps of each input.
    copies: u64,
    /// Types of the host's tensors tell layers apart.
    typed: bool,
    steps: Steps<Piece>,
    /// By number of the border.
    borders: Vec<Border>,
}

/// Where a piece ends and others start.
struct Border {
    /// Its number in the course.
    scheduled: usize,
    /// By variant, the last for all that follow.
    memory: Vec<Buffers>,
}

impl Border {
    /// Nothing is allocated yet.
    fn start(rules: &[BufferRules]) -> Self {
        Self { scheduled: 0, memory: vec![Buffers::new(rules)] }
    }
}

/// What lies between two borders, or before the first, or behind the last.
#[derive(Debug)]
struct Piece {
    counts: Counts,
    /// Bytes that are used, by variant, backend, chunk.
    peaks: Vec<([u8; 3], u64)>,
    /// Bytes by backend that copies of a pipeline's inputs take ahead of all.
    kept: Vec<(u8, u64)>,
}

/// Why a graph cannot be put together.
pub(super) enum Lack {
    /// The course has not all of its steps.
    Step,
    /// The catalog has not all of its tensors.
    Tensor,
}

impl Pieces {
    /// No piece known.
    pub(super) fn new(catalog: Rc<Catalog>, rules: Vec<BufferRules>, scheduler: Scheduler) -> Self {
        let variants = if scheduler.fuses() { 2 } else { 1 };
        Self {
            catalog,
            variants,
            copies: scheduler.copies as u64,
            typed: false,
            steps: Steps::new(),
            borders: vec![Border::start(&rules)],
            rules,
        }
    }

    /// The graph of these layers: all of the model.
    pub(super) fn join(&mut self, course: &Course, shape: &Shape, layers: &[usize]) -> Result<Measured, Lack> {
        if course.copies_weights && !self.typed {
            (self.typed, self.steps, self.borders) = (true, Steps::new(), vec![Border::start(&self.rules)]);
        }
        let contents = self.catalog.contents(shape, layers, self.typed);
        let mut structures = None;
        let mut joined = Joined::new(self.variants, self.rules.len());
        let mut at = 0;
        let mut last = None;
        for step in 0..contents.steps() {
            let towards = contents.towards(step);
            let this = Some((at, towards));
            let to = match self.steps.find(at, towards) {
                Some((to, piece)) => {
                    // In a run of equal layers each piece is the one before.
                    if last != this {
                        joined.reach(piece);
                    }
                    joined.count(piece);
                    to
                }
                None => {
                    let structures = structures.get_or_insert_with(|| self.catalog.structures(shape, layers));
                    let (to, piece) = self.allocate(course, at, step, [&contents, structures], layers)?;
                    joined.reach(&piece);
                    joined.count(&piece);
                    self.steps.take(at, towards, to, piece);
                    to
                }
            };
            last = this;
            at = to;
        }
        Ok(joined.measured())
    }

    /// One more piece, from the memory at its start; and the number of the border it ends at.
    fn allocate(
        &mut self,
        course: &Course,
        from: usize,
        step: usize,
        [contents, structures]: [&Sequence; 2],
        layers: &[usize],
    ) -> Result<(usize, Piece), Lack> {
        let Border { scheduled, memory } = &self.borders[from];
        let (scheduled, outline) = course.steps.find(*scheduled, structures.towards(step)).ok_or(Lack::Step)?;
        let mut memory = memory.clone();
        let mut sizes = self.catalog.sizes(layers, &self.rules);
        outline.run(&mut sizes, step, &mut memory).ok_or(Lack::Tensor)?;
        let mut peaks = Vec::with_capacity(self.variants * self.rules.len());
        for variant in 0..self.variants {
            let buffers = memory.get(variant).or(memory.last());
            let used = buffers.into_iter().flat_map(Buffers::peaks);
            peaks.extend(used.map(|(backend, chunk, peak)| ([variant as u8, backend, chunk], peak)));
        }
        let mut kept = outline.kept(&mut sizes, step).ok_or(Lack::Tensor)?;
        for (backend, size) in &mut kept {
            *size = align(*size, self.rules[usize::from(*backend)].alignment).saturating_mul(self.copies);
        }
        let piece = Piece { counts: outline.counts, peaks, kept };
        if step + 1 == contents.steps() {
            return Ok((0, piece));
        }
        let mut words = Vec::with_capacity(64);
        words.push(scheduled as u64);
        words.extend(contents.around(step));
        for buffers in &memory {
            words.push(u64::MAX);
            buffers.describe(&mut words);
        }
        let to = self.steps.border(words);
        if to == self.borders.len() {
            self.borders.push(Border { scheduled, memory });
        }
        Ok((to, piece))
    }
}

/// Pieces so far.
struct Joined {
    /// By variant and backend.
    chunks: Vec<Vec<Vec<u64>>>,
    /// By backend.
    kept: Vec<u64>,
    size: GraphSize,
    astray: Fusions,
}

impl Joined {
    fn new(variants: usize, backends: usize) -> Self {
        let size = GraphSize { nodes: 0, tensors: 0, splits: 0 };
        Self { chunks: vec![vec![Vec::new(); backends]; variants], kept: vec![0; backends], size, astray: Fusions::NONE }
    }

    fn reach(&mut self, piece: &Piece) {
        for &([variant, backend, chunk], peak) in &piece.peaks {
            let chunks = &mut self.chunks[usize::from(variant)][usize::from(backend)];
            let chunk = usize::from(chunk);
            if chunks.len() <= chunk {
                chunks.resize(chunk + 1, 0);
            }
            chunks[chunk] = chunks[chunk].max(peak);
        }
    }

    fn count(&mut self, piece: &Piece) {
        let Counts { nodes, leafs, splits, astray } = piece.counts;
        self.astray = self.astray.and(astray);
        self.size.nodes += nodes;
        self.size.tensors += nodes + leafs;
        self.size.splits += splits;
        for &(backend, size) in &piece.kept {
            let kept = &mut self.kept[usize::from(backend)];
            *kept = kept.saturating_add(size);
        }
    }

    fn measured(mut self) -> Measured {
        for chunks in &mut self.chunks {
            for (chunks, kept) in chunks.iter_mut().zip(&self.kept).filter(|(_, kept)| **kept > 0) {
                chunks.resize(chunks.len().max(1), 0);
                chunks[0] = chunks[0].saturating_add(*kept);
            }
        }
        let mut chunks = self.chunks.into_iter();
        Measured { chunks: chunks.next().unwrap_or_default(), unfused: chunks.next(), graph: self.size, astray: self.astray }
    }
}
