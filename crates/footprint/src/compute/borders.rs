//! What crosses the borders between the layers of a graph, in words that do not depend on how many layers came before.
//!
//! A border lies before the first node of a layer. What comes behind it is scheduled and allocated by what crosses it, and
//! nothing else: what the scheduler's passes carry over it, either way; the split it lies in, the copies made so far and
//! those that are still to be made at that split's start; where the tensors that are still read were computed; free memory,
//! and who has the rest. Tensors are named by their distance from the border, so that the borders of a run of equal layers
//! come to read alike. Layers that reach further than their neighbours have no such words, and their graph no pieces.

use super::builder::Builder;
use super::fusions::Fusions;
use super::plan::Live;
use super::schedule::{Copied, Schedule};
use super::simulations::astray;
use super::steps::Sequence;
use super::tensor::{Id, Memory};

/// A built graph, cut at its borders.
pub(super) struct Cuts {
    /// Tensors made before each border.
    pub(super) tensors: Vec<usize>,
    /// Index of the first node behind each.
    pub(super) nodes: Vec<usize>,
    /// Index of the node that first reads each tensor.
    first_read: Vec<usize>,
    /// Index of the node that last reads each tensor or a view of it.
    last_read: Vec<usize>,
}

impl Cuts {
    /// Cuts a graph that is not scheduled yet; `None` where a layer reads more than itself, the layer before and what lies
    /// before all of them.
    pub(super) fn of(builder: &Builder<'_>) -> Option<Self> {
        let graph = &builder.graph;
        let tensors: Vec<usize> = builder.borders.iter().map(|border| border.tensors).collect();
        let mut nodes = Vec::with_capacity(tensors.len());
        let mut first_read = vec![usize::MAX; graph.len()];
        let mut last_read = vec![0; graph.len()];
        for (i, &node) in graph.nodes.iter().enumerate() {
            while tensors.get(nodes.len()).is_some_and(|&border| border <= node.index()) {
                nodes.push(i);
            }
            let tensor = graph.tensor(node);
            for &source in tensor.sources() {
                first_read[source.index()] = i.min(first_read[source.index()]);
                last_read[source.index()] = i;
                last_read[graph.root(source).index()] = i;
            }
            last_read[graph.root(node).index()] = i;
        }
        nodes.resize(tensors.len(), graph.nodes.len());
        let within = |layer: usize| {
            let after = nodes.get(layer + 2).copied().unwrap_or(usize::MAX);
            last_read[tensors[layer]..tensors[layer + 1]].iter().all(|&last| last < after)
        };
        let first = *tensors.first()?;
        let given = graph.leafs.iter().any(|&leaf| leaf.index() >= first && graph.tensor(leaf).memory == Memory::Compute);
        let regular = !given && (0..tensors.len() - 1).all(within);
        regular.then_some(Self { tensors, nodes, first_read, last_read })
    }

    /// The step that this node is part of; the first for none.
    fn step(&self, node: usize) -> usize {
        if node == usize::MAX { 0 } else { self.nodes.partition_point(|&cut| cut <= node) }
    }

    /// The name of a tensor at a border. Copies are numbered behind all others.
    pub(super) fn name(&self, border: usize, id: Id, copies: &[Copied], originals: usize) -> u64 {
        if id.index() >= originals {
            return match copies.get(id.index() - originals) {
                Some(copy) => 1 << 63 | u64::from(copy.backend) << 52 | self.name(border, copy.source, &[], usize::MAX),
                None => u64::MAX,
            };
        }
        // Mostly in the layer before.
        if let Some(layer) = border.checked_sub(1).and_then(|layer| self.tensors.get(layer..=border))
            && (layer[0]..layer[1]).contains(&id.index())
        {
            return 1 << 60 | 1024 << 32 | (id.index() - layer[0]) as u64;
        }
        // Number of borders before it.
        match self.tensors.partition_point(|&before| before <= id.index()) {
            0 => id.index() as u64,
            all if all == self.tensors.len() => 2 << 60 | (id.index() - self.tensors[all - 1]) as u64,
            layer => 1 << 60 | (1024 + border as u64 - layer as u64) << 32 | (id.index() - self.tensors[layer - 1]) as u64,
        }
    }
}

/// What a stretch of a graph counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) nodes: u32,
    /// Leafs that are read here for the first time.
    pub(super) leafs: u32,
    pub(super) splits: u32,
    /// What is computed as one, but not on its layer's own device.
    pub(super) astray: Fusions,
}

/// A graph that was scheduled, with its cuts.
pub(super) struct Traced<'a> {
    pub(super) builder: &'a Builder<'a>,
    pub(super) cuts: &'a Cuts,
    /// Tensors before copies were added.
    pub(super) originals: usize,
    pub(super) schedule: &'a Schedule,
}

