//! A stretch of a simulated graph without its sizes, which serves contexts of other lengths: they come from a catalog.

use super::borders::{Counts, Traced};
use super::buffer::BufferRules;
use super::catalog::{Sizes, Stand, is_weight};
use super::plan::{Buffers, Live, Plan};
use super::schedule::Layout;
use super::tensor::Id;

/// What lies between two borders of a graph that was scheduled.
#[derive(Debug)]
pub(super) struct Outline {
    /// As the graph is, and without fusions where these change anything in it.
    variants: Vec<Variant>,
    /// What is first read here of all that a pipeline keeps copies of.
    kept: Vec<Asked>,
    pub(super) counts: Counts,
}

#[derive(Debug)]
struct Variant {
    plan: Plan,
    asked: Vec<Asked>,
}

/// A tensor whose size is asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    stand: Stand,
    copied: bool,
    /// It stands in a layer and is a weight.
    weight: bool,
    backend: u8,
    /// As the graph has it that was scheduled.
    size: u64,
}

impl Asked {
    fn size(&self, sizes: &mut Sizes<'_>, step: usize) -> Option<u64> {
        match self.stand {
            Stand::Weight => Some(self.size),
            stand => sizes.of(stand, step, self.copied, self.backend),
        }
    }
}

impl Outline {
    /// The outlines of a graph between its cuts, what has memory at each put in order.
    pub(super) fn of(traced: &Traced<'_>, rules: &[BufferRules], mut arrange: impl FnMut(usize, &mut Vec<Live>)) -> Vec<Self> {
        let graph = &traced.builder.graph;
        let plans = |layout: &Layout| Plan::of(graph, layout, &mut arrange).into_iter();
        let mut plans: Vec<_> =
            [Some(&traced.schedule.layout), traced.schedule.unfused.as_ref()].into_iter().flatten().map(plans).collect();
        let places = Places::of(traced);
        let outline = |(step, (counts, kept)): (usize, (Counts, Vec<_>))| {
            let variant = |plan: Plan| {
                let asked = |&(id, backend): &(Id, u8)| {
                    let source = places.source(id);
                    places.asked(step, source, source != id, backend, rules)
                };
                Variant { asked: plan.asked.iter().map(asked).collect(), plan }
            };
            Self {
                variants: plans.iter_mut().filter_map(Iterator::next).map(variant).collect(),
                kept: kept.into_iter().map(|(source, backend, copied)| places.asked(step, source, copied, backend, rules)).collect(),
                counts,
            }
        };
        traced.counts().into_iter().zip(traced.kept()).enumerate().map(outline).collect()
    }

    /// True where the catalog of the graph's own context has each tensor as it is, so that those of others may stand in.
    pub(super) fn is_in(&self, sizes: &mut Sizes<'_>, step: usize) -> bool {
        self.asked().all(|asked| asked.size(sizes, step) == Some(asked.size))
    }

    /// True where the sizes of layers' weights are asked for.
    pub(super) fn copies_weights(&self) -> bool {
        self.asked().any(|asked| asked.weight)
    }

    fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.variants.iter().flat_map(|variant| &variant.asked).chain(&self.kept)
    }

    /// What is first read here of all that a pipeline keeps copies of: its backend and size, alignment aside.
    pub(super) fn kept(&self, sizes: &mut Sizes<'_>, step: usize) -> Option<Vec<(u8, u64)>> {
        self.kept.iter().map(|asked| Some((asked.backend, asked.size(sizes, step)?))).collect()
    }

    /// Runs the allocator on, by variant, the last standing for all that follow; `None` where the catalog has no such tensors.
    pub(super) fn run(&self, sizes: &mut Sizes<'_>, step: usize, memory: &mut Vec<Buffers>) -> Option<()> {
        while memory.len() < self.variants.len() {
            memory.push(memory.last()?.clone());
        }
        for (index, buffers) in memory.iter_mut().enumerate() {
            let Variant { plan, asked } = self.variants.get(index).or(self.variants.last())?;
            plan.run(asked.iter().map(|asked| asked.size(sizes, step)), buffers)?;
        }
        Some(())
    }
}

/// Where tensors of a graph stand.
struct Places<'a> {
    traced: &'a Traced<'a>,
    /// Numbers of tensors among those outside of layers that are no weights, by number of the tensor.
    ranks: Vec<u32>,
}

impl<'a> Places<'a> {
    fn of(traced: &'a Traced<'a>) -> Self {
        let (graph, borders) = (&traced.builder.graph, &traced.cuts.tensors);
        let (first, last) = (borders.first().copied().unwrap_or(0), borders.last().copied().unwrap_or(0));
        let mut rank = 0;
        let next = |index: usize| {
            if index == last {
                rank = 0;
            }
            let this = rank;
            rank += u32::from((index < first || index >= last) && !is_weight(graph.tensor(Id(index as u32))));
            this
        };
        Self { traced, ranks: (0..graph.len()).map(next).collect() }
    }

    /// What a tensor is a copy of, or itself.
    fn source(&self, id: Id) -> Id {
        let duplicate = id.index().checked_sub(self.traced.originals);
        duplicate.and_then(|copy| self.traced.schedule.trace.duplicates.get(copy)).copied().unwrap_or(id)
    }

    /// The size of a tensor, or of a copy of it, seen from this step.
    fn asked(&self, step: usize, id: Id, copied: bool, backend: u8, rules: &[BufferRules]) -> Asked {
        let graph = &self.traced.builder.graph;
        let rules = rules[usize::from(backend)];
        let size = if copied { rules.plain() } else { rules }.size(graph, graph.tensor(id));
        let stand = self.stand(step, id);
        let weight = is_weight(graph.tensor(graph.root(id))) && matches!(stand, Stand::Layer { .. });
        Asked { stand, copied, weight, backend, size }
    }

    fn stand(&self, step: usize, id: Id) -> Stand {
        let borders = &self.traced.cuts.tensors;
        let index = self.ranks.get(id.index()).copied().unwrap_or(u32::MAX);
        let within = borders.partition_point(|&before| before <= id.index());
        match within {
            outside if (outside == 0 || outside == borders.len()) && is_weight(self.traced.builder.graph.tensor(id)) => Stand::Weight,
            0 => Stand::Outside { behind: false, index },
            all if all == borders.len() => Stand::Outside { behind: true, index },
            layer => Stand::Layer { ahead: layer as i32 - step as i32, index: (id.index() - borders[layer - 1]) as u32 },
        }
    }
}
