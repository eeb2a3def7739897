//! The tensors of a model's whole graph, layer by layer: what each layer is, apart from where anything lies.
//!
//! Contexts of different lengths have graphs of one structure, whose tensors differ in size alone. Where structures are equal,
//! so are schedule and order of allocation, which [`super::course`] keeps; the sizes are read here.

use super::borders::Cuts;
use super::buffer::BufferRules;
use super::builder::{Border, Builder};
use super::graph::Graph;
use super::reorder::inspected;
use super::schedule::is_large_batch;
use super::shape::Shape;
use super::steps::Sequence;
use super::tensor::{Id, Memory, Tensor};
use spec::QuantType;
use spec::model::Layer;
use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;

/// Names the stream that a layer reads.
const STREAM: u64 = 5 << 60;
/// Names any weight outside of layers.
const WEIGHT: u64 = 6 << 60;

/// Numbers for structures, shared by the catalogs of one model.
pub(super) type Structures = BTreeMap<Vec<u64>, u32>;

/// A graph of all layers and its cuts.
pub(super) struct Catalog {
    graph: Graph,
    /// Tensors made before each border.
    borders: Vec<usize>,
    /// Per layer, its place among the layers of the graph: not all are in it where others are like them.
    rows: Vec<usize>,
    /// Tensors before and behind all layers, weights aside: of these there are as many as the placement asks for.
    outside: [Vec<Id>; 2],
    /// Per layer, a number for what it is: equal where all tensors are, types of weights aside.
    contents: Vec<u32>,
    /// Per layer, a number for its tensors without their sizes; and last that of everything outside of layers.
    structures: Vec<u32>,
    sizes: RefCell<Vec<Column>>,
}

/// Where a tensor stands in graphs of one structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// In the layer so many ahead of the one that is looked from.
    Layer { ahead: i32, index: u32 },
    /// Before or behind all layers, weights not counted.
    Outside { behind: bool, index: u32 },
    /// A weight outside of layers: the same in all of them.
    Weight,
}

impl Catalog {
    /// The catalog of a whole graph that is not scheduled yet; `None` where layers reach beyond their neighbours.
    pub(super) fn of(builder: Builder<'_>, structures: &mut Structures) -> Option<Self> {
        let cuts = Cuts::of(&builder)?;
        let mut contents: BTreeMap<(u32, Vec<u64>), u32> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(cuts.tensors.len());
        let mut described = Vec::with_capacity(cuts.tensors.len() - 1);
        let mut pinned = vec![false; builder.graph.len()];
        builder.graph.pins.iter().for_each(|(id, _)| pinned[id.index()] = true);
        let mut number = |words: Vec<u64>| {
            let next = structures.len() as u32;
            *structures.entry(words).or_insert(next)
        };
        for (layer, start) in builder.borders[..cuts.tensors.len() - 1].iter().enumerate() {
            let (structure, layouts) = layer_words(&builder, &cuts, &pinned, layer, start);
            let structure = number(structure);
            let next = contents.len() as u32;
            described.push(*contents.entry((structure, layouts)).or_insert(next));
            numbers.push(structure);
        }
        let outside = [0..cuts.tensors[0], cuts.tensors[cuts.tensors.len() - 1]..builder.graph.len()].map(|range| {
            let ids = range.map(|index| Id(index as u32));
            ids.filter(|&id| !is_weight(builder.graph.tensor(id))).collect::<Vec<_>>()
        });
        numbers.push(number(outside_words(&builder, &cuts, &pinned, &outside)));
        let Builder { graph, .. } = builder;
        let rows = (0..described.len()).collect();
        Some(Self { graph, borders: cuts.tensors, rows, outside, contents: described, structures: numbers, sizes: RefCell::default() })
    }

    /// Layers that stand for all: the first of those that the model describes alike and whose contents and types of weights are
    /// equal. Per layer, its place among them comes second.
    pub(super) fn representatives(&self, layers: &[Layer]) -> [Vec<usize>; 2] {
        let mut chosen: Vec<usize> = Vec::new();
        let mut rows = Vec::with_capacity(self.contents.len());
        for (layer, content) in self.contents.iter().enumerate() {
            let alike = |&other: &usize| {
                self.contents[other] == *content && layers.get(other) == layers.get(layer) && self.types(other).eq(self.types(layer))
            };
            rows.push(chosen.iter().position(alike).unwrap_or(chosen.len()));
            if rows[layer] == chosen.len() {
                chosen.push(layer);
            }
        }
        [chosen, rows]
    }

