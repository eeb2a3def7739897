//! A simulated graph without its sizes, which serves contexts of other lengths.
//!
//! What the scheduler decides, and in which order the allocator places and frees, follows from the structure of a graph and from
//! where its weights lie. Sizes decide where in memory something lies, and nothing else. So a graph whose layers have the
//! structures of one that is known ([`super::catalog`]) needs neither to be built nor to be scheduled: the allocator
//! runs over the sizes in its catalog.

use super::Measured;
use super::allocate::{BufferRules, Plan, Snapshot};
use super::borders::{Crossing, Cuts, Piece, Traced};
use super::builder::Builder;
use super::catalog::{Catalog, Stand, is_weight};
use super::fusions::Fusions;
use super::graph::Graph;
use super::schedule::Schedule;
use super::simulations::astray;
use super::tensor::{Id, Memory};
use crate::GraphSize;

/// A graph that was scheduled.
pub(super) struct Outline {
    /// As the graph is, and without fusions where these change anything.
    made: Vec<Variant>,
    /// How many of them are told, whether they differ or not.
    variants: usize,
    /// What crosses each border, sizes and addresses aside; `None` where something reaches further than that tells, or the graph
    /// was not cut.
    crossings: Option<Vec<Crossing>>,
    /// What lies between borders, without peaks.
    pieces: Vec<Piece>,
    pub(super) graph: GraphSize,
    /// What is computed as one, but not on its layer's own device.
    astray: Fusions,
    /// A device copies quantised weights: their types then decide sizes.
    pub(super) copies_quantized: bool,
}

/// The graph as it is, or without fusions.
struct Variant {
    plan: Plan,
    asked: Vec<Asked>,
    /// As this graph has them.
    sizes: Vec<u64>,
}

/// A tensor whose size is asked for.
#[derive(Clone, Copy)]
struct Asked {
    stand: Stand,
    copied: bool,
}

/// An outline with sizes.
pub(super) struct Filled {
    pub(super) measured: Measured,
    /// Per variant, memory at the borders and at the end.
    memory: Vec<Vec<Snapshot>>,
}

impl Outline {
    /// The outline of a graph whose layouts are `variants` in number.
    pub(super) fn of(
        builder: &Builder<'_>,
        cuts: Option<&Cuts>,
        originals: usize,
        schedule: &Schedule,
        rules: &[BufferRules],
        variants: usize,
    ) -> Self {
        let graph = &builder.graph;
        let ranks = cuts.map(|cuts| ranks(builder, cuts)).unwrap_or_default();
        let variant = |layout| {
            let plan = Plan::of(graph, layout);
            let stand = |&(id, _): &(Id, u8)| {
                let source = id.index().checked_sub(originals).and_then(|copy| schedule.trace.duplicates.get(copy)).copied();
                let stand = cuts.map_or(Stand::Weight, |cuts| stand(builder, cuts, &ranks, source.unwrap_or(id)));
                Asked { stand, copied: source.is_some() }
            };
            Variant { asked: plan.asked.iter().map(stand).collect(), sizes: plan.sizes(graph, rules), plan }
        };
        let layouts = [Some(&schedule.layout), schedule.unfused.as_ref()].into_iter().flatten();
        let made: Vec<Variant> = layouts.map(variant).collect();
        let live: Vec<_> = made.iter().map(|variant| variant.plan.live.as_slice()).collect();
        let traced = cuts.filter(|_| !schedule.layout.cuts.is_empty()).map(|cuts| Traced { builder, cuts, originals, schedule });
        let (nodes, leafs) = (graph.nodes.len(), graph.leafs.len());
        Self {
            crossings: traced.as_ref().and_then(|traced| traced.crossings(&live)),
            pieces: traced.as_ref().map(Traced::pieces).unwrap_or_default(),
            made,
            variants,
            graph: GraphSize { nodes: nodes as u32, tensors: (nodes + leafs) as u32, splits: schedule.splits },
            astray: astray(builder, schedule, |_| true),
            copies_quantized: copies_quantized(graph, schedule),
        }
    }

    /// True where the catalog of the graph's own context has each tensor as it is, so that those of others may stand in.
    pub(super) fn is_in(&self, catalog: &Catalog, layers: &[usize], rules: &[BufferRules]) -> bool {
        self.made.iter().all(|variant| variant.sizes_in(catalog, layers, rules).as_ref() == Some(&variant.sizes))
    }

