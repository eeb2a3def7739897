//! Steps from border to border of a graph's layers, as they become known.
//!
//! A step is a function of the border it starts from and of what lies ahead: the layer behind the border it ends at, and the kinds
//! of layers from there on, by which some things before a border are decided. Graphs that take the same steps need not be
//! simulated again; where a step is missing, a graph in short has it, in which each run of equal layers is cut down to a few.

use std::collections::BTreeMap;

/// Stands for what lies before the first layer.
const START: u64 = u64::MAX;
/// Stands for what lies behind the last one.
const END: u64 = u64::MAX - 1;
/// Names the step behind the last border.
const STOP: [u64; 2] = [u64::MAX, 0];
/// The longest pattern of layers whose repetitions are cut short.
const LONGEST_PATTERN: usize = 8;

/// Layers of one graph: what they are and where they lie; per layer and for the end, the kinds of layers from there on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sequence {
    layers: Vec<u64>,
    ahead: Vec<u64>,
}

impl Sequence {
    /// These layers, with bits for their kinds.
    pub(super) fn new(layers: Vec<u64>, kinds: impl DoubleEndedIterator<Item = u64>) -> Self {
        let mut ahead = Vec::with_capacity(layers.len() + 1);
        ahead.push(0);
        for kind in kinds.rev() {
            ahead.push(ahead.last().copied().unwrap_or(0) | kind);
        }
        ahead.reverse();
        Self { layers, ahead }
    }

    /// The layer before a border and the one behind it.
    pub(super) fn around(&self, border: usize) -> [u64; 2] {
        let at = |layer: usize| self.layers.get(layer).copied();
        [border.checked_sub(1).and_then(at).unwrap_or(START), at(border).unwrap_or(END)]
    }

    /// How many steps lead through it: one to each border, and one behind the last.
    pub(super) fn steps(&self) -> usize {
        self.layers.len() + 2
    }

    /// Where the step of this index leads.
    pub(super) fn towards(&self, step: usize) -> [u64; 2] {
        match self.ahead.get(step) {
            Some(&ahead) => [self.layers.get(step).copied().unwrap_or(END), ahead],
            None => STOP,
        }
    }
}

/// Known steps. Borders are numbered as they come; 0 is the start of all graphs.
#[derive(Debug)]
pub(super) struct Steps<T> {
    numbers: BTreeMap<Vec<u64>, usize>,
    /// By the number of the border they start from.
    from: Vec<Vec<Step<T>>>,
}

#[derive(Debug)]
struct Step<T> {
    towards: [u64; 2],
    to: usize,
    what: T,
}

impl<T> Steps<T> {
    /// None is known.
    pub(super) fn new() -> Self {
        Self { numbers: BTreeMap::new(), from: vec![Vec::new()] }
    }

    /// The number of a border.
    pub(super) fn border(&mut self, words: Vec<u64>) -> usize {
        let number = *self.numbers.entry(words).or_insert(self.from.len());
        if number == self.from.len() {
            self.from.push(Vec::new());
        }
        number
    }

    /// The border that a step ends at, and what it is.
    pub(super) fn find(&self, from: usize, towards: [u64; 2]) -> Option<(usize, &T)> {
        self.from.get(from)?.iter().find(|step| step.towards == towards).map(|step| (step.to, &step.what))
    }

    /// From now on knows a step between two borders that have numbers; behind the last border all end at 0.
    pub(super) fn take(&mut self, from: usize, towards: [u64; 2], to: usize, what: T) {
        let steps = &mut self.from[from];
        let step = Step { towards, to, what };
        match steps.iter_mut().find(|known| known.towards == towards) {
            Some(known) => *known = step,
            None => steps.push(step),
        }
    }

    /// The layers of a graph in short that takes the first missing step of this one: as far as its steps are known, none
    /// between two passages of one border; behind that, a few of each run of repeated patterns.
    pub(super) fn in_short(&self, sequence: &Sequence, repeats: usize) -> Vec<usize> {
        let mut at = 0;
        let mut passed: Vec<usize> = Vec::new();
        let mut left: Vec<usize> = Vec::new();
        let mut border = 0;
        while border < sequence.layers.len()
            && let Some((to, _)) = self.find(at, sequence.towards(border))
        {
            at = to;
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