    /// Types of a layer's weights.
    fn types(&self, layer: usize) -> impl Iterator<Item = QuantType> {
        let row = self.rows[layer];
        let tensors = (self.borders[row]..self.borders[row + 1]).map(|index| self.graph.tensor(Id(index as u32)));
        tensors.filter(|tensor| is_weight(tensor)).map(|tensor| tensor.ty)
    }

    /// The catalog of all layers from a graph of the representatives that another catalog has chosen: what is alike in one
    /// context is in all.
    pub(super) fn of_representatives(builder: Builder<'_>, rows: Vec<usize>, structures: &mut Structures) -> Option<Self> {
        let short = Self::of(builder, structures)?;
        let outside = short.structures.last().copied();
        let contents = rows.iter().map(|&row| short.contents.get(row).copied()).collect::<Option<_>>()?;
        let structures = rows.iter().map(|&row| short.structures.get(row).copied()).chain([outside]).collect::<Option<_>>()?;
        Some(Self { rows, contents, structures, ..short })
    }

    /// Some layers as steps of courses tell them apart: by structure, and where they lie.
    pub(super) fn structures(&self, shape: &Shape, layers: &[usize]) -> Sequence {
        shape.sequence(layers, false, |layer| self.structure(layer))
    }

    /// The same as steps of pieces do: by what they are, sizes included; and by types where devices copy weights.
    pub(super) fn contents(&self, shape: &Shape, layers: &[usize], typed: bool) -> Sequence {
        shape.sequence(layers, typed, |layer| self.contents.get(layer).copied().unwrap_or(u32::MAX))
    }

    /// The structure of a layer; that of everything outside of layers for an index past the last.
    pub(super) fn structure(&self, layer: usize) -> u32 {
        self.structures.get(layer).or(self.structures.last()).copied().unwrap_or(u32::MAX)
    }

    /// The tensor that stands there in a graph of these layers, seen from the layer before this border; none for weights outside
    /// of layers.
    fn tensor(&self, stand: Stand, border: usize, layers: &[usize]) -> Option<Id> {
        match stand {
            Stand::Layer { ahead, index } => {
                let position = border.checked_add_signed(isize::try_from(ahead).ok()?)?.checked_sub(1)?;
                let row = *self.rows.get(*layers.get(position)?)?;
                let index = self.borders.get(row)? + index as usize;
                (index < *self.borders.get(row + 1)?).then_some(Id(index as u32))
            }
            Stand::Outside { behind, index } => self.outside[usize::from(behind)].get(index as usize).copied(),
            Stand::Weight => None,
        }
    }

    /// Sizes in the buffers of some backends.
    pub(super) fn sizes<'a>(&'a self, layers: &'a [usize], rules: &[BufferRules]) -> Sizes<'a> {
        let mut known = self.sizes.borrow_mut();
        let column = |rules: &BufferRules| {
            known.iter().position(|(known, _)| known == rules).unwrap_or_else(|| {
                known.push((*rules, vec![[UNKNOWN; 2]; self.graph.len()]));
                known.len() - 1
            })
        };
        let columns = rules.iter().map(column).collect();
        Sizes { catalog: self, layers, known, columns }
    }
}

/// Not computed yet.
const UNKNOWN: u64 = u64::MAX;

/// Sizes of a catalog's tensors, computed as they are asked for.
pub(super) struct Sizes<'a> {
    catalog: &'a Catalog,
    /// The layers of the graph that asks.
    layers: &'a [usize],
    known: RefMut<'a, Vec<Column>>,
    /// By backend.
    columns: Vec<usize>,
}

/// By tensor what it takes in a buffer, and what a copy of it takes.
type Column = (BufferRules, Vec<[u64; 2]>);

impl Sizes<'_> {
    /// What the tensor takes on this backend that stands there, seen from the layer before this border; `copied` where it is a
    /// copy of it.
    pub(super) fn of(&mut self, stand: Stand, border: usize, copied: bool, backend: u8) -> Option<u64> {
        let id = self.catalog.tensor(stand, border, self.layers)?;
        let (rules, sizes) = self.known.get_mut(*self.columns.get(usize::from(backend))?)?;
        let size = &mut sizes.get_mut(id.index())?[usize::from(copied)];
        if *size == UNKNOWN {
            let rules = if copied { rules.plain() } else { *rules };
            *size = rules.size(&self.catalog.graph, self.catalog.graph.tensor(id));
        }
        Some(*size)
    }
}