    /// Laid out with the sizes of the graph itself.
    pub(super) fn filled(&self, rules: &[BufferRules]) -> Filled {
        self.fill(self.made.iter().map(|variant| variant.plan.run(&variant.sizes, rules)))
    }

    /// Laid out with the sizes of another context; `None` where its catalog has no such tensors.
    pub(super) fn filled_from(&self, catalog: &Catalog, layers: &[usize], rules: &[BufferRules]) -> Option<Filled> {
        let sizes: Option<Vec<Vec<u64>>> = self.made.iter().map(|variant| variant.sizes_in(catalog, layers, rules)).collect();
        Some(self.fill(self.made.iter().zip(sizes?).map(|(variant, sizes)| variant.plan.run(&sizes, rules))))
    }

    fn fill(&self, runs: impl Iterator<Item = (Vec<Vec<u64>>, Vec<Snapshot>)>) -> Filled {
        let (mut chunks, mut memory): (Vec<_>, Vec<_>) = runs.unzip();
        while memory.len() < self.variants {
            chunks.extend_from_within(..1);
            memory.extend_from_within(..1);
        }
        let mut chunks = chunks.into_iter();
        let measured =
            Measured { chunks: chunks.next().unwrap_or_default(), unfused: chunks.next(), graph: self.graph, astray: self.astray };
        Filled { measured, memory }
    }

    /// The words of each border and what lies between them, `layers` being what the layers are and where they lie.
    pub(super) fn words(&self, filled: &Filled, layers: &[u64]) -> Option<(Vec<Vec<u64>>, Vec<Piece>)> {
        let crossings = self.crossings.as_ref()?.iter().enumerate();
        let words = crossings.map(|(border, crossing)| crossing.words(border, layers, &filled.memory)).collect();
        let pieces = self.pieces.iter().enumerate().map(|(index, piece)| piece.with_peaks(index, &filled.memory)).collect();
        Some((words, pieces))
    }
}

impl Variant {
    /// The sizes that are asked for, out of a catalog.
    fn sizes_in(&self, catalog: &Catalog, layers: &[usize], rules: &[BufferRules]) -> Option<Vec<u64>> {
        let mut known = catalog.sizes(layers, rules);
        let mut sizes = Vec::with_capacity(self.sizes.len());
        for ((asked, &(_, backend)), &size) in self.asked.iter().zip(&self.plan.asked).zip(&self.sizes) {
            sizes.push(match asked.stand {
                Stand::Weight => size,
                stand => known.of(stand, asked.copied, backend)?,
            });
        }
        Some(sizes)
    }
}

/// Numbers of tensors among those outside of layers that are no weights, by number of the tensor.
fn ranks(builder: &Builder<'_>, cuts: &Cuts) -> Vec<u32> {
    let (first, last) = (cuts.tensors.first().copied().unwrap_or(0), cuts.tensors.last().copied().unwrap_or(0));
    let mut rank = 0;
    let next = |index: usize| {
        if index == last {
            rank = 0;
        }
        let this = rank;
        rank += u32::from((index < first || index >= last) && !is_weight(builder.graph.tensor(Id(index as u32))));
        this
    };
    (0..builder.graph.len()).map(next).collect()
}

/// Where a tensor of a graph stands.
fn stand(builder: &Builder<'_>, cuts: &Cuts, ranks: &[u32], id: Id) -> Stand {
    if is_weight(builder.graph.tensor(id)) {
        return Stand::Weight;
    }
    let borders = &cuts.tensors;
    let index = ranks.get(id.index()).copied().unwrap_or(u32::MAX);
    match borders.partition_point(|&before| before <= id.index()) {
        0 => Stand::Outside { behind: false, index },
        all if all == borders.len() => Stand::Outside { behind: true, index },
        layer => Stand::Layer { position: layer as u32 - 1, index: (id.index() - borders[layer - 1]) as u32 },
    }
}

/// True where a device copies quantised weights: their types then decide sizes.
fn copies_quantized(graph: &Graph, schedule: &Schedule) -> bool {
    schedule.trace.copies.iter().any(|copy| {
        let weight = graph.tensor(graph.root(copy.source));
        matches!(weight.memory, Memory::Weights { .. }) && weight.ty.is_quantized()
    })
}
