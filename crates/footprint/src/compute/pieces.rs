//! Graphs put together from pieces of others: for searches, which move layers between devices and keep everything else.
//!
//! A graph is scheduled and allocated from border to border of its layers ([`super::borders`]). Each step is a function of
//! the border it starts from, the layer, and the border it ends at, of which some things are decided behind it. So a graph
//! need not be simulated where each of its steps was taken in another one, with the same borders: the buffers are the
//! largest of what the steps take, nodes and splits their sums. Where a step is missing, a graph in short with the
//! same neighbours (each run of equal layers cut down to a few) is simulated for its steps, and then, if that is not
//! enough, the graph itself. Answers are thus those of whole graphs, whichever steps are known.

use super::Measured;
use super::borders::{END, Piece};
use super::fusions::Fusions;
use crate::GraphSize;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Names the step behind the last border.
const STOP: u64 = u64::MAX;
/// The longest pattern of layers whose repetitions are cut short.
const LONGEST_PATTERN: usize = 8;

/// The steps known for graphs that differ only in where layers lie.
#[derive(Debug)]
pub(super) struct Pieces {
    /// A number for what each layer of the model is, apart from where it lies.
    contents: Rc<[u32]>,
    /// Types of the host's tensors tell layers apart: devices copy some.
    pub(super) typed: bool,
    borders: BTreeMap<Vec<u64>, usize>,
    /// Steps by the number of the border they start from; the first is the start of all graphs.
    steps: Vec<Vec<Step>>,
}

#[derive(Debug)]
struct Step {
    /// The layer behind the border it ends at, and what follows.
    towards: [u64; 2],
    to: usize,
    piece: Piece,
}

/// Layers of one graph: what they are and where they lie; per layer and for the end, the kinds of layers from there on.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) layers: Vec<u64>,
    ahead: Vec<u64>,
}

impl Sequence {
    /// These layers, with bits for their kinds.
    pub(super) fn new(layers: Vec<u64>, kinds: impl DoubleEndedIterator<Item = u64>) -> Self {
        let mut ahead = vec![0];
        for kind in kinds.rev() {
            ahead.push(ahead.last().copied().unwrap_or(0) | kind);
        }
        ahead.reverse();
        Self { layers, ahead }
    }

    fn towards(&self, border: usize) -> [u64; 2] {
        [self.layers.get(border).copied().unwrap_or(END), self.ahead.get(border).copied().unwrap_or(0)]
    }
}

impl Pieces {
    /// No step known; `contents` tell what each layer of the model is.
    pub(super) fn new(contents: Rc<[u32]>) -> Self {
        Self { contents, typed: false, borders: BTreeMap::new(), steps: vec![Vec::new()] }
    }

    /// What a layer of the model is, `place` being a number for where it lies.
    pub(super) fn layer(&self, index: usize, place: u32) -> u64 {
        u64::from(self.contents.get(index).copied().unwrap_or(u32::MAX)) << 32 | u64::from(place)
    }

    /// From now on tells layers by the types of the host's tensors, too; what is known is not.
    pub(super) fn tell_types(&mut self) {
        *self = Self { typed: true, ..Self::new(Rc::clone(&self.contents)) };
    }

    /// Takes the steps of a graph that was simulated.
    pub(super) fn learn(&mut self, sequence: &Sequence, words: Vec<Vec<u64>>, pieces: Vec<Piece>) {
        let mut from = 0;
        let mut pieces = pieces.into_iter();
        for (border, (words, piece)) in words.into_iter().zip(&mut pieces).enumerate() {
            let next = self.steps.len();
            let to = *self.borders.entry(words).or_insert(next);
            if to == next {
                self.steps.push(Vec::new());
            }
            self.take(from, Step { towards: sequence.towards(border), to, piece });
            from = to;
        }
        for piece in pieces {
            self.take(from, Step { towards: [STOP, 0], to: 0, piece });
        }
    }

    fn take(&mut self, from: usize, step: Step) {
        let steps = &mut self.steps[from];
        match steps.iter_mut().find(|known| known.towards == step.towards) {
            Some(known) => *known = step,
            None => steps.push(step),
        }
    }

    fn step(&self, from: usize, towards: [u64; 2]) -> Option<&Step> {
        self.steps.get(from)?.iter().find(|step| step.towards == towards)
    }