impl Traced<'_> {
    /// True where something that is computed as one reaches over a border.
    pub(super) fn fuses_over_borders(&self) -> bool {
        let crosses = |&(first, last): &(usize, usize)| self.cuts.nodes.iter().any(|&cut| first < cut && cut <= last);
        self.schedule.trace.fused.iter().any(crosses)
    }

    fn name(&self, border: usize, id: Id) -> u64 {
        self.cuts.name(border, id, &self.schedule.trace.copies, self.originals)
    }

    fn assigned(&self, index: usize) -> u64 {
        self.schedule.backend(Id(index as u32)).map_or(u64::from(u8::MAX), u64::from)
    }

    /// What crosses each border, memory aside.
    pub(super) fn borders(&self, layers: &Sequence) -> Vec<Vec<u64>> {
        (0..self.cuts.nodes.len()).map(|border| self.scheduled(border, layers.around(border))).collect()
    }

    fn scheduled(&self, border: usize, around: [u64; 2]) -> Vec<u64> {
        let trace = &self.schedule.trace;
        let (cut, first) = (self.cuts.nodes[border], self.cuts.tensors[0]);
        let mut words = Vec::with_capacity(192);
        words.extend(around);
        let (backend, has_inputs) = trace.open[border];
        words.extend([u64::from(u32::from_le_bytes(trace.carried[border])), u64::from(backend) << 1 | u64::from(has_inputs)]);

        let ahead = trace.copies.iter().filter(|copy| copy.split < cut && cut <= copy.at);
        words.extend(ahead.map(|copy| self.name(border, copy.source)));
        words.push(u64::MAX);
        // A layer's tensors are read by the next one at most.
        let reached = |copy: &&Copied| {
            let layer = border.saturating_sub(1);
            copy.at < cut && (copy.source.index() < first || copy.source.index() >= self.cuts.tensors[layer])
        };
        let made = trace.copies.iter().filter(reached).map(|copy| u64::from(copy.backend) << 52 | self.name(border, copy.source));
        let start = words.len();
        words.extend(made);
        words[start..].sort_unstable();
        words.push(u64::MAX);

        // Of what lies before all layers: where it was computed, and whether it has been read.
        for start in (0..first).step_by(7) {
            let tensors = start..first.min(start + 7);
            let told = |index| self.assigned(index) << 1 | u64::from(self.cuts.first_read[index] < cut);
            words.push(tensors.fold(0, |word, index| word << 9 | told(index)));
        }
        if border > 0 {
            let layer = self.cuts.tensors[border - 1]..self.cuts.tensors[border];
            let read = layer.filter(|&index| self.cuts.last_read[index] >= cut);
            let start = self.cuts.tensors[border - 1];
            words.extend(read.map(|index| ((index - start) as u64) << 8 | self.assigned(index)));
        }
        words.push(u64::MAX);
        words
    }

    /// Puts in order what has memory at a border, and adds that to its words unless they end with the same; `None` where something
    /// reaches further than a border tells.
    pub(super) fn arrange(&self, border: usize, live: &mut Vec<Live>, words: &mut Vec<u64>) -> Option<()> {
        let named: Option<Vec<_>> = live.iter().map(|&live| Some((self.owner(border, &live)?, live))).collect();
        let mut named = named?;
        named.sort_unstable_by_key(|(name, _)| *name);
        let told: Vec<u64> = [u64::MAX].into_iter().chain(named.iter().flat_map(|(name, _)| *name)).collect();
        if !words.ends_with(&told) {
            words.extend(told);
        }
        *live = named.into_iter().map(|(_, live)| live).collect();
        Some(())
    }

    /// The name of what has memory at a border, and what will become of it.
    fn owner(&self, border: usize, live: &Live) -> Option<[u64; 2]> {
        let mut source = live.id;
        if source.index() >= self.originals {
            source = self.schedule.trace.copies.get(source.index() - self.originals)?.source;
        }
        let outside = source.index() < self.cuts.tensors[0];
        if !outside && source.index() < self.cuts.tensors[border.saturating_sub(1)] {
            return None;
        }
        let [itself, views] = live.read.map(u64::from);
        Some([self.name(border, live.id), u64::from(live.backend) << 2 | itself << 1 | views])
    }

    /// What a pipeline keeps copies of, with the backend that holds them and whether that is another one than where it is
    /// computed; first read in each step.
    pub(super) fn kept(&self) -> Vec<Vec<(Id, u8, bool)>> {
        let mut kept = vec![Vec::new(); self.cuts.nodes.len() + 1];
        if self.schedule.layout.kept.is_empty() {
            return kept;
        }
        let graph = &self.builder.graph;
        for &leaf in graph.leafs.iter().filter(|&&leaf| graph.tensor(leaf).input) {
            let backend = self.schedule.backend(leaf).unwrap_or(self.builder.host());
            kept[self.cuts.step(self.cuts.first_read[leaf.index()])].push((leaf, backend, false));
        }
        for copy in &self.schedule.trace.copies {
            kept[self.cuts.step(copy.at)].push((copy.source, copy.backend, true));
        }
        kept
    }

    /// What lies before each border and behind the last.
    pub(super) fn counts(&self) -> Vec<Counts> {
        let graph = &self.builder.graph;
        let cuts = &self.cuts.nodes;
        let ends = cuts.iter().copied().chain([graph.nodes.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let trace = &self.schedule.trace;
        let mut leafs = vec![0; cuts.len() + 1];
        for leaf in &graph.leafs {
            let read = self.cuts.first_read[leaf.index()];
            leafs[self.cuts.step(read)] += 1;
        }
        let counts = |(index, (start, end)): (usize, (usize, usize))| {
            let layer = index.checked_sub(1).and_then(|layer| self.cuts.tensors.get(layer..=index));
            let inside = |node: Id| layer.is_some_and(|tensors| (tensors[0]..tensors[1]).contains(&node.index()));
            Counts {
                nodes: (end - start) as u32,
                leafs: leafs[index],
                splits: trace.splits.iter().filter(|&&split| start <= split && split < end).count() as u32,
                astray: astray(self.builder, self.schedule, inside),
            }
        };
        starts.zip(ends).enumerate().map(counts).collect()
    }
}