/// True for weights.
pub(super) fn is_weight(tensor: &Tensor) -> bool {
    matches!(tensor.memory, Memory::Weights { .. })
}

/// What a layer is: its tensors with their sources, and the order in which they are computed; and apart from that their
/// layouts. Where tensors lie, and the types of weights, are left out.
fn layer_words(builder: &Builder<'_>, cuts: &Cuts, pinned: &[bool], layer: usize, start: &Border) -> (Vec<u64>, Vec<u64>) {
    let graph = &builder.graph;
    let (tensors, nodes) = (cuts.tensors[layer]..cuts.tensors[layer + 1], cuts.nodes[layer]..cuts.nodes[layer + 1]);
    let name = |id: Id| if id == start.stream { STREAM } else { cuts.name(layer + 1, id, &[], usize::MAX) };
    let experts = builder.model.has_experts();
    let (mut words, mut layouts) = (Vec::with_capacity(8 * tensors.len()), Vec::with_capacity(9 * tensors.len()));
    for index in tensors {
        describe(graph, Id(index as u32), Told { pinned: pinned[index], experts }, &name, &mut words);
        layout(graph, Id(index as u32), &mut layouts);
    }
    words.extend(graph.nodes[nodes].iter().map(|&node| name(node)));
    (words, layouts)
}

/// The same of what lies outside of layers. Weights have no numbers of their own.
fn outside_words(builder: &Builder<'_>, cuts: &Cuts, pinned: &[bool], outside: &[Vec<Id>; 2]) -> Vec<u64> {
    let graph = &builder.graph;
    let name = |id: Id| {
        let (behind, first) = (id.index() >= cuts.tensors[0], graph.tensor(id));
        let place = outside[usize::from(behind)].binary_search(&id).ok().map(|place| place as u64);
        match place {
            Some(place) => u64::from(behind) << 60 | place,
            None if is_weight(first) => WEIGHT,
            None => STREAM | builder.graph.len().saturating_sub(id.index()) as u64,
        }
    };
    let experts = builder.model.has_experts();
    let mut words = Vec::with_capacity(256);
    for &id in outside.iter().flatten() {
        describe(graph, id, Told { pinned: pinned[id.index()], experts }, &name, &mut words);
    }
    let last = cuts.nodes[cuts.nodes.len() - 1];
    let nodes = [&graph.nodes[..cuts.nodes[0]], &graph.nodes[last..]];
    for nodes in nodes {
        words.push(u64::MAX);
        words.extend(nodes.iter().map(|&node| name(node)));
    }
    words
}

/// What the tensor itself does not tell.
#[derive(Clone, Copy)]
struct Told {
    /// It is fixed to a backend.
    pinned: bool,
    /// The model has experts, whose operations a backend may fuse.
    experts: bool,
}

/// Everything of a tensor that decides where it is computed and what has its memory when, but for where weights lie.
fn describe(graph: &Graph, id: Id, told: Told, name: &dyn Fn(Id) -> u64, words: &mut Vec<u64>) {
    let tensor = graph.tensor(id);
    let memory = |memory: Memory| match memory {
        Memory::Compute => 0,
        Memory::Weights { .. } => 1,
        Memory::Cache { kind, .. } => 2 + kind as u64,
    };
    let flags = [tensor.input, tensor.output, told.pinned, tensor.precise, is_large_batch(tensor)];
    let mut flags = flags.iter().fold(0, |bits, &flag| bits << 1 | u64::from(flag));
    if tensor.op.can_reuse_source() {
        for &source in tensor.sources() {
            let source = graph.tensor(source);
            flags = flags << 1 | u64::from(source.memory == Memory::Compute && tensor.same_layout(source));
        }
    }
    words.push((tensor.op as u64) << 48 | memory(tensor.memory) << 40 | flags << 8 | tensor.sources().len() as u64);
    words.push(tensor.view_of.map_or(u64::MAX, name));
    words.extend(tensor.sources().iter().map(|&source| name(source)));
    if told.experts {
        inspected(graph, id, |seen| {
            if !is_weight(graph.tensor(seen)) {
                layout(graph, seen, words);
            }
        });
    }
}

fn layout(graph: &Graph, id: Id, words: &mut Vec<u64>) {
    let tensor = graph.tensor(id);
    words.extend(tensor.ne);
    if !is_weight(graph.tensor(graph.root(id))) {
        words.push(tensor.ty as u64);
        words.extend(tensor.nb);
    }
}