    /// The layers of a graph in short that takes the first missing step of this one: as far as its steps are known, none
    /// between two passages of one border; behind that, a few of each run of repeated patterns.
    pub(super) fn in_short(&self, sequence: &Sequence, repeats: usize) -> Vec<usize> {
        let mut at = 0;
        let mut passed: Vec<usize> = Vec::new();
        let mut left: Vec<usize> = Vec::new();
        let mut border = 0;
        while border < sequence.layers.len()
            && let Some(step) = self.step(at, sequence.towards(border))
        {
            at = step.to;
            if let Some(before) = passed.iter().position(|&passed| passed == at) {
                passed.truncate(before);
                left.truncate(before);
            }
            passed.push(at);
            left.push(border);
            border += 1;
        }
        // The layer before the first border that is not known lies between two of which one is.
        left.extend(in_short(&sequence.layers[border..], repeats).into_iter().map(|layer| border + layer));
        left
    }

    /// The graph of these layers, if each of its steps is known.
    pub(super) fn join(&self, sequence: &Sequence, backends: usize, variants: usize) -> Option<Measured> {
        let mut joined = Joined {
            chunks: vec![vec![Vec::new(); backends]; variants],
            size: GraphSize { nodes: 0, tensors: 0, splits: 0 },
            astray: Fusions::NONE,
        };
        let mut at = 0;
        let mut last: Option<(usize, &Step)> = None;
        for border in 0..=sequence.layers.len() {
            let towards = sequence.towards(border);
            // In a run of equal layers each step is the one before.
            match last {
                Some((from, step)) if from == at && step.towards == towards => joined.size_of(&step.piece),
                _ => {
                    let step = self.step(at, towards)?;
                    joined.add(&step.piece);
                    last = Some((at, step));
                    at = step.to;
                }
            }
        }
        joined.add(&self.step(at, [STOP, 0])?.piece);
        let Joined { chunks, size, astray } = joined;
        let mut chunks = chunks.into_iter();
        let (chunks, unfused) = (chunks.next()?, chunks.next());
        Some(Measured { chunks, unfused, graph: size, astray })
    }
}

struct Joined {
    /// By variant and backend.
    chunks: Vec<Vec<Vec<u64>>>,
    size: GraphSize,
    astray: Fusions,
}

impl Joined {
    fn add(&mut self, piece: &Piece) {
        for &([variant, backend, chunk], peak) in &piece.peaks {
            let chunks = &mut self.chunks[usize::from(variant)][usize::from(backend)];
            let chunk = usize::from(chunk);
            if chunks.len() <= chunk {
                chunks.resize(chunk + 1, 0);
            }
            chunks[chunk] = chunks[chunk].max(peak);
        }
        self.astray = self.astray.and(piece.astray);
        self.size_of(piece);
    }

    /// What sums up over pieces that are alike.
    fn size_of(&mut self, piece: &Piece) {
        self.size.nodes += piece.nodes;
        self.size.tensors += piece.nodes + piece.leafs;
        self.size.splits += piece.splits;
    }
}

/// Indices of the layers that are left where each run of a repeated pattern of at most [`LONGEST_PATTERN`] layers is cut down
/// to `repeats`.
fn in_short(layers: &[u64], repeats: usize) -> Vec<usize> {
    let mut left = Vec::new();
    let mut i = 0;
    while i < layers.len() {
        let run = |pattern: usize| {
            let matching = layers[i + pattern..].iter().zip(&layers[i..]).take_while(|(a, b)| a == b).count();
            let times = 1 + matching / pattern;
            (times.saturating_sub(repeats) * pattern, pattern, times)
        };
        let patterns = 1..=LONGEST_PATTERN.min(layers.len() - i);
        let (saved, pattern, times) =
            patterns.map(run).max_by_key(|&(saved, pattern, _)| (saved, std::cmp::Reverse(pattern))).unwrap_or((0, 1, 1));
        let (taken, kept) = if saved > 0 { (times * pattern, repeats * pattern) } else { (1, 1) };
        left.extend(i..i + kept);
        i += taken;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_patterns_are_cut_down() {
        assert_eq!(in_short(&[7, 7, 7, 7, 7, 8], 2), [0, 1, 5]);
        assert_eq!(in_short(&[1, 2, 3, 2, 3, 2, 3, 2, 4], 2), [0, 1, 2, 3, 4, 7, 8]);
        assert_eq!(in_short(&[1, 2, 3], 1), [0, 1, 2]);
        assert_eq!(in_short(&[], 1), [0; 0]);
    }
}
